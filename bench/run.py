#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Runs the benchmarks behind `make bench`. What each figure is and how it is measured: bench/README.md.

Every figure is one line on standard output:   bench NAME value=V limit=L ok|short
with lines that begin with # before it for what it was computed from. The exit status is 0 when every figure could be
measured, short or not, and 1 when one could not be."""

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import admin
import edge
import shards
import upgrade
from harness import (WARM_MESSAGES, Bench, BenchError, Scope, Skipped, alternate, compare, cpu_per_operation, floor_side,
                     gateway_side, held_load, p99, resident_bytes)

IDLE_CLIENTS = 15000
# Cycles per window of connect_cycle, so that all windows together stay below the kernel's table of TIME_WAIT sockets.
CYCLES = 2000
CONNECT_LIMIT = 2.0


# ---------------------------------------------------------------------------------------------------- figures


def echo(connections, payload):
    def measure(bench):
        return compare(bench, "echo", cpu_per_operation, "us/message", 1e-3, bench.options.pairs, payload=payload,
                       connections=connections, warmup=100, warmup_operations=WARM_MESSAGES * connections, run=400)
    return measure


def fanout(bench):
    # twice the pairs: the limit leaves little room for noise
    return compare(bench, "fan-out", cpu_per_operation, "us/delivery", 1e-3, 2 * bench.options.pairs,
                   worker=("--reply", "all"), connections=1000, warmup=100,
                   warmup_operations=WARM_MESSAGES * 1000, run=400)


def latency(bench):
    return compare(bench, "echo", p99, "us p99", 1e-3, max(bench.options.pairs // 2 | 1, 5), connections=100,
                   rate=10000, warmup=200, warmup_operations=WARM_MESSAGES * 100, run=1000)


def time_wait_overflows():
    lines = [line.split() for line in Path("/proc/net/netstat").read_text().splitlines()]
    return int(dict(zip(lines[0], lines[1])).get("TCPTimeWaitOverflow", 0))


def wait_time_wait(room):
    """Until the kernel's table of TIME_WAIT sockets has so much room (or all of it)."""
    size = int(Path("/proc/sys/net/ipv4/tcp_max_tw_buckets").read_text())
    deadline = time.monotonic() + 70
    while time.monotonic() < deadline:
        words = Path("/proc/net/sockstat").read_text().split()
        if int(words[words.index("tw") + 1]) <= max(size - room, size // 100):
            return
        time.sleep(1)


def connect_cycle(bench):
    results = []
    few = max(bench.options.pairs // 3, 3)
    wait_time_wait((2 * bench.options.pairs + 2 * few) * CYCLES * 6 // 5)
    overflows = time_wait_overflows()

    def cycles(scope, side, **options):
        def run():
            with Scope(scope.bench) as one:
                load = one.load("connect", side.port, outstanding=16, sources=64, warmup=20, run=2000, run_operations=CYCLES,
                                cpu_pid=side.pids, **options)
                result = load.event("result")
            results.append({"side": side.name, **result})
            return cpu_per_operation(result)
        return run

    with Scope(bench) as scope:
        floor = floor_side(scope, "accept")
        polite = floor_side(scope, "accept-handshake")
        polite.name = "floor with handshake"
        if bench.options.noise:
            tested, handshake = floor_side(scope, "accept"), {"no_handshake": True}
        else:
            tested, handshake = gateway_side(scope), {}
        got = alternate(bench.options.pairs, cycles(scope, tested, **handshake), cycles(scope, floor, no_handshake=True))
        with_handshake = alternate(few, cycles(scope, tested, **handshake), cycles(scope, polite))
    return got.ratio(), [
        got.comment(tested.name, "floor", "us/cycle", 1e-3),
        f"# for information: {with_handshake.ratio():.3f} times a floor that also reads a request and answers it",
        f"# sockets that found no place in TIME_WAIT: {time_wait_overflows() - overflows}",
    ], results


def wait_resident(pids, at_most, timeout=15.0):
    """Resident memory once it is at most so much, or has had its time."""
    deadline = time.monotonic() + timeout
    while True:
        now = resident_bytes(pids)
        if now["Rss"] <= at_most or time.monotonic() > deadline:
            return now
        time.sleep(0.25)


def settled_gateway(scope):
    """A gateway whose worker gives each client a uid, a group and a session; its first clients have been there."""
    side = gateway_side(scope, worker=("--settle",))
    side.extra = {"await": True}
    warm = scope.load("echo", side.port, connections=200, warmup=0, run=300, **side.extra)
    warm.event("ready")
    warm.event("result")
    warm.stop()
    time.sleep(0.5)
    return side


def idle(bench):
    """The three figures that need 15,000 idle clients, measured on the same ones."""
    figures, results = {}, []
    with Scope(bench) as scope:
        crowded = settled_gateway(scope)
        before = resident_bytes(crowded.pids)
        crowd = scope.load("idle", crowded.port, connections=IDLE_CLIENTS, sources=16, source_first=100,
                           **crowded.extra)
        crowd.event("ready", 120)
        time.sleep(1)
        after = resident_bytes(crowded.pids)
        growth = after["Rss"] - before["Rss"]
        per_client = growth / IDLE_CLIENTS
        figures["idle_memory"] = per_client, [
            f"# {IDLE_CLIENTS} clients: resident {before['Rss'] / 1e6:.2f} MB, then {after['Rss'] / 1e6:.2f} MB "
            f"(private and written to: {before['Private_Dirty'] / 1e6:.2f}, {after['Private_Dirty'] / 1e6:.2f} MB)"]
        if bench.wanted("echo_with_15000_idle"):
            lonely = settled_gateway(scope)
            lonely.name = "gateway alone"
            runs = [held_load(scope, s, "echo", results, cpu_per_operation, connections=50, warmup=100,
                              warmup_operations=WARM_MESSAGES * 50, run=400)
                    for s in (crowded, lonely)]
            got = alternate(bench.options.pairs, *runs)
            figures["echo_with_15000_idle"] = got.ratio(), [
                got.comment("with idle clients", "without", "us/message", 1e-3)]
        crowd.stop()
        left = wait_resident(crowded.pids, before["Rss"])
        kept = (left["Rss"] - before["Rss"]) / growth if growth > 0 else 0.0
        figures["memory_returned"] = kept, [
            f"# {growth / 1e6:.2f} MB came with the clients, {(left['Rss'] - before['Rss']) / 1e6:.2f} MB stayed "
            f"when they had gone"]
    results.append({"side": "memory", "before": before, "after": after, "left": left})
    return figures, results


RING_RECORDS_PER_S = 20e6
RING_TIMES_MUTEX = 5


def rings(bench):
    """Records between two cores. The nearer of two aims counts: so many a second, so many times the ring with a mutex."""
    cpus = sorted(os.sched_getaffinity(0))
    argv = [bench.program("tgg-bench-ring"), "--rounds", max(bench.options.pairs // 2 | 1, 5)]
    if bench.options.pin and len(cpus) > 1:
        argv += ["--cpus", f"{cpus[-2]},{cpus[-1]}"]
    with Scope(bench) as scope:
        result = scope.child(argv, None).event("result")
    ns = {name: r["ns"] for name, r in result.items() if isinstance(r, dict)}
    per_second, times_mutex = 1e9 / ns["ring_batch"], ns["mutex_batch"] / ns["ring_batch"]
    value = min(RING_RECORDS_PER_S / per_second, RING_TIMES_MUTEX / times_mutex)
    return value, [
        "# ns per record: " + ", ".join(f"{name} {v:.1f}" for name, v in ns.items()),
        f"# in batches of {result['batch']}: {per_second / 1e6:.1f} M records/s, {times_mutex:.2f} times the mutex ring; "
        f"one at a time: {1e3 / ns['ring']:.1f} M records/s, {ns['mutex'] / ns['ring']:.2f} times",
    ], [result]


@dataclasses.dataclass
class Figure:
    name: str
    limit: float
    measure: Callable
    floor: bool = False  # over a floor: --noise can put a second one in the gateway's place


FIGURES = [
    Figure("echo_64b_50c", 1.25, echo(50, 64), floor=True),
    Figure("echo_64b_1000c", 1.25, echo(1000, 64), floor=True),
    Figure("echo_512b_50c", 1.25, echo(50, 512), floor=True),
    Figure("echo_512b_1000c", 1.25, echo(1000, 512), floor=True),
    Figure("fanout_64b_1000c", 1.05, fanout, floor=True),
    Figure("connect_cycle", CONNECT_LIMIT, connect_cycle, floor=True),
    Figure("latency_p99_10k", 1.5, latency, floor=True),
    Figure("idle_memory", 512, idle),
    Figure("memory_returned", 0.25, idle),
    Figure("echo_with_15000_idle", 1.1, idle),
    Figure("ring_records", 1.0, rings),
    Figure("echo_vs_reference", 1.03, shards.reference),
    Figure("cross_shard_50c", 1.3, shards.across(50, 4)),
    Figure("cross_shard_1000c", 1.3, shards.across(1000, 1)),
    Figure("two_shards", 1.3, shards.two),
    Figure("broadcast_120k", 1.15, shards.broadcast),
    Figure("broadcast_120k_floor", 1.15, shards.broadcast),
    Figure("broadcast_turn", 15, shards.broadcast),
    Figure("broadcast_echo_p99", 20, shards.broadcast),
    Figure("rings_64_memory", 64, shards.rings_memory),
    Figure("tls_echo_64b_50c", 1.25, edge.tls_echo(50)),
    Figure("tls_echo_64b_1000c", 1.25, edge.tls_echo(1000)),
    Figure("tls_idle_memory", 12288, edge.tls_memory),
    Figure("silent_memory", 1024, edge.silent_memory),
    Figure("address_lookups", 1.0, edge.address_lookups),
    Figure("slow_readers_p99", 1.2, edge.slow_readers),
    Figure("deflate_fanout", 1.1, edge.deflate_fanout),
    Figure("storm_recovery", 20, edge.storm),
    Figure("storm_echo_p99", 50, edge.storm),
    Figure("scraped_echo", 1.02, admin.scraped),
    Figure("listing_100k_echo_p99", 5, admin.listing),
    Figure("upgrade_pause_busy", 150, upgrade.pause_busy),
    Figure("upgrade_pause_idle", 1000, upgrade.idle),
    Figure("upgrade_memory", 1.3, upgrade.idle),
]


# ---------------------------------------------------------------------------------------------------- main


class Report:
    def __init__(self):
        self.figures, self.failed = [], 0

    def figure(self, figure, value, comments, results):
        verdict = "ok" if value <= figure.limit else "short"
        for line in comments:
            print(line)
        print(f"bench {figure.name} value={value:.4g} limit={figure.limit:g} {verdict}", flush=True)
        self.figures.append({"name": figure.name, "value": value, "limit": figure.limit, "verdict": verdict,
                             "comments": comments, "runs": results})

    def failure(self, names, error):
        self.failed += 1
        print(f"# {', '.join(names)}: could not be measured: {error}", flush=True)


# These give several figures at once.
TOGETHER = (idle, shards.broadcast, edge.storm, upgrade.idle)


def run_all(bench, figures, report):
    done = set()
    for figure in figures:
        if figure.measure in done:
            continue
        done.add(figure.measure)
        together = [f for f in figures if f.measure is figure.measure]
        try:
            if bench.options.noise and not figure.floor:
                continue
            if figure.measure in TOGETHER:
                values, results = figure.measure(bench)
                for f in together:
                    report.figure(f, *values[f.name], results)
            else:
                report.figure(figure, *figure.measure(bench))
        except Skipped as e:
            print(f"bench {figure.name} skipped: {e}", flush=True)
        except (BenchError, OSError, subprocess.SubprocessError, json.JSONDecodeError) as e:
            report.failure([f.name for f in together], e)


def options_parse():
    p = argparse.ArgumentParser(description="Benchmarks of the gateway against bare floors (bench/README.md).")
    p.add_argument("--build", default="build", help="build directory (build)")
    p.add_argument("--only", default="", help="names or beginnings of names, separated by commas")
    p.add_argument("--pairs", type=int, default=15, help="ratios per figure (15)")
    p.add_argument("--pin", action=argparse.BooleanOptionalAction, default=True,
                   help="server on the last CPU, load client and worker on the others (default); else the kernel places them")
    p.add_argument("--worker", default="", help="another echo worker than tgg-floor-worker, for both sides")
    p.add_argument("--reference", default="", metavar="DIR",
                   help="build directory of another commit, for echo_vs_reference (bench/reference makes one)")
    p.add_argument("--noise", action="store_true", help="a second floor in the gateway's place: spread of the method")
    p.add_argument("--json", default="", help="write everything that was measured to this file")
    p.add_argument("--list", action="store_true", help="print the names and end")
    return p.parse_args()


def main():
    options = options_parse()
    wanted = [w for w in options.only.split(",") if w]
    figures = [f for f in FIGURES if not wanted or any(f.name.startswith(w) for w in wanted)]
    if options.list:
        print("\n".join(f.name for f in figures))
        return 0
    if not figures or options.pairs < 5:
        print("run.py: no figure of that name" if not figures else "run.py: at least 5 pairs", file=sys.stderr)
        return 2
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    bench, report = Bench(options), Report()
    bench.wanted = lambda name: any(f.name == name for f in figures)
    print(f"# {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f} before, "
          f"{'pinned' if options.pin else 'not pinned'}, {options.pairs} pairs", flush=True)
    with bench.stack:
        run_all(bench, figures, report)
    if options.json:
        Path(options.json).write_text(json.dumps(report.figures, indent=1) + "\n")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
