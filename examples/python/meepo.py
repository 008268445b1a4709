"""A Meepo worker in Python: events of clients in, commands to gateways out.

An application is a class with any of `on_connect(client, hello)`, `on_message(client, message)` and
`on_close(client, reason)`, all async, given to `run`. What lies beneath is told in docs/src/link-protocol.md.
"""

import argparse
import asyncio
import base64
import logging
import os
import random
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import grpc

sys.path.append(str(Path(__file__).with_name("generated")))
import link_pb2 as wire  # noqa: E402
from registry import Registries  # noqa: E402
from rpc import channel  # noqa: E402

log = logging.getLogger("meepo")

DIAL = 4  # seconds that a gateway may take for its welcome
PAUSES = (0.05, 2)  # the shortest and the longest pause between two attempts
NEWS = 3  # seconds that the registry's word may take when another gateway answers
UNHEARD = 4.5  # a gateway may have given up a worker that did nothing for so many seconds, and no other
DONE_AT_ONCE = 128
QUEUE_LIMIT = 8 << 20  # bytes that may wait for a gateway before its events wait
SLACK = 64 << 10  # what a command may have beside a payload of the largest size


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

    def send(self, message):
        self._tell(send=_send(message, clients=[self.id.number]))

    def close(self, code=1000, reason=""):
        """Closes the client after all that it was sent before."""
        self._tell(close=wire.Close(to=wire.Target(clients=[self.id.number]), code=code, reason=reason))

    def join(self, group):
        self._tell(join=wire.Join(client=self.id.number, group=group))

    def leave(self, group):
        self._tell(leave=wire.Leave(client=self.id.number, group=group))

    def bind(self, uid):
        self._tell(bind=wire.Bind(client=self.id.number, uid=uid))

    def unbind(self):
        self._tell(unbind=wire.Unbind(client=self.id.number))

    def get(self, key, default=None):
        """A value of the session, which lives at the gateway."""
        return self.session.get(key, default)

    def set(self, key, value):
        self._change(wire.SessionUpdate(client=self.id.number, set={key: value}))

    def remove(self, key):
        self._change(wire.SessionUpdate(client=self.id.number, remove=[key]))

    def _change(self, update):
        self.changes += 1
        _apply(self.session, update)
        self._tell(session=update)

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
        self._tell(lambda to: wire.Command(send=_send(message, **to)))

    def close(self, code=1000, reason=""):
        self._tell(lambda to: wire.Command(close=wire.Close(to=wire.Target(**to), code=code, reason=reason)))

    def _tell(self, command):
        for gateway, link in list(self.cluster.up.items()):
            to = dict(self.whom)
            if self.clients is not None:
                to["clients"] = [id.number for id in self.clients if id.gateway == gateway]
                if not to["clients"]:
                    continue
            to["except"] = [id.number for id in self.left_out if id.gateway == gateway]
            link.send(command(to))


class Link:
    """The stream to one gateway child."""

    def __init__(self, gateway, chan, call):
        self.gateway, self.channel, self.call = gateway, chan, call
        self.max_command = 0
        self.queue, self.queued = deque(), 0
        self.wake, self.room = asyncio.Event(), asyncio.Event()
        self.room.set()
        self.queries, self.last_query = {}, 0
        self.tended, self._ended = time.monotonic(), False
        self.writer = self.tender = None

    @classmethod
    async def dial(cls, gateway, address, hello, metadata):
        """Dials a gateway child and waits for its welcome."""
        chan = channel(address)
        try:
            call = chan.stream_stream(
                "/meepo.link.v1.Link/Open",
                request_serializer=wire.Command.SerializeToString,
                response_deserializer=wire.Event.FromString,
            )(metadata=metadata)
            link = cls(gateway, chan, call)

            async def greet():
                await call.write(wire.Command(hello=hello))
                return await call.read()

            first = await asyncio.wait_for(greet(), DIAL)
            if first is grpc.aio.EOF or first.WhichOneof("body") != "welcome":
                raise ConnectionError("the first event is not `welcome`")
            link.max_command = first.welcome.max_message + SLACK
            link.tended = time.monotonic()
            link.writer, link.tender = asyncio.create_task(link._write()), asyncio.create_task(link._tend())
            return link
        except BaseException:
            await chan.close()
            raise

    @property
    def ended(self):
        """Also when this process was frozen, for good: others may have done since what is left here."""
        if time.monotonic() - self.tended >= UNHEARD:
            self._ended = True
        return self._ended

    def send(self, command):
        """Queues a command. It never waits."""
        size = command.ByteSize()
        if self.ended or size > self.max_command:
            # Too big, it would end the link for all clients.
            why = "the link has ended" if self.ended else f"{size} bytes are too many"
            log.debug("gateway %016x: command not sent: %s", self.gateway, why)
            return False
        self._put(command, size)
        return True

    def done(self, seq):
        """Says that the handler of an event has finished, after all that it has sent."""
        if seq:
            self._put(seq, 0)

    def undone(self, seq):
        self._put(wire.Command(undone=wire.Undone(seq=seq)), 0)

    async def ask(self, timeout=5, **query):
        """The reply to a query; None if the link ends or the gateway is silent."""
        self.last_query += 1
        number = self.last_query
        self.queries[number] = asyncio.get_running_loop().create_future()
        try:
            if not self.send(wire.Command(query=wire.Query(id=number, **query))):
                return None
            return await asyncio.wait_for(self.queries[number], timeout)
        except asyncio.TimeoutError:
            return None
        finally:
            self.queries.pop(number, None)

    def answer(self, reply):
        waiting = self.queries.get(reply.query)
        if waiting and not waiting.done():
            waiting.set_result(reply)

    async def end(self):
        """The stream has ended: nobody is to wait for anything of it."""
        self._ended = True
        self.room.set()
        for waiting in self.queries.values():
            if not waiting.done():
                waiting.set_result(None)
        self.writer.cancel()
        self.tender.cancel()
        self.call.cancel()
        await self.channel.close()

    def _put(self, what, size):
        if self._ended:
            return  # The gateway needs no answer: it hands the event to another worker.
        self.queue.append((what, size))
        self.queued += size
        if self.queued > QUEUE_LIMIT:
            self.room.clear()
        self.wake.set()

    async def _write(self):
        done = []

        async def flush():
            if done:
                await self.call.write(wire.Command(done=wire.Done(seq=done)))
                done.clear()

        try:
            while True:
                await self.wake.wait()
                self.wake.clear()
                while self.queue:
                    what, size = self.queue.popleft()
                    if isinstance(what, int):
                        done.append(what)
                        if len(done) == DONE_AT_ONCE:
                            await flush()
                        continue
                    if what.HasField("undone"):
                        await flush()
                    await self.call.write(what)
                    self.queued -= size
                    if self.queued <= QUEUE_LIMIT:
                        self.room.set()
                await flush()
        except (grpc.RpcError, asyncio.InvalidStateError):
            pass  # Whoever reads sees the end, too.

    async def _tend(self):
        while not self.ended:
            self.tended = time.monotonic()
            await asyncio.sleep(1)
        log.warning("gateway %016x: this worker was frozen or blocked for too long", self.gateway)
        self.call.cancel()


@dataclass
class Lane:
    """The events of a client, one after the other."""

    client: "Client | None" = None
    waiting: deque = None
    busy: bool = False


@dataclass
class Job:
    link: Link
    event: wire.Event
    client: "Client | None"  # as it was when the event came: it may be forgotten since, and have come again
    lost: bool = False


class Worker:
    """Keeps a link to each gateway child, and has the application handle what comes."""

    def __init__(self, app, registries, name, secret="", handler_timeout=60):
        self.app, self.cluster, self.handler_timeout = app, Cluster(), handler_timeout
        self.name, self.id = name, random.randrange(1, 1 << 64)
        self.metadata = (("x-meepo-secret", secret),) if secret else ()
        self.registries = Registries(registries, self.metadata)
        self.lanes, self.tasks, self.stopping = {}, set(), asyncio.Event()

    async def run(self):
        """Serves until `stop` is called and all that is in flight is done."""
        announced = asyncio.create_task(self.registries.announce(self.id, self.name, self.stopping))
        watched = asyncio.create_task(self.registries.watch())
        kept = {}
        while not self.stopping.is_set():
            for id in self.registries.gateways():
                if id not in kept or kept[id].done():
                    kept[id] = asyncio.create_task(self._keep(id))
            await self._unless_stopped(self.registries.changed(1))
        await asyncio.gather(announced, *kept.values())
        while self.tasks:
            await asyncio.wait(self.tasks)
        watched.cancel()

    def stop(self):
        """Takes no new events, and finishes those that it has."""
        self.stopping.set()
        for link in self.cluster.up.values():
            link.send(wire.Command(draining=wire.Draining()))

    async def _unless_stopped(self, work):
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self.stopping.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait({task})

    # --- links ---

    async def _keep(self, id):
        """Keeps the link to a gateway until the registry no longer names it, and it cannot be reached either."""
        away, pause = self.cluster.away, PAUSES[0]
        away.add(id)
        while not self.stopping.is_set():
            link = await self._unless_stopped(self._reach(id))
            if link is None:
                break
            since = time.monotonic()
            if await self._serve(link):
                self._moved(id)
            pause = PAUSES[0] if time.monotonic() - since > PAUSES[1] else min(2 * pause, PAUSES[1])
            await self._unless_stopped(asyncio.sleep(pause * random.uniform(0.5, 1)))
        away.discard(id)
        if self.registries.word(id):
            self._moved(id)  # It lives, or all its clients' ends are handled.
        else:
            self._lost(id)

    async def _reach(self, id):
        """Dials a gateway until it answers. None once it does not and has gone, or is done."""
        address, pause, gone, attempts = "", PAUSES[0], None, 0
        while True:
            node = self.registries.word(id)
            if node and node.state == self.registries.DONE:
                return None
            address = node.address if node else address
            try:
                hello = wire.Hello(worker_id=self.id, name=self.name, version="python", gateway_id=id)
                return await Link.dial(id, address, hello, self.metadata)
            except (grpc.RpcError, OSError, asyncio.TimeoutError) as error:
                attempts += 1
                level = logging.WARNING if attempts == 3 else logging.DEBUG
                log.log(level, "gateway %016x at %s: no link: %s", id, address, _why(error))
                if getattr(error, "code", lambda: None)() == grpc.StatusCode.FAILED_PRECONDITION:
                    gone = gone or time.monotonic()  # Another gateway answers at its address.
            node = self.registries.word(id)
            if node is None:
                return None
            if gone and time.monotonic() - gone > NEWS and node.state == self.registries.SERVING:
                self._lost(id)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, PAUSES[1])

    async def _serve(self, link):
        """Takes what comes over a link until it ends. True if it was drained."""
        id, cluster = link.gateway, self.cluster
        self._moved(id)
        cluster.away.discard(id)
        cluster.up[id] = link
        log.info("gateway %016x: link is up", id)
        if self.stopping.is_set():
            link.send(wire.Command(draining=wire.Draining()))
        drained = False
        try:
            while (event := await link.call.read()) is not grpc.aio.EOF and not link.ended:
                self._take(link, event)
            drained = event is grpc.aio.EOF and self.stopping.is_set()
            log.info("gateway %016x: link has ended", id)
        except (grpc.RpcError, asyncio.CancelledError) as error:
            if asyncio.current_task().cancelling():
                raise
            log.warning("gateway %016x: link broke: %s", id, _why(error))
        finally:
            del cluster.up[id]
            cluster.away.add(id)
            await link.end()
        return drained

    # --- clients ---

    def _take(self, link, event):
        """Takes an event. It never waits, so that replies to queries pass handlers that wait for them."""
        id, kind = ClientId(link.gateway, event.client), event.WhichOneof("body")
        if event.HasField("attach"):
            client = Client(self.cluster, link, event.client, event.attach, kind != "opened")
            self._lane(id).client = client
        if kind in ("opened", "message", "closed"):
            return self._push(id, link, event)
        client = self.lanes[id].client if id in self.lanes else None
        if kind == "detached":
            self._forget(id, link)
        elif kind == "session_changed" and client:
            _apply(client.session, event.session_changed)
        elif kind == "reply":
            link.answer(event.reply)
        elif kind == "refused":
            refused = event.refused
            client = self.lanes.get(ClientId(link.gateway, refused.client), Lane()).client
            log.debug("refused: %s of client %d: %s", refused.command, refused.client, refused.detail)
            if refused.command == "session" and client:
                self._spawn(client._read_again())
        link.done(event.seq)

    def _push(self, id, link, event, lost=False):
        lane = self._lane(id)
        known = lane.client if lane.client and lane.client.link is link else None
        lane.waiting.append(Job(link, event, known, lost))
        if not lane.busy:
            lane.busy = True
            self._spawn(self._work_off(id, lane))

    async def _work_off(self, id, lane):
        while lane.waiting:
            job = lane.waiting.popleft()
            link, seq = job.link, job.event.seq
            await link.room.wait()
            if link.ended and not job.lost:
                continue  # The gateway hands it to another worker.
            if job.client is None or job.client is not lane.client:
                # Of a client that was rejected, has gone already, or comes again after a handler was cut off.
                link.done(seq)
                continue
            handler = asyncio.create_task(self._handle(job))
            await asyncio.wait({handler}, timeout=self.handler_timeout)
            if handler.done():
                link.done(seq)
                continue
            log.warning("client %s: handler has taken too long and was cut off", id)
            handler.cancel()
            await asyncio.wait({handler}, timeout=1)
            self._forget(id, link)
            if not job.lost:
                link.undone(seq)
        lane.busy = False
        self._tidy(id)

    async def _handle(self, job):
        client, event = job.client, job.event
        client.redelivered, kind = event.redelivered, event.WhichOneof("body")
        if kind == "opened":
            try:
                await self.app.on_connect(client, client.hello)
                client.accepted = True
                answer = wire.Command(accept=wire.Accept(client=client.id.number))
            except Exception as error:
                if not isinstance(error, Reject):
                    log.exception("client %s: on_connect failed", client.id)
                    error = Reject(500, "internal error")
                self._forget(client.id, job.link)
                reject = wire.Reject(client=client.id.number, status=error.status, reason=error.reason)
                answer = wire.Command(reject=reject)
            job.link.send(answer)
            return
        try:
            if kind == "message":
                payload, binary = event.message.payload, event.message.binary
                await self.app.on_message(client, Message(payload if binary else payload.decode()))
            elif client.accepted:
                closed = event.closed
                await self.app.on_close(client, Reason(wire.CloseCause.Name(closed.cause), closed.code, closed.reason))
        except Exception:
            log.exception("client %s: on_%s failed", client.id, "message" if kind == "message" else "close")
        if kind == "closed":
            self._forget(client.id, job.link)

    def _moved(self, gateway):
        """Forgets the clients of a gateway whose link has ended, but that lives: other workers have them."""
        for client in self._left_behind(gateway):
            self._forget(client.id, client.link)

    def _lost(self, gateway):
        """Tells the application of the clients of a gateway that has died."""
        closed = wire.Event(closed=wire.Closed(cause=wire.GATEWAY_LOST))
        for client in self._left_behind(gateway):
            self._push(client.id, client.link, closed, lost=True)

    def _left_behind(self, gateway):
        clients = [lane.client for id, lane in self.lanes.items() if id.gateway == gateway and lane.client]
        return [client for client in clients if client.link.ended]

    def _lane(self, id):
        return self.lanes.setdefault(id, Lane(waiting=deque()))

    def _forget(self, id, link):
        lane = self.lanes.get(id)
        if lane and lane.client and lane.client.link is link:
            lane.client = None
            self._tidy(id)

    def _tidy(self, id):
        lane = self.lanes.get(id)
        if lane and not (lane.client or lane.busy or lane.waiting):
            del self.lanes[id]

    def _spawn(self, work):
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class App:
    """What an application has when it does not say otherwise."""

    async def on_connect(self, client, hello):
        pass

    async def on_message(self, client, message):
        pass

    async def on_close(self, client, reason):
        pass


def _send(message, **to):
    binary = not isinstance(message, str)
    return wire.Send(payload=message if binary else message.encode(), binary=binary, to=wire.Target(**to))


def _apply(session, change):
    if change.clear:
        session.clear()
    for key in change.remove:
        session.pop(key, None)
    session.update(change.set)


def _why(error):
    return error.details() if isinstance(error, grpc.aio.AioRpcError) else error or type(error).__name__


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
