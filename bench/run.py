#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Runs the benchmarks behind `make bench`. What each figure is and how it is measured: bench/README.md.

Every figure is one line on standard output:   bench NAME value=V limit=L ok|short
with lines that begin with # before it for what it was computed from. The exit status is 0 when every figure could be
measured, short or not, and 1 when one could not be."""

import argparse
import contextlib
import dataclasses
import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

SOURCE = Path(__file__).resolve().parent.parent
IDLE_CLIENTS = 15000
ANSWER_TIMEOUT_S = 60.0
# A connection that was silent for a while acknowledges its next 16 segments at once, each with a packet of its own, whose
# cost falls on the sender (Linux: TCP_MAX_QUICKACKS). Windows begin when every connection is past that.
WARM_MESSAGES = 24
# Cycles per window of connect_cycle, so that all windows together stay below the kernel's table of TIME_WAIT sockets.
CYCLES = 2000
CONNECT_LIMIT = 2.0


class BenchError(Exception):
    """A run could not be done."""


# ---------------------------------------------------------------------------------------------------- processes


class Child:
    """A process that speaks JSON lines on standard output, on the CPUs given, ended with the bench."""

    def __init__(self, argv, cpus=None, stderr=None, cwd=None):
        self.name = Path(argv[0]).name
        self.buffer = b""
        self.process = subprocess.Popen(
            [str(a) for a in argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=cwd,
            preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None,
        )
        self.pid = self.process.pid

    def event(self, kind, timeout=ANSWER_TIMEOUT_S):
        """The next line, which must be of this kind."""
        deadline = time.monotonic() + timeout
        fd = self.process.stdout.fileno()
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise BenchError(f"{self.name}: no {kind} within {timeout} s")
            data = os.read(fd, 65536)
            if not data:
                raise BenchError(f"{self.name}: ended with status {self.process.wait()}")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        got = json.loads(line)
        if got.get("event") != kind:
            raise BenchError(f"{self.name}: said {got} instead of {kind}")
        return got

    def go(self):
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def stop(self, sig=signal.SIGTERM):
        """End it by closing its standard input, then by signal, and wait until it is gone."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        for s, patience in ((None, 0.2), (sig, 5), (signal.SIGKILL, 5)):
            if s is not None:
                self.process.send_signal(s)
            try:
                self.process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue
        self.process.stdout.close()


def children_of(pid):
    """All processes below pid."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{entry}/stat").read_text()
                parents[int(entry)] = int(stat.rsplit(")", 1)[1].split()[1])
    found, more = [], [pid]
    while more:
        parent = more.pop()
        below = [p for p, pp in parents.items() if pp == parent]
        found += below
        more += below
    return sorted(found)


def resident_bytes(pids):
    """Rss, and what of it is private and written to, over these processes."""
    total = {"Rss": 0, "Private_Dirty": 0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            key, _, rest = line.partition(":")
            if key in total:
                total[key] += int(rest.split()[0]) * 1024
    return total


def free_port():
    """A port below the ephemeral range that nobody listens on."""
    for _ in range(1000):
        port = random.randrange(20000, 30000)
        with socket.socket() as s:
            with contextlib.suppress(OSError):
                s.bind(("127.0.0.1", port))
                return port
    raise BenchError("no free port")


def wait_listening(port, process, timeout=10.0):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"the gateway ended with status {process.returncode}")
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise BenchError(f"nobody listens on port {port}")


class Bench:
    """Where the programs are, which CPUs they get, what is running."""

    def __init__(self, options):
        self.options = options
        self.build = Path(options.build).resolve()
        self.dir = Path(tempfile.mkdtemp(prefix="tgg-bench-"))
        self.stack = contextlib.ExitStack()
        self.stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
        self.server_cpus, self.load_cpus = None, None
        if options.pin:
            cpus = sorted(os.sched_getaffinity(0))
            self.server_cpus, self.load_cpus = {cpus[-1]}, set(cpus[:-1]) or {cpus[-1]}

    def program(self, name):
        for folder in ("bench", "src/main", "sdk", "."):
            path = self.build / folder / name
            if path.is_file():
                return path
        raise BenchError(f"{name} is not in {self.build}")

    def load_argv(self, mode, port, **options):
        argv = [self.program("tgg-load"), mode, "--target", f"127.0.0.1:{port}"]
        for key, value in options.items():
            name = "--" + key.replace("_", "-")
            for v in value if isinstance(value, list) else [value]:
                if v is not False and v is not None:
                    argv += [name] if v is True else [name, v]
        return argv


class Scope:
    """Starts children of one figure and ends them, the last one first."""

    def __init__(self, bench):
        self.bench = bench
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stack.close()

    def child(self, argv, cpus, **kw):
        c = Child(argv, cpus, **kw)
        self.stack.callback(c.stop)
        return c

    def load(self, mode, port, **options):
        return self.child(self.bench.load_argv(mode, port, **options), self.bench.load_cpus)

    def worker(self, port, *options):
        own = not self.bench.options.worker or options
        path = self.bench.program("tgg-floor-worker") if own else Path(self.bench.options.worker).resolve()
        c = self.child([path, "--gateway", f"127.0.0.1:{port}", "--name", "bench", "--id", "0", *options],
                       self.bench.load_cpus)
        if own:
            c.event("ready")
        else:
            time.sleep(0.5)
        return c


@dataclasses.dataclass
class Side:
    """One of the two that are compared."""

    name: str
    port: int
    pids: list
    opaque: bool = False
    extra: dict = dataclasses.field(default_factory=dict)  # options of tgg-load that go with it


def floor_side(scope, mode="forward", payload=64, worker=()):
    port, worker_port = free_port(), free_port()
    argv = [scope.bench.program("tgg-floor"), "--listen", f"127.0.0.1:{port}", "--mode", mode, "--payload", payload]
    if mode == "forward":
        argv += ["--worker-listen", f"127.0.0.1:{worker_port}"]
    floor = scope.child(argv, scope.bench.server_cpus)
    floor.event("ready")
    if mode == "forward":
        scope.worker(worker_port, *worker)
    return Side("floor", port, [floor.pid], opaque=mode == "forward")


def gateway_conf(scope, port, worker_port):
    """A gateway of its own: no register answers it (a socket that accepts nobody), nothing outside its folder."""
    register = socket.create_server(("127.0.0.1", 0), backlog=16)
    scope.stack.callback(register.close)
    folder = Path(tempfile.mkdtemp(dir=scope.bench.dir))
    keys = (SOURCE / "src/common/config_keys.def").read_text()
    lines = [
        "[gateway]",
        "lan_ip = 127.0.0.1",
        f"start_port = {worker_port}",
        f"register_address = 127.0.0.1:{register.getsockname()[1]}",
        "drain_timeout = 0",
    ]
    if "runtime_dir" in keys:
        lines.append(f"runtime_dir = {folder}")
    lines += ["[listen bench]", "address = 127.0.0.1", f"port = {port}", "protocol = websocket",
              "[log]", "level = warn"]
    path = folder / "tgg_conf.ini"
    path.write_text("\n".join(lines) + "\n")
    return path


def gateway_side(scope, worker=()):
    port, worker_port = free_port(), free_port()
    conf = gateway_conf(scope, port, worker_port)
    log = open(conf.parent / "stderr", "w")
    scope.stack.callback(log.close)
    gateway = scope.child([scope.bench.program("tgg"), "gateway", "-c", conf], scope.bench.server_cpus, stderr=log,
                          cwd=conf.parent)
    try:
        wait_listening(port, gateway.process)
        wait_listening(worker_port, gateway.process)
    except BenchError as e:
        raise BenchError(f"{e}; it said: {(conf.parent / 'stderr').read_text()[-2000:]}") from e
    scope.worker(worker_port, *worker)
    time.sleep(0.3)  # the worker's greeting
    return Side("gateway", port, children_of(gateway.pid) or [gateway.pid])


def compared_side(scope, worker=(), payload=64):
    """The gateway; with --noise a second floor in its place, to see what the method itself is worth."""
    if not scope.bench.options.noise:
        return gateway_side(scope, worker)
    side = floor_side(scope, payload=payload, worker=worker)
    side.name = "floor again"
    return side


# ---------------------------------------------------------------------------------------------------- measuring


@dataclasses.dataclass
class Pairs:
    """Values of two sides, taken in turns: A B, B A, A B, ..."""

    a: list
    b: list
    ratios: list

    def ratio(self):
        return statistics.median(self.ratios)

    def comment(self, a_name, b_name, unit, scale=1.0):
        r = sorted(self.ratios)
        q = statistics.quantiles(r, n=4) if len(r) > 1 else [r[0]] * 3
        return (f"# {a_name} {statistics.median(self.a) * scale:.2f} {unit}, "
                f"{b_name} {statistics.median(self.b) * scale:.2f} {unit}; {len(r)} ratios {r[0]:.3f} to {r[-1]:.3f}, "
                f"middle half {q[0]:.3f} to {q[2]:.3f}")


def alternate(n, take_a, take_b):
    a, b = [], []
    for i in range(n):
        first, second = ((take_a, a), (take_b, b)) if i % 2 == 0 else ((take_b, b), (take_a, a))
        first[1].append(first[0]())
        second[1].append(second[0]())
    return Pairs(a, b, [x / y for x, y in zip(a, b)])


def cpu_per_operation(result):
    if result["operations"] == 0:
        raise BenchError("no operation was completed")
    return sum(result["cpu_ns"]) / result["operations"]


def p99(result):
    return result["latency_ns"]["p99"]


def held_load(scope, side, mode, results, value, **options):
    """Connections that stay; each call of the function that comes back is one run over them."""
    load = scope.load(mode, side.port, hold=True, opaque=side.opaque, cpu_pid=side.pids, **side.extra, **options)
    load.event("ready")

    def run():
        load.go()
        result = load.event("result")
        load.event("ready")
        results.append({"side": side.name, **result})
        return value(result)

    run()  # the first one is warm-up
    results.pop()
    return run


def compare(bench, mode, value, unit, scale, pairs, worker=(), payload=64, **options):
    results = []
    with Scope(bench) as scope:
        sides = [compared_side(scope, worker, payload), floor_side(scope, payload=payload, worker=worker)]
        runs = [held_load(scope, s, mode, results, value, payload=payload, **options) for s in sides]
        got = alternate(pairs, *runs)
    return got.ratio(), [got.comment(sides[0].name, "floor", unit, scale)], results


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


FIGURES = [
    Figure("echo_64b_50c", 1.25, echo(50, 64)),
    Figure("echo_64b_1000c", 1.25, echo(1000, 64)),
    Figure("echo_512b_50c", 1.25, echo(50, 512)),
    Figure("echo_512b_1000c", 1.25, echo(1000, 512)),
    Figure("fanout_64b_1000c", 1.05, fanout),
    Figure("connect_cycle", CONNECT_LIMIT, connect_cycle),
    Figure("latency_p99_10k", 1.5, latency),
    Figure("idle_memory", 512, idle),
    Figure("memory_returned", 0.25, idle),
    Figure("echo_with_15000_idle", 1.1, idle),
    Figure("ring_records", 1.0, rings),
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


def run_all(bench, figures, report):
    done = set()
    for figure in figures:
        if figure.measure in done:
            continue
        done.add(figure.measure)
        together = [f for f in figures if f.measure is figure.measure]
        try:
            if figure.measure is idle:
                if bench.options.noise:
                    continue
                values, results = idle(bench)
                for f in together:
                    report.figure(f, *values[f.name], results)
            else:
                report.figure(figure, *figure.measure(bench))
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
