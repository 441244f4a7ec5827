//! `freshet health`: asks a server whether it is well, for health checks where there is no HTTP client.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

/// Longest wait for the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Flags of `freshet health`.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// The server
    #[arg(long, value_name = "URL", value_parser = super::http_url, default_value = "http://127.0.0.1:7878")]
    pub server: String,
    /// Ask whether it is ready for traffic (/readyz), not only whether it answers (/healthz)
    #[arg(long)]
    pub ready: bool,
}

/// Prints the answer.
///
/// # Errors
/// There is no answer in five seconds, or it is not 200.
pub fn run(args: &HealthArgs) -> anyhow::Result<()> {
    let path = if args.ready { "/readyz" } else { "/healthz" };
    let url = format!("{}{path}", args.server.trim_end_matches('/'));
    super::replay::block_on(async {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        let response = client.get(&url).send().await.map_err(super::last_cause);
        let response = response.with_context(|| format!("no answer from {url}"))?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("{url} answers {status}: {}", text.trim());
        }
        println!("{}", text.trim());
        Ok::<_, anyhow::Error>(())
    })
}
