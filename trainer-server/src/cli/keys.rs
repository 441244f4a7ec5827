//! `freshet keys`: the offline root and the online keys that it signs. What happens lies in `publish::ceremony`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use shared_model::manifest::{KeySet, OnlineKey, key_id, public_key_text};

use super::ConfigArgs;
use crate::clock::now_millis;
use crate::publish::ceremony::{self, Term};
use crate::publish::keyring::{Keyring, read_secret};

const AFTER_HELP: &str = "\
Once:          freshet keys new-root --out root.key          keep this file away from the server
               freshet keys init --root root.key             then pin the root in the page: connect({ rootKey })
Each year:     freshet keys rotate --root root.key
A key leaked:  freshet keys revoke KEY_ID --root root.key

A server that runs picks the new key set up within seconds. docs/keys.md says what to do when a key is lost.";

/// Flags of `freshet keys`.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct KeysArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make a root key, to be kept offline
    NewRoot {
        /// File to write the secret to; must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Sign the first key set of a data directory
    Init(Ceremony),
    /// Make a new online key; the ones before stay valid for a while
    Rotate {
        /// Seconds for which the keys before stay valid
        #[arg(long, value_name = "SECONDS", default_value_t = 604_800)]
        keep_secs: u32,
        /// Root and data directory.
        #[command(flatten)]
        ceremony: Ceremony,
    },
    /// Take an online key out of the set, so that pages refuse what it signs
    Revoke {
        /// Id of the key, 16 hexadecimal digits
        key_id: String,
        /// Root and data directory.
        #[command(flatten)]
        ceremony: Ceremony,
    },
    /// Put another root in the place of this one; pages that pinned the former follow on
    RotateRoot {
        /// File of the root that signs from now on
        #[arg(long, value_name = "FILE")]
        new_root: PathBuf,
        /// Root and data directory.
        #[command(flatten)]
        ceremony: Ceremony,
    },
    /// Show the newest key set
    Show {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
        /// Settings.
        #[command(flatten)]
        config: ConfigArgs,
    },
}

/// A root at hand, a data directory, and how long what is signed is valid.
#[derive(Debug, Args)]
pub struct Ceremony {
    /// File of the root key
    #[arg(long, value_name = "FILE")]
    pub root: PathBuf,
    /// Days for which the new key set and a new key are valid
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub valid_days: u32,
    /// Settings.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Runs the command.
///
/// # Errors
/// Bad settings, a key that cannot be read or written, or a root that may not sign.
pub fn run(args: KeysArgs) -> anyhow::Result<()> {
    match args.action {
        Action::NewRoot { out } => new_root(&out),
        Action::Init(ceremony) => perform(ceremony, ceremony::init),
        Action::Rotate {
            keep_secs,
            ceremony,
        } => perform(ceremony, |dir, root, term| {
            ceremony::rotate(dir, root, keep_secs, term)
        }),
        Action::Revoke { key_id, ceremony } => perform(ceremony, |dir, root, term| {
            ceremony::revoke(dir, root, &key_id, term)
        }),
        Action::RotateRoot { new_root, ceremony } => {
            let new_root = read_secret(&new_root)?;
            perform(ceremony, |dir, root, term| {
                ceremony::rotate_root(dir, root, &new_root, term)
            })
        }
        Action::Show { json, config } => show(&config, json),
    }
}

fn new_root(out: &Path) -> anyhow::Result<()> {
    let key = ceremony::make_secret(out)?.verifying_key();
    println!("made root {} in {}", key_id(&key), out.display());
    println!(
        "keep this file offline, with a copy in another place: without it, keys cannot be replaced"
    );
    println!("pages pin its public key: {}", public_key_text(&key));
    Ok(())
}

fn perform<F>(args: Ceremony, body: F) -> anyhow::Result<()>
where
    F: FnOnce(
        &Path,
        &ed25519_dalek::SigningKey,
        Term,
    ) -> Result<KeySet, crate::publish::keyring::KeyringError>,
{
    let config = args.config.load(Vec::new())?;
    let root = read_secret(&args.root)?;
    let (now_millis, valid_days) = (now_millis(), args.valid_days);
    let data_dir = &config.server.data_dir;
    std::fs::create_dir_all(data_dir)?;
    let set = body(
        data_dir,
        &root,
        Term {
            now_millis,
            valid_days,
        },
    )?;
    println!("signed key set {}", set.number);
    print_set(&set, &Keyring::read(data_dir)?, now_millis);
    Ok(())
}

fn show(config: &ConfigArgs, json: bool) -> anyhow::Result<()> {
    let config = config.load(Vec::new())?;
    let keyring = Keyring::read(&config.server.data_dir)?;
    match keyring.key_set() {
        Some(set) if json => println!("{}", serde_json::to_string_pretty(set)?),
        None if json => println!("null"),
        Some(set) => print_set(set, &keyring, now_millis()),
        None => {
            for key in keyring.own_keys() {
                println!(
                    "key {} signs; public key {}",
                    key_id(&key),
                    public_key_text(&key)
                );
            }
            println!(
                "there is no root here: pages trust the first key that they meet, or the one they pin"
            );
        }
    }
    Ok(())
}

fn print_set(set: &KeySet, keyring: &Keyring, now_millis: i64) {
    let days = |until: i64| (until - now_millis).div_euclid(86_400_000);
    println!(
        "key set {}, valid for {} more days",
        set.number,
        days(set.expires_at)
    );
    let signer = keyring.signer(now_millis).ok(); // none is told below, key by key
    let signer = signer.map(|key| key_id(&key.verifying_key()));
    for key in &set.keys {
        println!(
            "  key {}: {}",
            key.key_id,
            state_of(key, keyring, signer.as_deref(), now_millis)
        );
    }
    for root in &set.roots {
        println!("  root {root}");
    }
}

fn state_of(key: &OnlineKey, keyring: &Keyring, signer: Option<&str>, now_millis: i64) -> String {
    let days = (key.expires_at - now_millis).div_euclid(86_400_000);
    if key.expires_at < now_millis {
        return "expired".to_owned();
    }
    let role = if signer == Some(key.key_id.as_str()) {
        "signs"
    } else if keyring.has_secret(&key.key_id) {
        "is still believed"
    } else {
        "is still believed; its secret is not here"
    };
    format!("{role}, valid for {days} more days")
}
