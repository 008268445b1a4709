//! The handler: sends each text that comes over the API to all pages, over their WebSockets.
//!
//! A person's name is in a cookie, so any worker can answer the next request.

use meepo_worker::{Client, Handler, Message, Request, Response, Result};
use serde::{Deserialize, Serialize};

const MAX_NAME: usize = 24;
const MAX_TEXT: usize = 500;

pub(crate) struct Talk;

#[derive(Serialize)]
struct Online {
    online: u64,
    /// All gateways have replied.
    complete: bool,
}

#[derive(Serialize, Deserialize)]
struct Me {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Say {
    text: String,
}

#[derive(Serialize)]
struct Said<'a> {
    name: &'a str,
    text: &'a str,
}

#[derive(Serialize)]
struct Complaint<'a> {
    error: &'a str,
}

impl Handler for Talk {
    async fn on_message(&self, client: &Client, _message: Message) -> Result<()> {
        client.send(serde_json::to_string(&Complaint {
            error: "say it over the API: POST /api/says",
        })?);
        Ok(())
    }

    async fn on_request(&self, request: Request) -> Result<Response> {
        let response = match (request.method(), request.path()) {
            ("GET" | "HEAD", "/api/online") => online(&request).await,
            ("GET" | "HEAD", "/api/me") => me(&request),
            ("PUT", "/api/me") => sign_in(&request),
            ("DELETE", "/api/me") => Response::new(204).with_header("set-cookie", cookie("", 0)),
            ("POST", "/api/says") => say(&request)?,
            (_, "/api/online") => not_allowed("GET, HEAD"),
            (_, "/api/me") => not_allowed("GET, HEAD, PUT, DELETE"),
            (_, "/api/says") => not_allowed("POST"),
            _ => complaint(404, "there is no such thing here"),
        };
        Ok(response.with_header("cache-control", "no-store"))
    }
}

async fn online(request: &Request) -> Response {
    let counted = request.cluster().count().await;
    Response::json(&Online {
        online: counted.value,
        complete: counted.is_complete(),
    })
}

fn me(request: &Request) -> Response {
    let name = request.cookie("name").filter(|name| is_name(name));
    Response::json(&Me {
        name: name.map(Into::into),
    })
}

fn sign_in(request: &Request) -> Response {
    match request.json() {
        Ok(Me { name: Some(name) }) if is_name(&name) => {
            const DAY: u32 = 24 * 60 * 60;
            Response::new(204).with_header("set-cookie", cookie(&name, DAY))
        }
        _ => complaint(400, "a name has 1 to 24 letters and digits"),
    }
}

fn say(request: &Request) -> Result<Response> {
    let Some(name) = request.cookie("name").filter(|name| is_name(name)) else {
        return Ok(complaint(401, "say who you are first: PUT /api/me"));
    };
    let said = request.json().map(|Say { text }| text.trim().to_owned());
    let Ok(text) = said.as_deref() else {
        return Ok(complaint(400, "this is not JSON with a `text`"));
    };
    if !(1..=MAX_TEXT).contains(&text.chars().count()) {
        return Ok(complaint(400, "a text has 1 to 500 characters"));
    }
    let said = serde_json::to_string(&Said { name, text })?;
    request.cluster().all().send(said);
    Ok(Response::new(202))
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn cookie(name: &str, seconds: u32) -> String {
    format!("name={name}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict")
}

fn not_allowed(methods: &str) -> Response {
    complaint(405, "this cannot be done here").with_header("allow", methods)
}

fn complaint(status: u16, error: &str) -> Response {
    Response::json(&Complaint { error }).with_status(status)
}
