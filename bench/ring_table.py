#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Rings with and without locks, whole messages through the gateway: the tables of docs/PERFORMANCE.md.

    meson setup LOCKED -Dring_lock=true && ninja -C LOCKED src/main/tgg
    bench/ring_table.py --build build --locked LOCKED

32 connections; each has one command on the way: "set KEY VALUE" or "get KEY", one set to ten gets, values of 512 bytes,
kept by a worker (tgg-floor-worker --reply store). Clients on shard 0, the worker's link on shard 1: each command and each
answer goes through a ring. All gateways stand side by side and are measured in turns."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True

from harness import Bench, BenchError, Scope, cpu_per_operation, gateway_side  # noqa: E402
from shards import two_cpus  # noqa: E402

CONNECTIONS, PAYLOAD = 32, 512
QUANTILES = ("p50", "p90", "p99", "p999")


def store_load(scope, side, seconds):
    load = scope.load("store", side.port, connections=CONNECTIONS, payload=PAYLOAD, hold=True, warmup=300,
                      warmup_operations=100 * CONNECTIONS, run=round(seconds * 1000), cpu_pid=side.pids)
    load.event("ready")

    def run():
        load.go()
        result = load.event("result")
        load.event("ready")
        return result
    return run


def row(name, results):
    median = {q: statistics.median(r["latency_ns"][q] for r in results) / 1e3 for q in QUANTILES}
    longest = max(r["latency_ns"]["max"] for r in results) / 1e3
    rate = statistics.median(r["operations"] / r["seconds"] for r in results)
    cpu = statistics.median(cpu_per_operation(r) for r in results) / 1e3
    return (f"| {name} | " + " | ".join(f"{median[q]:.0f}" for q in QUANTILES) +
            f" | {longest:.0f} | {rate:.0f} | {cpu:.2f} |")


def gateway_table(bench, options):
    first, last = two_cpus()
    across = {"shards": 2, "cpus": [first, last], "edge_shards": 0, "link_shards": 1}
    kinds = [("ring without locks", {**across}), ("ring under a mutex", {**across, "build": options.locked}),
             ("no ring: one shard", {"cpus": [last]})]
    results = {name: [] for name, _ in kinds}
    with Scope(bench, spread=True) as scope:
        runs = [(name, store_load(scope, gateway_side(scope, worker=("--reply", "store"), **settings), options.seconds))
                for name, settings in kinds]
        for _, run in runs:
            run()
        for i in range(options.rounds):
            for name, run in runs[i % len(runs):] + runs[:i % len(runs)]:
                results[name].append(run())
    print(f"\n{CONNECTIONS} connections, set:get 1:10, values of {PAYLOAD} bytes; medians of {options.rounds} runs of "
          f"{options.seconds} s each, the longest of all; latency in us\n")
    print("| | p50 | p90 | p99 | p99.9 | longest | commands/s | gateway CPU us/command |\n|---|---|---|---|---|---|---|---|")
    for name, _ in kinds:
        print(row(name, results[name]))


def records_table(bench):
    with Scope(bench) as scope:
        argv = [bench.program("tgg-bench-ring"), "--rounds", 7]
        if len(os.sched_getaffinity(0)) > 1:
            argv += ["--cpus", "{},{}".format(*two_cpus())]
        result = scope.child(argv, None).event("result")
    names = {"ring": "ring, one at a time", "ring_batch": f"ring, batches of {result['batch']}",
             "ck_copy": "ck_ring, entries of 64 bytes", "ck_pointer": "ck_ring, pointers",
             "mutex": "mutex ring, one at a time", "mutex_batch": f"mutex ring, batches of {result['batch']}"}
    print("\n| 64-byte records between two cores | ns a record | M records/s |\n|---|---|---|")
    for key, name in names.items():
        print(f"| {name} | {result[key]['ns']:.1f} | {1e3 / result[key]['ns']:.1f} |")


def main():
    p = argparse.ArgumentParser(description="Tables: rings with and without locks (bench/README.md).")
    p.add_argument("--build", default="build", help="build directory (build)")
    p.add_argument("--locked", required=True, help="build directory with -Dring_lock=true")
    p.add_argument("--rounds", type=int, default=9, help="runs of each (9)")
    p.add_argument("--seconds", type=float, default=2, help="length of one (2)")
    options = p.parse_args()
    options.pin, options.worker, options.noise = True, "", False
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        bench = Bench(options)
        with bench.stack:
            gateway_table(bench, options)
            records_table(bench)
    except (BenchError, OSError, subprocess.SubprocessError, json.JSONDecodeError) as e:
        print(f"# could not be measured: {e}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
