//! The document of the API (OpenAPI 3.1), made while the routes are added.
//!
//! Each module adds its routes to an [`Api`] with what they take and answer. Shapes come from the types that are read and
//! written, and their words from doc comments; which key a route wants is asked of `guard`. `docs/openapi` holds what comes
//! of it, and a test holds that to this. Not here: words about single routes (their modules).

mod problems;
mod shapes;

use std::collections::BTreeMap;

use axum::Router;
use axum::http::{Method, header};
use axum::routing::{MethodRouter, get};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::{AppState, guard};
use problems::{answers, problem, security, security_schemes};

const JSON: &str = "application/json";
const DESCRIPTION: &str = "A recommender that keeps learning on a server and ranks on the visitor's own device. \
    Every error is an RFC 9457 problem document. In a body, a field that is null counts as absent, and fields that are \
    not listed are left alone unless their object allows none.";

/// Which address of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Address {
    /// `server.bind` beside an admin address.
    Public,
    /// `server.bind` where there is no other.
    Only,
    /// `server.admin_bind`.
    Admin,
}

/// The routes of an address and what is said of them.
pub(super) struct Api {
    address: Address,
    router: Router<AppState>,
    /// By path and method.
    paths: BTreeMap<&'static str, Map<String, Value>>,
    bodies: SchemaGenerator,
    answers: SchemaGenerator,
}

/// What is said of a method of a route.
pub(super) struct Operation<'a> {
    about: &'a mut Map<String, Value>,
    bodies: &'a mut SchemaGenerator,
    answers: &'a mut SchemaGenerator,
}

impl Api {
    pub(super) fn new(address: Address) -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = shapes::PLACE.trim_start_matches('#').to_owned().into();
            settings.meta_schema = None;
        });
        Self {
            address,
            router: Router::new(),
            paths: BTreeMap::new(),
            bodies: settings.clone().for_deserialize().into_generator(),
            answers: settings.for_serialize().into_generator(),
        }
    }

    /// Adds a route that answers `method`.
    pub(super) fn add(
        &mut self,
        method: Method,
        path: &'static str,
        handler: MethodRouter<AppState>,
    ) -> Operation<'_> {
        self.router = std::mem::take(&mut self.router).route(path, handler);
        self.describe(method, path)
    }

    fn describe(&mut self, method: Method, path: &'static str) -> Operation<'_> {
        let needed = guard::needed(self.address, path);
        let name = method.as_str().to_lowercase();
        let methods = self.paths.entry(path).or_default();
        let about = methods.entry(name).or_insert_with(|| json!({}));
        let about = about.as_object_mut().expect("made an object above");
        about.insert("security".to_owned(), security(needed));
        let operation = Operation {
            about,
            bodies: &mut self.bodies,
            answers: &mut self.answers,
        };
        let refusals: &[u16] = match needed {
            Some(_) => &[401, 403, 429],
            None if guard::is_health(path) => &[],
            None => &[429],
        };
        operation.problems(refusals)
    }

    /// The routes, with the one of the document itself, and the document.
    pub(super) fn finish(mut self) -> (Router<AppState>, Value) {
        self.describe(Method::GET, "/openapi.json")
            .named("getOpenApi", "This document")
            .json::<Map<String, Value>>("OpenAPI 3.1.");
        self.answers.subschema_for::<Problem>();
        let mut read = shapes::definitions(&mut self.bodies);
        shapes::allow_null(&mut read);
        let answered = shapes::definitions(&mut self.answers);
        let mut paths = json!(self.paths);
        shapes::tidy(&mut paths);
        let all = shapes::joined(read, answered, &mut paths);
        let document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Freshet",
                "version": env!("CARGO_PKG_VERSION"),
                "description": DESCRIPTION,
                "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
            },
            "servers": [{ "url": "/" }],
            "components": {
                "schemas": all,
                "responses": answers(),
                "securitySchemes": security_schemes(),
            },
            "paths": paths,
        });
        let text = axum::body::Bytes::from(document.to_string());
        let answer = move || async move { ([(header::CONTENT_TYPE, JSON)], text) };
        (self.router.route("/openapi.json", get(answer)), document)
    }
}

impl Operation<'_> {
    /// Its id, for clients that are generated, and what it is in a few words.
    pub(super) fn named(self, id: &str, summary: &str) -> Self {
        self.about.insert("operationId".to_owned(), id.into());
        self.about.insert("summary".to_owned(), summary.into());
        self
    }

    pub(super) fn about(self, description: &str) -> Self {
        self.about
            .insert("description".to_owned(), description.into());
        self
    }

    /// A part of the path.
    pub(super) fn path<T: JsonSchema>(
        self,
        name: &str,
        description: &str,
        example: impl Into<Value>,
    ) -> Self {
        let example = example.into();
        let schema = self.bodies.subschema_for::<T>();
        self.parameter(json!({
            "name": name, "in": "path", "required": true, "description": description,
            "schema": schema, "example": example,
        }))
    }

    /// What is to be known of the body besides.
    pub(super) fn body_words(self, words: &str) -> Self {
        let description = &mut self.about["requestBody"]["description"];
        let before = description
            .as_str()
            .map_or(String::new(), |before| format!("{before} "));
        *description = format!("{before}{words}").into();
        self
    }

    /// A header that changes the answer.
    pub(super) fn header(self, name: &str, description: &str, schema: Value) -> Self {
        self.parameter(
            json!({ "name": name, "in": "header", "description": description, "schema": schema }),
        )
    }

    /// The fields of `Q` behind the `?`.
    pub(super) fn query<Q: JsonSchema>(mut self) -> Self {
        let shape = Q::json_schema(self.bodies).to_value();
        let required = shape["required"].as_array().cloned().unwrap_or_default(); // none is none
        for (name, schema) in shape["properties"].as_object().into_iter().flatten() {
            let mut schema = schema.clone();
            let description = schema
                .as_object_mut()
                .and_then(|field| field.remove("description"));
            if let Some(kinds) = schema["type"].as_array_mut() {
                kinds.retain(|kind| kind != "null"); // a query has no null
                schema["type"] = kinds[0].clone();
            }
            self = self.parameter(json!({
                "name": name, "in": "query", "required": required.contains(&json!(name)),
                "description": description, "schema": schema,
            }));
        }
        self.problems(&[400])
    }

    fn parameter(self, parameter: Value) -> Self {
        let parameters = self.about.entry("parameters").or_insert_with(|| json!([]));
        parameters
            .as_array_mut()
            .expect("made a list above")
            .push(parameter);
        self
    }

    /// A body of JSON; pages may call it `text/plain`.
    pub(super) fn json_body<T: JsonSchema>(self, example: Value) -> Self {
        let schema = self.bodies.subschema_for::<T>();
        self.strict_body::<T>(example)
            .body("text/plain", json!({ "schema": schema }))
            .body_words("`text/plain` holds the same JSON, for `navigator.sendBeacon`: no preflight request is needed.")
    }

    /// A body of JSON that must be called so.
    pub(super) fn strict_body<T: JsonSchema>(self, example: Value) -> Self {
        let schema = self.bodies.subschema_for::<T>();
        self.body(JSON, json!({ "schema": schema, "example": example }))
    }

    /// A body that is no JSON document.
    pub(super) fn text_body(self, content_type: &str, description: &str) -> Self {
        let schema = json!({ "type": "string", "description": description });
        self.body(content_type, json!({ "schema": schema }))
    }

    fn body(self, content_type: &str, content: Value) -> Self {
        let body = self.about.entry("requestBody");
        let body = body.or_insert_with(|| json!({ "required": true, "content": {} }));
        body["content"][content_type] = content;
        self.problems(&[400, 408, 413, 415, 503])
    }

    /// The answer 200 in JSON.
    pub(super) fn json<T: JsonSchema>(self, description: &str) -> Self {
        let schema = self.answers.subschema_for::<T>().to_value();
        self.answer(200, description, Some((JSON, schema)))
    }

    /// The answer 200 in another type.
    pub(super) fn text(self, content_type: &str, description: &str) -> Self {
        self.answer(
            200,
            description,
            Some((content_type, json!({ "type": "string" }))),
        )
    }

    /// The answer 200 as a stream of server-sent events: of one name, with the shape of their data, and of another without
    /// ids, whose data is a revision.
    pub(super) fn events<T: JsonSchema>(
        self,
        name: &str,
        revised: &str,
        description: &str,
    ) -> Self {
        let shape = self.answers.subschema_for::<T>();
        let event = json!({
            "type": "object", "description": "One event.", "required": ["event", "data"],
            "anyOf": [
                {
                    "required": ["id"],
                    "properties": {
                        "event": { "const": name },
                        "id": { "type": "string" },
                        "data": { "type": "string", "contentMediaType": JSON, "contentSchema": shape },
                    },
                },
                {
                    "properties": {
                        "event": { "const": revised },
                        "data": { "type": "string", "pattern": "^[0-9]+$" },
                    },
                },
            ],
        });
        self.answer(200, description, Some(("text/event-stream", event)))
    }

    /// Where a part of the answer 200 leads: the value at `pointer` is `parameter` of another operation.
    pub(super) fn link(self, operation_id: &str, parameter: &str, pointer: &str) -> Self {
        let value = format!("$response.body#{pointer}");
        let link = json!({ "operationId": operation_id, "parameters": { parameter: value } });
        responses(self.about)["200"]["links"][operation_id] = link;
        self
    }

    /// An answer in a type, with the shape of its content, or without content.
    pub(super) fn answer(
        self,
        status: u16,
        description: &str,
        content: Option<(&str, Value)>,
    ) -> Self {
        let answer = responses(self.about).entry(status.to_string());
        let answer = answer.or_insert_with(|| json!({ "description": description }));
        if let Some((content_type, schema)) = content {
            let essence = content_type.split(';').next().unwrap_or_default(); // there is always a first
            answer["content"][essence] = json!({ "schema": schema });
        }
        self
    }

    /// Statuses with a problem document.
    pub(super) fn problems(self, statuses: &[u16]) -> Self {
        for status in statuses {
            let (name, _) = problem(*status);
            let reference = json!({ "$ref": format!("#/components/responses/{name}") });
            responses(self.about).insert(status.to_string(), reference);
        }
        self
    }
}

fn responses(about: &mut Map<String, Value>) -> &mut Map<String, Value> {
    let responses = about.entry("responses").or_insert_with(|| json!({}));
    responses.as_object_mut().expect("made an object above")
}
