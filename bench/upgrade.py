# SPDX-License-Identifier: MIT
"""Live upgrades: for how long clients hear nothing, and what memory it takes (bench/README.md)."""

import json
import os
import signal
import statistics
import subprocess
import threading
import time

from harness import BenchError, Scope, children_of, gateway_side
from shards import ELSEWHERE, two_cpus

BUSY_CLIENTS = 15000
BUSY_RATE = 15000
IDLE_CLIENTS = 100_000
IDLE_SHARDS = 8
PER_LOAD = 17_000
PROBES, PROBE_RATE = 50, 2000
UPGRADES = 3


def end_of(side):
    """Ends the supervisor that is there now: it is nobody's child."""
    shm_pid = supervisor_pid(side)
    if shm_pid:
        os.kill(shm_pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while os.path.exists(f"/proc/{shm_pid}") and time.monotonic() < deadline:
            time.sleep(0.05)


def conf_of(side):
    return side.log.parent / "tgg_conf.ini"


def supervisor_pid(side):
    done = subprocess.run([side.program, "status", "--json", "-c", conf_of(side)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          timeout=20, check=False)
    return json.loads(done.stdout)["supervisor_pid"] if done.stdout else 0


def upgradable_side(scope, **settings):
    side = gateway_side(scope, upgrade_pause_max=20000, **settings)
    side.program = scope.bench.program("tgg")
    scope.stack.callback(end_of, side)
    return side


def upgrade(side):
    """Seconds that it took, from asking to the last word."""
    begin = time.monotonic()
    done = subprocess.run([side.program, "upgrade", "-q", "-c", conf_of(side)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
                          check=False)
    if done.returncode != 0:
        raise BenchError(f"tgg upgrade: {done.stdout.decode()[-500:]}; the log ends with {side.log.read_text()[-500:]}")
    return time.monotonic() - begin


def clients_of(side):
    return sum(s["counters"].get("clients", 0) for s in side.status())


def gap(probe, side, act):
    """The longest that a probe client heard nothing (ms) while that was done; what it returned."""
    probe.go()
    time.sleep(1)
    value = act(side)
    result = probe.event("result", 120)
    probe.event("ready")
    return result["latency_ns"]["max"] / 1e6, value


def pause_busy(bench):
    """The longest gap of a client, in milliseconds, of an upgrade of one shard with 15,000 busy connections."""
    with Scope(bench) as scope:
        side = upgradable_side(scope)
        busy = scope.load("echo", side.port, hold=True, connections=BUSY_CLIENTS, rate=BUSY_RATE, sources=8, source_first=100, warmup=0,
                          run=3_600_000)
        busy.event("ready", 120)
        busy.go()
        probe = scope.load("echo", side.port, hold=True, connections=PROBES, rate=PROBE_RATE, warmup=500, run=3500)
        probe.event("ready")
        idle = [gap(probe, side, lambda _: 0)[0] for _ in range(UPGRADES)]
        got = [gap(probe, side, upgrade) for _ in range(UPGRADES)]
        clients = clients_of(side)
    if clients != BUSY_CLIENTS + PROBES:
        raise BenchError(f"{clients} clients are left")
    gaps = [ms for ms, _ in got]
    return max(gaps), [
        f"# longest gap of {PROBES} clients that send {PROBE_RATE} messages a second, beside {BUSY_RATE} a second of the others: "
        f"{', '.join(f'{ms:.0f}' for ms in gaps)} ms; without an upgrade {', '.join(f'{ms:.0f}' for ms in idle)} ms; an upgrade took "
        f"{', '.join(f'{s:.2f}' for _, s in got)} s in all"], [{"gaps_ms": gaps, "without_ms": idle}]


def memory_used():
    """Of the machine, without caches of files; with all of the kernel's own (MemAvailable counts a part of the memory of sockets as
    free)."""
    with open("/proc/meminfo") as f:
        kib = {line.split(":")[0]: int(line.split()[1]) for line in f}
    return 1024 * (kib["MemTotal"] - kib["MemFree"] - kib["Buffers"] - kib["Cached"] + kib["Shmem"])


def settled_memory():
    """Once it no longer changes: what others have given back comes late."""
    used, deadline = memory_used(), time.monotonic() + 15
    while time.monotonic() < deadline:
        time.sleep(1)
        before, used = used, memory_used()
        if abs(used - before) < 2e6:
            break
    return used


def proportional_bytes(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            total += next(int(line.split()[1]) * 1024 for line in f if line.startswith("Pss:"))
    return total


class Highest(threading.Thread):
    """The most memory that was used."""

    def __init__(self):
        super().__init__(daemon=True)
        self.first = self.most = settled_memory()
        self.over = threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.005):
            self.most = max(self.most, memory_used())

    def stop(self):
        self.over.set()
        self.join()
        return self.most - self.first


def idle(bench):
    """The two figures that need 100,000 idle connections over 8 shards, of the same upgrades."""
    with Scope(bench, spread=True) as scope:
        at_first = settled_memory()
        side = upgradable_side(scope, shards=IDLE_SHARDS, cpus=two_cpus() * (IDLE_SHARDS // 2))
        crowd = [scope.load("idle", side.port, connections=min(PER_LOAD, IDLE_CLIENTS - first), sources=2, source_first=60 + first // PER_LOAD * 2,
                            nice=ELSEWHERE) for first in range(0, IDLE_CLIENTS, PER_LOAD)]
        for load in crowd:
            load.event("ready", 120)
        probe = scope.load("echo", side.port, hold=True, connections=PROBES, rate=PROBE_RATE, warmup=500, run=6000)
        probe.event("ready")
        used = settled_memory() - at_first
        # Of what the kernel holds for both ends of each connection, half is the node's.
        own = proportional_bytes([side.supervisor, *side.pids])
        others = proportional_bytes([load.pid for load in [*crowd, probe]])
        kernel = max(used - own - others, 0)
        node = own + kernel / 2
        gaps, peaks, took = [], [], []
        for _ in range(UPGRADES):
            memory = Highest()
            ms, seconds = gap(probe, side, upgrade)
            gaps.append(ms)
            took.append(seconds)
            peaks.append(memory.stop())
        clients = clients_of(side)
        processes = len(children_of(supervisor_pid(side)))
    if clients != IDLE_CLIENTS + PROBES:
        raise BenchError(f"{clients} clients are left")
    times = [(node + peak) / node for peak in peaks]  # other programs come and go too: the median counts
    return {
        "upgrade_pause_idle": (max(gaps), [
            f"# {IDLE_CLIENTS} idle connections over {IDLE_SHARDS} shards: longest gap of {PROBES} clients that send {PROBE_RATE} "
            f"messages a second {', '.join(f'{ms:.0f}' for ms in gaps)} ms; an upgrade took {', '.join(f'{s:.2f}' for s in took)} s "
            f"in all"]),
        "upgrade_memory": (statistics.median(times), [
            f"# node {node / 1e6:.0f} MB: processes {own / 1e6:.0f} (Pss), half of {kernel / 1e6:.0f} in the kernel; most taken besides "
            f"during an upgrade {', '.join(f'{peak / 1e6:.0f}' for peak in peaks)} MB; {processes} processes after it"]),
    }, [{"gaps_ms": gaps, "took_s": took, "node": node, "peaks": peaks}]
