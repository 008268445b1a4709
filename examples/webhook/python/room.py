"""A chat room behind meepo-worker, in plain Python.

    python3 room.py --port 8080 --secret hush
"""

import argparse
import base64
import collections
import hashlib
import hmac
import json
import threading
import time
import traceback
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# The greatest age of an event, in seconds: an older one may have been recorded and sent again by a stranger.
MAX_AGE = 300


def is_signed(secret, headers, body):
    """Whether an event has a signature by Standard Webhooks with the secret, and headers that match the signed id."""
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    event, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not sent.isdecimal() or abs(time.time() - int(sent)) > MAX_AGE:
        return False
    signed = hmac.new(key, f"{event}.{sent}.".encode() + body, hashlib.sha256).digest()
    right = b"v1," + base64.b64encode(signed)
    # There are several signatures while the secret is being changed.
    given = headers.get("webhook-signature", "").split(" ")
    if not any(hmac.compare_digest(right, one.encode()) for one in given):
        return False
    # Of the headers only the id is signed; it contains the client and the kind of the event, or the number of a message.
    client, _, tail = event.partition(":")
    kind = "message" if tail.isdecimal() else tail
    named = [headers.get(name) for name in ("ce-id", "ce-subject", "ce-type")]
    return named == [event, client, f"meepo.client.{kind}"]


class Responses:
    """The responses to the last events: an event that is redelivered gets the same response, and is not handled twice."""

    def __init__(self, limit=10000):
        self.by_event, self.limit, self.lock = collections.OrderedDict(), limit, threading.Lock()

    def get(self, event):
        with self.lock:
            return self.by_event.get(event)

    def put(self, event, response):
        with self.lock:
            self.by_event[event] = response
            while len(self.by_event) > self.limit:
                self.by_event.popitem(last=False)


def to_others(client, text):
    return {"do": "send", "to": {"group": "lobby", "except": [client]}, "text": text}


def opened(client, session, hello):
    name = urllib.parse.parse_qs(hello["query"]).get("name", [""])[0]
    if not name:
        return 400, "who are you?"
    return 200, [
        {"do": "session", "set": {"name": name}},
        {"do": "join", "group": "lobby"},
        to_others(client, f"{name} is here"),
        {"do": "send", "text": f"hello {name}"},
    ]


def message(client, session, message):
    name = session.get("name", "nobody")
    if isinstance(message, bytes):
        return 200, "text only, please"
    if message == "/quit":
        return 200, [{"do": "close", "code": 4000, "reason": f"goodbye {name}"}]
    if message.startswith("/name "):
        return 200, [
            {"do": "session", "set": {"name": message[6:]}},
            {"do": "send", "to": {"group": "lobby"}, "text": f"{name} is {message[6:]} now"},
        ]
    return 200, [to_others(client, f"{name}: {message}")]


def closed(client, session, reason):
    return 200, [to_others(client, f"{session.get('name', 'nobody')} has left")]


KINDS = {"meepo.client.opened": opened, "meepo.client.message": message, "meepo.client.closed": closed}


class Endpoint(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # so that connections are kept
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.server.secret and not is_signed(self.server.secret, self.headers, body):
            return self.respond(401, "the signature is wrong")
        event = self.headers["ce-id"]
        response = self.server.responses.get(event)
        if response is None:
            handle = KINDS.get(self.headers["ce-type"])
            try:
                response = handle(*self.read(body)) if handle else (200, [])
            except Exception:
                traceback.print_exc()
                return self.respond(500, "internal error")
            self.server.responses.put(event, response)
        self.respond(*response)

    def read(self, body):
        """The client, its session as far as the configuration asks for it, and what has happened."""
        session = json.loads(urllib.parse.unquote(self.headers.get("ce-meeposession", "{}")))
        kind = self.headers["content-type"]
        if kind == "application/json":
            body = json.loads(body)
        elif kind.startswith("text/plain"):
            body = body.decode()
        return self.headers["ce-subject"], session, body

    def respond(self, status, content):
        """Responds with a text, which is sent to the client or is the reason of its rejection, or with commands."""
        text = isinstance(content, str)
        body = content.encode() if text else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain; charset=utf-8" if text else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--secret", default="", help="the key of meepo-worker's setting `secret`")
    arguments = parser.parse_args()
    server = Server((arguments.host, arguments.port), Endpoint)
    server.secret, server.responses = arguments.secret, Responses()
    server.serve_forever()


if __name__ == "__main__":
    main()
