//! Claims about keys: what is taken, what is refused, and what holds after a reload.

use super::*;
use crate::config::load::{Sources, load};

const INGEST: &str = "ingest-0123456789";
const READ: &str = "read-0123456789ab";

fn keys(flags: &[(&str, &str)]) -> Result<Keys, AccessError> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let config = load(&Sources {
        flags: flags.iter().map(owned).collect(),
        ..Sources::default()
    });
    Keys::from_config(&config.expect("valid settings"))
}

#[test]
fn a_key_gives_its_role_and_anything_else_none() {
    let keys = keys(&[("access.ingest_key", INGEST), ("access.read_key", READ)]).expect("fine");
    assert_eq!(keys.role_of(INGEST), Some(Role::Ingest));
    assert_eq!(keys.role_of(READ), Some(Role::Read));
    let long = INGEST.repeat(100);
    for shown in ["", "ingest-012345678", "ingest-0123456789a", &*long, "é"] {
        assert_eq!(keys.role_of(shown), None, "{shown}");
    }
    assert!(keys.asks_for(Role::Read) && !keys.asks_for(Role::Admin));
}

#[test]
fn a_key_from_a_file_may_end_with_a_line_break() {
    let file = tempfile::NamedTempFile::new().expect("temp file");
    std::fs::write(file.path(), format!("{READ}\n")).expect("written");
    let path = file.path().display().to_string();
    let from_file = keys(&[("access.read_key_file", &path)]).expect("fine");
    assert_eq!(from_file.role_of(READ), Some(Role::Read));
    let both = keys(&[("access.read_key_file", &path), ("access.read_key", READ)]);
    assert!(
        matches!(both, Err(AccessError::Both("read_key"))),
        "{both:?}"
    );
    let missing = keys(&[("access.read_key_file", "/no/such/key")]);
    let said = missing.expect_err("no file").to_string();
    assert!(
        said.contains("read_key_file") && said.contains("/no/such/key"),
        "{said}"
    );
    std::fs::write(file.path(), "\n").expect("written");
    let empty = keys(&[("access.read_key_file", &path)]).expect_err("empty");
    let start = format!("the file of `access.read_key_file`, {path}, has 0 characters");
    assert!(empty.to_string().starts_with(&start), "{empty}");
}

#[test]
fn weak_and_equal_keys_are_refused_without_being_told() {
    for weak in ["fifteen-letters", "has a space in it ", "umlaut-äöü-umlaut"] {
        let said = keys(&[("access.admin_token", weak)])
            .expect_err("weak")
            .to_string();
        assert!(
            said.contains("access.admin_token") && !said.contains(weak),
            "{said}"
        );
    }
    let same = keys(&[("access.ingest_key", READ), ("access.read_key", READ)]);
    let said = same.expect_err("the same").to_string();
    assert!(
        said.contains("ingest_key") && said.contains("read_key"),
        "{said}"
    );
}

#[test]
fn an_address_that_others_reach_wants_keys_and_the_refusal_brings_some() {
    assert!(keys(&[("server.bind", "[::1]:7878")]).is_ok());
    let open = [("server.bind", "0.0.0.0:7878"), ("access.read_key", READ)];
    let refusal = keys(&open).expect_err("two are missing");
    let said = refusal.proposal().expect("random").expect("some keys");
    assert!(!said.contains("server.bind") && !refusal.to_string().contains("FRESHET__"));
    let proposed = |name: &str| {
        let start = format!("FRESHET__ACCESS__{name}=");
        said.lines().find_map(|line| line.strip_prefix(&start))
    };
    assert_eq!(proposed("READ_KEY"), None);
    let ingest = proposed("INGEST_KEY").expect("a key");
    let admin = proposed("ADMIN_TOKEN").expect("a key");
    assert!(
        said.contains(&format!("ingest_key = \"{ingest}\"")),
        "{said}"
    );
    let given = [
        ("access.ingest_key", ingest),
        ("access.admin_token", admin),
        open[0],
        open[1],
    ];
    assert!(keys(&given).is_ok(), "what was proposed is taken");
    let admin_alone = keys(&[("server.admin_bind", "0.0.0.0:7879")]).expect_err("no token");
    let said = admin_alone.to_string();
    let refusal = "server.admin_bind is 0.0.0.0:7879, which others can reach, but no key is set for: admin_token";
    assert_eq!(said, refusal);
}

#[test]
fn the_key_before_is_taken_beside_the_new_one_from_a_setting_or_from_a_second_line() {
    let set = [
        ("access.read_key", READ),
        ("access.read_key_previous", INGEST),
    ];
    let file = tempfile::NamedTempFile::new().expect("temp file");
    let path = file.path().display().to_string();
    let with_line = [("access.read_key_file", &*path)];
    std::fs::write(file.path(), format!("{READ}\r\n{INGEST}\r\n")).expect("written");
    for flags in [&set[..], &with_line] {
        let keys = keys(flags).expect("fine");
        for key in [READ, INGEST] {
            assert_eq!(keys.role_of(key), Some(Role::Read), "{flags:?}");
        }
    }
    let said = |flags: &[(&str, &str)]| keys(flags).expect_err("refused").to_string();
    let both = [with_line[0], set[1]];
    assert!(
        said(&both).contains("access.read_key_previous"),
        "{}",
        said(&both)
    );
    assert!(said(&set[1..]).contains("without `access.read_key`"));
    let same = [set[0], ("access.read_key_previous", READ)];
    assert!(said(&same).contains("`access.read_key` and `access.read_key_previous` are the same"));
    let other = [set[0], set[1], ("access.ingest_key", INGEST)];
    assert!(said(&other).contains("`access.ingest_key` and `access.read_key_previous`"));
    std::fs::write(file.path(), format!("{READ}\nshort\n")).expect("written");
    let start = format!("line 2 of the file of `access.read_key_file`, {path}, has 5 characters");
    assert!(said(&with_line).starts_with(&start), "{}", said(&with_line));
    std::fs::write(file.path(), format!("{READ}\n{INGEST}\n{INGEST}x\n")).expect("written");
    assert!(
        said(&with_line).contains("has 3 lines"),
        "{}",
        said(&with_line)
    );
    let exposed = [("server.admin_bind", "0.0.0.0:7879"), set[0], set[1]];
    assert!(
        said(&exposed).contains("admin_token"),
        "a key before is no key"
    );
}

#[test]
fn keys_are_replaced_whole_and_none_is_taken_away_while_the_server_runs() {
    let config = |flags: &[(&str, &str)]| {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let flags = flags.iter().map(owned).collect();
        let sources = Sources {
            flags,
            ..Sources::default()
        };
        load(&sources).expect("valid settings")
    };
    let first = [("access.ingest_key", INGEST), ("access.read_key", READ)];
    let live = LiveKeys::new(keys(&first).expect("fine"));
    let refused = live
        .successor(&config(&first[..1]))
        .expect_err("one is gone");
    assert!(
        refused
            .to_string()
            .starts_with("no key is set any more for: read_key;"),
        "{refused}"
    );
    let rotated = [
        ("access.ingest_key", "another-0123456789"),
        ("access.ingest_key_previous", INGEST),
        first[1],
        ("access.admin_token", "admin-0123456789"),
    ];
    let next = live.successor(&config(&rotated)).expect("fine");
    let changes = live.now().changes_to(&next);
    assert_eq!(
        changes,
        [
            "ingest_key replaced",
            "ingest_key_previous set",
            "admin_token set"
        ]
    );
    live.replace(next);
    for key in ["another-0123456789", INGEST] {
        assert_eq!(live.now().role_of(key), Some(Role::Ingest));
    }
    let next = live
        .successor(&config(&[rotated[0], rotated[2], rotated[3]]))
        .expect("fine");
    assert_eq!(
        live.now().changes_to(&next),
        ["ingest_key_previous taken away"]
    );
    live.replace(next);
    assert_eq!(live.now().role_of(INGEST), None);
}
