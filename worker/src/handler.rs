//! The trait that an application implements.

use crate::farewell::Nothing;
use crate::{Client, CloseReason, Cluster, Farewell, Hello, Message, Reject, Result};

/// The business logic of an application.
///
/// One value serves a worker child; a program has several children, on several machines, and any of them may get a
/// client's next event. So what has to outlive an event belongs in the client's session, in groups or in a store of the
/// application's, not in the handler.
///
/// Events of one client are handled one after the other, in order; events of several clients side by side. Methods are
/// written as a plain `async fn`. One that returns an error or panics is logged and counted, and its event is done.
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
    /// This is the place to connect to a database, and to spawn tasks that push: a [`Cluster`] is cheap to clone.
    fn on_start(&self, cluster: &Cluster) -> impl Future<Output = Result<()>> + Send {
        let _ = cluster;
        async { Ok(()) }
    }

    /// A client wants in. It is not connected before this returns `Ok`; what it is sent here follows at once.
    ///
    /// A client that is rejected gets no other event. One that came in gets exactly one [`on_close`](Self::on_close).
    fn on_connect(&self, client: &Client, hello: &Hello) -> impl Future<Output = Result<(), Reject>> + Send {
        let _ = (client, hello);
        async { Ok(()) }
    }

    /// A client has sent a message.
    fn on_message(&self, client: &Client, message: Message) -> impl Future<Output = Result<()>> + Send;

    /// The gateway of a client is about to close it, with all its clients, since it stops or is reloaded: the moment for a
    /// last word. The gateway waits about two seconds for all handlers; one that takes longer is cut off.
    ///
    /// Each client gets it once, after its earlier events, and from one worker. None gets it whose worker is away at that
    /// moment, nor when the gateway dies. [`on_close`](Self::on_close) follows.
    ///
    /// ```
    /// # use meepo_worker::{Client, Farewell, Handler, Message, Result};
    /// # struct ChatRoom;
    /// # impl Handler for ChatRoom {
    /// #     async fn on_message(&self, _client: &Client, _message: Message) -> Result<()> { Ok(()) }
    /// async fn on_farewell(&self, client: &Client, why: Farewell) {
    ///     client.send(match why {
    ///         Farewell::Stop => "the service is stopping",
    ///         Farewell::Reload => "back in a moment",
    ///     });
    /// }
    /// # }
    /// ```
    fn on_farewell(&self, client: &Client, why: Farewell) -> impl Future<Output = ()> + Send {
        let _ = (client, why);
        Nothing
    }

    /// A client has gone: nothing that it is sent from now on reaches it. Its session is still there to read.
    fn on_close(&self, client: &Client, reason: &CloseReason) -> impl Future<Output = ()> + Send {
        let _ = (client, reason);
        async {}
    }

    /// The child stops. All its events are done, its clients are served by other workers, its links are closed.
    fn on_stop(&self, cluster: &Cluster) -> impl Future<Output = ()> + Send {
        let _ = cluster;
        async {}
    }
}
