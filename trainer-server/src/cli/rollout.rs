//! `freshet rollback|pin|unpin|publish|promote`: orders to a running server, over its admin address.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;
use shared_model::ids::Version;

use crate::rollout::{Obeyed, Order};

/// Where the server takes orders.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    /// The server's `server.admin_bind`
    #[arg(
        long,
        value_name = "URL",
        env = "FRESHET_ADMIN",
        default_value = "http://127.0.0.1:7879"
    )]
    pub admin: String,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// Flags of `freshet rollback`.
#[derive(Debug, Clone, Args)]
pub struct RollbackArgs {
    /// The version to return to
    pub version: u64,
    /// The server.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Sends a rollback.
///
/// # Errors
/// See [`run`].
pub fn roll_back(args: &RollbackArgs) -> anyhow::Result<()> {
    let version = Version(args.version);
    run(Order::Rollback { version }, &args.admin)
}

/// Sends an order and prints what became of it.
///
/// # Errors
/// The server does not answer, or says why not.
pub fn run(order: Order, admin: &AdminArgs) -> anyhow::Result<()> {
    let answer = super::replay::block_on(send(order, &admin.admin))?;
    if admin.json {
        println!("{}", serde_json::to_string(&answer)?);
        return Ok(());
    }
    let pinned = if answer.is_pinned { ", pinned" } else { "" };
    println!("the newest version is {}{pinned}", answer.version);
    if let Some(rollback) = answer.set_aside {
        println!(
            "it has the codes of version {}; events at log offsets {} to {} are set aside",
            rollback.restored, rollback.from, rollback.through
        );
    }
    Ok(())
}

async fn send(order: Order, admin: &str) -> anyhow::Result<Obeyed> {
    let url = format!("{}/v1/rollout", admin.trim_end_matches('/'));
    let sent = reqwest::Client::new().post(&url).json(&order).send().await;
    let response = sent.with_context(|| {
        format!("no server takes orders at {admin}; it does where server.admin_bind is set")
    })?;
    let status = response.status();
    let body: Value = response
        .json()
        .await
        .with_context(|| format!("the answer {status} is no JSON"))?;
    if !status.is_success() {
        bail!("{}", body["detail"].as_str().unwrap_or(status.as_str()));
    }
    Ok(serde_json::from_value(body)?)
}
