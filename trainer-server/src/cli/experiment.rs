//! `freshet experiment`: begin, change, read and end experiments of a running server, and estimate from its log.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::rollout::{AdminArgs, get, percent_encoded, send_json};
use crate::experiment::{ExplorationSettings, Strategy};

/// What to do with experiments.
#[derive(Debug, Clone, Subcommand)]
pub enum ExperimentCommand {
    /// Begin an experiment, for example: create shelf-1 --place home --arm control=model@50 --arm bold=temperature:0.5@50
    Create(CreateArgs),
    /// List experiments
    List(AdminArgs),
    /// Say what an experiment has shown
    Show(NamedArgs),
    /// Change the percent of the users that arms have
    Share(ShareArgs),
    /// End an experiment
    Stop(NamedArgs),
    /// Say what a strategy would have earned, from the propensities of the log
    Estimate(EstimateArgs),
}

/// Flags of `freshet experiment create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// Name of the experiment
    pub name: String,
    /// What requests and pages call the place where it runs
    #[arg(long)]
    pub place: String,
    /// Name, strategy and percent of the users; the first is what others are compared with. Strategies: model, popularity,
    /// temperature:T, epsilon:E, version:N
    #[arg(long = "arm", value_name = "NAME=STRATEGY@SHARE", required = true)]
    pub arms: Vec<String>,
    /// Show items of both arms in every list, and compare whose are clicked; shares are left out then
    #[arg(long)]
    pub interleave: bool,
    /// Kinds of events that count; may be repeated
    #[arg(long = "kind", value_name = "KIND", default_value = "click")]
    pub kinds: Vec<String>,
    /// Seconds after a user's first impression in which they count
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    pub window_secs: u64,
    /// Most events of a user that count; 1 for whether there was any
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub count_max: u32,
    /// Chance of a false alarm, whenever one looks
    #[arg(long, value_name = "PROBABILITY", default_value_t = 0.05)]
    pub alpha: f64,
    /// The server
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Flags of commands about one experiment.
#[derive(Debug, Clone, Args)]
pub struct NamedArgs {
    /// Name of the experiment
    pub name: String,
    /// The server
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Flags of `freshet experiment share`.
#[derive(Debug, Clone, Args)]
pub struct ShareArgs {
    /// Name of the experiment
    pub name: String,
    /// Percent by arm, in the order of the arms
    #[arg(required = true)]
    pub shares: Vec<u32>,
    /// The server
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Flags of `freshet experiment estimate`.
#[derive(Debug, Clone, Args)]
pub struct EstimateArgs {
    /// Strategy, as in `create`: model, popularity, temperature:T, epsilon:E or version:N
    pub strategy: String,
    /// A kept version to ask, of the log after what it learned [default: the oldest that is kept]
    #[arg(long, value_name = "NUMBER")]
    pub version: Option<u64>,
    /// Kinds of events that answer an impression; may be repeated
    #[arg(long = "kind", value_name = "KIND", default_value = "click")]
    pub kinds: Vec<String>,
    /// Seconds after an impression in which they count as its answer
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    pub window_secs: u64,
    /// Say that lists also held what their users had already
    #[arg(long)]
    pub include_seen: bool,
    /// Largest importance weight of a decision; larger ones are cut to it
    #[arg(long, default_value_t = 20.0)]
    pub clip: f64,
    /// How many decisions are looked at, the newest
    #[arg(long, value_name = "COUNT", default_value_t = 2000)]
    pub decisions_max: u64,
    /// The server
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Runs the command.
///
/// # Errors
/// The server does not answer, or says why not.
pub fn run(command: &ExperimentCommand) -> anyhow::Result<()> {
    let admin = match command {
        ExperimentCommand::List(admin) => admin,
        ExperimentCommand::Create(args) => &args.admin,
        ExperimentCommand::Show(args) | ExperimentCommand::Stop(args) => &args.admin,
        ExperimentCommand::Share(args) => &args.admin,
        ExperimentCommand::Estimate(args) => &args.admin,
    };
    let answer = super::replay::block_on(ask(command, admin))?;
    if admin.json {
        println!("{answer}");
        return Ok(());
    }
    let text = match command {
        ExperimentCommand::List(_) => listed(&answer),
        ExperimentCommand::Show(_) => shown(&answer),
        ExperimentCommand::Create(_) | ExperimentCommand::Share(_) | ExperimentCommand::Stop(_) => {
            line(&answer)
        }
        ExperimentCommand::Estimate(_) => estimated(&answer),
    };
    print!("{text}");
    Ok(())
}

async fn ask(command: &ExperimentCommand, admin: &AdminArgs) -> anyhow::Result<Value> {
    let path = |name: &str| format!("/v1/experiments/{}", percent_encoded(name));
    match command {
        ExperimentCommand::List(_) => get(admin, "/v1/experiments").await,
        ExperimentCommand::Show(args) => get(admin, &path(&args.name)).await,
        ExperimentCommand::Create(args) => {
            send_json(admin, Method::POST, "/v1/experiments", &asked(args)?).await
        }
        ExperimentCommand::Share(args) => {
            let body = json!({ "shares": args.shares });
            send_json(admin, Method::PATCH, &path(&args.name), &body).await
        }
        ExperimentCommand::Stop(args) => {
            let body = json!({ "stop": true });
            send_json(admin, Method::PATCH, &path(&args.name), &body).await
        }
        ExperimentCommand::Estimate(args) => {
            let mut question = json!({
                "strategy": strategy(&args.strategy)?, "clip": args.clip, "decisions_max": args.decisions_max,
                "exclude_seen": !args.include_seen,
                "metric": { "kinds": args.kinds, "window_secs": args.window_secs },
            });
            if let Some(version) = args.version {
                question["version"] = json!(version);
            }
            send_json(admin, Method::POST, "/v1/estimates", &question).await
        }
    }
}

fn asked(args: &CreateArgs) -> anyhow::Result<Value> {
    let arms: anyhow::Result<Vec<Value>> = args.arms.iter().map(|text| arm(text)).collect();
    let metric = json!({ "kinds": args.kinds, "window_secs": args.window_secs, "count_max": args.count_max });
    Ok(json!({
        "name": args.name, "place": args.place, "arms": arms?, "metric": metric, "alpha": args.alpha,
        "design": if args.interleave { "interleave" } else { "split" },
    }))
}

/// `NAME=STRATEGY@SHARE`.
fn arm(text: &str) -> anyhow::Result<Value> {
    let (name, rest) = text
        .split_once('=')
        .with_context(|| format!("--arm {text}: expected NAME=STRATEGY@SHARE"))?;
    let (named, share) = rest.rsplit_once('@').unwrap_or((rest, "0"));
    let share: u32 = share
        .parse()
        .with_context(|| format!("--arm {text}: the share {share} is no whole number"))?;
    Ok(
        json!({ "name": name, "share": share, "strategy": strategy(named).with_context(|| format!("--arm {text}"))? }),
    )
}

fn strategy(text: &str) -> anyhow::Result<Strategy> {
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    let number = || {
        let number = value.parse::<f64>();
        number.with_context(|| format!("{text}: {value:?} is no number"))
    };
    let exploration = |temperature, epsilon| {
        Strategy::Exploration(ExplorationSettings {
            temperature,
            epsilon,
            pool: None,
        })
    };
    Ok(match name {
        "model" => Strategy::Model,
        "popularity" => Strategy::Popularity,
        "temperature" => exploration(Some(number()?), None),
        "epsilon" => exploration(None, Some(number()?)),
        "version" => {
            let version = value
                .parse()
                .with_context(|| format!("{text}: {value:?} is no number of a version"))?;
            Strategy::Version(shared_model::ids::Version(version))
        }
        _ => bail!("{text}: expected model, popularity, temperature:T, epsilon:E or version:N"),
    })
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn number(value: &Value, digits: usize) -> String {
    value
        .as_f64()
        .map_or_else(|| "–".to_owned(), |number| format!("{number:.digits$}"))
}

fn line(experiment: &Value) -> String {
    let is_split = experiment["design"] == "split";
    let arms = list(&experiment["arms"]).map(|arm| match is_split {
        true => format!("{} {} %", word(&arm["name"]), arm["share"]),
        false => word(&arm["name"]).to_owned(),
    });
    format!(
        "{:<24} {:<12} {:<10} {:<8} {}\n",
        word(&experiment["name"]),
        word(&experiment["place"]),
        word(&experiment["design"]),
        if experiment["stopped"].is_null() {
            "runs"
        } else {
            "stopped"
        },
        arms.collect::<Vec<_>>().join(", ")
    )
}

fn listed(answer: &Value) -> String {
    list(&answer["experiments"]).map(line).collect()
}

fn shown(answer: &Value) -> String {
    let report = &answer["report"];
    let mut text = line(answer);
    text += &format!(
        "{:<24} {:>10} {:>10} {:>10}\n",
        "arm", "users", "counted", "mean"
    );
    for arm in list(&report["arms"]) {
        text += &format!(
            "{:<24} {:>10} {:>10} {:>10}\n",
            word(&arm["name"]),
            arm["num_users"].to_string(),
            arm["num_counted"].to_string(),
            number(&arm["mean"], 4)
        );
    }
    for sentence in list(&report["verdict"]) {
        text += &format!("{}\n", word(sentence));
    }
    text
}

fn estimated(answer: &Value) -> String {
    let mut text = format!(
        "{} decisions of {} users, log offsets {} to {}, asked of version {}\n",
        answer["num_decisions"],
        answer["num_users"],
        answer["from"],
        answer["through"],
        answer["version"]
    );
    for name in ["logged", "ips", "snips", "dr"] {
        let value = &answer[name];
        text += &format!(
            "{name:<8} {} [{}, {}]\n",
            number(&value["value"], 4),
            number(&value["lower"], 4),
            number(&value["upper"], 4)
        );
    }
    text += &format!(
        "rests on {} decisions; mean weight {}; clipped {} %\n",
        number(&answer["effective_decisions"], 1),
        number(&answer["mean_weight"]["value"], 3),
        number(
            &json!(answer["share_clipped"].as_f64().map(|share| 100.0 * share)),
            2
        )
    );
    for note in list(&answer["notes"]) {
        text += &format!("{}\n", word(note));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_are_read_and_what_is_none_is_named() {
        let bold = arm("bold=temperature:0.5@20").expect("an arm");
        let expected = json!({ "name": "bold", "share": 20, "strategy": { "exploration": { "temperature": 0.5 } } });
        assert_eq!(bold, expected);
        let frozen = arm("frozen=version:12").expect("an arm");
        assert_eq!(frozen["strategy"], json!({ "version": 12 }));
        for (bad, named) in [
            ("bold", "NAME=STRATEGY@SHARE"),
            ("b=best@50", "expected model"),
            ("b=model@half", "half"),
            ("b=epsilon:x@1", "\"x\""),
        ] {
            let error = format!("{:#}", arm(bad).expect_err(bad));
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_report_is_a_table_and_its_verdict() {
        let answer = json!({
            "name": "shelf-1", "place": "home", "design": "split", "stopped": null,
            "arms": [{ "name": "control", "share": 50 }, { "name": "bold", "share": 50 }],
            "report": {
                "arms": [{ "name": "control", "num_users": 12, "num_counted": 10, "mean": 0.25 },
                         { "name": "bold", "num_users": 11, "num_counted": 0, "mean": null }],
                "verdict": ["No difference."],
            },
        });
        let text = shown(&answer);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("control 50 %, bold 50 %"), "{text}");
        assert!(lines[2].ends_with("12         10     0.2500"), "{text}");
        assert!(lines[3].ends_with("11          0          –"), "{text}");
        assert_eq!(lines[4], "No difference.");
    }
}
