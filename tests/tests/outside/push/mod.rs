//! Pushing from outside, over HTTP and gRPC.

mod description;
mod examples;
mod faults;
mod grpc;
mod http;
mod refusals;

use std::net::SocketAddr;

use meepo_proto::push as api;
use meepo_proto::push::push_client::PushClient;
use meepo_tests::Ws;
use meepo_tests::http::Response;
use serde_json::{Value, json};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

const SETTINGS: &str = "push = { address = \"{ip}:19908\", token = [\"first\", \"second\"] }";

async fn post(address: SocketAddr, path: &str, body: &Value) -> (u16, Value) {
    let response = meepo_tests::http::post(address, path, "first", &body.to_string()).await;
    (response.status, body_of(&response))
}

fn body_of(response: &Response) -> Value {
    serde_json::from_str(&response.body).unwrap_or_else(|error| panic!("{error} in {response:?}"))
}

/// Calls, and expects that it is done.
async fn done(address: SocketAddr, path: &str, body: Value) -> Value {
    let (status, answer) = post(address, path, &body).await;
    assert_eq!(status, 200, "{path} {body}: {answer}");
    answer
}

/// A command of which nothing is to be told.
async fn clean(address: SocketAddr, path: &str, body: Value) {
    let answer = done(address, path, body).await;
    assert_eq!(answer, json!({"gone": [], "refused": [], "missing": []}), "{path}");
}

/// A client that is connected, and its id.
async fn guest(address: SocketAddr) -> (Ws, String) {
    let mut socket = Ws::connect(address).await;
    let id = socket.ask("id").await;
    (socket, id)
}

async fn grpc(address: SocketAddr) -> PushClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    PushClient::new(endpoint.connect().await.expect("somebody listens"))
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("it is ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

/// A message with the right token.
fn ask<T>(message: T) -> Request<T> {
    with_token("second", message)
}

fn to(target: api::Target, text: &str) -> Request<api::SendRequest> {
    ask(api::SendRequest {
        to: Some(target),
        text: Some(text.into()),
        ..api::SendRequest::default()
    })
}
