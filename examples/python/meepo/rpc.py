"""gRPC between nodes: the settings of a worker's end."""

import grpc

OPTIONS = (
    # A quiet connection is probed, and given up after ten seconds without an answer.
    ("grpc.keepalive_time_ms", 3000),
    ("grpc.keepalive_timeout_ms", 10000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 3000),
    # Unlimited in effect: the gateway says its limit only in its `welcome`.
    ("grpc.max_receive_message_length", 1 << 30),
    ("grpc.max_send_message_length", -1),
    # Each attempt makes a new connection, and is not delayed because earlier ones have failed.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)


def channel(address):
    return grpc.aio.insecure_channel(address, options=OPTIONS)
