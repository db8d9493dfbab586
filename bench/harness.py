# SPDX-License-Identifier: MIT
"""What the benchmarks share: processes, the two sides of a comparison, ratios (bench/README.md)."""

import contextlib
import dataclasses
import json
import os
import random
import select
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Callable

ANSWER_TIMEOUT_S = 60.0
# A connection that was silent for a while acknowledges its next 16 segments at once, each with a packet of its own, whose
# cost falls on the sender (Linux: TCP_MAX_QUICKACKS). Windows begin when every connection is past that.
WARM_MESSAGES = 24


class BenchError(Exception):
    """A run could not be done."""


class Skipped(Exception):
    """A figure that was not asked for, and why."""


# ---------------------------------------------------------------------------------------------------- processes


class Child:
    """A process that speaks JSON lines on standard output, on the CPUs given, ended with the bench."""

    def __init__(self, argv, cpus=None, stderr=None, cwd=None, nice=0):
        self.name = Path(argv[0]).name
        self.buffer = b""

        def prepare():
            if cpus:
                os.sched_setaffinity(0, cpus)
            os.nice(nice)

        self.process = subprocess.Popen(
            [str(a) for a in argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=cwd,
            preexec_fn=prepare,
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


def process_cpu_ns(pids):
    """CPU time that these processes have used (bench/common.c says how it is counted)."""
    CPUCLOCK_SCHED = 2
    return sum(time.clock_gettime_ns(~pid << 3 | CPUCLOCK_SCHED) for pid in pids)


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

    def program(self, name, build=None):
        build = Path(build).resolve() if build else self.build
        for folder in ("bench", "src/main", "sdk", "."):
            path = build / folder / name
            if path.is_file():
                return path
        raise BenchError(f"{name} is not in {build}")

    def load_argv(self, mode, port, **options):
        argv = [self.program("tgg-load"), mode, "--target", f"127.0.0.1:{port}"]
        for key, value in options.items():
            name = "--" + key.replace("_", "-")
            for v in value if isinstance(value, list) else [value]:
                if v is not False and v is not None:
                    argv += [name] if v is True else [name, v]
        return argv


class Scope:
    """Starts children of one figure and ends them, the last one first. spread: load clients and workers on all CPUs."""

    def __init__(self, bench, spread=False):
        self.bench = bench
        self.stack = contextlib.ExitStack()
        self.load_cpus = None if spread else bench.load_cpus

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stack.close()

    def child(self, argv, cpus, **kw):
        c = Child(argv, cpus, **kw)
        self.stack.callback(c.stop)
        return c

    def load(self, mode, port, nice=0, **options):
        return self.child(self.bench.load_argv(mode, port, **options), self.load_cpus, nice=nice)

    def worker(self, port, *options):
        own = not self.bench.options.worker or options
        path = self.bench.program("tgg-floor-worker") if own else Path(self.bench.options.worker).resolve()
        c = self.child([path, "--gateway", f"127.0.0.1:{port}", "--name", "bench", "--id", "0", *options],
                       self.load_cpus)
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
    supervisor: int = 0
    worker_port: int = 0
    log: Path = None  # what the gateway has said: warnings and worse
    status: Callable = None  # what `tgg status` says, by shard


def floor_side(scope, mode="forward", payload=64, worker=(), cpus=None, tls=None):
    port, worker_port = free_port(), free_port()
    argv = [scope.bench.program("tgg-floor"), "--listen", f"127.0.0.1:{port}", "--mode", mode, "--payload", payload]
    if mode == "forward":
        argv += ["--worker-listen", f"127.0.0.1:{worker_port}"]
    if tls:
        argv += ["--tls", tls]
    floor = scope.child(argv, cpus or scope.bench.server_cpus)
    floor.event("ready")
    if mode == "forward":
        scope.worker(worker_port, *worker)
    return Side("floor", port, [floor.pid], opaque=mode == "forward", extra={"tls": True} if tls else {})


def gateway_conf(scope, port, worker_port, listen=(), **settings):
    """A gateway of its own: no register answers it (a socket that accepts nobody), nothing outside its folder.
    settings: further keys of [gateway]; listen: lines of the listener."""
    register = socket.create_server(("127.0.0.1", 0), backlog=16)
    scope.stack.callback(register.close)
    folder = Path(tempfile.mkdtemp(dir=scope.bench.dir))
    lines = [
        "[gateway]",
        "lan_ip = 127.0.0.1",
        f"start_port = {worker_port}",
        f"register_address = 127.0.0.1:{register.getsockname()[1]}",
        "drain_timeout = 0",
        f"runtime_dir = {folder}",
    ]
    lines += [f"{key} = {value}" for key, value in settings.items()]
    lines += ["[listen bench]", "address = 127.0.0.1", f"port = {port}", "protocol = websocket",
              *listen, "[log]", "level = warn"]
    path = folder / "tgg_conf.ini"
    path.write_text("\n".join(lines) + "\n")
    return path


def status_of(program, conf):
    """What `tgg status` says of each shard."""
    done = subprocess.run([program, "status", "--json", "-c", conf], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          timeout=20, check=False)
    return json.loads(done.stdout)["shards"] if done.stdout else []


def wait_running(status, process, shards, timeout=30.0):
    """Until every shard says that it takes connections."""
    deadline = time.monotonic() + timeout
    while [s["state"] for s in status()] != ["running"] * shards:
        if process.poll() is not None:
            raise BenchError(f"the gateway ended with status {process.returncode}")
        if time.monotonic() > deadline:
            raise BenchError(f"not all of {shards} shards run: {[(s['shard'], s['state']) for s in status()]}")
        time.sleep(0.05)


def gateway_side(scope, worker=(), workers=1, name="gateway", cpus=None, build=None, listen=(), extra=None, **settings):
    """A gateway with its workers, on the server's CPU; cpus: on those, one shard each. build: of that folder."""
    port, worker_port = free_port(), free_port()
    if cpus:
        settings["cpus"] = ",".join(str(c) for c in cpus)
    conf = gateway_conf(scope, port, worker_port, listen, **settings)
    program = scope.bench.program("tgg", build)
    log = open(conf.parent / "stderr", "w")
    scope.stack.callback(log.close)
    gateway = scope.child([program, "gateway", "-c", conf], set(cpus) if cpus else scope.bench.server_cpus, stderr=log,
                          cwd=conf.parent)

    def status():
        return status_of(program, conf)

    try:
        wait_listening(port, gateway.process)
        wait_listening(worker_port, gateway.process)
        wait_running(status, gateway.process, settings.get("shards", 1))
    except BenchError as e:
        raise BenchError(f"{e}; it said: {(conf.parent / 'stderr').read_text()[-2000:]}") from e
    for i in range(workers):
        scope.worker(worker_port, *(("--id", str(i)) if workers > 1 else ()), *worker)
    time.sleep(0.3)  # the worker's greeting
    return Side(name, port, children_of(gateway.pid) or [gateway.pid], supervisor=gateway.pid,
                worker_port=worker_port, status=status, extra=dict(extra or {}), log=conf.parent / "stderr")


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
