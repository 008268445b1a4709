"""One link: the stream between this worker and one gateway child."""

import asyncio
import logging
import time
from collections import deque

import grpc
import link_pb2 as wire

from .rpc import channel

log = logging.getLogger("meepo")

DIAL = 4  # seconds that a gateway may take for its welcome
UNHEARD = 4.5  # seconds without a sign of life after which a gateway may have given this worker up
DONE_AT_ONCE = 128  # most events that one `done` answers
QUEUE_LIMIT = 8 << 20  # bytes that may wait for a gateway before its events wait
SLACK = 64 << 10  # bytes that a command may have beside its payload


class Link:
    """The stream to one gateway child."""

    def __init__(self, gateway, chan, call):
        self.gateway, self.channel, self.call = gateway, chan, call
        self.max_command = 0
        self.queue, self.queued = deque(), 0  # commands, and their bytes
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
                "/meepo.link.v2.Link/Open",
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
        """Whether the link has ended; for good also when this process was frozen, since other workers may have its events."""
        if time.monotonic() - self.tended >= UNHEARD:
            self._ended = True
        return self._ended

    def send(self, command):
        """Queues a command, without waiting. False if the command is not sent."""
        size = command.ByteSize()
        if self.ended or size > self.max_command:
            # A command that is too big would end the link for all clients.
            why = "the link has ended" if self.ended else f"{size} bytes are too many"
            log.debug("gateway %016x: command not sent: %s", self.gateway, why)
            return False
        self._put(command, size)
        return True

    def done(self, seq):
        """Tells the gateway, after all earlier commands, that the handler of an event has finished."""
        # After the end of the link, the handler's commands may have been refused: another worker has the event.
        if seq is not None and not self.ended:
            self._put(seq, 0)

    def undone(self, seq):
        if seq is not None and not self.ended:
            self._put(wire.Command(undone=wire.Undone(seq=seq)), 0)

    def finish(self):
        """Ends this half of the stream after all queued commands; the gateway ends the other half."""
        self._put(None, 0)

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
        """The stream has ended: no query waits for its reply any more."""
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
            return  # The gateway hands the event to another worker.
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
                    if what is None:
                        await flush()
                        return await self.call.done_writing()
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
            pass  # The reading half sees the end, too.

    async def _tend(self):
        while not self.ended:
            self.tended = time.monotonic()
            await asyncio.sleep(1)
        log.warning("gateway %016x: this worker was frozen or blocked for too long", self.gateway)
        self.call.cancel()
