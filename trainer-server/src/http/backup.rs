//! `POST /v1/backup`: a backup as an archive (tar) that is written while it is sent; on the admin address only.
//!
//! Secret keys are never sent. An archive that ends early has no `backup.json`, and the connection is cut off.

use std::io::{self, BufWriter, Write};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::body::StrictJson;
use super::document::Api;
use super::guard::note;
use super::limiter::Caller;
use super::{AppState, Problem};
use crate::backup::Contents;
use crate::backup::pack::{Archive, Source, pack};

/// Largest order of a backup, in bytes: it may name every file of the one before.
const BACKUP_ORDER_BYTES_MAX: usize = 64 << 20;
/// Sent at once, and pieces that may wait for the receiver.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_MAX: usize = 8;

/// What is wanted of a backup.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BackupOrder {
    /// `backup.json` of the backup before: what has not changed since is named and not sent.
    base: Option<Contents>,
}

pub(super) fn routes(api: &mut Api) {
    api.add(Method::POST, "/v1/backup", post(backup))
        .named("backup", "A backup as an archive")
        .about("Secret keys are never in it. `backup.json` is the last file: an archive without it is not whole.")
        .strict_body::<BackupOrder>(serde_json::json!({}))
        .text("application/x-tar", "The archive, as it is written.");
}

async fn backup(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    StrictJson(order): StrictJson<BackupOrder, BACKUP_ORDER_BYTES_MAX>,
) -> Result<Response, Problem> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let worker = state.clone();
    let sent = tokio::task::spawn_blocking(move || {
        let failed = sender.clone();
        send(&worker, order.base.as_ref(), sender).map_err(|error| {
            tracing::error!(%error, "a backup was not finished");
            // Nobody hears of it where the receiver is gone, which is then what went wrong.
            drop(failed.blocking_send(Err(io::Error::other("the backup was not finished"))));
            Problem::unavailable("the backup was not finished")
        })
    });
    // How it ended is known only after the answer.
    tokio::spawn(async move {
        let result = sent.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a backup panicked");
            Err(Problem::internal())
        });
        note(&state, caller, "POST /v1/backup".to_owned(), &result).await;
    });
    let head = [
        (header::CONTENT_TYPE, "application/x-tar"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let body = Body::from_stream(ReceiverStream::new(receiver));
    Ok((head, body).into_response())
}

fn send(
    state: &AppState,
    base: Option<&Contents>,
    pieces: mpsc::Sender<io::Result<Bytes>>,
) -> anyhow::Result<()> {
    let mut archive = Archive::new(BufWriter::with_capacity(PIECE_BYTES, Pieces(pieces)));
    let source = Source {
        data_dir: &state.config.server.data_dir,
        log: &state.log,
        with_keys: false,
        now_millis: (state.clock)(),
        base,
    };
    let contents = pack(&source, &mut archive, &mut |_| {})?;
    archive.finish(&contents)?.flush()?;
    tracing::info!(
        num_files = contents.files.len(),
        log_end = contents.log.end.0,
        "a backup was sent"
    );
    Ok(())
}

/// The body as a writer, for a thread that may block.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        if self.0.blocking_send(Ok(piece)).is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
