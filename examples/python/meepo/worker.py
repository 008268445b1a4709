"""The worker: a link to each gateway child, and a lane for each client."""

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
    parting: "Parting | None" = None  # it is a last word


class Parting:
    """Tells a gateway once all last words are said."""

    def __init__(self, link, leaving):
        self.link, self.unsaid = link, 1
        self.until = time.monotonic() + leaving.wait_ms / 1000

    def said(self):
        self.unsaid -= 1
        if not self.unsaid:
            self.link.send(wire.Command(parted=wire.Parted()))


class Worker:
    """Keeps a link to each gateway child, and has the application handle what comes."""

    def __init__(self, app, registries, name, secret="", handler_timeout=60):
        self.app, self.cluster, self.handler_timeout = app, Cluster(), handler_timeout
        self.name, self.id = name, random.randrange(1, 1 << 64)
        self.metadata = (("x-meepo-secret", secret),) if secret else ()
        self.registries = Registries(registries, self.metadata)
        self.lanes, self.tasks, self.stopping = {}, set(), asyncio.Event()
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
        id, kind = ClientId(link.gateway, event.client), event.WhichOneof("body")
        if event.HasField("attach"):
            client = Client(self.cluster, link, event.client, event.attach, kind != "opened")
            self._lane(id).client = client
        if kind in ("opened", "message", "closed", "buffered"):
            return self._push(id, link, event)
        if kind == "request":
            return self._spawn(self._answer(link, event))
        client = self.lanes[id].client if id in self.lanes else None
        if kind == "detached":
            self._forget(id, link)
        elif kind == "session_changed" and client:
            apply(client.session, event.session_changed)
        elif kind == "reading_changed" and client:
            client.paused = event.reading_changed.paused
        elif kind == "leaving":
            self._leaving(link, event)
        elif kind == "reply":
            link.answer(event.reply)
        elif kind == "refused":
            refused = event.refused
            client = self.lanes.get(ClientId(link.gateway, refused.client), Lane()).client
            log.debug("refused: %s of client %d: %s", refused.command, refused.client, refused.detail)
            if refused.command == "session" and client:
                self._spawn(client._read_again())
        link.done(event.seq)

    def _leaving(self, link, event):
        """Lets the application say a last word to the clients of a gateway that is about to close them."""
        parting = Parting(link, event.leaving)
        for id in [id for id, lane in self.lanes.items() if lane.client and lane.client.link is link]:
            parting.unsaid += 1
            self._push(id, link, event, parting=parting)
        parting.said()

    def _push(self, id, link, event, lost=False, parting=None):
        lane = self._lane(id)
        known = lane.client if lane.client and lane.client.link is link else None
        lane.waiting.append(Job(link, event, known, lost, parting))
        if not lane.busy:
            lane.busy = True
            self._spawn(self._work_off(id, lane))

    async def _work_off(self, id, lane):
        while lane.waiting:
            job = lane.waiting.popleft()
            await self._work(id, lane, job)
            if job.parting:
                job.parting.said()
        lane.busy = False
        self._tidy(id)

    async def _work(self, id, lane, job):
        link, seq, limit = job.link, job.event.seq, self.handler_timeout
        await link.room.wait()
        if link.ended and not job.lost:
            return  # The gateway hands it to another worker.
        if job.client is None or job.client is not lane.client:
            # Of a client that was rejected, has gone already, or comes again after a handler was cut off.
            return link.done(seq)
        if job.parting:
            limit = max(0, min(limit, job.parting.until - time.monotonic()))
        handler = asyncio.create_task(self._handle(job))
        await asyncio.wait({handler}, timeout=limit)
        if handler.done():
            return link.done(seq)
        log.warning("client %s: handler has taken too long and was cut off", id)
        handler.cancel()
        await asyncio.wait({handler}, timeout=1)
        if job.parting:
            return  # There is no event to deliver again, and the client is still served here.
        self._forget(id, link)
        if not job.lost:
            link.undone(seq)

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
            elif kind == "buffered":
                await (self.app.on_buffer_full if event.buffered.full else self.app.on_buffer_empty)(client)
            elif kind == "leaving":
                if client.accepted:
                    await self.app.on_farewell(client, event.leaving.reload)
            elif client.accepted:
                closed = event.closed
                await self.app.on_close(client, Reason(wire.CloseCause.Name(closed.cause), closed.code, closed.reason))
        except Exception:
            handler = {"message": "on_message", "buffered": "on_buffer_full or on_buffer_empty", "leaving": "on_farewell"}.get(kind, "on_close")
            log.exception("client %s: %s failed", client.id, handler)
        if kind == "closed":
            self._forget(client.id, job.link)

    async def _answer(self, link, event):
        """Has the application answer a request: each by itself, for it is about no client."""
        asked = event.request
        await link.room.wait()
        if link.ended:
            return  # The gateway hands it to another worker, or has answered by itself.
        request = Request(self.cluster, asked.method, asked.handshake, asked.body, event.redelivered)
        try:
            response = await asyncio.wait_for(self.app.on_request(request), self.handler_timeout)
            answer = response.to_wire(event.client)
        except asyncio.TimeoutError:
            log.warning("%s %s: handler has taken too long and was cut off", asked.method, asked.handshake.path)
            answer = Response(504).to_wire(event.client)
        except Exception:
            log.exception("%s %s: on_request failed", asked.method, asked.handshake.path)
            answer = Response(500).to_wire(event.client)
        if not link.send(answer) and not link.ended:
            log.warning("%s %s: the answer is too large", asked.method, asked.handshake.path)
            link.send(Response(500).to_wire(event.client))
        link.done(event.seq)

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


def _why(error):
    return error.details() if isinstance(error, grpc.aio.AioRpcError) else error or type(error).__name__
