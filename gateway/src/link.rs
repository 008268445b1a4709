//! The stream to a worker child: it dials, this end serves.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use meepo_proto::link::command::Body as CommandBody;
use meepo_proto::link::event::Body;
use meepo_proto::link::link_server::Link;
use meepo_proto::link::{Command, Event, Hello, Welcome};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::client::Turn;
use crate::commands::Commands;
use crate::hub::Hub;
use crate::router::{Ending, LinkId};

/// Serves the links of one child.
#[derive(Debug, Clone)]
pub(crate) struct LinkService {
    pub hub: Arc<Hub>,
    pub tasks: TaskTracker,
}

/// A worker says who it is within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Clients are written to after so many commands at the latest.
const COMMANDS_PER_TURN: usize = 512;

#[tonic::async_trait]
impl Link for LinkService {
    type OpenStream = UnboundedReceiverStream<Result<Event, Status>>;

    async fn open(&self, request: Request<Streaming<Command>>) -> Result<Response<Self::OpenStream>, Status> {
        let peer = request.remote_addr();
        let peer = peer.map_or_else(|| "this host".to_owned(), |peer| peer.to_string());
        let commands = request.into_inner();
        // Events are bounded by what may be in flight, which the router counts; replies and refusals by the commands.
        let (events, stream) = mpsc::unbounded_channel();
        self.tasks.spawn(serve(Arc::clone(&self.hub), peer, commands, events));
        Ok(Response::new(UnboundedReceiverStream::new(stream)))
    }
}

/// Takes a worker's commands until the stream ends.
async fn serve(
    hub: Arc<Hub>,
    peer: String,
    mut commands: Streaming<Command>,
    events: mpsc::UnboundedSender<Result<Event, Status>>,
) {
    let Ok(hello) = tokio::time::timeout(HELLO_TIMEOUT, hello(&mut commands)).await else {
        let _ = events.send(Err(Status::deadline_exceeded("no hello")));
        return;
    };
    let hello = match hello {
        // Before the link is up: a worker that means another gateway would be given clients.
        Ok(hello) if ![0, hub.id.0].contains(&hello.gateway_id) => {
            let _ = events.send(Err(Status::failed_precondition("this is another gateway")));
            return;
        }
        Ok(hello) => hello,
        Err(status) => {
            let _ = events.send(Err(status));
            return;
        }
    };
    let welcome = Welcome {
        gateway_id: hub.id.0,
        max_message: hub.settings.max_message.as_u64(),
    };
    let _ = events.send(Ok(Event {
        body: Some(Body::Welcome(welcome)),
        ..Event::default()
    }));
    let link = hub.link_up(events, hello.outside);
    let mut up = Up {
        hub: &hub,
        link,
        ending: Ending::Silent,
    };
    tracing::debug!(worker = %hello.name, %peer, "link up");

    let mut applied = Commands::new(&hub, link);
    let mut turn = Turn::default();
    // A worker ends its stream when ours has ended: after the last event of a draining worker is done.
    // A connection that keep-alive ended ends like a stream that the worker ended: without an error.
    loop {
        let command = match commands.message().await {
            Ok(Some(command)) => command,
            Ok(None) => break,
            Err(_) => {
                up.ending = Ending::Died;
                break;
            }
        };
        applied.apply(command, &mut turn);
        // All that is there is applied before anyone is written to: a client gets it in one piece.
        for _ in 1..COMMANDS_PER_TURN {
            match commands.message().now_or_never() {
                Some(Ok(Some(command))) => applied.apply(command, &mut turn),
                Some(Err(_)) => {
                    up.ending = Ending::Died;
                    break;
                }
                Some(Ok(None)) | None => break,
            }
        }
        if let Some(pause) = applied.flush(&mut turn) {
            tokio::time::sleep(pause).await;
        }
    }
    drop(up);
    tracing::debug!(worker = %hello.name, %peer, "link down");
}

/// A link that is up: however its task ends, its events go to others.
struct Up<'a> {
    hub: &'a Hub,
    link: LinkId,
    ending: Ending,
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.hub.link_down(self.link, self.ending);
    }
}

async fn hello(commands: &mut Streaming<Command>) -> Result<Hello, Status> {
    match commands.message().await?.and_then(|command| command.body) {
        Some(CommandBody::Hello(hello)) => Ok(*hello),
        _ => Err(Status::failed_precondition("the first command must be `hello`")),
    }
}
