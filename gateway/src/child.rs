//! The life of a gateway child: it serves, then drains.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use meepo_node::membership::Membership;
use meepo_node::secret::{SecretCheck, warn_if_open};
use meepo_node::{BoxError, Child, StopReason, advertise, local, rpc};
use meepo_proto::link::link_server::LinkServer;
use meepo_proto::registry::{Kind, Node, State};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::InterceptorLayer;

use crate::config::limits::Limits;
use crate::config::settings::GatewaySettings;
use crate::drain::close_all::CloseAll;
use crate::drain::last_words::last_words;
use crate::drain::wait;
use crate::fanout::sender::Sender;
use crate::figures::GatewayFigures;
use crate::listen::accept;
use crate::protocol::entrance::Entrance;
use crate::protocol::service::Service;
use crate::router::dispatch::Dispatch;
use crate::worker_link::context::LinkContext;
use crate::worker_link::stream::LinkService;

/// HTTP/2 windows of a link: bytes that may be on their way to a slow reader.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Bytes that a command may have around its payload.
const MESSAGE_SLACK: usize = 1 << 20;
/// How often the advertised address is looked for again while there is no way to the registry.
const ADVERTISE_AGAIN: Duration = Duration::from_secs(1);

/// Runs until the child has drained.
pub(crate) async fn serve(
    mut child: Child,
    settings: GatewaySettings,
    limits: Limits,
    services: Vec<Service>,
) -> Result<(), BoxError> {
    let stats: &'static GatewayFigures = child.stats.view();
    let dispatch = Dispatch::new(&limits, stats);
    let gateway = dispatch.clients.gateway;
    let entrance = Entrance::new(limits.clone(), Arc::clone(&dispatch), stats);
    let accepting = CancellationToken::new();
    let gone = CancellationToken::new();
    let clients = TaskTracker::new();

    let own = child.own.take().ok_or("the gateway has no inner listener")?;
    let inner = TcpListener::from_std(own)?;
    let bound = inner.local_addr()?;
    warn_if_open("gateway", bound, &child.node.secret);
    let local = match settings.local.then(|| local::listen(gateway.0)) {
        Some(Ok(local)) => Some(local),
        Some(Err(error)) => {
            tracing::warn!(%error, "no Unix socket for workers of this host: they take TCP");
            None
        }
        None => None,
    };
    let links = LinkContext {
        dispatch: Arc::clone(&dispatch),
        sender: Sender {
            stats,
            slow_client: limits.slow_client,
        },
        limits: limits.clone(),
    };
    let secret = child.node.secret.clone();
    let server = tokio::spawn(serve_links(links, inner, local, secret, gone.clone()));

    let mut accepts = Vec::new();
    // Taken, not copied: a listener is closed as soon as no task accepts on it.
    for (listener, service) in child.shared.drain(..).zip(services) {
        let listener = TcpListener::from_std(listener)?;
        let until = accepting.clone();
        let siblings = child.siblings.clone();
        accepts.push(tokio::spawn(accept::accept(
            Arc::clone(&entrance),
            listener,
            service,
            siblings,
            clients.clone(),
            until,
        )));
    }

    let address = address(&child, &settings, bound).await?;
    let node = Node {
        id: gateway.0,
        kind: Kind::Gateway.into(),
        address: Some(address),
        name: "gateway".into(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        state: State::Serving.into(),
    };
    let membership = Membership::new(&child.node);
    let (node, announced) = watch::channel(node);
    let until = gone.clone();
    let announcement = tokio::spawn(async move { membership.announce_changing(&announced, until).await });
    child.ready();

    child.stop.requested().await;

    // Off the registry's list, and no new clients. Workers that come may help to finish.
    node.send_modify(|node| node.set_state(State::Draining));
    accepting.cancel();
    entrance.stopping.cancel();
    for accept in accepts {
        let _ = accept.await;
    }
    let deadline = Instant::now() + child.stop.timeout();
    let drained = tokio::time::timeout_at(deadline, async {
        let reload = child.stop.reason() == Some(StopReason::Reload);
        last_words(&dispatch, reload, child.stop.timeout()).await;
        CloseAll::new(&limits, child.stop.reason(), child.stop.timeout())
            .run(&dispatch)
            .await;
        clients.close();
        clients.wait().await;
        wait::drained(&dispatch).await;
    });
    let in_time = drained.await.is_ok();
    if wait::is_done(&dispatch) {
        node.send_modify(|node| node.set_state(State::Drained));
    }
    gone.cancel();
    let _ = announcement.await;
    if !in_time || wait::unfinished(&dispatch) > 0 {
        tracing::warn!(
            clients = clients.len(),
            events = wait::unfinished(&dispatch),
            "stopped before all was handled"
        );
    }
    dispatch.end_links();
    // A worker that does not answer does not hold up the end.
    let _ = tokio::time::timeout(Duration::from_secs(1), server).await;
    Ok(())
}

/// The address that workers are told to dial. Waits for the network if it has to.
async fn address(child: &Child, settings: &GatewaySettings, bound: SocketAddr) -> Result<String, BoxError> {
    let configured = advertise_of(&settings.advertise, settings.inner.port(), bound.port());
    let mut logged = false;
    loop {
        let registries = child.node.registry.clone();
        let configured = configured.clone();
        let asked =
            tokio::task::spawn_blocking(move || advertise::advertised(bound, configured.as_deref(), &registries));
        match asked.await? {
            Ok(address) => return Ok(address),
            Err(error) if error.is_temporary() => {
                if !std::mem::replace(&mut logged, true) {
                    tracing::warn!(%error, "waiting for a way to the registry");
                }
                tokio::select! {
                    () = child.stop.requested() => return Err("stopped before it served".into()),
                    () = tokio::time::sleep(ADVERTISE_AGAIN) => {}
                }
            }
            Err(error) => return Err(Box::new(error)),
        }
    }
}

/// A configured port stands for the configured inner one: a child that listens some ports further advertises as many more.
fn advertise_of(configured: &str, inner: u16, bound: u16) -> Option<String> {
    if configured.is_empty() {
        return None;
    }
    let with_port = configured
        .rsplit_once(':')
        .filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    let mapped = with_port.and_then(|(host, port)| {
        let offset = if inner == 0 { 0 } else { bound.checked_sub(inner)? };
        Some(format!("{host}:{}", port.parse::<u16>().ok()?.checked_add(offset)?))
    });
    Some(mapped.unwrap_or_else(|| configured.to_owned()))
}

/// Serves links to workers. Once `until` is cancelled it takes no new links, and ends with the last one.
async fn serve_links(
    links: LinkContext,
    listener: TcpListener,
    local: Option<UnixListener>,
    secret: String,
    until: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let limit = links.limits.max_message.saturating_add(MESSAGE_SLACK);
    let stats = links.sender.stats;
    let incoming = rpc::incoming(listener, &stats.common);
    let local = match local {
        Some(local) => rpc::incoming_local(local, &stats.common).left_stream(),
        None => stream::pending().right_stream(),
    };
    let service = LinkServer::new(LinkService {
        context: Arc::new(links),
        tasks: TaskTracker::new(),
        max_command: limit,
    })
    .max_decoding_message_size(limit);
    rpc::server()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .layer(InterceptorLayer::new(SecretCheck::new(&secret)))
        .serve_with_incoming_shutdown(service, stream::select(incoming, local), until.cancelled_owned())
        .await
}

#[cfg(test)]
mod tests {
    use meepo_link::channel;
    use meepo_proto::link::Handshake;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::protocol::line;
    use crate::router::Ending;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_a_while_for_a_worker_that_comes() {
        let dispatch = Dispatch::new(&Limits::default(), Box::leak(Box::default()));
        wait::drained(&dispatch).await;
        let start = Instant::now();
        dispatch.open(&line::CODEC, &Handshake::default(), None);
        wait::drained(&dispatch).await;
        assert_eq!(start.elapsed(), Duration::from_secs(3), "no worker comes");

        let (events, _stream) = channel::channel();
        let comes = async {
            sleep(Duration::from_secs(2)).await;
            let link = dispatch.link_up(events, false);
            sleep(Duration::from_secs(60)).await;
            dispatch.link_down(link, Ending::Died);
        };
        let start = Instant::now();
        let drained = timeout(Duration::from_secs(600), wait::drained(&dispatch));
        assert!(tokio::join!(drained, comes).0.is_ok());
        assert_eq!(
            start.elapsed(),
            Duration::from_secs(65),
            "as long as the worker is there"
        );
    }

    #[test]
    fn an_advertised_port_follows_the_inner_one() {
        for (configured, bound, expected) in [
            ("", 19913, None),
            ("gw1", 19913, Some("gw1")),
            ("gw1:20000", 19912, Some("gw1:20000")),
            ("gw1:20000", 19915, Some("gw1:20003")),
            ("[::1]:20000", 19914, Some("[::1]:20002")),
            ("fe80::1", 19913, Some("fe80::1")),
        ] {
            assert_eq!(advertise_of(configured, 19912, bound).as_deref(), expected);
        }
        assert_eq!(advertise_of("gw1:20000", 0, 40000).as_deref(), Some("gw1:20000"));
    }
}
