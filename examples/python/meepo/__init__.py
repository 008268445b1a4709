"""A Meepo worker in Python: events of clients in, commands to gateways out.

An application is an `App`, with any of its handlers, given to `run`. What lies beneath is told in
docs/src/link-protocol.md. `generate` makes the modules `link_pb2` and `registry_pb2`.
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
    """What an application has when it does not say otherwise."""

    async def on_connect(self, client, hello):
        pass

    async def on_message(self, client, message):
        pass

    async def on_close(self, client, reason):
        pass

    async def on_buffer_full(self, client):
        pass

    async def on_buffer_empty(self, client):
        pass

    async def on_last_words(self, client, reload):
        """The client's gateway is about to close it: the moment for a last word."""

    async def on_request(self, request):
        """Answers an HTTP request."""
        return Response(404)


def run(app):
    """Runs a worker as the command line says, until SIGTERM or SIGINT has it drain."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--registry", action="append", help="where a registry is; can be given several times")
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
