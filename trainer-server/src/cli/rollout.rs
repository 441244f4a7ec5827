//! `freshet rollback|pin|unpin|publish|promote`: orders to a running server, over its admin address.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use shared_model::ids::Version;

use crate::access;
use crate::rollout::{Obeyed, Order};

/// Variable that a server takes its admin token from; in a container it is there for commands, too.
const TOKEN_OF_SERVER: &str = "FRESHET__ACCESS__ADMIN_TOKEN";

/// Where the server takes orders.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    /// The server's `server.admin_bind`
    #[arg(
        long,
        alias = "server",
        value_name = "URL",
        value_parser = super::http_url,
        env = "FRESHET_ADMIN",
        default_value = "http://127.0.0.1:7879"
    )]
    pub admin: String,
    /// Its key.
    #[command(flatten)]
    pub token: TokenArg,
    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// The key of whoever asks a server.
#[derive(Debug, Clone, Default, Args)]
pub struct TokenArg {
    /// Key that the server asks for, `access.admin_token`; safer as the variable, which no process list shows. Without
    /// either, FRESHET__ACCESS__ADMIN_TOKEN counts, which a server on this machine may be started with
    #[arg(
        long = "token",
        value_name = "KEY",
        env = "FRESHET_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
}

impl TokenArg {
    /// A client that shows the key with every request.
    ///
    /// # Errors
    /// The key cannot stand in a header.
    pub fn client(&self) -> anyhow::Result<reqwest::Client> {
        let mut headers = HeaderMap::new();
        let of_server = std::env::var(TOKEN_OF_SERVER).ok(); // no text: no key of ours
        let token = self.token.as_ref().or(of_server.as_ref());
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            let bearer = HeaderValue::try_from(format!("Bearer {token}"));
            let mut bearer = bearer.context("the token has characters that no key has")?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        Ok(reqwest::Client::builder()
            .default_headers(headers)
            .build()?)
    }
}

/// Flags of every order.
#[derive(Debug, Clone, Args)]
pub struct OrderArgs {
    /// The server.
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Who orders it, for the ledger
    #[arg(long, value_name = "NAME", env = "FRESHET_OPERATOR")]
    pub by: Option<String>,
}

/// Flags of `freshet rollback`.
#[derive(Debug, Clone, Args)]
pub struct RollbackArgs {
    /// The version to return to
    pub version: u64,
    /// Those of every order.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// Flags of `freshet publish`.
#[derive(Debug, Clone, Args)]
pub struct PublishArgs {
    /// A snapshot whose trained codes are to go out, through the gate; without one a release begins now
    pub file: Option<PathBuf>,
    /// Those of every order.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// Sends a rollback.
///
/// # Errors
/// See [`run`].
pub fn roll_back(args: &RollbackArgs) -> anyhow::Result<()> {
    let version = Version(args.version);
    run(Order::Rollback { version }, &args.order)
}

/// Sends codes, or orders a release.
///
/// # Errors
/// See [`run`], or the file cannot be read.
pub fn publish(args: &PublishArgs) -> anyhow::Result<()> {
    let Some(file) = &args.file else {
        return run(Order::Publish, &args.order);
    };
    let answer = super::replay::block_on(send_codes(file, &args.order))?;
    print(&answer, args.order.admin.json)
}

/// Sends an order and prints what became of it.
///
/// # Errors
/// The server does not answer, or says why not.
pub fn run(order: Order, args: &OrderArgs) -> anyhow::Result<()> {
    let answer = super::replay::block_on(send(order, args))?;
    print(&answer, args.admin.json)
}

fn print(answer: &Obeyed, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        println!("{}", serde_json::to_string(answer)?);
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

async fn send(order: Order, args: &OrderArgs) -> anyhow::Result<Obeyed> {
    let mut body = serde_json::to_value(order)?;
    if let Some(by) = &args.by {
        body["by"] = json!(by);
    }
    let url = url(&args.admin, "/v1/rollout");
    let request = args.admin.token.client()?.post(&url).json(&body);
    let answer = answer(request, &args.admin).await?;
    Ok(serde_json::from_value(answer)?)
}

async fn send_codes(file: &Path, args: &OrderArgs) -> anyhow::Result<Obeyed> {
    let bytes = super::inspect::read_file(file)?;
    let by = args.by.as_deref().map(percent_encoded);
    let query = by.map(|by| format!("?by={by}")).unwrap_or_default();
    let url = url(&args.admin, &format!("/v1/versions{query}"));
    let request = args.admin.token.client()?.post(&url);
    let request = request.header("content-type", "application/octet-stream");
    let answer = answer(request.body(bytes), &args.admin).await?;
    Ok(serde_json::from_value(answer)?)
}

/// Asks the server for a path.
pub(super) async fn get(admin: &AdminArgs, path: &str) -> anyhow::Result<Value> {
    answer(admin.token.client()?.get(url(admin, path)), admin).await
}

/// Asks the server to remove what is at a path.
pub(super) async fn delete(admin: &AdminArgs, path: &str) -> anyhow::Result<Value> {
    answer(admin.token.client()?.delete(url(admin, path)), admin).await
}

/// Sends JSON, for an answer that is JSON, too.
pub(super) async fn send_json(
    admin: &AdminArgs,
    method: Method,
    path: &str,
    body: &Value,
) -> anyhow::Result<Value> {
    let request = admin.token.client()?.request(method, url(admin, path));
    answer(request.json(body), admin).await
}

/// Sends JSON, for an answer that is none.
pub(super) async fn post(
    admin: &AdminArgs,
    path: &str,
    body: &Value,
) -> anyhow::Result<reqwest::Response> {
    let request = admin.token.client()?.post(url(admin, path)).json(body);
    let response = send_to(request, admin).await?;
    if response.status().is_success() {
        return Ok(response);
    }
    bail!("{}", reason(response).await?)
}

fn url(admin: &AdminArgs, path: &str) -> String {
    format!("{}{path}", admin.admin.trim_end_matches('/'))
}

/// The answer to a request; an error is what the server says of it.
async fn answer(request: RequestBuilder, admin: &AdminArgs) -> anyhow::Result<Value> {
    let response = send_to(request, admin).await?;
    let status = response.status();
    if !status.is_success() {
        bail!("{}", reason(response).await?);
    }
    let body = response.json().await;
    body.with_context(|| format!("the answer {status} is no JSON"))
}

async fn send_to(request: RequestBuilder, admin: &AdminArgs) -> anyhow::Result<reqwest::Response> {
    let sent = request.send().await.map_err(super::last_cause);
    sent.with_context(|| {
        let admin = &admin.admin;
        format!("no server answers operators at {admin}; --admin names its server.admin_bind")
    })
}

/// What a refusal says.
async fn reason(response: reqwest::Response) -> anyhow::Result<String> {
    let status = response.status();
    let body: anyhow::Result<Value> = response
        .json()
        .await
        .with_context(|| format!("the answer {status} is no JSON"));
    let body = body?;
    let detail = body["detail"].as_str().unwrap_or(status.as_str());
    let advice = match detail.starts_with("there is nothing at") {
        true => "; --admin names server.admin_bind, and this may be server.bind",
        false => access::advice(status.as_u16()),
    };
    Ok(format!("{detail}{advice}"))
}

/// Text as it may stand in a query (RFC 3986, section 2.1).
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_script_may_stand_in_a_query() {
        assert_eq!(percent_encoded("anna-1"), "anna-1");
        assert_eq!(percent_encoded("Jörg & co"), "J%C3%B6rg%20%26%20co");
    }
}
