//! Claims about the document of the API: it is the one that is kept, and what routes answer is what it says.

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use shared_model::manifest::VersionKind;
use trainer_server::http::{Address, document};

use crate::harness::{TestServer, new_version};

/// Paths of an address with their methods, in lower case.
pub(crate) fn routes(address: Address) -> Vec<(String, Vec<String>)> {
    let document = document(address);
    let paths = document["paths"].as_object().expect("an object");
    let methods = |about: &Value| {
        about
            .as_object()
            .into_iter()
            .flatten()
            .map(|(method, _)| method.clone())
            .collect()
    };
    paths
        .iter()
        .map(|(path, about)| (path.clone(), methods(about)))
        .collect()
}

async fn start(dir: &Path) -> TestServer {
    let server = TestServer::with_items(dir).await;
    server
        .publisher
        .publish(new_version(VersionKind::Release, 1))
        .expect("published");
    server
}

/// Both addresses as the stand-in of the tests has them, with their documents.
fn addresses(server: &TestServer) -> [(&str, Value); 2] {
    [
        (&server.url, document(Address::Only)),
        (&server.admin_url, document(Address::Admin)),
    ]
}

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object().into_iter().flatten();
        methods.map(move |(method, about)| (path.as_str(), method.as_str(), about))
    })
}

#[test]
fn the_documents_that_are_kept_are_those_of_the_routes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi");
    for (name, address) in [("public", Address::Public), ("admin", Address::Admin)] {
        let path = folder.join(format!("{name}.json"));
        let kept = std::fs::read_to_string(&path).expect("read");
        let kept: Value = serde_json::from_str(&kept).expect("JSON");
        assert!(
            kept == document(address),
            "the API has changed: freshet openapi --address {name} > docs/openapi/{name}.json"
        );
    }
}

#[tokio::test]
async fn each_address_serves_its_own_document() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    for (url, expected) in addresses(&server) {
        let answer = server
            .client
            .get(format!("{url}/openapi.json"))
            .send()
            .await
            .expect("an answer");
        let served: Value = answer.json().await.expect("JSON");
        assert!(served == expected, "{url}");
    }
}

#[tokio::test]
async fn what_routes_answer_is_what_the_document_says() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = start(dir.path()).await;
    for (url, document) in addresses(&server) {
        let mut statuses = BTreeSet::new();
        for (path, method, about) in operations(&document) {
            for is_sound in [true, false] {
                let answer = ask(&server, url, (path, method, about), is_sound).await;
                statuses.insert(answer.status().as_u16());
                let what = format!("{method} {path}, sound: {is_sound}");
                check(&document, about, answer, &what).await;
            }
        }
        assert!(
            statuses.contains(&200) && statuses.contains(&400),
            "{statuses:?}"
        );
    }
}

#[tokio::test]
async fn other_methods_are_405_and_the_answer_names_those_there_are() {
    let dir = tempfile::tempdir().expect("temp dir");
    let server = TestServer::start(dir.path(), &[]).await;
    for (url, address) in [
        (&server.url, Address::Only),
        (&server.admin_url, Address::Admin),
    ] {
        for (path, methods) in routes(address) {
            let url = format!("{url}{}", path.replace(['{', '}'], ""));
            let answer = server
                .client
                .request(Method::TRACE, url)
                .send()
                .await
                .expect("an answer");
            assert_eq!(answer.status(), 405, "{path}");
            let allow = answer.headers()["allow"]
                .to_str()
                .expect("text")
                .to_lowercase();
            let mut allowed: Vec<_> = allow.split(',').map(str::trim).collect();
            allowed.retain(|method| *method != "head");
            allowed.sort_unstable();
            assert_eq!(allowed, methods, "{path}");
        }
    }
}

/// A request as the examples of the document show it, or one with values that nothing expects.
async fn ask(
    server: &TestServer,
    url: &str,
    (path, method, about): (&str, &str, &Value),
    is_sound: bool,
) -> Response {
    let (mut path, mut query) = (path.to_owned(), Vec::new());
    for parameter in about["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().expect("a name");
        match parameter["in"].as_str() {
            Some("path") => {
                path = path.replace(
                    &format!("{{{name}}}"),
                    parameter["example"].to_string().trim_matches('"'),
                )
            }
            Some("query") if !is_sound || parameter["required"] == true => {
                query.push(format!("{name}={}", if is_sound { "1" } else { "%01" }));
            }
            _ => {}
        }
    }
    let method = method.to_uppercase().parse().expect("a method");
    let mut request = server
        .client
        .request(method, format!("{url}{path}?{}", query.join("&")));
    let content = about["requestBody"]["content"].as_object();
    if let Some((content_type, body)) = content.into_iter().flatten().next() {
        let body = if is_sound {
            body["example"].to_string()
        } else {
            "[".to_owned()
        };
        request = request.header("content-type", content_type).body(body);
    }
    request.send().await.expect("an answer")
}

async fn check(document: &Value, about: &Value, answer: Response, what: &str) {
    let (status, url) = (answer.status().as_u16(), answer.url().to_string());
    let expected = resolved(document, &about["responses"][status.to_string()]);
    assert!(expected.is_object(), "{what} {url}: {status}");
    let content_type = answer
        .headers()
        .get("content-type")
        .map(|found| found.to_str().expect("text").to_owned());
    let Some(content_type) = content_type else {
        assert!(
            expected.get("content").is_none(),
            "{what}: nothing was answered"
        );
        return;
    };
    let essence = content_type.split(';').next().unwrap_or_default();
    let content = &expected["content"][essence];
    assert!(content.is_object(), "{what}: {content_type} with {status}");
    if essence.ends_with("json") {
        let value: Value = answer.json().await.expect("JSON");
        if let Err(fault) = conforms(document, &content["schema"], &value) {
            panic!("{what}: {fault} in {value}");
        }
    }
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document
            .pointer(reference.trim_start_matches('#'))
            .expect("leads somewhere"),
        None => value,
    }
}

/// Holds types, fields and choices; patterns and bounds are left to Schemathesis.
fn conforms(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if schema.get("$ref").is_some() {
        conforms(document, resolved(document, schema), value)?;
    }
    for choices in ["anyOf", "oneOf"] {
        if let Some(choices) = schema[choices].as_array() {
            let fits = choices
                .iter()
                .any(|choice| conforms(document, choice, value).is_ok());
            fits.then_some(())
                .ok_or(format!("{value} is none of {}", json!(choices)))?;
        }
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        conforms(document, part, value)?;
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.clone(),
        Value::Null => Vec::new(),
        kind => vec![kind.clone()],
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is_a(kind, value)) {
        return Err(format!("{value} is not of {}", json!(kinds)));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.is_object() && value.get(name.as_str().expect("a name")).is_none() {
            return Err(format!("{name} is missing"));
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            conforms(document, field, value).map_err(|fault| format!("{name}: {fault}"))?;
        }
    }
    for element in value.as_array().into_iter().flatten() {
        conforms(document, &schema["items"], element)?;
    }
    Ok(())
}

fn is_a(kind: &Value, value: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => value.is_null(),
    }
}
