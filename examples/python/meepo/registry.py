"""The client of the registries: it registers this worker, and watches which gateways there are."""

import asyncio
import logging
import os
import random

import grpc
import registry_pb2 as wire

from .rpc import channel

log = logging.getLogger("meepo.registry")

ANSWER_TIMEOUT = 5  # seconds
SETTLE = 10  # seconds after which a registry that has restarted knows all nodes again
LONGEST_PAUSE = 1  # seconds between two attempts


class Registries:
    """The node view: what all registries say together.

    What a registry said before it was lost still counts, unless a registry that is there contradicts it: one that has
    restarted and knows no node yet must not make the gateways vanish.
    """

    SERVING, DRAINED = wire.SERVING, wire.DRAINED

    def __init__(self, addresses, metadata):
        self.addresses, self.metadata = addresses, metadata
        self.now = {address: {} for address in addresses}  # what each registry says, by node id
        self.before = {address: {} for address in addresses}  # what each registry said before it was lost
        self.news = asyncio.Event()

    def gateways(self):
        """The ids of the gateways that take links. A draining one does too: it may need a worker to finish."""
        nodes = self._nodes().values()
        return [node.id for node in nodes if node.kind == wire.GATEWAY and node.state != wire.DRAINED]

    def node(self, id):
        """What the registries say of a gateway; None if it has gone."""
        return self._nodes().get(id)

    async def changed(self, timeout):
        """Waits until the node view changes, for a limited time."""
        try:
            await asyncio.wait_for(self.news.wait(), timeout)
            self.news.clear()
        except asyncio.TimeoutError:
            pass

    async def watch(self):
        await asyncio.gather(*(self._for_ever(address, self._watch_once) for address in self.addresses))

    async def announce(self, id, name, until):
        """Registers a worker at all registries until it stops."""
        node = wire.Node(id=id, kind=wire.WORKER, name=name, pid=os.getpid(), version="python")
        tasks = [
            asyncio.create_task(self._for_ever(address, self._announce_once, node, until)) for address in self.addresses
        ]
        await until.wait()
        # Each registration ends in good order, which takes a moment where the registry is there.
        await asyncio.wait(tasks, timeout=1)
        for task in tasks:
            task.cancel()

    def _nodes(self):
        all = {}
        for node in (node for view in self.now.values() for node in view.values()):
            # A node's state never goes back, so the furthest one is the latest.
            if node.id not in all or all[node.id].state < node.state:
                all[node.id] = node
        taken = {node.address for node in all.values() if node.state != wire.DRAINED}
        for node in (node for view in self.before.values() for node in view.values()):
            if node.id in all and all[node.id].state < node.state or node.id not in all and node.address not in taken:
                all[node.id] = node
        return all

    async def _for_ever(self, address, attempt, *arguments):
        """Makes attempts, with pauses between them, until one ends in good order."""
        pause, failures = 0.2, 0
        while True:
            chan = channel(address)
            began = asyncio.get_running_loop().time()
            try:
                if await attempt(address, chan, *arguments):
                    return
            except (grpc.RpcError, OSError, asyncio.TimeoutError) as error:
                failures += 1
                why = error.details() if isinstance(error, grpc.aio.AioRpcError) else error or type(error).__name__
                log.log(logging.WARNING if failures == 3 else logging.DEBUG, "registry %s: %s", address, why)
            finally:
                await chan.close()
            if asyncio.get_running_loop().time() - began > ANSWER_TIMEOUT:
                pause, failures = 0.2, 0
            await asyncio.sleep(pause * random.uniform(0.25, 1))
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _watch_once(self, address, chan):
        watch = chan.unary_stream(
            "/meepo.registry.v2.Registry/Watch",
            request_serializer=wire.WatchRequest.SerializeToString,
            response_deserializer=wire.Change.FromString,
        )
        settled = asyncio.get_running_loop().call_later(SETTLE, self.before[address].clear)
        try:
            async for change in watch(wire.WatchRequest(), metadata=self.metadata):
                self._said(address, change)
        finally:
            settled.cancel()
            self.before[address].update(self.now[address])
            self.now[address] = {}

    def _said(self, address, change):
        now, kind = self.now[address], change.WhichOneof("change")
        if kind == "snapshot":
            now.clear()
            now.update((node.id, node) for node in change.snapshot.nodes)
        elif kind == "joined":
            now[change.joined.id] = change.joined
        elif kind == "left":
            for view in (now, *self.before.values()):
                view.pop(change.left, None)
        self.news.set()

    async def _announce_once(self, _address, chan, node, until):
        register = chan.stream_stream(
            "/meepo.registry.v2.Registry/Register",
            request_serializer=wire.Announce.SerializeToString,
            response_deserializer=wire.Ack.FromString,
        )
        call = register(metadata=self.metadata)
        while not until.is_set():
            await call.write(wire.Announce(node=node))
            ack = await asyncio.wait_for(call.read(), ANSWER_TIMEOUT)
            if ack is grpc.aio.EOF:
                return False
            try:
                await asyncio.wait_for(until.wait(), min(max(ack.heartbeat_ms / 1000, 0.1), 60))
            except asyncio.TimeoutError:
                pass
        await call.done_writing()
        # The registry ends its side once it has taken the node off the list.
        while await call.read() is not grpc.aio.EOF:
            pass
        return True
