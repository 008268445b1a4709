"""A Meepo worker in Python: it takes the events of clients, and sends commands to gateways.

An application is a subclass of `App` that overrides some of its handlers, and is given to `run`.
docs/src/link-protocol.md describes the protocol. The script `generate` makes the modules `link_pb2` and `registry_pb2`.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.with_name("generated")))

from .client import Answer, Client, ClientId, Cluster, Message, Reason, Reject, Request, Response, Target  # noqa: E402
from .worker import Worker  # noqa: E402

__all__ = [
    "Answer",
    "App",
    "Client",
    "ClientId",
    "Cluster",
    "Message",
    "Reason",
    "Reject",
    "Request",
    "Response",
    "Target",
    "run",
]


class App:
    """An application. A handler that it does not override does nothing."""

    async def on_connect(self, client, hello):
        """A client has come; `hello` is its handshake. It may be rejected: `raise Reject(status, reason)`."""

    async def on_message(self, client, message):
        """A client has sent a message."""

    async def on_close(self, client, reason):
        """A client was closed, or has closed."""

    async def on_buffer_full(self, client):
        """The send buffer of a client is full: the client reads slowly."""

    async def on_buffer_empty(self, client):
        """The send buffer of a client that was full is empty again."""

    async def on_last_words(self, client, reload):
        """A gateway that reloads or stops is about to close the client: the moment for last words."""

    async def on_request(self, request):
        """An HTTP request that a gateway has forwarded. Returns the `Response`."""
        return Response(404)


def run(app):
    """Runs a worker with the options of the command line. SIGTERM and SIGINT make it drain and end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--registry", action="append", help="host and port of a registry; can be given several times")
    parser.add_argument("--secret-file", help="a file with the secret of the cluster")
    parser.add_argument("--stop-timeout", type=float, default=30, help="seconds that draining may take")
    parser.add_argument("--log", default="INFO")
    options = parser.parse_args()
    logging.basicConfig(level=options.log, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    secret = Path(options.secret_file).read_text().strip() if options.secret_file else ""
    name = f"{Path(sys.argv[0]).stem}@{socket.gethostname()}:{os.getpid()}"

    async def main():
        worker = Worker(app, options.registry or ["127.0.0.1:19911"], name, secret)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, worker.stop)
        running = asyncio.create_task(worker.run())
        stopping = asyncio.create_task(worker.stopping.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait_for(running, options.stop_timeout)

    asyncio.run(main())
