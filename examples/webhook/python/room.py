"""A chat room behind meepo-worker, with Python's standard library alone.

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

# How old an event may be, in seconds: what is older may have been recorded and sent again by a stranger.
MOST_SECONDS = 300


def is_signed(secret, headers, body):
    """Whether an event is signed with a key, as Standard Webhooks says, and its other headers say what is signed."""
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    event, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not sent.isdecimal() or abs(time.time() - int(sent)) > MOST_SECONDS:
        return False
    signed = hmac.new(key, f"{event}.{sent}.".encode() + body, hashlib.sha256).digest()
    right = b"v1," + base64.b64encode(signed)
    # There are several while the key is changed.
    given = headers.get("webhook-signature", "").split(" ")
    if not any(hmac.compare_digest(right, one.encode()) for one in given):
        return False
    # Of the headers only the id is signed, in which are the client and the kind: a message has a number there.
    client, _, tail = event.partition(":")
    kind = "message" if tail.isdecimal() else tail
    said = [headers.get(name) for name in ("ce-id", "ce-subject", "ce-type")]
    return said == [event, client, f"meepo.client.{kind}"]


class Done:
    """The answers to the last events: one that comes again gets the same answer, and nothing is done twice."""

    def __init__(self, most=10000):
        self.answers, self.most, self.lock = collections.OrderedDict(), most, threading.Lock()

    def get(self, event):
        with self.lock:
            return self.answers.get(event)

    def put(self, event, answer):
        with self.lock:
            self.answers[event] = answer
            while len(self.answers) > self.most:
                self.answers.popitem(last=False)


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
    protocol_version = "HTTP/1.1"  # connections are used again
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.server.secret and not is_signed(self.server.secret, self.headers, body):
            return self.answer(401, "the signature is wrong")
        event = self.headers["ce-id"]
        answer = self.server.done.get(event)
        if answer is None:
            handle = KINDS.get(self.headers["ce-type"])
            try:
                answer = handle(*self.read(body)) if handle else (200, [])
            except Exception:
                traceback.print_exc()
                return self.answer(500, "internal error")
            self.server.done.put(event, answer)
        self.answer(*answer)

    def read(self, body):
        """The client, what is wanted of its session, and what it is about."""
        session = json.loads(urllib.parse.unquote(self.headers.get("ce-meeposession", "{}")))
        kind = self.headers["content-type"]
        if kind == "application/json":
            body = json.loads(body)
        elif kind.startswith("text/plain"):
            body = body.decode()
        return self.headers["ce-subject"], session, body

    def answer(self, status, what):
        """Text is a reply to the client, or why it is turned away; a list is commands."""
        text = isinstance(what, str)
        body = what.encode() if text else json.dumps(what).encode()
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
    server.secret, server.done = arguments.secret, Done()
    server.serve_forever()


if __name__ == "__main__":
    main()
