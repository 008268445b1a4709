//! The trait that an application implements.

use crate::Result;
use crate::api::client::Client;
use crate::api::cluster::Cluster;
use crate::api::error::HandlerError;
use crate::api::event::close::CloseReason;
use crate::api::event::hello::{Hello, Reject};
use crate::api::event::last_words::LastWords;
use crate::api::event::message::Message;
use crate::api::request::Request;
use crate::api::response::Response;

/// The business logic of an application.
///
/// One value serves a worker child; a program has several children, on several machines, and any of them may get a
/// client's next event. So what has to outlive an event belongs in the client's session, in groups or in a store of the
/// application's, not in the handler.
///
/// Events of one client are handled one after the other, in order; events of several clients side by side. Methods are
/// written as a plain `async fn`. One that returns an error or panics is logged and counted, and its event is done;
/// [`on_error`](Self::on_error) can do more about it.
///
/// What blocks its thread (a long computation, a client of a database that is not async) holds up all clients of the
/// child, and its links with them: it belongs in `tokio::task::spawn_blocking`.
///
/// ```
/// use meepo_worker::{Client, CloseReason, Handler, Hello, Message, Reject, Result};
///
/// struct ChatRoom;
///
/// impl Handler for ChatRoom {
///     async fn on_connect(&self, client: &Client, hello: &Hello) -> Result<(), Reject> {
///         let name = hello.query_value("name").ok_or(Reject::new(400, "who are you?"))?;
///         client.set("name", name);
///         client.join("lobby");
///         Ok(())
///     }
///
///     async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
///         let name = client.get("name").unwrap_or_default();
///         let text = message.text().ok_or("text only")?;
///         let lobby = client.cluster().group("lobby");
///         lobby.except(client.id()).send(format!("{name}: {text}"));
///         Ok(())
///     }
///
///     async fn on_close(&self, client: &Client, _reason: &CloseReason) {
///         let name = client.get("name").unwrap_or_default();
///         client.cluster().group("lobby").send(format!("{name} has left"));
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// The child starts, and has no clients and no links yet. An error ends the child.
    ///
    /// This is the place to connect to a database, to set [timers](Cluster::every), and to spawn tasks that push: a
    /// [`Cluster`] is cheap to clone.
    fn on_start(&self, cluster: &Cluster) -> impl Future<Output = Result<()>> + Send {
        let _ = cluster;
        async { Ok(()) }
    }

    /// A client asks to be let in. It is not connected before this returns `Ok`; messages that it is sent here follow then.
    ///
    /// A client that is rejected gets no other event. One that came in gets exactly one [`on_close`](Self::on_close).
    fn on_connect(&self, client: &Client, hello: &Hello) -> impl Future<Output = Result<(), Reject>> + Send {
        let _ = (client, hello);
        async { Ok(()) }
    }

    /// A client has sent a message.
    fn on_message(&self, client: &Client, message: Message) -> impl Future<Output = Result<()>> + Send;

    /// The gateway of a client is about to close it, with all its clients, since it stops or is reloaded: the moment for
    /// last words. The gateway waits about two seconds for all handlers; one that takes longer is cut off.
    ///
    /// Each client gets it once, after its earlier events, and from one worker. None gets it whose worker is away at that
    /// moment, nor when the gateway dies. [`on_close`](Self::on_close) follows.
    ///
    /// ```
    /// # use meepo_worker::{Client, Handler, LastWords, Message, Result};
    /// # struct ChatRoom;
    /// # impl Handler for ChatRoom {
    /// #     async fn on_message(&self, _client: &Client, _message: Message) -> Result<()> { Ok(()) }
    /// async fn on_last_words(&self, client: &Client, why: LastWords) {
    ///     client.send(match why {
    ///         LastWords::Stop => "the service is stopping",
    ///         LastWords::Reload => "back in a moment",
    ///     });
    /// }
    /// # }
    /// ```
    fn on_last_words(&self, client: &Client, why: LastWords) -> impl Future<Output = ()> + Send {
        let _ = (client, why);
        async {}
    }

    /// Whether [`on_last_words`](Self::on_last_words) is called. Default: `true`.
    ///
    /// A handler without last words may say `false`: then a gateway that closes its clients does not wait until those
    /// handlers that run have ended, and no client is gone through.
    fn says_last_words(&self) -> bool {
        true
    }

    /// A forwarded request: HTTP to a path that a `ws` listener has in `requests`. It belongs to no client, and requests have
    /// no order: each is handled by itself. An error or a panic is logged, and the response is 500 without its text. Default:
    /// 404.
    ///
    /// When a worker ends before its response is out, another worker is given a request that may be repeated, marked
    /// [`redelivered`](Request::redelivered); for any other (`POST`, `PATCH`) the response is 502.
    ///
    /// ```
    /// # use meepo_worker::{Client, Handler, Message, Request, Response, Result};
    /// # struct Api;
    /// # impl Handler for Api {
    /// # async fn on_message(&self, _client: &Client, _message: Message) -> Result<()> { Ok(()) }
    /// async fn on_request(&self, request: Request) -> Result<Response> {
    ///     match (request.method(), request.path()) {
    ///         ("GET" | "HEAD", "/api/online") => Ok(Response::json(&request.cluster().count().await.value)),
    ///         ("POST", "/api/say") => {
    ///             let Some(text) = request.text() else {
    ///                 return Ok(Response::text("text, please").with_status(400));
    ///             };
    ///             request.cluster().all().send(text);
    ///             Ok(Response::new(204))
    ///         }
    ///         _ => Ok(Response::new(404)),
    ///     }
    /// }
    /// # }
    /// ```
    fn on_request(&self, request: Request) -> impl Future<Output = Result<Response>> + Send {
        let _ = request;
        async { Ok(Response::new(404)) }
    }

    /// A client has closed: no message that it is sent from now on reaches it. Its session can still be read.
    fn on_close(&self, client: &Client, reason: &CloseReason) -> impl Future<Output = ()> + Send {
        let _ = (client, reason);
        async {}
    }

    /// The client's send buffer is full: the client reads more slowly than it is sent messages, and the gateway's setting
    /// `send_buffer` is reached. Messages that it is sent from now on may be dropped, or the client closed, by the setting
    /// `slow_client`.
    ///
    /// It is followed by [`on_buffer_empty`](Self::on_buffer_empty) or by [`on_close`](Self::on_close). If the client has
    /// come to another worker meanwhile, these events go there: what has to be known then belongs in the client's session. As
    /// an event of the client it comes after the handler that runs: code that sends without end belongs outside of a
    /// handler.
    ///
    /// ```
    /// use meepo_worker::{Client, Handler, Message, Result};
    ///
    /// /// Streams to its viewers, and leaves out those who do not keep up.
    /// struct Stream;
    ///
    /// impl Handler for Stream {
    ///     async fn on_message(&self, client: &Client, _message: Message) -> Result<()> {
    ///         client.join("viewers");
    ///         Ok(())
    ///     }
    ///
    ///     async fn on_buffer_full(&self, client: &Client) {
    ///         client.leave("viewers");
    ///     }
    ///
    ///     async fn on_buffer_empty(&self, client: &Client) {
    ///         client.join("viewers");
    ///     }
    /// }
    /// ```
    fn on_buffer_full(&self, client: &Client) -> impl Future<Output = ()> + Send {
        let _ = client;
        async {}
    }

    /// The client's send buffer was full, and is empty now: all of it is written.
    fn on_buffer_empty(&self, client: &Client) -> impl Future<Output = ()> + Send {
        let _ = client;
        async {}
    }

    /// A handler of the client returned an error, panicked or was cut off, or the gateway has refused a command about the
    /// client. The error is logged and counted already.
    ///
    /// It comes right after the handler, before the client's next event; a refusal comes as soon as no handler of the client
    /// runs. Refusals are told to the worker that sent the command, if it serves the client still, and 16 of them in a row
    /// at most: so one that this method causes by itself does not come for ever. An `Err` of
    /// [`on_connect`](Self::on_connect) is no error, and what goes wrong in this method is only logged and counted.
    ///
    /// ```
    /// use meepo_worker::{Client, Handler, HandlerError, Message, Result};
    ///
    /// struct Adder;
    ///
    /// impl Handler for Adder {
    ///     async fn on_message(&self, client: &Client, message: Message) -> Result<()> {
    ///         let numbers = message.text().unwrap_or_default().split('+');
    ///         let sum: i64 = numbers.map(|number| number.trim().parse::<i64>()).sum::<Result<_, _>>()?;
    ///         client.send(sum.to_string());
    ///         Ok(())
    ///     }
    ///
    ///     async fn on_error(&self, client: &Client, error: &HandlerError) {
    ///         if let HandlerError::Failed { error, .. } = error {
    ///             client.send(format!("that cannot be added: {error}"));
    ///         }
    ///     }
    /// }
    /// ```
    fn on_error(&self, client: &Client, error: &HandlerError) -> impl Future<Output = ()> + Send {
        let _ = (client, error);
        async {}
    }

    /// The child stops. All its events are done, its clients are served by other workers, its links are closed.
    fn on_stop(&self, cluster: &Cluster) -> impl Future<Output = ()> + Send {
        let _ = cluster;
        async {}
    }
}
