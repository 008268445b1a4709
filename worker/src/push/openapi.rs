//! The description of the calls over HTTP, as OpenAPI 3.1, made from the types that are read and written.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::calls::Call;
use super::problem::{Problem, ProblemKind};

/// Where schemas stand in the description.
const SCHEMAS: &str = "/components/schemas";

/// Collects the schemas that the calls name.
pub(super) struct Described {
    requests: SchemaGenerator,
    replies: SchemaGenerator,
}

impl Described {
    /// The description of a call.
    pub(super) fn call<C: Call>(&mut self) -> Value {
        let request = self.requests.subschema_for::<C>();
        let reply = self.replies.subschema_for::<C::Reply>();
        let problem = self.replies.subschema_for::<Problem>();
        let name = C::schema_name();
        let text = self
            .requests
            .definitions()
            .get(&*name)
            .and_then(|schema| schema["description"].as_str());
        let text = text.unwrap_or_default().to_owned();
        let mut responses = Map::new();
        let content = json!({"application/json": {"schema": reply}});
        responses.insert(
            "200".into(),
            json!({"description": "It is done, but for what the answer names.", "content": content}),
        );
        for kind in [
            ProblemKind::Invalid,
            ProblemKind::Unauthenticated,
            ProblemKind::Timeout,
            ProblemKind::TooLarge,
            ProblemKind::NotJson,
            ProblemKind::Unanswered,
        ] {
            let status = kind.status();
            let mut response = json!({
                "description": status.canonical_reason(),
                "content": {"application/problem+json": {"schema": problem}},
            });
            if kind == ProblemKind::Unauthenticated {
                response["headers"] = json!({"WWW-Authenticate": {"schema": {"type": "string"}}});
            }
            if kind == ProblemKind::Unanswered {
                response["headers"] = json!({"Retry-After": {"schema": {"type": "string"}}});
            }
            responses.insert(status.as_str().into(), response);
        }
        json!({"post": {
            "operationId": name.trim_end_matches("Request"),
            "description": text,
            "requestBody": {"required": true, "content": {"application/json": {"schema": request}}},
            "responses": responses,
        }})
    }
}

/// Describes a call.
pub(super) type Describe = fn(&mut Described) -> Value;

/// The description of all calls, each with its path.
pub(super) fn description(calls: impl IntoIterator<Item = (&'static str, Describe)>) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
    });
    let mut described = Described {
        requests: settings.clone().for_deserialize().into_generator(),
        replies: settings.for_serialize().into_generator(),
    };
    let calls = calls
        .into_iter()
        .map(|(path, describe)| (path.to_owned(), describe(&mut described)));
    let paths: Map<String, Value> = calls.collect();
    let mut schemas = described.requests.take_definitions(true);
    schemas.append(&mut described.replies.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Meepo push",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Pushes to the clients of a cluster, and asks about them.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::routes;

    #[test]
    fn every_reference_leads_somewhere_and_every_field_is_described() {
        let whole = description(routes::described());
        let mut references = Vec::new();
        collect(&whole, &mut references);
        assert!(!references.is_empty());
        for reference in references {
            let found = whole.pointer(reference.trim_start_matches('#'));
            assert!(found.is_some(), "{reference}");
        }
        let send = &whole["components"]["schemas"]["SendRequest"];
        assert_eq!(send["additionalProperties"], json!(false), "{send}");
        assert_eq!(send["required"], json!(["to"]), "{send}");
        assert_eq!(
            send["properties"]["binary"]["contentEncoding"],
            json!("base64"),
            "{send}"
        );
        assert!(
            send["description"]
                .as_str()
                .is_some_and(|text| text.contains("message"))
        );
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                references.extend(map.get("$ref").and_then(Value::as_str).map(ToOwned::to_owned));
                map.values().for_each(|value| collect(value, references));
            }
            Value::Array(list) => list.iter().for_each(|value| collect(value, references)),
            _ => {}
        }
    }
}
