"""The worker: a link to each gateway child, and a queue for each client."""

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
NEWS = 3  # seconds that the registry's word may take when another gateway answers


@dataclass
class ClientQueue:
    """The events of a client, handled one after the other."""

    client: "Client | None" = None
    waiting: deque = None
    busy: bool = False


@dataclass
class Task:
    """An event that waits for its handler."""

    link: Link
    event: wire.Event
    client: "Client | None"  # as it was when the event came: this worker may have forgotten the client since, and serve it again
    lost: bool = False
    last_words: "LastWords | None" = None


class LastWords:
    """Tells a gateway once all handlers have sent their last words."""

    def __init__(self, link, event):
        self.link, self.unsaid = link, 1
        self.until = time.monotonic() + event.wait_ms / 1000

    def said(self):
        self.unsaid -= 1
        if not self.unsaid:
            self.link.send(wire.Command(last_words_sent=wire.LastWordsSent()))


class Worker:
    """Keeps a link to each gateway child, and has the application handle events."""

    def __init__(self, app, registries, name, secret="", handler_timeout=60):
        self.app, self.cluster, self.handler_timeout = app, Cluster(), handler_timeout
        self.name, self.id = name, random.randrange(1, 1 << 64)
        self.metadata = (("x-meepo-secret", secret),) if secret else ()
        self.registries = Registries(registries, self.metadata)
        self.queues, self.tasks, self.stopping = {}, set(), asyncio.Event()
        self.undrained = set()  # links over which something may be in flight

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
        """Nothing is in flight over a link. They end together: until then handlers may send over each of them."""
        self.undrained.discard(link)
        if self.stopping.is_set() and not self.undrained:
            for other in self.cluster.up.values():
                other.finish()

    # --- clients ---

    def _take(self, link, event):
        """Takes an event. It never waits, so that replies to queries pass handlers that wait for them."""
        id, kind = ClientId(link.gateway, event.client), event.WhichOneof("body")  # `client` is 0 where the event names none
        if event.HasField("attach"):
            client = Client(self.cluster, link, event.client, event.attach, kind != "opened")
            self._queue(id).client = client
        if kind in ("opened", "message", "closed", "send_buffer"):
            return self._push(id, link, event)
        if kind == "request":
            return self._spawn(self._answer(link, event))
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
                self._spawn(client._read_again())
        link.done(seq_of(event))

    def _last_words(self, link, event):
        """Lets the application send last words to the clients of a gateway that is about to close them."""
        last_words = LastWords(link, event.last_words)
        for id in [id for id, queue in self.queues.items() if queue.client and queue.client.link is link]:
            last_words.unsaid += 1
            self._push(id, link, event, last_words=last_words)
        last_words.said()

    def _push(self, id, link, event, lost=False, last_words=None):
        queue = self._queue(id)
        known = queue.client if queue.client and queue.client.link is link else None
        queue.waiting.append(Task(link, event, known, lost, last_words))
        if not queue.busy:
            queue.busy = True
            self._spawn(self._work_off(id, queue))

    async def _work_off(self, id, queue):
        while queue.waiting:
            task = queue.waiting.popleft()
            await self._work(id, queue, task)
            if task.last_words:
                task.last_words.said()
        queue.busy = False
        self._tidy(id)

    async def _work(self, id, queue, task):
        link, seq, limit = task.link, seq_of(task.event), self.handler_timeout
        await link.room.wait()
        if link.ended and not task.lost:
            return  # The gateway hands it to another worker.
        if task.client is None or task.client is not queue.client:
            # Of a client that was rejected, has gone already, or comes again after a handler was cut off.
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
            return  # There is no event to deliver again, and the client is still served here.
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
                await self.app.on_close(client, Reason(wire.CloseCause.Name(closed.cause), closed.code if closed.HasField("code") else None, closed.reason))
        except Exception:
            handler = {"message": "on_message", "send_buffer": "on_buffer_full or on_buffer_empty", "last_words": "on_last_words"}.get(kind, "on_close")
            log.exception("client %s: %s failed", client.id, handler)
        if kind == "closed":
            self._forget(client.id, task.link)

    async def _answer(self, link, event):
        """Has the application answer a request: each by itself, for it is about no client."""
        asked = event.request
        await link.room.wait()
        if link.ended:
            return  # The gateway hands it to another worker, or has answered by itself.
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
            log.warning("%s %s: the answer is too large", asked.method, asked.handshake.path)
            link.send(Response(500).to_wire(event.request_number))
        link.done(seq_of(event))

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
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def seq_of(event):
    """The number of an event on its link, if the worker answers the event with `done`."""
    return event.delivery.seq if event.HasField("delivery") else None


def _why(error):
    return error.details() if isinstance(error, grpc.aio.AioRpcError) else error or type(error).__name__
