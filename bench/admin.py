# SPDX-License-Identifier: MIT
"""Figures of being watched: what a scrape of the metrics costs, what a listing does to those beside it (bench/README.md)."""

import http.client
import json
import socket
import threading
import time

from harness import (WARM_MESSAGES, BenchError, Scope, alternate, cpu_per_operation, gateway_side, held_load)
from shards import two_cpus

CROWD = 100000
PER_LOAD = 16700  # connections of one load process: it may have 20,000 descriptors
PAGE = 1000
ELSEWHERE = 19


class UnixConnection(http.client.HTTPConnection):
    """HTTP to the admin process over its Unix socket."""

    def __init__(self, path):
        super().__init__("tgg", timeout=30)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def get(side, url):
    connection = UnixConnection(side.log.parent / "admin.sock")
    try:
        connection.request("GET", url)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchError(f"{url}: {answer.status} {body[:200]}")
    return body


class Scraper(threading.Thread):
    """GET /metrics each second until stop()."""

    def __init__(self, side):
        super().__init__(daemon=True)
        self.side, self.scrapes, self.bytes, self.over = side, 0, 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(1):
            self.bytes = len(get(self.side, "/metrics"))
            self.scrapes += 1

    def stop(self):
        self.over.set()
        self.join()


def scraped(bench):
    """CPU time of a message, of all processes of the gateway, while the metrics are read each second, over the same while
    nobody reads them."""
    results = []
    with Scope(bench) as scope:
        sides = [gateway_side(scope, name=name) for name in ("scraped", "not scraped")]
        scraper = Scraper(sides[0])
        scope.stack.callback(scraper.stop)
        runs = [held_load(scope, s, "echo", results, cpu_per_operation, connections=50, warmup=100,
                          warmup_operations=WARM_MESSAGES * 50, run=1000) for s in sides]
        got = alternate(bench.options.pairs, *runs)
        if scraper.scrapes == 0:
            raise BenchError("nothing was scraped")
    return got.ratio(), [got.comment(*[s.name for s in sides], "us/message", 1e-3),
                         f"# {scraper.scrapes} scrapes of {scraper.bytes} bytes"], results


def list_all(side):
    """Connection ids of every client, page by page, and how many pages that were."""
    seen, cursor, pages = set(), None, 0
    while True:
        page = json.loads(get(side, f"/api/clients?limit={PAGE}" + (f"&cursor={cursor}" if cursor else "")))
        if page["missing"]:
            raise BenchError(f"shards did not answer: {page['missing']}")
        seen.update(c["connection_id"] for c in page["clients"])
        pages += 1
        cursor = page["cursor"]
        if cursor is None:
            return seen, pages


def listing(bench):
    """p99 of echo clients, in milliseconds, while 100,000 clients are listed."""
    with Scope(bench, spread=True) as scope:
        shards = -(-CROWD // 17000)
        side = gateway_side(scope, shards=shards, cpus=(two_cpus() * shards)[:shards])
        for i in range(-(-CROWD // PER_LOAD)):
            crowd = scope.load("idle", side.port, connections=min(PER_LOAD, CROWD - i * PER_LOAD), sources=2,
                               source_first=60 + 2 * i, nice=ELSEWHERE)
            crowd.event("ready", 120)
        echo = scope.load("echo", side.port, hold=True, connections=50, rate=1000, warmup=500, run=6000)
        echo.event("ready")
        time.sleep(1)
        echo.go()
        begin, listings, pages = time.monotonic(), 0, 0
        while time.monotonic() - begin < 5:
            seen, n = list_all(side)
            listings, pages = listings + 1, pages + n
            if len(seen) < CROWD:
                raise BenchError(f"only {len(seen)} of {CROWD} clients were listed")
        took = (time.monotonic() - begin) / listings
        result = echo.event("result")
    latency = {k: v / 1e6 for k, v in result["latency_ns"].items() if k != "count"}
    return latency["p99"], [
        f"# {listings} listings of {len(seen)} clients over {shards} shards, {took:.2f} s and {pages // listings} pages each; "
        f"echo, 1000 a second over 50: p50 {latency['p50']:.2f}, p99 {latency['p99']:.2f}, max {latency['max']:.2f} ms"], [
        {"listings": listings, "took_s": took, "echo": result}]
