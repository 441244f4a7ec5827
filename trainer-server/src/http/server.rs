//! The accept loop: bounded connections, those of one client too, time limits, and a bounded end.
//!
//! `axum::serve` is not used because it limits neither the time that a header may take nor the time
//! that open connections may keep the process from ending. HTTP/1.1 alone is spoken: to tell it from
//! others, hyper would wait for the first byte without end. How long a body may take: `pace`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower::Layer;

use super::AppState;
use super::guard::Peer;
use crate::config::{LimitsConfig, ServerConfig};

/// How long open requests may go on once the server is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after a failed accept: most often the process is out of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Largest header, and what is read of a body before it is handed on.
const READ_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Serves until `state.stopping` turns true, then drains for a bounded time.
pub async fn serve(listener: TcpListener, router: Router, state: &AppState) {
    let server = &state.config.server;
    let mut stopping = state.stopping.clone();
    let builder = builder(server);
    let permits = Arc::new(Semaphore::new(server.connections_max));
    let clients = Clients::default();
    let mut connections = JoinSet::new();
    while !*stopping.borrow() {
        // Beyond the limit, new connections wait in the backlog of the system.
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            _ = stopping.changed() => break,
        };
        let Some((stream, peer, permit)) = accepted else {
            continue;
        };
        let limits = state.limiter.limits();
        let Some(place) = clients.place_for(peer, &limits) else {
            tracing::debug!(%peer, "a connection was closed: its client has as many as it may");
            continue;
        };
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(Duration::from_secs(limits.answer_stall_secs)));
        let router = Extension(Peer(peer)).layer(router.clone());
        let connection = connection(builder.clone(), stream, router, stopping.clone());
        connections.spawn(async move {
            connection.await;
            drop((permit, place));
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::warn!("connections were cut off: they did not end in time");
        connections.abort_all();
    }
}

/// The header has a limit from when the connection begins to wait for it, so silent connections have it too.
fn builder(config: &ServerConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(config.header_timeout_millis))
        .max_buf_size(READ_BUFFER_BYTES_MAX);
    builder
}

type Accepted = (TcpStream, IpAddr, OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> Option<Accepted> {
    let permit = Arc::clone(permits)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    match listener.accept().await {
        Ok((stream, peer)) => {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection keeps its delay");
            }
            Some((stream, peer.ip().to_canonical(), permit))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection was not accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// How many connections each client has open.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of a client's connections; gives it back when dropped.
struct Place {
    clients: Clients,
    client: IpAddr,
}

impl Clients {
    /// `None` where the client has as many as it may.
    fn place_for(&self, client: IpAddr, limits: &LimitsConfig) -> Option<Place> {
        let is_proxy = limits
            .trusted_proxies
            .iter()
            .any(|proxy| proxy.contains(client));
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner); // counts are whole at any time
        let num_open = open.entry(client).or_default();
        if *num_open >= limits.client_connections_max && !is_proxy {
            return None;
        }
        *num_open += 1;
        let clients = self.clone();
        Some(Place { clients, client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self
            .clients
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner); // as above
        let Some(num_open) = open.get_mut(&self.client) else {
            return;
        };
        *num_open -= 1;
        if *num_open == 0 {
            open.remove(&self.client);
        }
    }
}

async fn connection(
    builder: Builder<TokioExecutor>,
    stream: TimeoutStream<TcpStream>,
    router: <Extension<Peer> as Layer<Router>>::Service,
    mut stopping: watch::Receiver<bool>,
) {
    let service = TowerToHyperService::new(router);
    let stream = TokioIo::new(Box::pin(stream));
    let mut served = std::pin::pin!(builder.serve_connection(stream, service));
    let result = tokio::select! {
        result = served.as_mut() => result,
        _ = stopping.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        // Cut by the other side, or too slow: nothing that anyone here has to act on.
        tracing::debug!(%error, "a connection ended early");
    }
}
