# SPDX-License-Identifier: MIT
"""A gateway under test, whichever it is: tgg started here (proc.py), or one that runs already (TGG_ORACLE_GATEWAY).

Site is what a test holds: it opens links and clients, and at the end closes them and sees that the gateway has let
go of all of them.
"""

import os
import resource
import struct

from gwproto import ON_CONNECT, ON_MESSAGE, ON_WEBSOCKET_CONNECT, PATIENCE, ClientLink, EchoWorker, LinkClosed, WorkerLink, shard_of
from proc import wait_for
from wsclient import FrameClient, TcpClient, TextClient, WsClient

PROTOCOLS = ("websocket", "text", "frame", "tcp")


class OracleGateway:
    """A gateway that runs already: TGG_ORACLE_GATEWAY="websocket=3010@3100,text=3011@3110,...": protocol = client
    port @ internal port, all on 127.0.0.1. PHP has one internal port per listener and no counters."""

    is_oracle = True
    shards = 1

    def __init__(self, text):
        self.ports = {}
        for part in text.split(","):
            protocol, _, ports = part.strip().partition("=")
            client, _, internal = ports.partition("@")
            self.ports[protocol] = (int(client), int(internal))

    def client_address(self, protocol):
        return ("127.0.0.1", self.ports[protocol][0])

    def internal_address(self, protocol="websocket"):
        return ("127.0.0.1", self.ports[protocol][1])

    def counters(self):
        return None

    def stop(self):
        pass


def oracle():
    text = os.environ.get("TGG_ORACLE_GATEWAY")
    return OracleGateway(text) if text else None


CLIENTS = {"websocket": WsClient, "text": TextClient, "frame": FrameClient, "tcp": TcpClient}


class Site:
    """Links and clients of one test at one gateway."""

    def __init__(self, gateway, protocol="websocket"):
        self.gateway = gateway
        self.protocol = protocol
        self.clients = []
        self.links = []
        self._before = gateway.counters()
        self._worker = None
        self._g = None

    @property
    def shards(self):
        return self.gateway.shards

    # -- links

    @property
    def internal(self):
        return self.gateway.internal_address(self.protocol)

    def worker_link(self, worker_key=None, sync=True, **how):
        """A business worker that has been taken."""
        link = WorkerLink(self.internal, worker_key, **how)
        link.shards = self.shards
        self.links.append(link)
        if sync:
            link.sync()
        return link

    def client_link(self, **how):
        link = ClientLink(self.internal, **how)
        link.shards = self.shards
        self.links.append(link)
        return link

    def one_more(self, name, make):
        """What make() returns, and the shard on which that gauge has grown by it. Nothing else may change it."""
        before = self.per_shard(name)
        made = make()
        grown = lambda: [now - old for now, old in zip(self.per_shard(name), before)]
        wait_for(lambda: sorted(grown()) == [0] * (self.shards - 1) + [1], what="one more of %s" % name)
        return made, grown().index(1)

    def worker_on_each_shard(self):
        """A worker link on each shard, by shard."""
        found = {}
        while len(found) < self.shards:
            link, shard = self.one_more("workers", self.worker_link)
            assert shard not in found, "worker links are to be spread evenly: %s" % self.per_shard("workers")
            found[shard] = link
        return [found[shard] for shard in range(self.shards)]

    def link_on_each_shard(self):
        """A GatewayClient's link on each shard, by shard. Those that have said nothing yet are spread like workers."""
        found = {}
        while len(found) < self.shards:
            link, shard = self.one_more("links", self.client_link)
            assert shard not in found, "new links are to be spread evenly: %s" % self.per_shard("links")
            found[shard] = link
        return [found[shard] for shard in range(self.shards)]

    def echo_worker(self, on_event, **how):
        worker = EchoWorker(self.internal, on_event, **how)
        self.links.append(worker)
        return worker

    @property
    def worker(self):
        """The test's first worker."""
        if self._worker is None:
            self._worker = self.worker_link()
        return self._worker

    def with_worker(self):
        assert self.worker
        return self

    @property
    def g(self):
        """The test's GatewayClient link."""
        if self._g is None:
            self._g = self.client_link()
        return self._g

    # -- clients

    def connect(self, listener=None, **how):
        """A client, without waiting for what a worker hears of it."""
        listener = listener or self.protocol
        protocol = listener if self.gateway.is_oracle else self.gateway.sections["listen " + listener]["protocol"]
        client = CLIENTS[protocol](self.gateway.client_address(listener), **how)
        client.port = client.sock.getsockname()[1]
        self.clients.append(client)
        return client

    def client(self, listener=None, worker=None, **how):
        """A client whose ON_CONNECT (and ON_WEBSOCKET_CONNECT) the worker has had: client.id, client.event."""
        worker = worker or self.worker
        client = self.connect(listener, **how)
        client.event = worker.wait(ON_CONNECT, client_port=client.port)
        client.id = client.event.connection_id
        if isinstance(client, WsClient) and how.get("open", True):
            client.connect_event = worker.wait(ON_WEBSOCKET_CONNECT, client.id)
        return client

    def clients_on_each_shard(self, count, listener="text", worker=None, **how):
        """So many clients on each shard, by shard; where the kernel puts a connection is its own affair, so there may be
        more of some (all are in self.clients)."""
        found = [[] for _ in range(self.shards)]
        for _ in range(40 * count * self.shards):
            if all(len(clients) >= count for clients in found):
                return [clients[:count] for clients in found]
            client = self.client(listener, worker=worker, **how)
            found[shard_of(client.id)].append(client)
        raise AssertionError("clients per shard: %s" % [len(clients) for clients in found])

    # -- counters: how they changed since the test began

    def counter(self, name):
        now = self.gateway.counters()
        return now[name] - self._before[name]

    def gauge(self, name):
        return self.gateway.counters()[name]

    def per_shard(self, name):
        return [counters[name] for counters in self.gateway.shard_counters()]

    def wait_counter(self, name, value, timeout=PATIENCE):
        self._wait(lambda: self.counter(name), lambda now: now >= value, timeout, "%s to become %d" % (name, value))
        assert self.counter(name) == value, name

    def wait_gauge(self, name, value, timeout=PATIENCE):
        self._wait(lambda: self.gauge(name), lambda now: now == value, timeout, "%s to become %d" % (name, value))

    @staticmethod
    def _wait(read, good, timeout, what):
        try:
            wait_for(lambda: good(read()), timeout, what)
        except TimeoutError:
            raise TimeoutError("%s: it is %d" % (what, read())) from None

    # -- the end

    def close(self):
        if not self.gateway.is_oracle and self.gateway.is_running():
            self.gateway.check_tables()
        for client in self.clients:
            client.close()
        if not self.gateway.is_oracle:
            if self.gateway.is_running():
                self._drain()
        else:
            with ClientLink(self.internal) as g:
                wait_for(lambda: g.group_count() == 0, what="every client gone")
        for link in self.links:
            link.close()
        if not self.gateway.is_oracle and self.gateway.is_running():
            self.wait_gauge("links", 0)
            self.gateway.check_tables()

    def take_what_waits(self):
        """An ON_CLOSE whose worker ended in the same moment waits for the next worker; that is not to be the next test's."""
        while not self.gateway.is_oracle and self.gauge("parked_clients") + self.gauge("parked_bytes") > 0:
            with WorkerLink(self.internal) as taker:
                taker.wait()  # whole: what is not read to its end would wait again
                taker.quiet()
            self.wait_gauge("links", 0)

    def _drain(self):
        """Nobody may hold the gateway back: links that do not read are closed first. Nothing may be on its way to a worker
        when its link is closed, or it would come to the next test's."""
        workers = [link for link in self.links if isinstance(link, WorkerLink) and not link.ended and link.sock.fileno() >= 0]

        def clients_left():
            for worker in workers:  # again and again: what a client has sent may be more than a link holds
                worker.quiet(0.001)
            return self.gauge("clients")

        self._wait(clients_left, lambda now: now == 0, PATIENCE, "clients to become 0")
        for worker in workers:
            try:
                worker.settle()
            except (OSError, LinkClosed, AssertionError, struct.error):
                pass


def raise_file_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def check_echo(site, client, text=b"hello"):
    """What the client says reaches the worker, and the worker's answer the client."""
    if hasattr(client, "send_text"):
        client.send_text(text)
    else:
        client.send_message(text)
    event = site.worker.wait(ON_MESSAGE, client.id)
    assert event.body == text
    site.worker.send_to_one(client.id, b"to you")
    assert client.read_message() == b"to you"
