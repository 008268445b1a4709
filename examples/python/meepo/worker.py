"""The worker: a link to each gateway child, and a queue of events for each client."""

import asyncio
import logging
import random
import time
from collections import deque
from dataclasses import dataclass

import grpc
import link_pb2 as wire

from .client import Client, ClientId, Cluster, Message, Reason, Reject, Request, Response, apply
from .link import Link
from .registry import Registries

log = logging.getLogger("meepo")

PAUSES = (0.05, 2)  # the shortest and the longest pause between two attempts
REGISTRY_DELAY = 3  # seconds after which the registries know that another gateway has an address


@dataclass
class ClientQueue:
    """The events of one client, handled one after the other."""

    client: "Client | None" = None
    waiting: deque = None
    busy: bool = False


@dataclass
class Task:
    """An event that waits for its handler."""

    link: Link
    event: wire.Event
    client: "Client | None"  # the client when the event came: it may have been forgotten since, and have come again
    lost: bool = False  # the gateway has died: the event does not come from it
    last_words: "LastWords | None" = None  # set if the handler is `on_last_words`


class LastWords:
    """Tells a gateway when the handlers of all its clients have sent their last words."""

    def __init__(self, link, event):
        self.link, self.unsent = link, 1
        self.until = time.monotonic() + event.wait_ms / 1000

    def sent(self):
        self.unsent -= 1
        if not self.unsent:
            self.link.send(wire.Command(last_words_sent=wire.LastWordsSent()))


class Worker:
    """Keeps a link to each gateway child, and calls the handlers of the application."""

    def __init__(self, app, registries, name, secret="", handler_timeout=60):
        self.app, self.cluster, self.handler_timeout = app, Cluster(), handler_timeout
        self.name, self.id = name, random.randrange(1, 1 << 64)
        self.metadata = (("x-meepo-secret", secret),) if secret else ()
        self.registries = Registries(registries, self.metadata)
        self.queues, self.running, self.stopping = {}, set(), asyncio.Event()
        self.undrained = set()  # links over which events may be in flight

    async def run(self):
        """Serves until `stop` is called and all events in flight are done."""
        announced = asyncio.create_task(self.registries.announce(self.id, self.name, self.stopping))
        watched = asyncio.create_task(self.registries.watch())
        kept = {}
        while not self.stopping.is_set():
            for id in self.registries.gateways():
                if id not in kept or kept[id].done():
                    kept[id] = asyncio.create_task(self._keep(id))
            await self._unless_stopped(self.registries.changed(1))
        await asyncio.gather(announced, *kept.values())
        while self.running:
            await asyncio.wait(self.running)
        watched.cancel()

    def stop(self):
        """Begins to drain: takes no new events, and finishes those that it has."""
        self.stopping.set()
        for link in self.cluster.up.values():
            link.send(wire.Command(draining=wire.Draining()))

    async def _unless_stopped(self, work):
        """The result of `work`, or None if this worker begins to drain first."""
        running, stop = asyncio.ensure_future(work), asyncio.ensure_future(self.stopping.wait())
        await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if running.done():
            return running.result()
        running.cancel()
        await asyncio.wait({running})

    # --- links ---

    async def _keep(self, id):
        """Keeps a link to a gateway until the registries no longer name it and it cannot be reached either."""
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
        if self.registries.node(id):
            self._moved(id)  # The gateway is alive, or has drained and all its clients were closed.
        else:
            self._lost(id)

    async def _reach(self, id):
        """Dials a gateway until it answers. None if it has gone or drained."""
        address, pause, gone, attempts = "", PAUSES[0], None, 0
        while True:
            node = self.registries.node(id)
            if node and node.state == self.registries.DRAINED:
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
                    gone = gone or time.monotonic()  # Another gateway answers at this address.
            node = self.registries.node(id)
            if node is None:
                return None
            if gone and time.monotonic() - gone > REGISTRY_DELAY and node.state == self.registries.SERVING:
                self._lost(id)
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, PAUSES[1])

    async def _serve(self, link):
        """Takes the events of a link until it ends. True if it ended because this worker has drained."""
        id, cluster = link.gateway, self.cluster
        self._moved(id)
        cluster.away.discard(id)
        cluster.up[id] = link
        self.undrained.add(link)
        log.info("gateway %016x: link is up", id)
        if self.stopping.is_set():
            link.send(wire.Command(draining=wire.Draining()))
        drained = False
        try:
            while (event := await link.call.read()) is not grpc.aio.EOF and not link.ended:
                if event.HasField("drained"):
                    self._drained(link)
                else:
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
            self._drained(link)
        return drained

    def _drained(self, link):
        """No event is in flight over a link. All links end together, since handlers may send over each until then."""
        self.undrained.discard(link)
        if self.stopping.is_set() and not self.undrained:
            for other in self.cluster.up.values():
                other.finish()

    # --- clients ---

    def _take(self, link, event):
        """Takes an event. Never waits, since a handler may wait for a reply that comes next."""
        # Number 0 is no client: the event is about the link.
        id, kind = ClientId(link.gateway, event.client), event.WhichOneof("body")
        if event.HasField("attach"):
            client = Client(self.cluster, link, event.client, event.attach, kind != "opened")
            self._queue(id).client = client
        if kind in ("opened", "message", "closed", "send_buffer"):
            return self._push(id, link, event)
        if kind == "request":
            return self._spawn(self._respond(link, event))
        client = self.queues[id].client if id in self.queues else None
        if kind == "detached":
            self._forget(id, link)
        elif kind == "session_changed" and client:
            apply(client.session, event.session_changed)
        elif kind == "pause_changed" and client:
            client.paused = event.pause_changed.paused
        elif kind == "last_words":
            self._last_words(link, event)
        elif kind == "reply":
            link.answer(event.reply)
        elif kind == "refused":
            refused = event.refused
            log.debug("refused: %s of client %d: %s", refused.command, event.client, refused.detail)
            if refused.command == "session" and client:
                self._spawn(client._fetch_session())
        link.done(seq_of(event))

    def _last_words(self, link, event):
        """Calls `on_last_words` for each client of a gateway that is about to close them."""
        last_words = LastWords(link, event.last_words)
        for id in [id for id, queue in self.queues.items() if queue.client and queue.client.link is link]:
            last_words.unsent += 1
            self._push(id, link, event, last_words=last_words)
        last_words.sent()

    def _push(self, id, link, event, lost=False, last_words=None):
        queue = self._queue(id)
        known = queue.client if queue.client and queue.client.link is link else None
        queue.waiting.append(Task(link, event, known, lost, last_words))
        if not queue.busy:
            queue.busy = True
            self._spawn(self._run_all(id, queue))

    async def _run_all(self, id, queue):
        while queue.waiting:
            task = queue.waiting.popleft()
            await self._run(id, queue, task)
            if task.last_words:
                task.last_words.sent()
        queue.busy = False
        self._tidy(id)

    async def _run(self, id, queue, task):
        link, seq, limit = task.link, seq_of(task.event), self.handler_timeout
        await link.room.wait()
        if link.ended and not task.lost:
            return  # The gateway delivers the event to another worker.
        if task.client is None or task.client is not queue.client:
            # An event of a client that was rejected, has gone, or has come again after its handler was cut off.
            return link.done(seq)
        if task.last_words:
            limit = max(0, min(limit, task.last_words.until - time.monotonic()))
        handler = asyncio.create_task(self._handle(task))
        await asyncio.wait({handler}, timeout=limit)
        if handler.done():
            return link.done(seq)
        log.warning("client %s: handler has taken too long and was cut off", id)
        handler.cancel()
        await asyncio.wait({handler}, timeout=1)
        if task.last_words:
            return  # Last words are not delivered again, and the client stays here.
        self._forget(id, link)
        if not task.lost:
            link.undone(seq)

    async def _handle(self, task):
        client, event = task.client, task.event
        client.redelivered, kind = event.delivery.redelivered, event.WhichOneof("body")
        if kind == "opened":
            try:
                await self.app.on_connect(client, client.hello)
                client.accepted = True
                answer = wire.Command(accept=wire.Accept(client=client.id.number))
            except Exception as error:
                if not isinstance(error, Reject):
                    log.exception("client %s: on_connect failed", client.id)
                    error = Reject(500, "internal error")
                self._forget(client.id, task.link)
                reject = wire.Reject(client=client.id.number, status=error.status, reason=error.reason)
                answer = wire.Command(reject=reject)
            task.link.send(answer)
            return
        try:
            if kind == "message":
                payload, binary = event.message.payload, event.message.binary
                await self.app.on_message(client, Message(payload if binary else payload.decode()))
            elif kind == "send_buffer":
                await (self.app.on_buffer_full if event.send_buffer.full else self.app.on_buffer_empty)(client)
            elif kind == "last_words":
                if client.accepted:
                    await self.app.on_last_words(client, event.last_words.reload)
            elif client.accepted:
                closed = event.closed
                code = closed.code if closed.HasField("code") else None
                await self.app.on_close(client, Reason(wire.CloseCause.Name(closed.cause), code, closed.reason))
        except Exception:
            buffer = "on_buffer_full or on_buffer_empty"
            handlers = {"message": "on_message", "send_buffer": buffer, "last_words": "on_last_words"}
            handler = handlers.get(kind, "on_close")
            log.exception("client %s: %s failed", client.id, handler)
        if kind == "closed":
            self._forget(client.id, task.link)

    async def _respond(self, link, event):
        """Calls `on_request`. Requests belong to no client, so they run side by side."""
        asked = event.request
        await link.room.wait()
        if link.ended:
            return  # The gateway delivers the request to another worker, or has responded itself.
        request = Request(self.cluster, asked.method, asked.handshake, asked.body, event.delivery.redelivered)
        try:
            response = await asyncio.wait_for(self.app.on_request(request), self.handler_timeout)
            answer = response.to_wire(event.request_number)
        except asyncio.TimeoutError:
            log.warning("%s %s: handler has taken too long and was cut off", asked.method, asked.handshake.path)
            answer = Response(504).to_wire(event.request_number)
        except Exception:
            log.exception("%s %s: on_request failed", asked.method, asked.handshake.path)
            answer = Response(500).to_wire(event.request_number)
        if not link.send(answer) and not link.ended:
            log.warning("%s %s: the response is too large", asked.method, asked.handshake.path)
            link.send(Response(500).to_wire(event.request_number))
        link.done(seq_of(event))

    def _moved(self, gateway):
        """Forgets clients whose link has ended while their gateway is alive: other workers have them."""
        for client in self._left_behind(gateway):
            self._forget(client.id, client.link)

    def _lost(self, gateway):
        """Calls `on_close` for the clients of a gateway that has died."""
        closed = wire.Event(closed=wire.Closed(cause=wire.GATEWAY_LOST))
        for client in self._left_behind(gateway):
            self._push(client.id, client.link, closed, lost=True)

    def _left_behind(self, gateway):
        clients = [queue.client for id, queue in self.queues.items() if id.gateway == gateway and queue.client]
        return [client for client in clients if client.link.ended]

    def _queue(self, id):
        return self.queues.setdefault(id, ClientQueue(waiting=deque()))

    def _forget(self, id, link):
        queue = self.queues.get(id)
        if queue and queue.client and queue.client.link is link:
            queue.client = None
            self._tidy(id)

    def _tidy(self, id):
        queue = self.queues.get(id)
        if queue and not (queue.client or queue.busy or queue.waiting):
            del self.queues[id]

    def _spawn(self, work):
        running = asyncio.create_task(work)
        self.running.add(running)
        running.add_done_callback(self.running.discard)


def seq_of(event):
    """The number of an event on its link, if the worker answers the event with `done`."""
    return event.delivery.seq if event.HasField("delivery") else None


def _why(error):
    return error.details() if isinstance(error, grpc.aio.AioRpcError) else error or type(error).__name__
