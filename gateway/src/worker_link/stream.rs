//! The stream to a worker child, which dials: this end serves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use meepo_link::{Incoming, channel};
use meepo_proto::link::command::Body as CommandBody;
use meepo_proto::link::event::Body;
use meepo_proto::link::link_server::Link;
use meepo_proto::link::{Command, Event, Hello, Welcome};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::client::handle::FlushBatch;
use crate::router::dispatch::Dispatch;
use crate::router::effects::Events;
use crate::router::{Ending, LinkId};
use crate::worker_link::commands::Commands;
use crate::worker_link::context::LinkContext;
use crate::worker_link::outgoing::{self, EventStream};

/// Serves the links of one child.
#[derive(Debug, Clone)]
pub(crate) struct LinkService {
    pub(crate) context: Arc<LinkContext>,
    pub(crate) tasks: TaskTracker,
    /// The largest command that is taken, whole or in parts, in bytes.
    pub(crate) max_command: usize,
}

/// A worker says hello within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Clients are written to after this many commands at the latest.
const COMMANDS_PER_TURN: usize = 512;

#[tonic::async_trait]
impl Link for LinkService {
    type OpenStream = EventStream;

    async fn open(&self, request: Request<Streaming<Command>>) -> Result<Response<Self::OpenStream>, Status> {
        let peer = request.remote_addr();
        let peer = peer.map_or_else(|| "this host".to_owned(), |peer| peer.to_string());
        let commands = Incoming::new(request.into_inner(), self.max_command);
        // Events are bounded by what may be in flight, which the router counts; replies and refusals by the commands.
        let (events, queue) = channel::channel();
        let in_parts = Arc::<AtomicBool>::default();
        let stream = outgoing::stream(queue, Arc::clone(&in_parts));
        self.tasks
            .spawn(serve(Arc::clone(&self.context), peer, commands, events, in_parts));
        Ok(Response::new(stream))
    }
}

/// Takes a worker's commands until the stream ends.
async fn serve(
    context: Arc<LinkContext>,
    peer: String,
    mut commands: Incoming<Command>,
    events: Events,
    in_parts: Arc<AtomicBool>,
) {
    let gateway = context.dispatch.clients.gateway;
    let Ok(hello) = tokio::time::timeout(HELLO_TIMEOUT, hello(&mut commands)).await else {
        let _ = events.send(Err(Status::deadline_exceeded("no hello")));
        return;
    };
    let hello = match hello {
        // Before the link is up: a worker that means another gateway would be given clients.
        Ok(hello) if hello.gateway_id.is_some_and(|meant| meant != gateway.0) => {
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
        gateway_id: gateway.0,
        max_message: context.limits.max_message as u64,
        parts: true,
    };
    in_parts.store(hello.parts, Ordering::Relaxed);
    let _ = events.send(Ok(Event {
        body: Some(Body::Welcome(welcome)),
        ..Event::default()
    }));
    let link = context.dispatch.link_up(events, hello.outside);
    let mut up = Up {
        dispatch: &context.dispatch,
        link,
        ending: Ending::Silent,
    };
    tracing::debug!(worker = %hello.name, %peer, "link up");

    let mut applied = Commands::new(&context, link);
    let mut flush = FlushBatch::default();
    // A worker ends its stream after the gateway's has ended, when the last event of a draining worker is done.
    // A connection that keep-alive ends looks like a stream that the worker ended: there is no error.
    let end = loop {
        let mut next = Some(commands.message().await);
        let mut left = COMMANDS_PER_TURN;
        let mut end = None;
        // Every command that is there is carried out before the clients of the last batch are written to: each of them gets
        // its messages in one piece.
        while let Some(command) = next {
            match command {
                Ok(Some(command)) => applied.apply(command, &mut flush),
                Ok(None) => end = Some(Ok(())),
                Err(status) => end = Some(Err(status)),
            }
            left -= 1;
            let goes_on = left > 0 && end.is_none();
            next = match goes_on {
                true => commands.message().now_or_never(),
                false => None,
            };
        }
        let pause = applied.flush(&mut flush);
        if let Some(end) = end {
            break end;
        }
        // When the limit was reached, more commands may be there already.
        if let Some(pause) = pause.filter(|_| left > 0) {
            tokio::time::sleep(pause).await;
        }
    };
    if let Err(status) = end {
        up.ending = Ending::Died;
        // A worker that has broken the rules learns which.
        context.dispatch.refuse_link(link, status);
    }
    drop(up);
    tracing::debug!(worker = %hello.name, %peer, "link down");
}

/// A link that is up: however its task ends, its events go to others.
struct Up<'a> {
    dispatch: &'a Dispatch,
    link: LinkId,
    ending: Ending,
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.dispatch.link_down(self.link, self.ending);
    }
}

async fn hello(commands: &mut Incoming<Command>) -> Result<Hello, Status> {
    match commands.message().await?.and_then(|command| command.body) {
        Some(CommandBody::Hello(hello)) => Ok(*hello),
        _ => Err(Status::failed_precondition("the first command must be `hello`")),
    }
}
