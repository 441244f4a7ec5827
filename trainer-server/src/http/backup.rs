//! `POST /v1/backup`: a backup as an archive (tar) that is written while it is sent; on the admin address only.
//!
//! Secret keys are never sent. An archive that ends early has no `backup.json`, and the connection is cut off.

use std::io::{self, BufWriter, Write};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{AppState, Problem};
use crate::backup::Contents;
use crate::backup::pack::{Archive, Source, pack};
use crate::ingest::BodyError;

/// Largest order of a backup, in bytes: it may name every file of the one before.
pub(super) const BACKUP_ORDER_BYTES_MAX: usize = 64 << 20;
/// Sent at once, and pieces that may wait for the receiver.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_MAX: usize = 8;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackupOrder {
    /// `backup.json` of the backup before: what has not changed since is named and not sent.
    base: Option<Contents>,
}

/// The body must be called `application/json`: a page of another origin cannot send that unasked.
pub(super) async fn backup(
    State(state): State<AppState>,
    body: Result<Json<BackupOrder>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(BackupOrder { base }) = body.map_err(|rejection| {
        Problem::malformed_body(BodyError {
            pointer: String::new(),
            detail: rejection.body_text(),
        })
    })?;
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    tokio::task::spawn_blocking(move || {
        let failed = sender.clone();
        if let Err(error) = send(&state, base.as_ref(), sender) {
            tracing::error!(%error, "a backup was not finished");
            // Nobody hears of it where the receiver is gone, which is then what went wrong.
            drop(failed.blocking_send(Err(io::Error::other("the backup was not finished"))));
        }
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
