//! `freshet rules …`: rules over lists, proposed and decided over a server's admin address.

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::rollout::{AdminArgs, get, post};
use crate::clock::now_millis;

const HOUR_MILLIS: f64 = 3_600_000.0;

/// Flags of `freshet rules`.
#[derive(Debug, Clone, Args)]
pub struct RulesArgs {
    /// What to do
    #[command(subcommand)]
    pub command: RulesCommand,
}

/// What is done with rules.
#[derive(Debug, Clone, Subcommand)]
pub enum RulesCommand {
    /// List proposals and active rules
    List(ListArgs),
    /// Propose a rule; it holds once somebody approves it
    Propose(ProposeArgs),
    /// Let a proposal hold
    Approve(DecideArgs),
    /// End a proposal that is not to hold
    Reject(DecideArgs),
    /// Take back a proposal, or end an active rule
    Withdraw(DecideArgs),
}

/// Flags of `freshet rules list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Also those that have ended, newest first
    #[arg(long)]
    pub history: bool,
    /// The server.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Flags of `freshet rules propose`.
#[derive(Debug, Clone, Args)]
pub struct ProposeArgs {
    /// Keep the items out of every list
    #[arg(long, group = "action")]
    pub block: bool,
    /// Give the item this place, counted from 0
    #[arg(long, group = "action", value_name = "POSITION")]
    pub pin: Option<u32>,
    /// Add these points to the scores, at most 100; 0.7 doubles the odds
    #[arg(long, group = "action", value_name = "POINTS")]
    pub boost: Option<f64>,
    /// Take these points from the scores, at most 100
    #[arg(long, group = "action", value_name = "POINTS")]
    pub bury: Option<f64>,
    /// An item; may be repeated
    #[arg(long = "item", value_name = "ID", conflicts_with = "attribute")]
    pub items: Vec<String>,
    /// All items with this attribute, now and later
    #[arg(long, value_name = "NAME=VALUE")]
    pub attribute: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Hours after which it ends by itself
    #[arg(long, value_name = "HOURS")]
    pub hours: Option<f64>,
    /// Who acts.
    #[command(flatten)]
    pub actor: ActorArgs,
}

/// Flags of a decision.
#[derive(Debug, Clone, Args)]
pub struct DecideArgs {
    /// Number of the rule
    pub id: u64,
    /// Who acts.
    #[command(flatten)]
    pub actor: ActorArgs,
}

/// Who acts, and where.
#[derive(Debug, Clone, Args)]
pub struct ActorArgs {
    /// The server.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Your name, kept with the rule
    #[arg(long, value_name = "NAME", env = "FRESHET_OPERATOR")]
    pub by: String,
}

/// Runs the command.
///
/// # Errors
/// The server does not answer, or says why not.
pub fn run(args: &RulesArgs) -> anyhow::Result<()> {
    match &args.command {
        RulesCommand::List(args) => list(args),
        RulesCommand::Propose(args) => send("/v1/rules", body(args, now_millis())?, &args.actor),
        RulesCommand::Approve(args) => decide(args, "approve"),
        RulesCommand::Reject(args) => decide(args, "reject"),
        RulesCommand::Withdraw(args) => decide(args, "withdraw"),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let listed = super::replay::block_on(get(&args.admin, "/v1/rules"))?;
    if args.admin.json {
        println!("{listed}");
        return Ok(());
    }
    let shown: &[&str] = if args.history {
        &["rules", "history"]
    } else {
        &["rules"]
    };
    for name in shown {
        for rule in listed[name].as_array().into_iter().flatten() {
            println!("{}", described(rule));
        }
    }
    Ok(())
}

fn decide(args: &DecideArgs, decision: &str) -> anyhow::Result<()> {
    let body = json!({ "decision": decision });
    send(&format!("/v1/rules/{}", args.id), body, &args.actor)
}

/// Sends an act and prints the rule as it is now.
fn send(path: &str, mut body: Value, actor: &ActorArgs) -> anyhow::Result<()> {
    body["by"] = json!(actor.by);
    let rule: Value = super::replay::block_on(async {
        let answer = post(&actor.admin, path, &body).await?;
        answer.json().await.context("the answer is no JSON")
    })?;
    if actor.admin.json {
        println!("{rule}");
    } else {
        println!("{}", described(&rule));
    }
    Ok(())
}

fn body(args: &ProposeArgs, now_millis: i64) -> anyhow::Result<Value> {
    let mut body = match (args.block, args.pin, args.boost, args.bury) {
        (true, ..) => json!({ "action": "block" }),
        (_, Some(position), ..) => json!({ "action": "pin", "position": position }),
        (_, _, Some(points), _) => json!({ "action": "boost", "points": points }),
        (_, _, _, Some(points)) => json!({ "action": "bury", "points": points }),
        (false, None, None, None) => bail!("one of --block, --pin, --boost and --bury is wanted"),
    };
    match &args.attribute {
        Some(attribute) => {
            let pair = attribute.split_once('=');
            let (name, value) =
                pair.with_context(|| format!("--attribute {attribute}: expected NAME=VALUE"))?;
            body["attribute"] = json!({ "name": name, "value": value });
        }
        None => body["item_ids"] = json!(args.items),
    }
    if let Some(hours) = args.hours {
        ensure!(hours > 0.0, "--hours {hours}: expected above 0");
        body["expires_at"] = json!(now_millis.saturating_add((hours * HOUR_MILLIS) as i64)); // saturates
    }
    body["reason"] = json!(args.reason);
    Ok(body)
}

/// A line: `  7  active    bury 2.5   brand=Acme  "poor reviews", proposed by anna, approved by ben`.
fn described(rule: &Value) -> String {
    let text = |name: &str| rule[name].as_str().unwrap_or("–").to_owned();
    let amount = rule["points"].as_f64().or(rule["position"].as_f64());
    let amount = amount.map_or_else(String::new, |amount| format!(" {amount}"));
    let attribute = &rule["attribute"];
    let target = match rule["item_ids"].as_array() {
        Some(ids) => ids
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(" "),
        None => format!(
            "{}={}",
            attribute["name"].as_str().unwrap_or("–"),
            attribute["value"].as_str().unwrap_or("–")
        ),
    };
    let mut line = format!(
        "{:>4}  {:<9}  {}{amount}  {target}  {:?}, proposed by {}",
        rule["id"].as_u64().unwrap_or_default(),
        text("state"),
        text("action"),
        text("reason"),
        text("by"),
    );
    if let Some(evidence) = rule["evidence"].as_str() {
        line += &format!(" ({evidence})");
    }
    for act in rule["approvals"].as_array().into_iter().flatten() {
        line += &format!(", approved by {}", act["by"].as_str().unwrap_or("–"));
    }
    if let Some(by) = rule["ended"]["by"].as_str() {
        line += &format!(", ended by {by}");
    }
    line
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn proposed(words: &[&str]) -> anyhow::Result<Value> {
        let start = [
            "freshet", "rules", "propose", "--reason", "r", "--by", "anna",
        ];
        let cli = Cli::try_parse_from(start.iter().chain(words))?;
        let Command::Rules(RulesArgs { command }) = cli.command else {
            bail!("another command");
        };
        let RulesCommand::Propose(args) = command else {
            bail!("another command");
        };
        body(&args, 1000)
    }

    #[test]
    fn flags_become_a_proposal() {
        assert_eq!(
            proposed(&["--block", "--item", "a", "--item", "b"]).expect("sound"),
            json!({ "action": "block", "item_ids": ["a", "b"], "reason": "r" })
        );
        assert_eq!(
            proposed(&[
                "--bury",
                "2.5",
                "--attribute",
                "brand=A=B",
                "--hours",
                "0.5"
            ])
            .expect("sound"),
            json!({
                "action": "bury", "points": 2.5, "attribute": { "name": "brand", "value": "A=B" },
                "expires_at": 1_801_000, "reason": "r",
            })
        );
        for wrong in [
            &["--item", "a"][..],
            &["--block", "--pin", "0", "--item", "a"],
            &["--block", "--item", "a", "--attribute", "b=c"],
            &["--block", "--attribute", "brand"],
            &["--block", "--item", "a", "--hours", "-1"],
        ] {
            assert!(proposed(wrong).is_err(), "{wrong:?}");
        }
    }
}
