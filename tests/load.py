# SPDX-License-Identifier: MIT
"""Load for scenarios: many clients in a process of their own (Crowd), workers that note what they hear and come back when
their link ends (Recorder), and a gateway with both (Busy)."""

import collections
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time

from gwproto import (ON_CLOSE, ON_CONNECT, ON_MESSAGE, PATIENCE, SEND_TO_ONE, SET_SESSION, LinkClosed, WorkerLink, packet, shard_of)
from node import raise_file_limit
from proc import wait_for


class Crowd:
    """Text clients in a process of their own; crowd.py says what they can do."""

    def __init__(self, site, listener="text"):
        program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "crowd.py")
        host, port = site.gateway.client_address(listener)
        self.popen = subprocess.Popen([sys.executable, program, host, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ports = []
        site.clients.append(self)  # which closes it

    def ask(self, do, **how):
        self.popen.stdin.write(json.dumps({"do": do, **how}).encode() + b"\n")
        self.popen.stdin.flush()
        line = self.popen.stdout.readline()
        assert line, "the crowd ended"
        return json.loads(line)

    def connect(self, count, burst=False):
        """The ports of the new ones."""
        ports = self.ask("connect", count=count, burst=burst)["ports"]
        self.ports += ports
        return ports

    def echo(self, pace, resend=3.0):
        self.ask("echo", pace=pace, resend=resend)

    def mark(self):
        self.ask("mark")

    def pause(self):
        self.ask("pause")

    def report(self):
        """{port: {...}}"""
        return {int(port): what for port, what in self.ask("report").items()}

    def take(self, lines, timeout=PATIENCE):
        """{(line, line...): how many clients}"""
        found = self.ask("take", lines=lines, timeout=timeout)
        return {tuple(text.split()): count for text, count in found.items()}

    def close_some(self, count, reset=False):
        self.ask("close", count=count, reset=reset)

    def close(self):
        if self.popen.poll() is None:
            self.popen.stdin.close()
            self.popen.wait(PATIENCE)
            self.popen.stdout.close()


def flat(by_shard):
    """What Site.clients_on_each_shard gave, in one list."""
    return [client for clients in by_shard for client in clients]


def connect_crowd(site, workers, count, burst=False):
    """A crowd that these workers have heard of: the crowd, {port: (connection_id, worker)}."""
    raise_file_limit()
    crowd = Crowd(site)
    ports = set(crowd.connect(count, burst))
    known = {}
    while len(known) < count:
        worker, event = hear(workers, ON_CONNECT)
        assert event.client_port in ports and event.client_port not in known
        known[event.client_port] = (event.connection_id, worker)
    return crowd, known


def hear(workers, cmd=None, timeout=PATIENCE):
    """The next event of that kind at any of these worker links: (worker, event). Others stay, in order."""
    deadline = time.monotonic() + timeout
    looked_at = [0] * len(workers)
    while True:
        for i, worker in enumerate(workers):
            worker._take_packets()
            for index in range(looked_at[i], len(worker.events)):
                if cmd in (None, worker.events[index].cmd):
                    event = worker.events[index]
                    del worker.events[index]
                    return worker, event
            looked_at[i] = len(worker.events)
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("nothing was heard in time")
        for sock in select.select([worker.sock for worker in workers], [], [], left)[0]:
            next(worker for worker in workers if worker.sock is sock).fill(deadline)


class Recorder:
    """A worker in a thread of its own that notes every event, echoes messages that begin with "e", sets the session of a
    client to the number in what it echoes, and connects again when its link ends, with the same key."""

    def __init__(self, site, key, again=0.1):
        self.address = site.internal
        self.key = key
        self.again = again
        self.events = []  # (time, Packet)
        self.links = 0
        self.link_ends = []  # times
        self.stopping = False
        self.link = None
        self.shard = None  # of its link, where somebody has found out
        site.links.append(self)  # which closes it
        self._connect()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _connect(self):
        while not self.stopping:
            try:
                self.link = WorkerLink(self.address, self.key)
                self.links += 1
                return
            except OSError:
                time.sleep(self.again)

    def _run(self):
        while not self.stopping:
            try:
                while True:
                    self.link.fill(time.monotonic() + 3600)
                    self._take()
            except (LinkClosed, OSError, ValueError):
                self._take()
            self.link_ends.append(time.monotonic())
            self.link.close()
            if self.again is None:
                return
            time.sleep(self.again)
            self._connect()

    def _take(self):
        """Note what has come and answer it, in one write."""
        self.link._take_packets()
        now, out = time.monotonic(), []
        while self.link.events:
            event = self.link.events.popleft()
            self.events.append((now, event))
            if event.cmd == ON_MESSAGE and event.body.startswith(b"e"):
                out.append(packet(SET_SESSION, event.connection_id, ext=event.body[1:]))
                out.append(packet(SEND_TO_ONE, event.connection_id, body=event.body))
        try:
            if out:
                self.link.send_bytes(b"".join(p.encode() for p in out))
        except OSError:
            pass

    def of(self, cmd):
        """[(time, event)] so far, of one kind."""
        return [(at, event) for at, event in list(self.events) if event.cmd == cmd]

    @property
    def ended(self):
        return self.stopping

    def kill(self):
        """Its end, without coming back."""
        self.again = None
        self.stopping = True
        try:
            self.link.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self):
        self.kill()
        self.thread.join(PATIENCE)
        self.link.close()


class Busy:
    """A gateway of several shards with workers that echo and a crowd that talks to them."""

    def __init__(self, start, shards, workers=4, clients=200, pace=0.1, registers=(), **gateway):
        # Logged deaths are looked for; nothing of it may be left out.
        self.site = start(shards=shards, gateway={"query_timeout": 10_000, **gateway}, registers=registers,
                          log={"level": "info", "rate_max": 0, "closes": "all"})
        self.workers = []
        for i in range(workers):
            worker, shard = self.site.one_more("workers", lambda: Recorder(self.site, "recorder-%d" % i))
            worker.shard = shard
            self.workers.append(worker)
        self.crowd = Crowd(self.site)
        self.id_of = {}  # port: id
        self.worker_of = {}  # id: Recorder
        self.add(clients)
        if pace:
            self.crowd.echo(pace)
            time.sleep(0.5)

    def add(self, count):
        """More clients; they do not talk before the next crowd.echo."""
        ports = set(self.crowd.connect(count))

        def all_known():
            for worker in self.workers:
                for _, event in worker.of(ON_CONNECT):
                    if event.client_port in ports:
                        self.id_of[event.client_port] = event.connection_id
                        self.worker_of[event.connection_id] = worker
            return ports <= set(self.id_of)

        wait_for(all_known, what="ON_CONNECT of everybody")

    def ids_on(self, *shards):
        return {id_ for id_ in self.id_of.values() if shard_of(id_) in shards}

    def kill(self, *shards, number=signal.SIGKILL):
        """The moment at which these shards were killed."""
        pids = self.site.gateway.shard_pids()
        at = time.monotonic()
        for shard in shards:
            os.kill(pids[shard], number)
        return at

    def wait_successor(self, *old_pids, timeout=PATIENCE):
        """All shards run, none of them with one of these pids."""
        def done():
            status = self.site.gateway.status()
            return status and all(s["state"] == "running" and s["pid"] not in old_pids for s in status["shards"])

        wait_for(done, timeout, "successors of the shards")

    def closes(self):
        """{id: [(time, worker, event)]} of all ON_CLOSE so far."""
        found = collections.defaultdict(list)
        for worker in self.workers:
            for at, event in worker.of(ON_CLOSE):
                found[event.connection_id].append((at, worker, event))
        return found

    def wait_closes(self, ids, timeout=PATIENCE):
        """Exactly one ON_CLOSE for each of these, and for nobody else: {id: (time, worker, event)}."""
        wait_for(lambda: ids <= set(self.closes()), timeout, "ON_CLOSE of %d clients" % len(ids))
        time.sleep(0.3)
        found = self.closes()
        more = {id_: [(at, worker.key, event) for at, worker, event in whole] for id_, whole in found.items() if len(whole) != 1}
        assert not more, "ON_CLOSE more than once: %s" % list(more.items())[:3]
        others = ["%s %s" % (id_, shard_of(id_)) for id_ in sorted(set(found) - ids)[:5]]
        assert not others, "ON_CLOSE of others: %s\n%s" % (others, "\n".join(l for l in self.site.gateway.log().splitlines() if "client_closed" in l)[-2000:])
        return {id_: whole[0] for id_, whole in found.items()}
