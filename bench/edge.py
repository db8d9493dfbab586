# SPDX-License-Identifier: MIT
"""Figures of what stands before the application: TLS, floods, slow readers, compression (bench/README.md)."""

import subprocess
import threading
import time


from harness import (WARM_MESSAGES, Scope, alternate, cpu_per_operation, floor_side, gateway_side, held_load, p99,
                     resident_bytes)
from shards import two_cpus

TLS_CLIENTS = 5000
SILENT_CLIENTS = 10000
STORM_CLIENTS = 19500  # of one process, whose limit is 20,000 descriptors
STORM_ECHO_CLIENTS, STORM_RATE = 50, 1000
FANOUT_CLIENTS = 500
LOOKUPS_PER_S = 5e6
# Load clients that stand for other machines leave the CPUs to the gateway when it wants them.
ELSEWHERE = 19


def certificate(bench):
    """A certificate of our own, with its key, in one file (ECDSA P-256, the usual choice)."""
    pem = bench.dir / "bench.pem"
    if not pem.exists():
        key = bench.dir / "bench.key"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                        "2", "-subj", "/CN=bench", "-keyout", key, "-out", pem], check=True, stderr=subprocess.DEVNULL)
        pem.write_text(pem.read_text() + key.read_text())
    return pem


def tls_gateway(scope, **settings):
    return gateway_side(scope, listen=[f"tls_certificate = {certificate(scope.bench)}", "tls_version_min = 1.3"],
                        extra={"tls": True}, **settings)


def tls_echo(connections):
    """client -> worker -> client over TLS 1.3, over a floor that does the same with SSL_read and SSL_write."""
    def measure(bench):
        results = []
        with Scope(bench) as scope:
            sides = [tls_gateway(scope), floor_side(scope, tls=certificate(bench))]
            runs = [held_load(scope, s, "echo", results, cpu_per_operation, connections=connections, warmup=100,
                              warmup_operations=WARM_MESSAGES * connections, run=400) for s in sides]
            got = alternate(bench.options.pairs, *runs)
        return got.ratio(), [got.comment("gateway", "floor", "us/message", 1e-3)], results
    return measure


def growth(scope, side, clients, **options):
    """Resident bytes of the shard that each of so many idle clients takes."""
    warm = scope.load("idle", side.port, connections=50, **options)
    warm.event("ready")
    warm.stop()
    time.sleep(0.5)
    before = resident_bytes(side.pids)["Rss"]
    crowd = scope.load("idle", side.port, connections=clients, sources=16, source_first=100, **options)
    crowd.event("ready", 180)
    time.sleep(1)
    after = resident_bytes(side.pids)["Rss"]
    crowd.stop()
    return (after - before) / clients, [f"# {clients} clients: resident {before / 1e6:.2f} MB, then {after / 1e6:.2f} MB"]


def tls_memory(bench):
    """An idle WebSocket client over TLS 1.3."""
    with Scope(bench) as scope:
        value, comments = growth(scope, tls_gateway(scope), TLS_CLIENTS, tls=True)
    return value, comments, []


def silent_memory(bench):
    """A connection that says nothing (telnet), until its deadline."""
    with Scope(bench) as scope:
        value, comments = growth(scope, gateway_side(scope), SILENT_CLIENTS, silent=True)
    return value, comments, []


def address_lookups(bench):
    """Longest match among 100,000 prefixes: the share that a lookup takes of the time allowed, 5 million a second."""
    with Scope(bench) as scope:
        result = scope.child([bench.program("tgg-bench-cidr")], bench.server_cpus).event("result")
    return result["ns"] * LOOKUPS_PER_S / 1e9, [
        f"# {result['prefixes']} prefixes, {result['bytes'] / 1e6:.1f} MB: {result['ns']:.1f} ns a lookup, "
        f"{1e3 / result['ns']:.1f} M a second"], [result]


def slow_readers(bench):
    """Messages to everybody: p99 with one client in a hundred that does not read, over p99 without."""
    results = []
    settings = {"slow_reader_policy": "drop_newest", "send_to_client_buffer_size": 65536}
    with Scope(bench) as scope:
        sides = []
        for name in ("one in a hundred deaf", "all read"):
            side = gateway_side(scope, name=name, worker=("--reply", "marked"), **settings)
            sides.append(side)
            bystanders = scope.load("listen", side.port, connections=990, run_operations=1 << 30, sources=4, nice=ELSEWHERE)
            bystanders.event("ready")
            ten = scope.load("idle", side.port, connections=10, deaf=name != "all read", source_first=50)
            ten.event("ready")
            sender = scope.load("fan-out", side.port, connections=1, run_operations=1 << 30, warmup=0, run=3600000, hold=True)
            sender.event("ready")
            sender.go()
        time.sleep(2)
        runs = [held_load(scope, s, "echo", results, p99, connections=100, rate=2000, warmup=200, run=1000) for s in sides]
        got = alternate(max(bench.options.pairs // 2 | 1, 5), *runs)
    return got.ratio(), [got.comment(*[s.name for s in sides], "us p99", 1e-3)], results


def deflate_fanout(bench):
    """Messages of 1 KB to everybody, compressed once for all, over the same as they are."""
    results = []
    with Scope(bench) as scope:
        runs, names = [], []
        for name, deflate in (("compressed", "yes"), ("plain", "no")):
            side = gateway_side(scope, name=name, worker=("--reply", "all"), extra={"deflate": True},
                                listen=[f"deflate = {deflate}"])
            names.append(name)
            runs.append(held_load(scope, side, "fan-out", results, cpu_per_operation, connections=FANOUT_CLIENTS,
                                  payload=1024, warmup=100, warmup_operations=WARM_MESSAGES * FANOUT_CLIENTS, run=400))
        got = alternate(bench.options.pairs, *runs)
    return got.ratio(), [got.comment(*names, "us/delivery", 1e-3)], results


def storm(bench):
    """One load process loses all its clients and has them back at once, while others talk."""
    with Scope(bench, spread=True) as scope:
        side = gateway_side(scope, shards=2, cpus=two_cpus())
        echo = scope.load("echo", side.port, hold=True, connections=STORM_ECHO_CLIENTS, rate=STORM_RATE, warmup=200, run=8000)
        echo.event("ready")
        crowd = dict(connections=STORM_CLIENTS, connecting=STORM_CLIENTS, sources=8, source_first=100, nice=ELSEWHERE)
        first = scope.load("idle", side.port, **crowd)
        first.event("ready", 120)
        echo.go()
        time.sleep(0.5)
        begin = time.monotonic()
        threading.Thread(target=first.stop).start()
        again = scope.load("idle", side.port, **crowd)
        again.event("ready", 120)
        took = time.monotonic() - begin
        result = echo.event("result")
        counters = [s["counters"] for s in side.status()]

    def total(name):
        return sum(c.get(name, 0) for c in counters)
    lost = total("client_closed_handshake_timeout") + total("client_refused")
    latency = {k: v / 1e6 for k, v in result["latency_ns"].items() if k != "count"}
    note = [f"# {STORM_CLIENTS} clients back after {took:.2f} s; handshakes timed out or refused: {lost}",
            f"# echo beside them, {STORM_RATE} a second over {STORM_ECHO_CLIENTS}: p50 {latency['p50']:.2f}, p99 "
            f"{latency['p99']:.2f}, max {latency['max']:.2f} ms"]
    return {"storm_recovery": (took if lost == 0 else float("inf"), note),
            "storm_echo_p99": (latency["p99"], [])}, [{"took_s": took, "lost": lost, "echo": result}]
