//! The figures of a gateway child: what they are called, and how operators see them.

use meepo_node::stats::FigureInfo;

meepo_node::figures! {
    /// The figures of a gateway child.
    pub(crate) struct GatewayFigures {
        /// Clients that are connected.
        connections: FigureInfo::gauge("meepo_connections", "Clients that are connected.").column("conns"),
        /// Clients that came since the child started.
        connections_total: FigureInfo::counter("meepo_connections_opened_total", "Clients that came.").column("in all"),
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
        bytes_out: FigureInfo::counter("meepo_sent_bytes_total", "Payload sent to clients.")
            .column("bytes out")
            .bytes(),
        /// Sends that did not reach their client: it was gone or slow, or the message was refused.
        failed_sends: FigureInfo::counter(
            "meepo_failed_sends_total",
            "Sends that did not reach their client, and commands that were refused.",
        )
        .column("failed"),
        /// Clients that were closed because they did not read.
        slow_clients: FigureInfo::counter(
            "meepo_slow_clients_total",
            "Clients that were closed because they did not read.",
        )
        .past("slow clients closed"),
        /// Messages that were not queued because the client's send buffer was full.
        dropped_sends: FigureInfo::counter(
            "meepo_dropped_sends_total",
            "Sends of those that failed since the client's send buffer was full.",
        )
        .past("sends dropped at full send buffers"),
        /// Events that were given up because several workers ended with them.
        given_up_events: FigureInfo::counter(
            "meepo_given_up_events_total",
            "Events that were given up because several workers ended with them.",
        )
        .past("events given up"),
        /// HTTP requests that workers were to answer.
        requests: FigureInfo::counter("meepo_requests_total", "HTTP requests that workers were to answer."),
        /// HTTP requests that the gateway answered itself with a 5xx: no worker, no room, no answer in time.
        failed_requests: FigureInfo::counter(
            "meepo_failed_requests_total",
            "HTTP requests that the gateway answered itself with a 5xx.",
        ),
        /// Links to workers that are up.
        links: FigureInfo::gauge("meepo_links", "Links between gateways and workers that are up.").column("links"),
        /// Events that wait for a worker.
        events_waiting: FigureInfo::gauge("meepo_waiting_events", "Events that wait for a worker.").column("waiting"),
        /// Events that a worker has and has not finished.
        events_in_flight: FigureInfo::gauge("meepo_in_flight_events", "Events that a worker has and has not finished.")
            .column("in flight"),
        /// Clients that are not read because too much waits for workers.
        held_back: FigureInfo::gauge(
            "meepo_held_back_clients",
            "Clients that are not read since too much waits for workers.",
        )
        .column("held back"),
        /// 1 while so much waits for workers that no client is read.
        full_queues: FigureInfo::gauge("meepo_full_queues", "1 while `waiting` is full and no client is read.")
            .problem("a queue is full, clients held back: {held_back}"),
    }
}
