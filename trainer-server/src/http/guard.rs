//! What stands before every route: who asks, whether they may, and how often.
//!
//! [`needed`] is the one table of which role a route wants; a route that is not in it wants the admin token.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::limiter::{Caller, Counted};
use super::pace::paced;
use super::{Address, AppState, Problem};
use crate::access::{Keys, Role};
use crate::audit::AuditRow;
use crate::config::Network;

/// Addresses of a list of proxies that are looked at, from the nearest on.
const FORWARDED_MAX: usize = 16;

/// Address of the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// What a route wants; `None` is open to all. A key that is not set is not asked for.
pub(super) fn needed(address: Address, route: &str) -> Option<Role> {
    if is_open(address, route) {
        return None; // these are read alone: whatever else is asked is answered 405
    }
    if address == Address::Admin {
        return Some(Role::Admin);
    }
    // Each of these has one method; whatever else is asked is answered 405 to whoever may use it.
    match route {
        "/v1/events" | "/v1/visits" | "/v1/models/{model}/reports" => Some(Role::Ingest),
        "/v1/recommend"
        | "/v1/score"
        | "/v1/search"
        | "/v1/explain"
        | "/v1/events/{event_id}"
        | "/v1/explore"
        | "/v1/status" => Some(Role::Read),
        _ => Some(Role::Admin),
    }
}

/// What pages follow a model with, health, the reference of the API, and the files of the dashboard, which asks for the
/// token itself: a browser that opens a page shows none.
fn is_open(address: Address, route: &str) -> bool {
    let is_reference = matches!(route, "/openapi.json" | "/docs" | "/docs/" | "/docs/{file}");
    let of_address = match address {
        Address::Admin => matches!(route, "/" | "/dashboard/" | "/dashboard/{file}"),
        Address::Public | Address::Only => matches!(
            route,
            "/v1/models/{model}/manifest"
                | "/v1/models/{model}/plan"
                | "/v1/models/{model}/watch"
                | "/v1/models/{model}/keys"
                | "/v1/models/{model}/text-encoder"
                | "/v1/models/{model}/moderation"
                | "/v1/models/{model}/experiments"
                | "/v1/blobs/{hash}"
        ),
    };
    is_health(route) || is_reference || of_address
}

pub(super) fn is_health(route: &str) -> bool {
    matches!(route, "/healthz" | "/readyz")
}

pub(super) async fn public(state: State<AppState>, request: Request, next: Next) -> Response {
    guarded(Address::Public, state, request, next).await
}

pub(super) async fn admin(state: State<AppState>, request: Request, next: Next) -> Response {
    guarded(Address::Admin, state, request, next).await
}

async fn guarded(
    address: Address,
    state: State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    // Files of `server.static_dir`, or nothing, are no route.
    let need = route_of(&request).and_then(|route| needed(address, route));
    let refusals = Arc::clone(&state.refusals);
    let response = guard(state, need, request, next).await;
    refusals.see(response.status());
    response
}

fn route_of(request: &Request) -> Option<&str> {
    let path = request.extensions().get::<MatchedPath>();
    path.map(MatchedPath::as_str)
}

async fn guard(
    State(state): State<AppState>,
    need: Option<Role>,
    mut request: Request,
    next: Next,
) -> Response {
    let (limits, keys) = (state.limiter.limits(), state.keys.now());
    let peer = request.extensions().get::<Peer>();
    let peer = peer.expect("the accept loop adds it to every request").0;
    let caller = Caller {
        address: client_address(peer, request.headers(), &limits.trusted_proxies),
        role: shown_role(&keys, need, request.headers(), request.uri()),
    };
    // An answer to a health check says how the server is, not how busy others are.
    if !route_of(&request).is_some_and(is_health) {
        let now = std::time::Instant::now();
        if let Err(exceeded) = state.limiter.take(caller, Counted::Requests, 1, now) {
            return Problem::too_many(exceeded).into_response();
        }
    }
    let has_key = request.headers().contains_key(header::AUTHORIZATION);
    let checked = check(&keys, need, caller.role, has_key)
        .and_then(|()| check_name(&keys, need, request.headers()));
    if let Err(problem) = checked {
        let route = route_of(&request).unwrap_or_default();
        let row = AuditRow {
            at: (state.clock)(),
            role: caller.role,
            client: Some(caller.address),
            what: format!("{} {route}", request.method()),
            outcome: problem.detail.clone(),
            untold: 0,
        };
        state.audit.add_refusal(row).await;
        return problem.into_response();
    }
    request.extensions_mut().insert(caller);
    let request = request.map(|body| paced(body, &limits, &state.bodies));
    next.run(request).await
}

/// Writes down what was ordered or deleted, and what came of it.
pub(super) async fn note<T>(
    state: &AppState,
    caller: Caller,
    what: String,
    result: &Result<T, Problem>,
) {
    let outcome = match result {
        Ok(_) => "done".to_owned(),
        Err(problem) => problem.detail.clone(),
    };
    let row = AuditRow {
        at: (state.clock)(),
        role: caller.role,
        client: Some(caller.address),
        what,
        outcome,
        untold: 0,
    };
    state.audit.add(row).await;
}

fn check(
    keys: &Keys,
    need: Option<Role>,
    shown: Option<Role>,
    has_key: bool,
) -> Result<(), Problem> {
    let Some(need) = need.filter(|need| keys.asks_for(*need)) else {
        return Ok(());
    };
    match shown {
        Some(role) if role == need || role == Role::Admin => Ok(()),
        Some(_) => Err(Problem::forbidden(format!(
            "the key is known, but this wants the {}",
            need.setting()
        ))),
        None if has_key => Err(Problem::unauthorized(format!(
            "the key that was sent is unknown; this wants the {}",
            need.setting()
        ))),
        None => Err(Problem::unauthorized(format!(
            "this wants the {} as `Authorization: Bearer KEY`",
            need.setting()
        ))),
    }
}

/// Where the admin token is not asked for, whoever reaches the address may do everything, and so might a page whose name
/// was made to lead to this machine after it was loaded (DNS rebinding): a browser takes both for one origin. Such a
/// page still names itself in `Host`, so names of the network are refused there.
fn check_name(keys: &Keys, need: Option<Role>, headers: &HeaderMap) -> Result<(), Problem> {
    if need != Some(Role::Admin) || keys.asks_for(Role::Admin) {
        return Ok(());
    }
    let Some(host) = headers.get(header::HOST) else {
        return Ok(()); // no browser leaves it out
    };
    let host = host.to_str().unwrap_or_default(); // no text is no address
    if is_of_this_machine(host) {
        return Ok(());
    }
    Err(Problem::forbidden(format!(
        "without access.admin_token this is answered at addresses and localhost alone, not at {host:?}"
    )))
}

/// Whether `host`, with or without a port, is an address or `localhost`, which no name server can lead elsewhere.
fn is_of_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.to_ascii_lowercase();
    let bracketed = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    name == "localhost"
        || name.ends_with(".localhost")
        || bracketed.unwrap_or(&name).parse::<IpAddr>().is_ok()
}

/// The role of the key that a request shows. In a URL, which others may read, only the ingest key counts, and only where
/// it is wanted.
fn shown_role(keys: &Keys, need: Option<Role>, headers: &HeaderMap, uri: &Uri) -> Option<Role> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?; // no text: no key of ours
        let key = key.trim();
        return scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| keys.role_of(key))?;
    }
    if need != Some(Role::Ingest) {
        return None;
    }
    let mut pairs = uri.query()?.split('&');
    let key = pairs.find_map(|pair| pair.strip_prefix("key="))?;
    let role = keys.role_of(key);
    role.filter(|role| *role == Role::Ingest)
}

/// The nearest address that is no trusted proxy. What stands before it in the header was written by someone unknown.
fn client_address(peer: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    let mut client = peer.to_canonical();
    let lists = headers.get_all("x-forwarded-for").into_iter().rev();
    let lists = lists.map(|list| list.to_str().unwrap_or_default()); // no text names nobody
    let named = lists.flat_map(|list| list.rsplit(','));
    for name in named.take(FORWARDED_MAX) {
        if !is_trusted(client) {
            break;
        }
        let Ok(address) = name.trim().parse::<IpAddr>() else {
            break;
        };
        client = address.to_canonical();
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&'static str], proxies: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for list in forwarded {
            headers.append("x-forwarded-for", header::HeaderValue::from_static(list));
        }
        let proxies: Vec<Network> = proxies
            .iter()
            .map(|proxy| serde_json::from_value((*proxy).into()).expect("a network"))
            .collect();
        client_address(peer.parse().expect("an address"), &headers, &proxies).to_string()
    }

    #[test]
    fn only_addresses_and_localhost_are_of_this_machine() {
        for host in [
            "127.0.0.1:7879",
            "127.0.0.1",
            "[::1]:7879",
            "[::1]",
            "localhost:7879",
            "LOCALHOST",
            "shop.localhost:1",
        ] {
            assert!(is_of_this_machine(host), "{host}");
        }
        for host in [
            "",
            "evil.example:7879",
            "127.0.0.1.evil.example",
            "localhost.evil.example:7879",
            "notlocalhost",
            "127.0.0.1:x.evil",
        ] {
            assert!(!is_of_this_machine(host), "{host}");
        }
    }

    #[test]
    fn who_the_client_is_is_believed_of_trusted_proxies_alone() {
        assert_eq!(client("10.0.0.1", &["1.1.1.1"], &[]), "10.0.0.1");
        let proxies = ["10.0.0.0/8", "::1"];
        assert_eq!(client("10.0.0.1", &[], &proxies), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["1.1.1.1"], &proxies), "1.1.1.1");
        // The client made up the first; the proxy nearest to it added the second.
        let two = ["6.6.6.6, 1.1.1.1", "10.0.0.2"];
        assert_eq!(client("::1", &two, &proxies), "1.1.1.1");
        assert_eq!(
            client("::ffff:10.0.0.1", &["2001:db8::7"], &proxies),
            "2001:db8::7"
        );
        assert_eq!(
            client("10.0.0.1", &["1.1.1.1, unknown"], &proxies),
            "10.0.0.1"
        );
        assert_eq!(client("9.9.9.9", &["1.1.1.1"], &proxies), "9.9.9.9");
    }
}
