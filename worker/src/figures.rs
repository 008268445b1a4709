//! The figures of a worker child: what they are called, and how operators see them.

use meepo_node::stats::FigureInfo;

meepo_node::figures! {
    /// The figures of a worker child.
    pub(crate) struct WorkerFigures {
        /// Clients that the child serves.
        connections: FigureInfo::gauge("meepo_connections", "Clients that are served.").column("conns"),
        /// Clients that were attached since the child started.
        connections_total: FigureInfo::counter("meepo_connections_opened_total", "Clients that were attached.")
            .column("in all"),
        /// Messages received from clients.
        messages_in: FigureInfo::counter("meepo_received_messages_total", "Messages received from clients.")
            .column("msgs in"),
        /// Messages sent to clients.
        messages_out: FigureInfo::counter("meepo_sent_messages_total", "Messages sent to clients.").column("msgs out"),
        /// Payload bytes received from clients.
        bytes_in: FigureInfo::counter("meepo_received_bytes_total", "Payload received from clients.")
            .column("bytes in")
            .bytes(),
        /// Payload bytes sent to clients.
        bytes_out: FigureInfo::counter("meepo_sent_bytes_total", "Payload sent to clients.").column("bytes out").bytes(),
        /// Sends that did not reach their client, and commands that were refused.
        failed_sends: FigureInfo::counter(
            "meepo_failed_sends_total",
            "Sends that did not reach their client, and commands that were refused.",
        )
        .column("failed"),
        /// Handlers and leader jobs that returned an error or panicked.
        handler_errors: FigureInfo::counter(
            "meepo_handler_errors_total",
            "Handlers and leader jobs that returned an error or panicked.",
        )
        .column("errors"),
        /// Links to gateways that are up.
        links: FigureInfo::gauge("meepo_links", "Links between gateways and workers that are up.").column("links"),
        /// Leader jobs that run here.
        jobs: FigureInfo::gauge("meepo_jobs", "Leader jobs that run here, each nowhere else in the cluster."),
        /// Events that the child has and has not finished.
        events_in_flight: FigureInfo::gauge("meepo_in_flight_events", "Events that a worker has and has not finished.")
            .column("in flight"),
        /// Forwarded requests that the child was given.
        requests: FigureInfo::counter("meepo_requests_total", "HTTP requests that workers were given."),
        /// Clients whose events wait, since too much is to be sent to their gateway or an endpoint is away.
        held_back: FigureInfo::gauge(
            "meepo_held_back_clients",
            "Clients whose events wait since too much is to be sent, or an endpoint is away.",
        )
        .column("held back"),
        /// Outgoing queues that are full.
        full_queues: FigureInfo::gauge("meepo_full_queues", "Outgoing queues that are full.")
            .problem("a queue is full, clients held back: {held_back}"),
    }
}
