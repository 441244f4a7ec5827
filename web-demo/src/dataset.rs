//! Dataset folders: `items.tsv` and `events.tsv` with a header line, columns in any order.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;

use crate::facets::{Facet, ShopItem, fill_categories};

pub(crate) const ITEMS_FILE: &str = "items.tsv";
pub(crate) const EVENTS_FILE: &str = "events.tsv";
/// A catalogue of the demo is read whole.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
const PRICE_COLUMN: &str = "median_price";

/// One purchase.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Purchase {
    pub(crate) user_id: String,
    pub(crate) item_idx: usize,
    pub(crate) quantity: u32,
    pub(crate) at_secs: i64,
}

/// Writes both files.
///
/// # Errors
/// The folder cannot be written.
pub(crate) fn write(dir: &Path, items: &[ShopItem], purchases: &[Purchase]) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut file = create(&dir.join(ITEMS_FILE))?;
    writeln!(
        file,
        "item_id\ttitle\t{PRICE_COLUMN}\tcategory\tcolour\tmaterial\tstyle"
    )?;
    for item in items {
        writeln!(
            file,
            "{}\t{}\t{:.2}\t{}",
            item.item_id,
            item.title,
            item.price,
            item.facets.join("\t")
        )?;
    }
    file.flush()?;

    // The events last: their file says that the dataset is whole.
    let mut file = create(&dir.join(EVENTS_FILE))?;
    writeln!(file, "user_id\titem_id\tquantity\ttimestamp")?;
    for purchase in purchases {
        let item_id = &items[purchase.item_idx].item_id;
        writeln!(
            file,
            "{}\t{item_id}\t{}\t{}",
            purchase.user_id, purchase.quantity, purchase.at_secs
        )?;
    }
    file.flush()?;
    Ok(())
}

fn create(path: &Path) -> anyhow::Result<BufWriter<fs::File>> {
    let file =
        fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(BufWriter::new(file))
}

/// Reads the catalogue of a dataset folder.
///
/// # Errors
/// The file is missing, too large, or has no `item_id` and `title`.
pub(crate) fn read_items(dir: &Path) -> anyhow::Result<Vec<ShopItem>> {
    let path = dir.join(ITEMS_FILE);
    let length = fs::metadata(&path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len();
    anyhow::ensure!(
        length <= FILE_BYTES_MAX,
        "{length} bytes are more than a demo shows: {}",
        path.display()
    );
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse_items(&text).with_context(|| format!("cannot use {}", path.display()))
}

fn parse_items(text: &str) -> anyhow::Result<Vec<ShopItem>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines
        .next()
        .context("the file is empty")?
        .split('\t')
        .collect();
    let column = |name: &str| header.iter().position(|column| *column == name);
    let id_column = column("item_id").context("the header has no item_id")?;
    let title_column = column("title").context("the header has no title")?;
    let price_column = column(PRICE_COLUMN);
    let facet_columns = Facet::ALL.map(|facet| column(facet.column()));

    let mut items = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        let field = |column: usize| fields.get(column).copied().unwrap_or_default();
        let price = price_column.and_then(|column| field(column).parse::<f64>().ok()); // no number: no price
        let facets = facet_columns.map(|column| column.map(field).unwrap_or_default().to_owned());
        if field(id_column).is_empty() {
            continue;
        }
        items.push(ShopItem {
            item_id: field(id_column).to_owned(),
            title: field(title_column).to_owned(),
            price: price.filter(|price| price.is_finite()).unwrap_or_default(),
            facets,
        });
    }
    anyhow::ensure!(!items.is_empty(), "no line after the header");
    fill_categories(&mut items);
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_columns_in_any_order_and_fills_the_category() -> anyhow::Result<()> {
        let items = parse_items("title\titem_id\nBLUE MUG\tm1\nRED MUG\tm2\n")?;
        assert_eq!(items.len(), 2);
        assert_eq!(
            (items[0].item_id.as_str(), items[0].facet(Facet::Category)),
            ("m1", "Mug")
        );
        Ok(())
    }

    #[test]
    fn refuses_a_file_without_titles() {
        assert!(parse_items("item_id\nm1\n").is_err());
        assert!(parse_items("").is_err());
    }
}
