//! What is done with the root at hand: making keys, and signing the next key set.
//!
//! Secrets are written before the set that names them; the set is the commit point, and its file is never
//! overwritten, so of two ceremonies at once the second fails. A server that runs picks the set up by itself.

use std::path::Path;

use ed25519_dalek::SigningKey;
use shared_model::manifest::{
    KEY_SET_FORMAT_VERSION, KeySet, ONLINE_KEYS_MAX, OnlineKey, key_id, online_key,
    public_key_text, sign_key_set,
};

use super::keyring::{KEYS_DIR, Keyring, KeyringError, io_at};
use super::{files, signing_key};

const DAY_MILLIS: i64 = 86_400_000;

/// When a ceremony takes place, and how long what it signs is valid.
#[derive(Debug, Clone, Copy)]
pub struct Term {
    /// Milliseconds since 1970-01-01 UTC.
    pub now_millis: i64,
    /// Days that a new key and the set are valid.
    pub valid_days: u32,
}

impl Term {
    fn expires_at(self) -> i64 {
        self.now_millis
            .saturating_add(i64::from(self.valid_days) * DAY_MILLIS)
    }
}

/// Makes a secret key and writes it to a file that does not exist yet.
///
/// # Errors
/// The file exists or cannot be written, or the system gives no randomness.
pub fn make_secret(path: &Path) -> Result<SigningKey, KeyringError> {
    let key = random_key(path)?;
    write_secret(path, &key)?;
    Ok(key)
}

/// Makes the first key set. A `signing.key` that is there becomes its key, so that pages that pinned it follow on.
///
/// # Errors
/// There is a set already, or a file cannot be written.
pub fn init(data_dir: &Path, root: &SigningKey, term: Term) -> Result<KeySet, KeyringError> {
    let keyring = Keyring::read(data_dir)?;
    if keyring.key_set().is_some() {
        return Err(KeyringError::HasSet(data_dir.join(KEYS_DIR)));
    }
    let key = match keyring.own_keys().first() {
        Some(key) => *key,
        None => make_online(data_dir)?.verifying_key(),
    };
    let set = KeySet {
        format_version: KEY_SET_FORMAT_VERSION,
        number: 1,
        created_at: term.now_millis,
        expires_at: term.expires_at(),
        keys: vec![online_key(&key, None, term.expires_at())],
        roots: vec![public_key_text(&root.verifying_key())],
    };
    commit(data_dir, &set, &[root])?;
    Ok(set)
}

/// Adds a new key, which signs from now on; the others stay valid for `keep_secs` at most.
///
/// # Errors
/// There is no set, the root may not sign, or a file cannot be written.
pub fn rotate(
    data_dir: &Path,
    root: &SigningKey,
    keep_secs: u32,
    term: Term,
) -> Result<KeySet, KeyringError> {
    let mut set = next_set(data_dir, root, term)?;
    let keep_until = term.now_millis.saturating_add(i64::from(keep_secs) * 1000);
    set.keys.retain(|key| key.expires_at > term.now_millis);
    for key in &mut set.keys {
        key.expires_at = key.expires_at.min(keep_until);
        key.not_before = key.not_before.map(|from| from.min(key.expires_at));
    }
    let surplus = (set.keys.len() + 1).saturating_sub(ONLINE_KEYS_MAX);
    set.keys.drain(..surplus);
    set.keys.push(new_online(data_dir, term)?);
    commit(data_dir, &set, &[root])?;
    Ok(set)
}

/// Takes a key out of the set; where it was the one that signs, or none is left that is valid, a new one is made: keys
/// that a rotation has left behind are still believed for a while, and sign nothing again.
///
/// # Errors
/// There is no such key, the root may not sign, or a file cannot be written.
pub fn revoke(
    data_dir: &Path,
    root: &SigningKey,
    id: &str,
    term: Term,
) -> Result<KeySet, KeyringError> {
    let mut set = next_set(data_dir, root, term)?;
    let num_keys = set.keys.len();
    let is_signer = set.keys.last().is_some_and(|key| key.key_id == id);
    set.keys.retain(|key| key.key_id != id);
    if set.keys.len() == num_keys {
        let (number, key_id) = (set.number - 1, id.to_owned());
        return Err(KeyringError::UnknownKey { number, key_id });
    }
    if is_signer || !set.keys.iter().any(|key| key.is_valid_at(term.now_millis)) {
        set.keys.push(new_online(data_dir, term)?);
    }
    commit(data_dir, &set, &[root])?;
    Ok(set)
}

/// Puts another root in the place of the one at hand; both sign.
///
/// # Errors
/// There is no set, the root may not sign, or a file cannot be written.
pub fn rotate_root(
    data_dir: &Path,
    root: &SigningKey,
    new_root: &SigningKey,
    term: Term,
) -> Result<KeySet, KeyringError> {
    let mut set = next_set(data_dir, root, term)?;
    set.roots = vec![public_key_text(&new_root.verifying_key())];
    commit(data_dir, &set, &[root, new_root])?;
    Ok(set)
}

/// The set at hand with the next number and a new term, if this root may sign it.
fn next_set(data_dir: &Path, root: &SigningKey, term: Term) -> Result<KeySet, KeyringError> {
    let keyring = Keyring::read(data_dir)?;
    let Some(set) = keyring.key_set() else {
        return Err(KeyringError::NoSet(data_dir.join(KEYS_DIR)));
    };
    if !set.roots.contains(&public_key_text(&root.verifying_key())) {
        let roots = set.root_keys().map_err(in_dir(data_dir))?;
        let expected: Vec<String> = roots.iter().map(key_id).collect();
        return Err(KeyringError::OtherRoot {
            actual: key_id(&root.verifying_key()),
            expected: expected.join(" or "),
        });
    }
    let mut next = set.clone();
    next.number += 1;
    next.created_at = term.now_millis;
    next.expires_at = term.expires_at();
    Ok(next)
}

fn commit(data_dir: &Path, set: &KeySet, roots: &[&SigningKey]) -> Result<(), KeyringError> {
    let signed = sign_key_set(set, roots).map_err(in_dir(data_dir))?;
    let dir = keys_dir(data_dir)?;
    let name = format!("set-{:06}.json", set.number);
    files::write_new(&dir, &name, signed.as_bytes(), false)
        .map_err(io_at("cannot write the key set", &dir.join(name)))
}

fn new_online(data_dir: &Path, term: Term) -> Result<OnlineKey, KeyringError> {
    let key = make_online(data_dir)?;
    Ok(online_key(&key.verifying_key(), None, term.expires_at()))
}

fn make_online(data_dir: &Path) -> Result<SigningKey, KeyringError> {
    let dir = keys_dir(data_dir)?;
    let key = random_key(&dir)?;
    let name = format!("{}.key", key_id(&key.verifying_key()));
    write_secret(&dir.join(name), &key)?;
    Ok(key)
}

fn keys_dir(data_dir: &Path) -> Result<std::path::PathBuf, KeyringError> {
    let dir = data_dir.join(KEYS_DIR);
    std::fs::create_dir_all(&dir).map_err(io_at("cannot make the folder of keys", &dir))?;
    files::sync_dir(data_dir).map_err(io_at("cannot make the folder of keys", &dir))?;
    Ok(dir)
}

fn random_key(path: &Path) -> Result<SigningKey, KeyringError> {
    signing_key::random().map_err(io_at("cannot make a secret key", path))
}

fn write_secret(path: &Path, key: &SigningKey) -> Result<(), KeyringError> {
    signing_key::write(path, key).map_err(io_at("cannot write the secret key", path))
}

fn in_dir(data_dir: &Path) -> impl Fn(shared_model::manifest::KeySetError) -> KeyringError + use<> {
    let path = data_dir.join(KEYS_DIR);
    move |source| KeyringError::KeySet {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use shared_model::manifest::RootTrust;

    use super::*;

    const TERM: Term = Term {
        now_millis: 1_700_000_000_000,
        valid_days: 365,
    };

    fn later(days: i64) -> Term {
        let now_millis = TERM.now_millis + days * DAY_MILLIS;
        Term { now_millis, ..TERM }
    }

    fn scene() -> (tempfile::TempDir, SigningKey) {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = make_secret(&dir.path().join("root.key")).expect("made");
        let data_dir = dir.path().join("data");
        std::fs::create_dir(&data_dir).expect("made");
        (dir, root)
    }

    fn signer_at(data_dir: &Path, at: i64) -> String {
        let keyring = Keyring::open(data_dir).expect("sound keys");
        key_id(&keyring.signer(at).expect("a key").verifying_key())
    }

    #[test]
    fn a_page_that_pinned_the_first_root_follows_every_ceremony() {
        let (dir, root) = scene();
        let data_dir = dir.path().join("data");
        let mut page = RootTrust::new(root.verifying_key());
        let mut follow = |number: u64| {
            let list = Keyring::open(&data_dir).expect("sound keys").key_list();
            assert_eq!(page.adopt(&list.key_sets), Ok(true));
            assert_eq!(page.key_set().map(|set| set.number), Some(number));
        };
        let first = init(&data_dir, &root, TERM).expect("signed");
        follow(1);
        assert_eq!(signer_at(&data_dir, TERM.now_millis), first.keys[0].key_id);
        let second = rotate(&data_dir, &root, 3600, later(1)).expect("signed");
        follow(2);
        let newest = &second.keys[1].key_id;
        assert_eq!(&signer_at(&data_dir, later(1).now_millis), newest);
        assert_eq!(second.keys[0].expires_at, later(1).now_millis + 3_600_000);
        let third = revoke(&data_dir, &root, newest, later(2)).expect("signed");
        follow(3);
        let made = third.keys.last().expect("one is made in its place");
        assert_eq!(signer_at(&data_dir, later(2).now_millis), made.key_id);
        assert_eq!(
            made.expires_at,
            later(2).expires_at(),
            "it signs for a whole term"
        );
        assert!(third.keys.iter().all(|key| &key.key_id != newest));
        let new_root = make_secret(&dir.path().join("root-2.key")).expect("made");
        rotate_root(&data_dir, &root, &new_root, later(3)).expect("signed");
        rotate(&data_dir, &new_root, 3600, later(4)).expect("signed");
        follow(5);
        let refused = rotate(&data_dir, &root, 3600, later(5));
        assert!(
            matches!(refused, Err(KeyringError::OtherRoot { .. })),
            "{refused:?}"
        );
        let own = Keyring::open(&data_dir).expect("sound keys").own_keys();
        assert_eq!(own.len(), 4, "what revoked keys signed stays readable here");
    }

    #[test]
    fn one_that_leaks_soon_after_a_rotation_leaves_a_signer_for_a_whole_term() {
        let (dir, root) = scene();
        let data_dir = dir.path().join("data");
        let first = init(&data_dir, &root, TERM).expect("signed");
        let second = rotate(&data_dir, &root, 7 * 86_400, later(1)).expect("signed");
        let third = revoke(&data_dir, &root, &second.keys[1].key_id, later(2)).expect("signed");
        let made = third.keys.last().expect("one is made in its place");
        assert_ne!(
            made.key_id, first.keys[0].key_id,
            "that one is only still believed"
        );
        assert_eq!(signer_at(&data_dir, later(2).now_millis), made.key_id);
        assert_eq!(signer_at(&data_dir, later(30).now_millis), made.key_id);
        assert_eq!(made.expires_at, later(2).expires_at());
        let fourth = revoke(&data_dir, &root, &first.keys[0].key_id, later(3)).expect("signed");
        assert_eq!(fourth.keys.len(), 1, "the signer stays, no other is needed");
    }

    #[test]
    fn nothing_is_overwritten_and_secrets_are_private() {
        let (dir, root) = scene();
        let path = dir.path().join("root.key");
        assert!(make_secret(&path).is_err());
        let read = super::super::keyring::read_secret(&path).expect("there");
        assert_eq!(read.to_bytes(), root.to_bytes());
        let data_dir = dir.path().join("data");
        init(&data_dir, &root, TERM).expect("signed");
        let again = init(&data_dir, &root, TERM);
        assert!(matches!(again, Err(KeyringError::HasSet(_))), "{again:?}");
        #[cfg(unix)]
        for entry in std::fs::read_dir(data_dir.join(KEYS_DIR)).expect("there") {
            use std::os::unix::fs::PermissionsExt;
            let entry = entry.expect("an entry");
            let is_secret = entry.file_name().to_string_lossy().ends_with(".key");
            let mode = entry.metadata().expect("there").permissions().mode();
            assert!(!is_secret || mode & 0o777 == 0o600, "{mode:o}");
        }
    }

    #[test]
    fn a_signing_key_that_is_there_becomes_the_first_online_key() {
        let (dir, root) = scene();
        let data_dir = dir.path().join("data");
        let single = Keyring::open(&data_dir).expect("made").own_keys();
        let set = init(&data_dir, &root, TERM).expect("signed");
        assert_eq!(set.keys[0].key_id, key_id(&single[0]));
    }

    #[test]
    fn damaged_and_expired_keys_are_told() {
        let (dir, root) = scene();
        let data_dir = dir.path().join("data");
        init(&data_dir, &root, TERM).expect("signed");
        let keyring = Keyring::open(&data_dir).expect("sound keys");
        assert!(matches!(keyring.check(TERM.now_millis), Ok(None)));
        let warned = keyring.check(later(360).now_millis).expect("still valid");
        assert_eq!(
            warned.as_deref(),
            Some("key set 1 expires in 5 days; run `freshet keys rotate`")
        );
        let expired = keyring.check(later(366).now_millis);
        assert!(
            matches!(expired, Err(KeyringError::NoKey { .. })),
            "{expired:?}"
        );

        let path = data_dir.join(KEYS_DIR).join("set-000001.json");
        let sound = std::fs::read_to_string(&path).expect("there");
        for damaged in [
            &sound[..sound.len() / 2],
            &sound.replace("number", "Number"),
            &"x".repeat(9999),
        ] {
            std::fs::write(&path, damaged).expect("written");
            let error = Keyring::open(&data_dir).expect_err("damaged").to_string();
            assert!(error.contains("set-000001.json"), "{error}");
        }
    }

    #[test]
    fn rotation_keeps_the_set_within_its_bounds() {
        let (dir, root) = scene();
        let data_dir = dir.path().join("data");
        init(&data_dir, &root, TERM).expect("signed");
        for day in 1..12 {
            rotate(&data_dir, &root, u32::MAX, later(day)).expect("signed");
        }
        let keyring = Keyring::open(&data_dir).expect("sound keys");
        assert_eq!(
            keyring.key_set().map(|set| set.keys.len()),
            Some(ONLINE_KEYS_MAX)
        );
        assert_eq!(keyring.key_list().key_sets.len(), 1, "no root was changed");
    }
}
