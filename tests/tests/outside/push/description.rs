//! The description of the calls says what is served: bodies are made from it, good ones and bad ones.

use meepo_tests::{Node, http};
use serde_json::{Map, Value, json};

use super::{body_of, guest};

#[tokio::test]
async fn the_description_says_what_is_served() {
    let node = Node::test()
        .set("worker", "push = { address = \"{ip}:19908\", token = \"first\" }")
        .start()
        .await;
    let push = node.host().push();
    let (_ann, id) = guest(node.host().ws()).await;
    let head = format!("host: {push}\r\nconnection: close\r\nauthorization: Bearer first\r\n\r\n");
    let response = http::request(push, &format!("GET /api/openapi.json HTTP/1.1\r\n{head}")).await;
    let whole = body_of(&response.expect("an answer"));
    assert_eq!(whole["openapi"], "3.1.0");
    let description = Description {
        whole: &whole,
        client: id,
    };
    let paths = whole["paths"].as_object().expect("there are paths");
    assert_eq!(paths.len(), 15);
    for (path, item) in paths {
        let call = &item["post"];
        let schema = &call["requestBody"]["content"]["application/json"]["schema"];
        for good in description.good(schema) {
            let response = http::post(push, path, "first", &good.to_string()).await;
            assert_eq!(response.status, 200, "{path} {good}: {response:?}");
            let reply = &call["responses"]["200"]["content"]["application/json"]["schema"];
            description.check(reply, &body_of(&response), path);
        }
        for (bad, field) in description.bad(schema) {
            let response = http::post(push, path, "first", &bad.to_string()).await;
            assert_eq!(response.status, 400, "{path} {bad}: {response:?}");
            let problem = body_of(&response);
            let named = problem["field"].as_str().unwrap_or_default();
            assert!(named.starts_with(&field), "{path} {bad}: {problem}");
            let schema = &call["responses"]["400"]["content"]["application/problem+json"]["schema"];
            description.check(schema, &problem, path);
        }
    }
}

struct Description<'a> {
    whole: &'a Value,
    /// A client that is there.
    client: String,
}

impl<'a> Description<'a> {
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(to) => self
                .whole
                .pointer(to.trim_start_matches('#'))
                .expect("references lead somewhere"),
            None => schema,
        }
    }

    /// Good bodies: for each alternative one with only what is required, and one with all that it allows.
    fn good(&self, schema: &'a Value) -> Vec<Value> {
        let schema = self.resolve(schema);
        match schema["type"].as_str() {
            Some("boolean") => vec![json!(true)],
            Some("integer") => vec![json!(4000)],
            Some("string") => vec![self.text(schema)],
            Some("array") => {
                let items = self.good(&schema["items"]);
                match schema["minItems"].as_u64() {
                    Some(1) => vec![json!([items[0]])],
                    _ => vec![json!([]), json!([items[0]])],
                }
            }
            Some("object") if schema["properties"].is_object() => self.good_objects(schema),
            Some("object") if schema["additionalProperties"]["type"] == "string" => vec![json!({}), json!({"k": "v"})],
            Some("object") => vec![json!({})],
            kind => panic!("a body of type {kind:?}: {schema}"),
        }
    }

    fn text(&self, schema: &Value) -> Value {
        match schema["pattern"].as_str() {
            Some(_) if schema["contentEncoding"] == "base64" => json!("aGk="),
            Some(_) => json!(self.client),
            None => json!("text"),
        }
    }

    fn good_objects(&self, schema: &'a Value) -> Vec<Value> {
        let properties = schema["properties"].as_object().expect("there are some");
        let required = texts(&schema["required"]);
        let alternatives = schema["oneOf"]
            .as_array()
            .cloned()
            .unwrap_or_else(|| vec![json!({"required": []})]);
        let exclusive = exclusive(schema);
        let mut good = Vec::new();
        for alternative in &alternatives {
            let chosen = texts(&alternative["required"]);
            let needed = |name: &String| required.contains(name) || chosen.contains(name);
            let value = |name: &str| self.good(&properties[name]);
            let least: Map<String, Value> = properties
                .keys()
                .filter(|name| needed(name))
                .map(|name| (name.clone(), value(name)[0].clone()))
                .collect();
            // Each field beside these, in each form that it can have.
            for name in properties
                .keys()
                .filter(|name| !exclusive.contains(name) || chosen.contains(name))
            {
                for one in value(name) {
                    let mut more = least.clone();
                    more.insert(name.clone(), one);
                    if name == "confirm" {
                        more.insert("to".into(), json!({"clients": [self.client]}));
                    }
                    good.push(Value::Object(more));
                }
            }
            good.push(Value::Object(least));
        }
        good
    }

    /// Bad bodies, each with the field that is wrong.
    fn bad(&self, schema: &'a Value) -> Vec<(Value, String)> {
        let schema = self.resolve(schema);
        let good = self.good(schema).pop().expect("there is a good one");
        let good = good.as_object().expect("a body is an object");
        let exclusive = exclusive(schema);
        let with = |name: &str, value: Value| {
            let mut body = good.clone();
            if exclusive.iter().any(|other| other == name) {
                body.retain(|other, _| !exclusive.contains(other));
            }
            body.insert(name.into(), value);
            Value::Object(body)
        };
        let mut bad = vec![
            (json!([]), String::new()),
            (json!("x"), String::new()),
            (Value::Null, String::new()),
        ];
        bad.push((with("unknown", json!(1)), "unknown".into()));
        for name in texts(&schema["required"]) {
            let mut body = good.clone();
            body.remove(&name);
            bad.push((Value::Object(body), name));
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let property = self.resolve(property);
            let mut wrong = vec![Value::Null, json!(3.5)];
            let kind = property["type"].as_str().unwrap_or_default();
            wrong.push(if kind == "string" { json!(true) } else { json!("text") });
            wrong.extend(property["pattern"].is_string().then(|| json!("?")));
            wrong.extend(property["minLength"].is_u64().then(|| json!("")));
            wrong.extend(
                property["maxLength"]
                    .as_u64()
                    .map(|most| json!("x".repeat(most as usize + 1))),
            );
            wrong.extend(property["minItems"].is_u64().then(|| json!([])));
            wrong.extend(property["anyOf"].is_array().then(|| json!(1005)));
            if kind == "array" {
                wrong.push(json!([1]));
                wrong.extend(property["items"]["pattern"].is_string().then(|| json!(["?"])));
                wrong.extend(property["items"]["minLength"].is_u64().then(|| json!([""])));
                let most = property["maxItems"].as_u64().expect("lists are bounded") as usize;
                wrong.push(json!(vec![self.good(&property["items"])[0].clone(); most + 1]));
            }
            if kind == "object" && !property["properties"].is_object() {
                wrong.push(json!({"k": 1}));
            }
            bad.extend(wrong.into_iter().map(|value| (with(name, value), name.clone())));
            if property["properties"].is_object() {
                let below = self.bad(property).into_iter();
                bad.extend(below.map(|(value, field)| {
                    let field = if field.is_empty() {
                        name.clone()
                    } else {
                        format!("{name}.{field}")
                    };
                    (with(name, value), field)
                }));
            }
        }
        if !exclusive.is_empty() {
            // None of them, and all of them.
            let mut none = good.clone();
            none.retain(|name, _| !exclusive.contains(name));
            let mut all = none.clone();
            for name in &exclusive {
                let value = self.good(&schema["properties"][name.as_str()])[0].clone();
                all.insert(name.clone(), value);
            }
            bad.push((Value::Object(none), String::new()));
            bad.push((Value::Object(all), String::new()));
        }
        bad
    }

    /// Whether an answer is as it is described.
    fn check(&self, schema: &'a Value, value: &Value, at: &str) {
        let schema = self.resolve(schema);
        let kinds = match &schema["type"] {
            Value::String(kind) => vec![kind.clone()],
            kinds => texts(kinds),
        };
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let variants = schema["oneOf"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| &one["const"]);
        let is_variant = variants
            .chain(schema["enum"].as_array().into_iter().flatten())
            .any(|one| one == value);
        assert!(
            kinds.iter().any(|name| name == kind) || is_variant,
            "{at}: {value} is not {schema}"
        );
        for item in value.as_array().into_iter().flatten() {
            self.check(&schema["items"], item, at);
        }
        for name in texts(&schema["required"]) {
            assert!(value.get(&name).is_some(), "{at}: {name} is not in {value}");
        }
        for (name, below) in value.as_object().into_iter().flatten() {
            let named = &schema["properties"][name.as_str()];
            let schema = if named.is_null() {
                &schema["additionalProperties"]
            } else {
                named
            };
            assert!(schema.is_object(), "{at}: {name} is not described");
            self.check(schema, below, &format!("{at} {name}"));
        }
    }
}

/// Fields of which there is to be exactly one.
fn exclusive(schema: &Value) -> Vec<String> {
    let alternatives = schema["oneOf"].as_array().into_iter().flatten();
    alternatives.flat_map(|one| texts(&one["required"])).collect()
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|text| text.as_str().map(ToOwned::to_owned)).collect()
}
