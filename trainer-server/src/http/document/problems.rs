//! What all routes share in the document: problems by status, and keys.

use serde_json::{Map, Value, json};

use crate::access::Role;

/// Name of the answer with a status, and when it is given.
pub(super) fn problem(status: u16) -> (&'static str, &'static str) {
    match status {
        400 => (
            "BadRequest",
            "The body or the query is not what was expected.",
        ),
        401 => (
            "Unauthorized",
            "A key is wanted: none was shown, or one that is not known.",
        ),
        403 => (
            "Forbidden",
            "The key is known, but another is wanted; or no admin token is set, and the request was sent to a name that is not localhost.",
        ),
        404 => ("NotFound", "There is nothing of this name, or not yet."),
        408 => ("Timeout", "The body came too slowly."),
        409 => (
            "Conflict",
            "The order does not fit the state of the server.",
        ),
        413 => (
            "TooLarge",
            "The body, or a list in it, is larger than allowed.",
        ),
        415 => (
            "UnsupportedMediaType",
            "The body is of another type or encoding than those listed.",
        ),
        416 => (
            "RangeNotSatisfiable",
            "The range begins behind the last byte.",
        ),
        422 => (
            "InvalidRequest",
            "A field has a value that is not allowed; `errors` points at it.",
        ),
        429 => (
            "TooManyRequests",
            "The client, or all senders with its key, are beyond a limit of `[limits]`.",
        ),
        500 => ("Internal", "The server failed; its log says why."),
        503 => (
            "Unavailable",
            "Overloaded, stopping or not ready: send again later.",
        ),
        507 => (
            "StorageFull",
            "The disk is full and nothing was stored: send again later.",
        ),
        _ => unreachable!("no route answers {status} with a problem"),
    }
}

/// Problems by the names of their answers.
pub(super) fn answers() -> Map<String, Value> {
    let statuses = [
        400, 401, 403, 404, 408, 409, 413, 415, 416, 422, 429, 500, 503, 507,
    ];
    let answer = |status| {
        let (name, description) = problem(status);
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        let content = json!({ "application/problem+json": { "schema": schema } });
        let answer =
            json!({ "description": description, "headers": headers(status), "content": content });
        (name.to_owned(), answer)
    };
    statuses.into_iter().map(answer).collect()
}

fn headers(status: u16) -> Value {
    let seconds = |is_required| json!({ "description": "Seconds.", "required": is_required, "schema": { "type": "integer", "minimum": 0 } });
    let text = |description| json!({ "description": description, "required": true, "schema": { "type": "string" } });
    match status {
        401 => json!({ "WWW-Authenticate": text("`Bearer realm=\"freshet\"`") }),
        404 => json!({ "Retry-After": seconds(false) }),
        429 => json!({
            "Retry-After": seconds(true),
            "RateLimit-Policy": text("Name of the limit, what is allowed at once (`q`) and in how many seconds as much comes back (`w`): `\"client-requests\";q=10000;w=10`."),
            "RateLimit": text("What is left (`r`) and seconds until there is more (`t`): `\"client-requests\";r=0;t=1`."),
        }),
        503 | 507 => json!({ "Retry-After": seconds(true) }),
        _ => json!({}),
    }
}

/// Keys with which a route answers that wants `needed`.
pub(super) fn security(needed: Option<Role>) -> Value {
    match needed {
        None => json!([]),
        Some(Role::Ingest) => {
            json!([{ "ingestKey": [] }, { "ingestKeyInUrl": [] }, { "adminToken": [] }])
        }
        Some(Role::Read) => json!([{ "readKey": [] }, { "adminToken": [] }]),
        Some(Role::Admin) => json!([{ "adminToken": [] }]),
    }
}

pub(super) fn security_schemes() -> Value {
    let bearer =
        |description| json!({ "type": "http", "scheme": "bearer", "description": description });
    json!({
        "ingestKey": bearer("`access.ingest_key`, publishable: posts events and reports, reads nothing. No key is asked for where it is not set; so for the others."),
        "ingestKeyInUrl": {
            "type": "apiKey", "in": "query", "name": "key",
            "description": "The same in the URL, for beacons, which have no headers.",
        },
        "readKey": bearer("`access.read_key`"),
        "adminToken": bearer("`access.admin_token`: everything."),
    })
}
