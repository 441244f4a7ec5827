//! The npm package and its test page, served as plain files by an origin of their own.
//!
//! So a page can be loaded while the Freshet server is down.

use std::net::SocketAddr;
use std::path::Path;

use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::map_response;
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower_http::services::ServeDir;

use crate::workspace;

/// A running file server; ends when dropped.
#[derive(Debug)]
pub struct Site {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Site {
    /// # Errors
    /// No port is free.
    pub async fn start() -> anyhow::Result<Self> {
        Self::of(&workspace::root().join("edge-wasm/npm"), None).await
    }

    /// Serves another folder, under a content security policy where one is given.
    ///
    /// # Errors
    /// No port is free.
    pub async fn of(folder: &Path, policy: Option<&'static str>) -> anyhow::Result<Self> {
        let policy = policy.map(|policy| (CONTENT_SECURITY_POLICY, policy));
        Self::with_headers(folder, policy.into_iter().collect()).await
    }

    /// Serves another folder to pages that are isolated from other origins, where clocks are finer.
    ///
    /// # Errors
    /// No port is free.
    pub async fn isolated(folder: &Path) -> anyhow::Result<Self> {
        let opener = HeaderName::from_static("cross-origin-opener-policy");
        let embedder = HeaderName::from_static("cross-origin-embedder-policy");
        let headers = vec![(opener, "same-origin"), (embedder, "require-corp")];
        Self::with_headers(folder, headers).await
    }

    async fn with_headers(
        folder: &Path,
        headers: Vec<(HeaderName, &'static str)>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let files = ServeDir::new(folder);
        let with_headers = move |mut response: Response| {
            for (name, value) in &headers {
                let value = HeaderValue::from_static(value);
                response.headers_mut().insert(name, value);
            }
            std::future::ready(response)
        };
        let router = axum::Router::new()
            .fallback_service(files)
            .layer(map_response(with_headers));
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the file server ended: {error}");
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Address of a file of the package.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Address of the test page that follows `server`, with further parts of its query.
    #[must_use]
    pub fn page_url(&self, server: &str, query: &[(&str, &str)]) -> String {
        let mut url = format!("http://{}/test/page.html?server={server}", self.address);
        for (name, value) in query {
            url.push_str(&format!("&{name}={value}"));
        }
        url
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}
