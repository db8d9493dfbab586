# SPDX-License-Identifier: MIT
"""Figures of a node of several shards (bench/README.md)."""

import os
import statistics
import struct
import time
from pathlib import Path

from harness import (WARM_MESSAGES, BenchError, Scope, Skipped, alternate, cpu_per_operation, floor_side, gateway_side,
                     held_load, process_cpu_ns, resident_bytes)

BROADCAST_SHARDS = 8
BROADCAST_CLIENTS = 15000  # of each load process
BROADCAST_FEW = 1000
BROADCASTS = {"many": 2, "few": 100}  # per window
# Load clients that stand for other machines leave the CPUs to the gateway when it wants them.
ELSEWHERE = 19
ECHO_CLIENTS = 20
ECHO_RATE = 200
ECHO_SECONDS = 8
RINGS_SHARDS, RING_SIZE = 64, 1 << 20
PAGE = os.sysconf("SC_PAGESIZE")


def two_cpus():
    """Where two shards go: CPUs of their own, if there are two."""
    cpus = sorted(os.sched_getaffinity(0))
    return [cpus[0], cpus[-1]]


def rate_comment(results, names):
    rates = {n: statistics.median(r["operations"] / r["seconds"] for r in results if r["side"] == n) for n in names}
    a, b = (rates[n] for n in names)
    return f"# messages a second: {names[0]} {a:.0f}, {names[1]} {b:.0f} ({a / b:.2f} times)"


def compare_gateways(bench, sides, options, pairs, spread=True):
    """CPU per echoed message of the first over that of the second; sides: functions of the scope."""
    results = []
    with Scope(bench, spread=spread) as scope:
        sides = [side(scope) for side in sides]
        names = [s.name for s in sides]
        runs = [held_load(scope, s, "echo", results, cpu_per_operation, warmup=100,
                          warmup_operations=WARM_MESSAGES * options["connections"], run=1000 if spread else 400, **options)
                for s in sides]
        got = alternate(pairs, *runs)
    return got.ratio(), [got.comment(*names, "us/message", 1e-3), rate_comment(results, names)], results


def reference(bench):
    """The gateway against that of another build, everything else alike."""
    build = bench.options.reference
    if not build:
        raise Skipped("needs --reference BUILD_DIR, a build of the commit to compare to (bench/reference makes one)")
    return compare_gateways(bench, [lambda s: gateway_side(s, name="this build"),
                                    lambda s: gateway_side(s, name="reference", build=build)],
                            {"connections": 50}, 3 * bench.options.pairs, spread=False)


def across(connections, outstanding):
    """Client and worker link on different shards over both on one."""
    def measure(bench):
        first, last = two_cpus()
        return compare_gateways(
            bench,
            [lambda s: gateway_side(s, name="across two shards", shards=2, cpus=[first, last], edge_shards=0,
                                    link_shards=1),
             lambda s: gateway_side(s, name="within one", cpus=[last])],
            {"connections": connections, "outstanding": outstanding}, bench.options.pairs)
    return measure


def two(bench):
    """Two shards, each with half of the clients and one worker, over one with all of them."""
    first, last = two_cpus()
    return compare_gateways(bench, [lambda s: gateway_side(s, name="two shards", shards=2, cpus=[first, last], workers=2),
                                    lambda s: gateway_side(s, name="one shard", cpus=[last], workers=2)],
                            {"connections": 1000}, bench.options.pairs)


# ---------------------------------------------------------------------------------------------------- broadcast


class Crowd:
    """Clients that only listen, some processes of them, and one that sends to all (of each server: floors)."""

    def __init__(self):
        self.pids, self.senders, self.listeners, self.clients = [], [], [], 0

    def add_sender(self, scope, port, **options):
        load = scope.load("fan-out", port, connections=1, run_operations=1, warmup=0, run=60000, hold=True, **options)
        load.event("ready")
        self.senders.append(load)
        self.clients += 1

    def add_listeners(self, scope, port, n, **options):
        """One process, connected before the next one begins, so that nobody waits for its handshake."""
        load = scope.load("listen", port, nice=ELSEWHERE, connections=n, run_operations=n, sources=2,
                          source_first=100 + 2 * len(self.listeners), **options)
        load.event("ready", 120)
        self.listeners.append(load)
        self.clients += n

    def broadcast(self):
        """One, until everybody has it. Seconds that took."""
        begin = time.monotonic()
        for sender in self.senders:
            sender.go()
        for child in (*self.senders, *self.listeners):
            child.event("result")
        for sender in self.senders:
            sender.event("ready")
        return time.monotonic() - begin

    def window(self, n):
        """CPU time of the server's processes per delivery, ns, over n broadcasts one after the other."""
        before = process_cpu_ns(self.pids)
        self.took = [self.broadcast() for _ in range(n)]
        return (process_cpu_ns(self.pids) - before) / (n * self.clients)


class GatewayCrowd(Crowd):
    """A gateway of 8 shards with two workers. Two echo clients: one whose worker does nothing else, one whose worker
    is the one that sends to all. (A new client goes to the worker with the fewest.)"""

    def __init__(self, scope, processes, each):
        super().__init__()
        self.side = gateway_side(scope, worker=("--reply", "marked"), shards=BROADCAST_SHARDS, cpus=two_cpus())
        self.pids = self.side.pids
        self.echoes = {"beside": self.add_echo(scope, ECHO_CLIENTS)}
        scope.worker(self.side.worker_port, "--reply", "marked", "--id", "1")
        time.sleep(0.3)
        self.add_sender(scope, self.side.port)
        self.echoes["behind"] = self.add_echo(scope, ECHO_CLIENTS - 1)
        for _ in range(processes):
            self.add_listeners(scope, self.side.port, each)

    def add_echo(self, scope, n):
        load = scope.load("echo", self.side.port, hold=True, connections=n, rate=ECHO_RATE, warmup=200,
                          run=ECHO_SECONDS * 1000)
        load.event("ready")
        self.clients += n
        return load

    def echo(self, name):
        """Latency of that echo client while one broadcast follows the other, and how long these took."""
        took, load = [], self.echoes[name]
        load.go()
        end = time.monotonic() + ECHO_SECONDS + 0.2
        while time.monotonic() < end:
            took.append(self.broadcast())
        result = load.event("result")
        return {k: v / 1e6 for k, v in result["latency_ns"].items() if k != "count"} | {
            "count": result["latency_ns"]["count"], "broadcasts": len(took), "took_ms": 1e3 * statistics.median(took)}

    def longest_turn_ms(self):
        return max(s["turn_cpu_longest_ns"] for s in self.side.status()) / 1e6  # others have these CPUs too


class FloorCrowd(Crowd):
    """As many floors as the gateway has shards, each with its worker and its sender."""

    def __init__(self, scope, each):
        super().__init__()
        for i in range(BROADCAST_SHARDS):
            floor = floor_side(scope, worker=("--reply", "all"), cpus={two_cpus()[i % 2]})
            self.pids += floor.pids
            self.add_sender(scope, floor.port, opaque=True)
            self.add_listeners(scope, floor.port, each, opaque=True)


def crowds_compared(pairs, many, few):
    few.window(BROADCASTS["few"])
    many.window(1)
    return alternate(pairs, lambda: many.window(BROADCASTS["many"]), lambda: few.window(BROADCASTS["few"]))


def broadcast_floor(bench, pairs):
    with Scope(bench, spread=True) as scope:
        few = FloorCrowd(scope, BROADCAST_FEW // BROADCAST_SHARDS)
        many = FloorCrowd(scope, BROADCAST_CLIENTS)
        return crowds_compared(pairs, many, few)


def broadcast(bench):
    """The figures that need 120,000 clients, measured on the same ones."""
    pairs = max(bench.options.pairs // 3, 5)
    begin = time.monotonic()
    with Scope(bench, spread=True) as scope:
        few = GatewayCrowd(scope, 1, BROADCAST_FEW)
        many = GatewayCrowd(scope, BROADCAST_SHARDS, BROADCAST_CLIENTS)
        connected = time.monotonic() - begin
        turns = [many.longest_turn_ms()]
        got = crowds_compared(pairs, many, few)
        alone = 1e3 * statistics.median(many.took)
        turns.append(many.longest_turn_ms())
        echo = {name: many.echo(name) for name in many.echoes}
        turns.append(many.longest_turn_ms())
        clients = [s["counters"].get("clients", 0) for s in many.side.status()]
    floor = broadcast_floor(bench, pairs)
    texts = [f"# echo {name}: p50 {e['p50']:.2f}, p90 {e['p90']:.2f}, p99 {e['p99']:.2f}, max {e['max']:.2f} ms of "
             f"{e['count']} at {ECHO_RATE} a second, during {e['broadcasts']} broadcasts of {e['took_ms']:.0f} ms each"
             for name, e in echo.items()]
    return {
        "broadcast_120k": (got.ratio(), [
            f"# {many.clients} and {few.clients} clients, {BROADCAST_SHARDS} shards each (of the many {min(clients)} to "
            f"{max(clients)}), connected in {connected:.0f} s; a broadcast to the many took {alone:.0f} ms",
            got.comment(f"{many.clients} clients", f"{few.clients} clients", "us/delivery", 1e-3)]),
        "broadcast_120k_floor": (got.ratio() / floor.ratio(), [
            f"# {BROADCAST_SHARDS} floors alike: {floor.ratio():.3f} times",
            floor.comment("many", "few", "us/delivery", 1e-3)]),
        "broadcast_turn": (turns[-1], [
            "# longest turn of the loop of any shard, ms: after connecting {:.1f}, after the broadcasts {:.1f}, after those "
            "with echo {:.1f}; turn_max is 10".format(*turns)]),
        "broadcast_echo_p99": (echo["beside"]["p99"], texts),
    }, [{"many": got.a, "few": got.b, "floor_many": floor.a, "floor_few": floor.b, "echo": echo, "turns_ms": turns,
         "clients": clients}]


# ---------------------------------------------------------------------------------------------------- memory of rings


def rings_bytes(shards, ring_size):
    """Size of the mapping that holds all rings: bells, then a ring for each ordered pair, each on pages of its own
    (src/mesh/mesh_shm.h)."""
    def pages(n):
        return (n + PAGE - 1) // PAGE * PAGE
    return pages(256 + 256 * shards) + shards * shards * pages(512 + ring_size)


def shared_mappings(pid):
    """Address, bytes, KiB of Pss of each mapping that may be shared."""
    found = []
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            begin, end = (int(x, 16) for x in words[0].split("-"))
            shared = words[1].endswith("s")
        elif shared and words[0] == "Pss:":
            found.append((begin, end - begin, int(words[1])))
    return found


def pages_present(pid, begin, size):
    """Numbers of the pages of a mapping that this process has touched."""
    found, step = set(), 1 << 17
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as f:
        for first in range(0, size // PAGE, step):
            f.seek((begin // PAGE + first) * 8)
            entries = f.read(min(step, size // PAGE - first) * 8)
            if entries.count(0) == len(entries):
                continue
            found |= {first + i for (i, e) in enumerate(struct.unpack(f"={len(entries) // 8}Q", entries)) if e >> 62}
    return found


def rings_memory(bench):
    """KiB of the memory of the rings that anybody has touched in a node of 64 shards that has just started."""
    wanted = rings_bytes(RINGS_SHARDS, RING_SIZE)
    touched, others, own, holders = set(), 0, 0, 0
    with Scope(bench, spread=True) as scope:
        side = gateway_side(scope, workers=0, shards=RINGS_SHARDS, ring_size=RING_SIZE)
        time.sleep(1)
        for pid in [side.supervisor, *side.pids]:
            mappings = shared_mappings(pid)
            for begin, size, pss in mappings:
                if size == wanted:
                    touched |= pages_present(pid, begin, size)
                else:
                    others += pss
            holders += any(size == wanted for _, size, _ in mappings)
            own += resident_bytes([pid])["Private_Dirty"]
    if holders < RINGS_SHARDS:
        raise BenchError(f"only {holders} processes have a mapping of {wanted} bytes, the size of the rings")
    return len(touched) * PAGE / 1024, [
        f"# {RINGS_SHARDS} shards: room for rings {wanted / 2**20:.0f} MiB, touched {len(touched)} pages of it; other shared "
        f"memory touched {others} KiB; private to a process {own / len(side.pids) / 1024:.0f} KiB"], [
            {"pages": sorted(touched), "others_kib": others, "private": own}]
