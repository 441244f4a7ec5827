//! A network that does not carry: it stands before a server or a file server, and what it does to answers can be changed.
//!
//! Unlike [`crate::proxy`], it understands nothing of what it carries.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Largest body of a request that passes.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Bytes in a piece of an answer that drips.
const DRIP_BYTES: usize = 64;
const DRIP_INTERVAL: Duration = Duration::from_millis(50);

/// What happens to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing comes of it but this status.
    Status(u16),
    /// 503, to be asked again in this many seconds.
    RetryAfter(u32),
    /// A page of somebody else, as hotels send it, with the status 200.
    OtherPage,
    /// No bytes, with the status 200.
    Empty,
    /// The first half, or half of the first piece, and that as if it were the whole.
    Half,
    /// Likewise, and then the connection breaks.
    Cut,
    /// One other bit.
    Flipped,
    /// It goes on without end.
    Endless,
    /// No answer ever comes.
    Stalled,
    /// Nothing more comes after the first half.
    StalledInside,
    /// Everything comes this many milliseconds late.
    Late(u64),
    /// A few bytes at a time.
    Dripping,
    /// It is said to be this.
    ContentType(&'static str),
    /// Other origins may not read it.
    NoCors,
    /// Somewhere else it would be, and there nobody listens.
    RedirectedAway,
    /// It would be where it was asked for.
    RedirectedToItself,
    /// Under this content security policy.
    Policy(&'static str),
}

/// Trouble with whatever has this in its path.
pub type Place = &'static str;
/// Trouble with everything.
pub const EVERYTHING: Place = "/";

/// A running network; ends when dropped.
#[derive(Debug)]
pub struct Network {
    url: String,
    wire: Arc<Mutex<Wire>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct Wire {
    upstream: String,
    troubles: Vec<(Place, Trouble)>,
    /// Told when answers that are under way are to end.
    end: Arc<Notify>,
}

impl Network {
    /// Starts before `upstream`, without trouble.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(upstream: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address: SocketAddr = listener.local_addr()?;
        let wire = Arc::new(Mutex::new(Wire {
            upstream: upstream.to_owned(),
            troubles: Vec::new(),
            end: Arc::default(),
        }));
        let http = reqwest::Client::builder().no_proxy().build()?;
        let router = axum::Router::new()
            .fallback(carry)
            .with_state((http, Arc::clone(&wire)));
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the network ended: {error}");
            }
        });
        Ok(Self {
            url: format!("http://{address}"),
            wire,
            task,
        })
    }

    /// Where it is asked.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From the next answer on, whatever was set before for what this has in its path.
    pub fn set(&self, place: Place, trouble: Trouble) {
        self.change(|wire| wire.troubles.insert(0, (place, trouble)));
    }

    /// Ends the answers that are under way.
    pub fn end_streams(&self) {
        self.change(|wire| wire.end.notify_waiters());
    }

    /// From the next answer on it comes from elsewhere.
    pub fn lead_to(&self, upstream: &str) {
        self.change(|wire| wire.upstream = upstream.to_owned());
    }

    fn change(&self, change: impl FnOnce(&mut Wire)) {
        change(&mut self.wire.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Carrier = (reqwest::Client, Arc<Mutex<Wire>>);

async fn carry(State((http, wire)): State<Carrier>, request: Request) -> Response {
    let wire = wire.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let path = request.uri().path().to_owned();
    let here = wire.troubles.iter().find(|(place, _)| path.contains(place));
    let trouble = here.map(|(_, trouble)| *trouble);
    match answer(&http, &wire, request, trouble).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

async fn answer(
    http: &reqwest::Client,
    wire: &Wire,
    request: Request,
    trouble: Option<Trouble>,
) -> anyhow::Result<Response> {
    let own = own_answer(trouble, request.uri().path()).await;
    let mut response = match own {
        Some(response) => response,
        None => {
            let answer = ask(http, &wire.upstream, request).await?;
            return damaged(answer, trouble, Arc::clone(&wire.end)).await;
        }
    };
    let anyone = HeaderValue::from_static("*");
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, anyone);
    Ok(response)
}

/// What is said without asking anyone.
async fn own_answer(trouble: Option<Trouble>, path: &str) -> Option<Response> {
    let away = |location: &str| {
        let location = [(header::LOCATION, location.to_owned())];
        (StatusCode::FOUND, location).into_response()
    };
    let response = match trouble? {
        Trouble::Status(status) => StatusCode::from_u16(status)
            .unwrap_or(StatusCode::IM_A_TEAPOT)
            .into_response(),
        Trouble::RetryAfter(secs) => {
            let wait = [(header::RETRY_AFTER, secs.to_string())];
            (StatusCode::SERVICE_UNAVAILABLE, wait).into_response()
        }
        Trouble::OtherPage => {
            axum::response::Html("<!doctype html><title>Sign in</title>").into_response()
        }
        Trouble::Empty => StatusCode::OK.into_response(),
        Trouble::RedirectedAway => away("http://127.0.0.1:9/"),
        Trouble::RedirectedToItself => away(path),
        Trouble::Stalled => std::future::pending().await,
        Trouble::Half
        | Trouble::Cut
        | Trouble::Flipped
        | Trouble::Endless
        | Trouble::StalledInside
        | Trouble::Late(_)
        | Trouble::Dripping
        | Trouble::ContentType(_)
        | Trouble::NoCors
        | Trouble::Policy(_) => return None,
    };
    Some(response)
}

async fn ask(
    http: &reqwest::Client,
    upstream: &str,
    request: Request,
) -> anyhow::Result<reqwest::Response> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().context("a path")?.as_str();
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await?;
    let mut asked = http.request(parts.method, format!("{upstream}{path}"));
    if let Some(content_type) = parts.headers.get(header::CONTENT_TYPE) {
        asked = asked.header(header::CONTENT_TYPE, content_type);
    }
    Ok(asked.body(body).send().await?)
}

async fn damaged(
    answer: reqwest::Response,
    trouble: Option<Trouble>,
    end: Arc<Notify>,
) -> anyhow::Result<Response> {
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::TRANSFER_ENCODING);
    let body = match trouble {
        None => {
            let ended = async move { end.notified().await };
            Body::from_stream(answer.bytes_stream().take_until(Box::pin(ended)))
        }
        Some(Trouble::ContentType(content_type)) => {
            headers.insert(header::CONTENT_TYPE, content_type.parse()?);
            Body::from(answer.bytes().await?)
        }
        Some(Trouble::NoCors) => {
            headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            Body::from(answer.bytes().await?)
        }
        Some(Trouble::Policy(policy)) => {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy.parse()?);
            Body::from(answer.bytes().await?)
        }
        Some(Trouble::Late(millis)) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Body::from_stream(answer.bytes_stream())
        }
        Some(trouble @ (Trouble::Half | Trouble::Cut)) => {
            // Announcements have no end, so what breaks off does so within the first piece.
            let first = answer.bytes_stream().next().await.transpose()?;
            damaged_body(first.unwrap_or_default(), trouble)
        }
        Some(trouble) => damaged_body(answer.bytes().await?, trouble),
    };
    Ok((status, headers, body).into_response())
}

fn damaged_body(bytes: Bytes, trouble: Trouble) -> Body {
    let half = bytes.slice(..bytes.len() / 2);
    let first = stream::iter([Ok::<_, std::io::Error>(half.clone())]);
    match trouble {
        Trouble::Half => Body::from(half),
        Trouble::Cut => {
            let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
            Body::from_stream(first.chain(stream::iter([Err(broken)])))
        }
        Trouble::StalledInside => Body::from_stream(first.chain(stream::pending())),
        Trouble::Flipped => {
            let mut bytes = bytes.to_vec();
            let first = bytes.len() * 7 / 8;
            // A digit becomes another one, so that JSON and base64 stay what they are.
            if let Some(digit) = bytes[first..].iter_mut().find(|byte| byte.is_ascii_digit()) {
                *digit ^= 0x01;
            }
            Body::from(bytes)
        }
        Trouble::Endless => Body::from_stream(stream::repeat(bytes).map(Ok::<_, std::io::Error>)),
        Trouble::Dripping => Body::from_stream(dripping(bytes)),
        Trouble::Status(_)
        | Trouble::RetryAfter(_)
        | Trouble::OtherPage
        | Trouble::Empty
        | Trouble::Stalled
        | Trouble::Late(_)
        | Trouble::ContentType(_)
        | Trouble::NoCors
        | Trouble::RedirectedAway
        | Trouble::RedirectedToItself
        | Trouble::Policy(_) => Body::from(bytes),
    }
}

fn dripping(bytes: Bytes) -> impl Stream<Item = std::io::Result<Bytes>> {
    let mut drops = Vec::new();
    for start in (0..bytes.len()).step_by(DRIP_BYTES) {
        drops.push(bytes.slice(start..bytes.len().min(start + DRIP_BYTES)));
    }
    stream::iter(drops).then(async |drop| {
        tokio::time::sleep(DRIP_INTERVAL).await;
        Ok(drop)
    })
}
