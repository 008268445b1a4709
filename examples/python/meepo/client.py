"""The types that an application uses: clients, requests, and the cluster of all gateways."""

import asyncio
import base64
from dataclasses import dataclass, field

import link_pb2 as wire


class Reject(Exception):
    """Raised by `on_connect` to reject the client, with an HTTP status of 400 to 599."""

    def __init__(self, status, reason=""):
        super().__init__(status, reason)
        self.status, self.reason = status, reason


@dataclass
class Message:
    """A message of a client: a `str` if it is text, else `bytes`."""

    data: "str | bytes"


@dataclass
class Reason:
    """Why a client was closed: the name of a `CloseCause`, the close code if there was one, and the reason."""

    cause: str
    code: "int | None" = None
    text: str = ""


@dataclass
class Request:
    """An HTTP request. Its handshake `hello` has path, query, headers and peer."""

    cluster: "Cluster"
    method: str
    hello: wire.Handshake
    body: bytes
    redelivered: bool  # the request was delivered before, and may have been handled


@dataclass
class Response:
    """The response to an HTTP request. Headers are pairs of texts; the gateway sets those of the connection."""

    status: int
    body: "str | bytes" = b""
    headers: "list[tuple[str, str]]" = field(default_factory=list)

    def to_wire(self, number):
        headers = [wire.Header(name=name, value=value.encode()) for name, value in self.headers]
        body = self.body.encode() if isinstance(self.body, str) else self.body
        return wire.Command(respond=wire.Respond(request_number=number, status=self.status, headers=headers, body=body))


@dataclass
class Answer:
    """What the replies of the gateways to a query say, and whether all gateways have replied."""

    value: object
    complete: bool


@dataclass(frozen=True)
class ClientId:
    """The id of a client: its gateway child and its number there. An id is never used again."""

    gateway: int
    number: int

    def __str__(self):
        raw = self.gateway.to_bytes(8, "big") + self.number.to_bytes(8, "big")
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class Client:
    """A client that this worker serves."""

    def __init__(self, cluster, link, number, attach, accepted):
        self.cluster, self.link, self.accepted = cluster, link, accepted
        self.id = ClientId(link.gateway, number)
        self.hello = attach.handshake
        self.redelivered = False  # whether the event that runs was delivered before, and may have been handled
        self.session = dict(attach.session)
        self.changes = 0  # how often this worker has changed the session
        self.paused = attach.paused  # whether a worker has paused the client, as far as this worker knows

    def send(self, message):
        self._command(send=send_of(message, client=self.id.number))

    def close(self, code=1000, reason=""):
        """Closes the client after all messages that it was sent before."""
        self._command(close=wire.Close(target=wire.Target(clients=[self.id.number]), code=code, reason=reason))

    def join(self, group):
        self._command(join=wire.Join(client=self.id.number, group=group))

    def leave(self, group):
        self._command(leave=wire.Leave(client=self.id.number, group=group))

    def bind(self, uid):
        self._command(bind=wire.Bind(client=self.id.number, uid=uid))

    def unbind(self):
        self._command(unbind=wire.Unbind(client=self.id.number))

    def pause(self):
        """Stops the gateway from reading the client, until `resume`. Messages that it has read already still come."""
        self._pause(paused=True)

    def resume(self):
        self._pause(paused=False)

    def get(self, key, default=None):
        """A value of the session, which the gateway keeps."""
        return self.session.get(key, default)

    def set(self, key, value):
        self._change(wire.SessionUpdate(client=self.id.number, set={key: value}))

    def remove(self, key):
        self._change(wire.SessionUpdate(client=self.id.number, remove=[key]))

    def _change(self, update):
        self.changes += 1
        apply(self.session, update)
        self._command(session=update)

    def _pause(self, paused):
        self.paused = paused
        self._command(pause=wire.Pause(client=self.id.number, paused=paused))

    def _command(self, **command):
        # Over the link by which the client came and no other: the client may have been with other workers since.
        self.link.send(wire.Command(**command))

    async def _fetch_session(self):
        """Asks for the session anew: the gateway has refused a change, so the session that is known here is wrong."""
        changes = None
        while changes != self.changes:
            changes = self.changes
            this_client = wire.Filter(clients=[self.id.number])
            reply = await self.link.ask(select=wire.Select(filter=this_client, session=True))
            if reply is None or not reply.selected.clients:
                return
        self.session = dict(reply.selected.clients[0].session)


class Cluster:
    """All gateways and their clients."""

    def __init__(self, query_timeout=5):
        self.up = {}  # the links that stand, by the id of the gateway
        self.away = set()  # the ids of gateways that are alive and have no link now
        self.query_timeout = query_timeout

    def client(self, id):
        return Target(self, clients=[id])

    def clients(self, ids):
        return Target(self, clients=list(ids))

    def group(self, name):
        return Target(self, groups=[name])

    def uid(self, uid):
        return Target(self, uids=[uid])

    def all(self):
        return Target(self, everyone=True)

    async def members(self, group):
        """The members of a group: their sessions by client id."""
        select = wire.Select(filter=wire.Filter(groups=[group]), session=True)
        replies, complete = await self._ask(select=select)
        found = {}
        for gateway, reply in replies:
            found.update((ClientId(gateway, one.client), dict(one.session)) for one in reply.selected.clients)
        return Answer(found, complete)

    async def group_sizes(self):
        """The number of members of each group that has any."""
        replies, complete = await self._ask(groups=wire.AllGroups())
        sizes = {}
        for _, reply in replies:
            for group, size in reply.groups.groups.items():
                sizes[group] = sizes.get(group, 0) + size
        return Answer(sizes, complete)

    async def count(self):
        """The number of all clients."""
        replies, complete = await self._ask(count=wire.Filter())
        return Answer(sum(reply.count.count for _, reply in replies), complete)

    async def _ask(self, **query):
        links, complete = list(self.up.values()), not self.away
        replies = await asyncio.gather(*(link.ask(self.query_timeout, **query) for link in links))
        answered = [(link.gateway, reply) for link, reply in zip(links, replies) if reply is not None]
        return answered, complete and len(answered) == len(links)


class Target:
    """The clients that a message or a close goes to, at all gateways; each of them counts once."""

    def __init__(self, cluster, clients=None, **others):
        self.cluster, self.clients, self.others, self.excluded = cluster, clients, others, []

    def excluding(self, id):
        self.excluded.append(id)
        return self

    def send(self, message):
        self._command(lambda to: wire.Command(send=send_of(message, target=wire.Target(**to))))

    def close(self, code=1000, reason=""):
        self._command(lambda to: wire.Command(close=wire.Close(target=wire.Target(**to), code=code, reason=reason)))

    def _command(self, command):
        for gateway, link in list(self.cluster.up.items()):
            to = dict(self.others)
            if self.clients is not None:
                to["clients"] = [id.number for id in self.clients if id.gateway == gateway]
                if not to["clients"]:
                    continue
            to["except"] = [id.number for id in self.excluded if id.gateway == gateway]
            link.send(command(to))


def send_of(message, **to):
    binary = not isinstance(message, str)
    return wire.Send(payload=message if binary else message.encode(), binary=binary, **to)


def apply(session, change):
    if change.clear:
        session.clear()
    for key in change.remove:
        session.pop(key, None)
    session.update(change.set)
