//! Connections that are silent, send a header without an end, or a body byte by byte; each comes back once it is closed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::sleep;

/// Addresses that the connections come from, 127.0.1.1 and on.
const NUM_ADDRESSES: usize = 40;
/// Between two bytes.
const BYTE_PERIOD: Duration = Duration::from_secs(1);
/// Between two connections at the start, so that they do not all stir at the same moment.
const START_PERIOD: Duration = Duration::from_millis(1);
/// Before one that was closed or refused comes back.
const RETURN_AFTER: Duration = Duration::from_millis(100);

const HEAD: &[u8] =
    b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
const LENGTH: &[u8] = b"Content-Length: 100000\r\n\r\n{\"events\": [";

#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    opened: AtomicUsize,
}

/// A running attack; ends when dropped.
pub(super) struct Attack {
    counts: Arc<Counts>,
    runtime: Option<Runtime>,
}

impl Attack {
    pub(super) fn start(address: &str, num_connections: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread can be started");
        let counts = Arc::new(Counts::default());
        let address: SocketAddr = address.parse().expect("what the server listens on");
        for number in 0..num_connections {
            let counts = Arc::clone(&counts);
            runtime.spawn(async move {
                sleep(START_PERIOD * number as u32).await; // some thousands
                keep_open(address, number, counts).await;
            });
        }
        Self {
            counts,
            runtime: Some(runtime),
        }
    }

    /// Connections that are open now.
    pub(super) fn num_open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Connections that were opened since the start.
    pub(super) fn num_opened(&self) -> usize {
        self.counts.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn keep_open(address: SocketAddr, number: usize, counts: Arc<Counts>) {
    let host = 1 + (number % NUM_ADDRESSES) as u8; // fewer than 256 addresses
    let from = SocketAddr::from((Ipv4Addr::new(127, 0, 1, host), 0));
    loop {
        if let Ok(stream) = connect(from, address).await {
            counts.open.fetch_add(1, Ordering::Relaxed);
            counts.opened.fetch_add(1, Ordering::Relaxed);
            linger(stream, number / NUM_ADDRESSES % 3).await;
            counts.open.fetch_sub(1, Ordering::Relaxed);
        }
        sleep(RETURN_AFTER).await;
    }
}

async fn connect(from: SocketAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(from)?;
    socket.connect(to).await
}

/// Until the server closes: silent, a slow header, or a slow body.
async fn linger(mut stream: TcpStream, kind: usize) {
    let start: Vec<u8> = match kind {
        0 => Vec::new(),
        1 => HEAD.to_vec(),
        _ => [HEAD, LENGTH].concat(),
    };
    if stream.write_all(&start).await.is_err() {
        return;
    }
    let mut answer = [0; 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut answer) => {
                let is_open = read.is_ok_and(|num_bytes| num_bytes > 0);
                if !is_open {
                    return;
                }
            }
            () = sleep(BYTE_PERIOD), if kind > 0 => {
                if stream.write_all(b"x").await.is_err() {
                    return;
                }
            }
        }
    }
}
