//! Claims about the rules, on lines of one user and item where nothing else is said.

use super::*;

fn rules() -> ImportConfig {
    crate::config::Config::default().import
}

fn row(quantity: f64, minute: i64) -> Row {
    Row {
        user: Some("ann".to_owned()),
        item: Some("TEA POT".to_owned()),
        quantity: Some(quantity),
        price: Some(2.5),
        occurred_at: Some(minute * 60_000),
    }
}

fn clean(rules: &ImportConfig, rows: impl IntoIterator<Item = Row>) -> Cleaned {
    let mut purchases = Purchases::new(rules);
    for (number, row) in (1..).zip(rows) {
        purchases.push(number, row).expect("few rows");
    }
    let cleaned = purchases.finish();
    let ended: u64 = Fate::ALL.iter().map(|fate| cleaned.counts.of(*fate)).sum();
    let Counts {
        num_lines,
        num_events,
        ..
    } = cleaned.counts;
    assert_eq!(ended + num_events, num_lines, "{:?}", cleaned.counts);
    cleaned
}

/// Row and quantity of what is left.
fn left(cleaned: &Cleaned) -> Vec<(u64, f64)> {
    let purchases = cleaned.purchases.iter();
    purchases
        .map(|purchase| (purchase.row, purchase.quantity))
        .collect()
}

#[test]
fn a_return_undoes_the_newest_purchases_as_far_as_it_goes() {
    let bought_twice = [row(4.0, 1), row(6.0, 2), row(-8.0, 3)];
    let cleaned = clean(&rules(), bought_twice);
    assert_eq!(left(&cleaned), [(1, 2.0)]);
    let counts = &cleaned.counts;
    assert_eq!(
        (
            counts.of(Fate::Returned),
            counts.of(Fate::Return),
            counts.num_reduced
        ),
        (1, 1, 1)
    );

    let again = clean(
        &rules(),
        [row(4.0, 1), row(-4.0, 2), row(4.0, 3), row(-1.0, 4)],
    );
    assert_eq!(
        left(&again),
        [(3, 3.0)],
        "what was undone is not undone again"
    );
}

#[test]
fn returns_of_more_than_was_bought_before_are_told_apart() {
    let before = clean(&rules(), [row(-4.0, 1), row(4.0, 2)]);
    assert_eq!(
        (left(&before), before.counts.of(Fate::ReturnUnmatched)),
        (vec![(2, 4.0)], 1)
    );
    let excess = clean(&rules(), [row(4.0, 1), row(-5.0, 2)]);
    assert_eq!(
        (left(&excess), excess.counts.of(Fate::ReturnInExcess)),
        (vec![], 1)
    );
    assert!(
        excess.items.is_empty(),
        "an item that nobody kept is not in the catalogue"
    );
}

#[test]
fn a_return_is_matched_by_user_and_item_whatever_the_order_of_rows() {
    let other_user = Row {
        user: Some("bob".to_owned()),
        ..row(-4.0, 2)
    };
    let other_item = Row {
        item: Some("CUP".to_owned()),
        ..row(-4.0, 2)
    };
    let cleaned = clean(&rules(), [row(4.0, 1), other_user, other_item]);
    assert_eq!(
        (left(&cleaned), cleaned.counts.of(Fate::ReturnUnmatched)),
        (vec![(1, 4.0)], 2)
    );
    let unsorted = clean(&rules(), [row(-4.0, 2), row(4.0, 1)]);
    assert_eq!(left(&unsorted), []);
}

#[test]
fn without_the_rule_returns_leave_purchases_alone() {
    let rules = ImportConfig {
        cancel_returns: false,
        ..rules()
    };
    let cleaned = clean(&rules, [row(4.0, 1), row(-4.0, 2)]);
    assert_eq!(
        (left(&cleaned), cleaned.counts.of(Fate::ReturnIgnored)),
        (vec![(1, 4.0)], 1)
    );
}

#[test]
fn equal_lines_count_once_and_lines_of_one_moment_become_one() {
    let rows = [row(4.0, 1), row(4.0, 1), row(2.0, 1), row(4.0, 2)];
    let cleaned = clean(&rules(), rows.clone());
    assert_eq!(left(&cleaned), [(1, 6.0), (4, 4.0)]);
    assert_eq!(
        (
            cleaned.counts.of(Fate::Duplicate),
            cleaned.counts.of(Fate::Merged)
        ),
        (1, 1)
    );
    let rules = ImportConfig {
        drop_duplicates: false,
        merge_lines: false,
        ..rules()
    };
    assert_eq!(left(&clean(&rules, rows)).len(), 4);
}

#[test]
fn fees_are_named_whole_or_by_their_beginning_in_any_case() {
    let rules = ImportConfig {
        fees: vec!["Postage".to_owned(), "gift voucher*".to_owned()],
        ..rules()
    };
    let named = |item: &str| Row {
        item: Some(item.to_owned()),
        ..row(1.0, 1)
    };
    let items = [
        "POSTAGE",
        "Gift Voucher £20.00",
        "POSTAGE STAMP BOX",
        "A GIFT VOUCHER",
    ];
    let cleaned = clean(&rules, items.map(named));
    let titles: Vec<&str> = cleaned
        .items
        .iter()
        .map(|item| item.title.as_str())
        .collect();
    assert_eq!(titles, ["A GIFT VOUCHER", "POSTAGE STAMP BOX"]);
    assert_eq!(cleaned.counts.of(Fate::Fee), 2);
}

#[test]
fn empty_cells_prices_and_outliers_are_counted_apart() {
    let rules = ImportConfig {
        quantity_max: 100.0,
        ..rules()
    };
    let rows = [
        Row {
            user: None,
            ..row(1.0, 1)
        },
        Row {
            item: None,
            ..row(1.0, 1)
        },
        Row {
            occurred_at: None,
            ..row(1.0, 1)
        },
        Row {
            quantity: None,
            ..row(1.0, 1)
        },
        row(0.0, 1),
        Row {
            price: Some(0.0),
            ..row(1.0, 1)
        },
        Row {
            price: Some(-11_062.06),
            ..row(1.0, 1)
        },
        Row {
            price: None,
            ..row(1.0, 1)
        },
        row(101.0, 1),
        row(150.0, 2),
        row(-50.0, 3),
    ];
    let cleaned = clean(&rules, rows);
    let counts = &cleaned.counts;
    assert_eq!(
        left(&cleaned),
        [(10, 100.0)],
        "what was returned of an outlier counts"
    );
    let fates = [
        Fate::NoUser,
        Fate::NoItem,
        Fate::NoTime,
        Fate::NoQuantity,
        Fate::Price,
        Fate::QuantityOutlier,
    ];
    assert_eq!(fates.map(|fate| counts.of(fate)), [1, 1, 1, 2, 3, 1]);
}
