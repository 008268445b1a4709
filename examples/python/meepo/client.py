"""What an application deals with: clients, and all gateways together."""

import asyncio
import base64
from dataclasses import dataclass, field

import link_pb2 as wire


class Reject(Exception):
    """Raised by `on_connect`: turns the client away with an HTTP status of 400 to 599."""

    def __init__(self, status, reason=""):
        super().__init__(status, reason)
        self.status, self.reason = status, reason


@dataclass
class Message:
    """Text is a `str`, anything else is `bytes`."""

    data: "str | bytes"


@dataclass
class Reason:
    """Why a client was closed: the name of a `CloseCause`, the close code (0: none) and its text."""

    cause: str
    code: int = 0
    text: str = ""


@dataclass
class Request:
    """An HTTP request. Its `hello` has path, query, headers and peer."""

    cluster: "Cluster"
    method: str
    hello: wire.Handshake
    body: bytes
    redelivered: bool  # another worker had it before, and may have handled it


@dataclass
class Response:
    """The answer to an HTTP request. Headers are pairs of texts; those about the connection are the gateway's."""

    status: int
    body: "str | bytes" = b""
    headers: "list[tuple[str, str]]" = field(default_factory=list)

    def to_wire(self, number):
        headers = [wire.Header(name=name, value=value.encode()) for name, value in self.headers]
        body = self.body.encode() if isinstance(self.body, str) else self.body
        return wire.Command(respond=wire.Respond(request_number=number, status=self.status, headers=headers, body=body))


@dataclass
class Answer:
    """What the gateways know, and whether all of them have answered."""

    value: object
    complete: bool


@dataclass(frozen=True)
class ClientId:
    """A client: a connection of one run of a gateway child. It is never used again."""

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
        self.redelivered = False  # the event that is handled was handled before, in part or whole
        self.session = dict(attach.session)
        self.changes = 0
        self.paused = attach.paused  # as far as this worker knows

    def send(self, message):
        self._tell(send=send_of(message, client=self.id.number))

    def close(self, code=1000, reason=""):
        """Closes the client after all that it was sent before."""
        self._tell(close=wire.Close(target=wire.Target(clients=[self.id.number]), code=code, reason=reason))

    def join(self, group):
        self._tell(join=wire.Join(client=self.id.number, group=group))

    def leave(self, group):
        self._tell(leave=wire.Leave(client=self.id.number, group=group))

    def bind(self, uid):
        self._tell(bind=wire.Bind(client=self.id.number, uid=uid))

    def unbind(self):
        self._tell(unbind=wire.Unbind(client=self.id.number))

    def pause(self):
        """Has the gateway read nothing more from the client, until `resume`. What it has read already comes."""
        self._read(paused=True)

    def resume(self):
        self._read(paused=False)

    def get(self, key, default=None):
        """A value of the session, which lives at the gateway."""
        return self.session.get(key, default)

    def set(self, key, value):
        self._change(wire.SessionUpdate(client=self.id.number, set={key: value}))

    def remove(self, key):
        self._change(wire.SessionUpdate(client=self.id.number, remove=[key]))

    def _change(self, update):
        self.changes += 1
        apply(self.session, update)
        self._tell(session=update)

    def _read(self, paused):
        self.paused = paused
        self._tell(pause=wire.Pause(client=self.id.number, paused=paused))

    def _tell(self, **command):
        # Through the link over which the client came and no other: a later one has other workers before it.
        self.link.send(wire.Command(**command))

    async def _read_again(self):
        """The gateway has refused a change: what is known here is wrong."""
        changes = None
        while changes != self.changes:
            changes = self.changes
            who = wire.Filter(clients=[self.id.number])
            reply = await self.link.ask(select=wire.Select(filter=who, session=True))
            if reply is None or not reply.selected.clients:
                return
        self.session = dict(reply.selected.clients[0].session)


class Cluster:
    """All gateways and their clients."""

    def __init__(self, query_timeout=5):
        self.up = {}  # links by the gateway's id
        self.away = set()  # gateways that live and have no link now
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
        """The clients in a group: their ids, each with its session."""
        select = wire.Select(filter=wire.Filter(groups=[group]), session=True)
        replies, complete = await self._ask(select=select)
        found = {}
        for gateway, reply in replies:
            found.update((ClientId(gateway, one.client), dict(one.session)) for one in reply.selected.clients)
        return Answer(found, complete)

    async def group_sizes(self):
        """All groups that have members, and how many."""
        replies, complete = await self._ask(groups=wire.AllGroups())
        sizes = {}
        for _, reply in replies:
            for group, size in reply.groups.groups.items():
                sizes[group] = sizes.get(group, 0) + size
        return Answer(sizes, complete)

    async def count(self):
        """How many clients there are."""
        replies, complete = await self._ask(count=wire.Filter())
        return Answer(sum(reply.count.count for _, reply in replies), complete)

    async def _ask(self, **query):
        links, complete = list(self.up.values()), not self.away
        replies = await asyncio.gather(*(link.ask(self.query_timeout, **query) for link in links))
        answered = [(link.gateway, reply) for link, reply in zip(links, replies) if reply is not None]
        return answered, complete and len(answered) == len(links)


class Target:
    """Whom something goes to: each client that is meant, on any gateway, once."""

    def __init__(self, cluster, clients=None, **whom):
        self.cluster, self.clients, self.whom, self.left_out = cluster, clients, whom, []

    def excluding(self, id):
        self.left_out.append(id)
        return self

    def send(self, message):
        self._tell(lambda to: wire.Command(send=send_of(message, target=wire.Target(**to))))

    def close(self, code=1000, reason=""):
        self._tell(lambda to: wire.Command(close=wire.Close(target=wire.Target(**to), code=code, reason=reason)))

    def _tell(self, command):
        for gateway, link in list(self.cluster.up.items()):
            to = dict(self.whom)
            if self.clients is not None:
                to["clients"] = [id.number for id in self.clients if id.gateway == gateway]
                if not to["clients"]:
                    continue
            to["except"] = [id.number for id in self.left_out if id.gateway == gateway]
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
