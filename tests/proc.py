# SPDX-License-Identifier: MIT
"""Processes under test: tgg's subcommands with a configuration written for them, on free ports, in a folder of the
test's own. A process that ends when it should not, or that has a sanitizer's report in its stderr, fails the test.

TGG_BUILD names the build directory (default: build in the root of the tree). TGG_TEST_SHARDS: how many shards a gateway
has where the test does not say (default 1)."""

import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(os.environ.get("TGG_BUILD", os.path.join(ROOT, "build")))
TGG = os.path.join(BUILD, "src", "main", "tgg")
SHARDS = int(os.environ.get("TGG_TEST_SHARDS", "1"))
PATIENCE = float(os.environ.get("TGG_PATIENCE", "20"))  # s; sanitizers on a loaded machine are slow, nothing waits so long when all is well


def is_sanitized():
    try:
        with open(os.path.join(BUILD, "meson-info", "intro-buildoptions.json")) as f:
            return next(option["value"] for option in json.load(f) if option["name"] == "b_sanitize") not in ("none", [])
    except (OSError, StopIteration):
        return False


SANITIZED = is_sanitized()


def slow():
    """Factor for bounds in time that are part of what is promised: this build, and who else wants the processors."""
    return (5 if SANITIZED else 1) * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))


SANITIZER_REPORT = re.compile(r"ERROR: (Address|Leak|Thread|Undefined\w*)Sanitizer|runtime error: |\bassert_failed\b")
# A shard that a test killed says signal=9; any other end of it while the gateway runs is a fault, however well the
# supervisor hides it.
SHARD_DEATH = re.compile(r"^(?!.*signal\W+9\b).*\bshard_died\b.*$", re.M)


class ProcessFailed(AssertionError):
    pass


def wait_for(condition, timeout=PATIENCE, what="condition"):
    """Poll until condition() is true; its value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError("%s: not in %g s, last %r" % (what, timeout, value))
        time.sleep(0.01)


_given_ports = set()


def free_port():
    """A port that nobody listens on, each one once per test run. Below the ephemeral range where that is possible, so
    that no outgoing connection of another test takes it in between."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        low = int(f.read().split()[0])
    worker = os.environ.get("PYTEST_XDIST_WORKER")  # gw0, gw1, ...: processes that run tests beside each other
    if worker and low > 30000:
        base = 10000 + int(worker[2:]) % 4 * 5000
    else:
        base = 10000 + (os.getpid() * 97) % max(low - 12000, 1) if low > 14000 else 0
    for i in range(5000):
        port = 0 if base == 0 else base + i
        if port in _given_ports:
            continue
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("0.0.0.0", port))
            except OSError:
                continue
            port = s.getsockname()[1]
        if port not in _given_ports:
            _given_ports.add(port)
            return port
    raise RuntimeError("no free port")


def config_text(sections):
    """INI text from {"gateway": {...}, "listen NAME": {...}, ...}; None as a value leaves the key out."""
    out = []
    for title, keys in sections.items():
        out.append("[%s]" % title)
        for key, value in keys.items():
            if value is None:
                continue
            if isinstance(value, bool):
                value = "yes" if value else "no"
            out.append("%s = %s" % (key, value))
        out.append("")
    return "\n".join(out)


def sanitizer_env():
    env = dict(os.environ)
    env.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0:exitcode=99")
    env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1:exitcode=99")
    return env


class Process:
    """One child with its stdout and stderr in files."""

    def __init__(self, argv, folder, name, env=None):
        self.name = name
        self.argv = [str(a) for a in argv]
        self.out_path = os.path.join(str(folder), name + ".out")
        self.err_path = os.path.join(str(folder), name + ".err")
        self.expected_end = False
        self.may_lose_shards = False  # in other ways than by signal 9, by the test's doing
        with open(self.out_path, "ab") as out, open(self.err_path, "ab") as err:
            self.popen = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env or sanitizer_env(), start_new_session=True
            )

    def kill_all(self):
        """End it and its children, whatever state they are in."""
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()

    @property
    def pid(self):
        return self.popen.pid

    def out(self):
        with open(self.out_path, errors="replace") as f:
            return f.read()

    def err(self):
        with open(self.err_path, errors="replace") as f:
            return f.read()

    def is_running(self):
        return self.popen.poll() is None

    def send_signal(self, number):
        self.popen.send_signal(number)

    def wait(self, timeout=PATIENCE):
        """Its exit status, once it has ended by itself."""
        self.expected_end = True
        return self.popen.wait(timeout)

    def check(self):
        """Raises when it died, or a sanitizer had something to say."""
        if not self.expected_end and not self.is_running():
            raise ProcessFailed("%s ended with %s\n%s" % (self.name, self.popen.returncode, self.err()[-4000:]))
        err = self.err()
        report = SANITIZER_REPORT.search(err) or (not self.may_lose_shards and SHARD_DEATH.search(err))
        if report:
            raise ProcessFailed("%s: %s\n%s" % (self.name, report.group(0), err[-8000:]))

    def stop(self, number=signal.SIGINT, timeout=PATIENCE):
        """End it and check it: the exit status must be 0, whatever the signal but KILL."""
        was_expected = self.expected_end
        if not was_expected:
            self.check()
        self.expected_end = True
        if self.is_running():
            self.send_signal(number)
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise ProcessFailed("%s did not end in %g s after signal %d\n%s" % (self.name, timeout, number, self.err()[-4000:]))
        self.check()
        if not was_expected and number != signal.SIGKILL and status != 0:
            raise ProcessFailed("%s: exit status %s\n%s" % (self.name, status, self.err()[-4000:]))
        return status


def run_tgg(*args, timeout=PATIENCE):
    """A tgg command that ends by itself: subprocess.CompletedProcess with text."""
    done = subprocess.run(
        [TGG, *[str(a) for a in args]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        env=sanitizer_env(),
    )
    report = SANITIZER_REPORT.search(done.stderr)
    if report:
        raise ProcessFailed("tgg %s\n%s" % (" ".join(map(str, args)), done.stderr[-8000:]))
    return done


class Service:
    """A tgg subcommand that runs on, with its configuration in `folder`."""

    subcommand = None

    def __init__(self, folder, sections):
        self.folder = str(folder)
        self.sections = sections
        self.config_path = os.path.join(self.folder, "tgg_conf.ini")
        self.write_config()
        self.process = None

    def write_config(self):
        with open(self.config_path, "w") as f:
            f.write(config_text(self.sections))

    def start(self):
        assert self.process is None or not self.process.is_running()
        self.process = Process([TGG, self.subcommand, "-c", self.config_path], self.folder, self.subcommand)
        try:
            self.wait_ready()
        except BaseException:
            self.process.kill_all()
            raise
        return self

    def wait_ready(self):
        raise NotImplementedError

    def is_running(self):
        return self.process is not None and self.process.is_running()

    def log(self):
        """What it has logged so far."""
        return self.process.err()

    def wait_log(self, text, timeout=PATIENCE):
        wait_for(lambda: text in self.log(), timeout, "%r in the log" % text)

    def check(self):
        self.process.check()

    def stop(self, number=signal.SIGINT, timeout=PATIENCE):
        if self.process is None:
            return None
        if self.process.expected_end and not self.process.is_running():
            self.process.check()
            return self.process.popen.returncode
        return self.process.stop(number, timeout)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()


def can_connect(address):
    try:
        socket.create_connection(address, timeout=1).close()
        return True
    except OSError:
        return False


class Register(Service):
    """tgg register; Register(folder, secret_key="x", auth_timeout=1)."""

    subcommand = "register"

    def __init__(self, folder, log=None, port=None, start=True, **keys):
        self.address = ("127.0.0.1", port or free_port())
        sections = {
            "gateway": {"runtime_dir": os.path.join(str(folder), "register-run")},
            "register": {"address": "127.0.0.1", "port": self.address[1], **keys},
            "log": {"level": "info", **(log or {})},
        }
        super().__init__(folder, sections)
        if start:
            self.start()

    def wait_ready(self):
        def ready():
            self.process.check()
            return can_connect(self.address)

        wait_for(ready, what="the register to listen")


class UnixHTTP(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path, timeout=PATIENCE):
        super().__init__("tgg", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


# Where counters stand in node.shm, docs/SHARED-MEMORY.md.
ANNOUNCER_OFFSET, SHARDS_OFFSET, BLOCK_BYTES, COUNTERS_OFFSET = 8192, 16384, 8192, 640


class Gateway(Service):
    """tgg gateway with a listener per protocol, named like it.

    shards: how many (default: TGG_TEST_SHARDS). gateway, register, log, admin: keys of those sections. listen: {"websocket": {...}} adds keys to a listener, or
    {"other": {"protocol": "text", ...}} another listener; {"frame": None} leaves one out."""

    subcommand = "gateway"
    is_oracle = False

    def __init__(self, folder, gateway=None, listen=None, register=None, log=None, registers=(), start=True, shards=None, admin=None):
        self.shards = shards or SHARDS
        self.runtime_dir = os.path.join(str(folder), "run")
        self.ports = {}
        addresses = ["%s:%d" % r for r in registers] or ["127.0.0.1:%d" % free_port()]
        sections = {
            "gateway": {
                "lan_ip": "127.0.0.1",
                "start_port": free_port(),
                "register_address": ", ".join(addresses),
                "runtime_dir": self.runtime_dir,
                "drain_timeout": 2,
                "shards": self.shards if self.shards > 1 else None,
                **(gateway or {}),
            },
            "log": {"level": "info", **(log or {})},
        }
        if register:
            sections["register"] = register
        if admin:
            sections["admin"] = admin
        self._counter_names = None
        self._add_listeners(sections, listen or {})
        super().__init__(folder, sections)
        if start:
            self.start()

    def _add_listeners(self, sections, listen):
        wanted = {name: {} for name in ("websocket", "text", "frame", "tcp")}
        for name, keys in listen.items():
            if keys is None:
                wanted.pop(name, None)
            else:
                wanted[name] = keys
        for name, keys in wanted.items():
            keys = {"address": "127.0.0.1", "port": free_port(), "protocol": name, **keys}
            self.ports[name] = int(keys["port"])
            sections["listen " + name] = keys

    @property
    def internal_port(self):
        return int(self.sections["gateway"]["start_port"])

    def client_address(self, listener):
        return ("127.0.0.1", self.ports[listener])

    def internal_address(self, listener=None):
        return ("127.0.0.1", self.internal_port)

    def wait_ready(self):
        def ready():
            self.process.check()
            status = self.status()
            return status is not None and [s["state"] for s in status["shards"]] == ["running"] * self.shards

        wait_for(ready, what="the shards to run")

    def status(self):
        """What `tgg status --json` says, None while there is nothing to read."""
        done = run_tgg("status", "--json", "-c", self.config_path)
        return json.loads(done.stdout) if done.returncode == 0 else None

    @property
    def admin_socket(self):
        return os.path.join(self.runtime_dir, "admin.sock")

    def admin(self, path, method="GET", timeout=PATIENCE):
        """Status and JSON of an answer of the admin API."""
        connection = UnixHTTP(self.admin_socket, timeout)
        try:
            connection.request(method, "/api/" + path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def check_tables(self):
        """Every shard that answers finds its tables to agree with each other (tgg ctl check)."""
        try:
            status, answer = self.admin("check")
        except OSError:
            return  # the test has no admin process, or killed it
        assert status in (200, 503), answer
        wrong = [s for s in answer.get("shards", ()) if s["problems"]]
        assert not wrong, "tables that do not agree: %s" % wrong

    def shard_pid(self, shard=0):
        return self.status()["shards"][shard]["pid"]

    def shard_pids(self):
        return [shard["pid"] for shard in self.status()["shards"]]

    def turns(self):
        """Of all shards together."""
        return sum(shard["turns"] for shard in self.status()["shards"])

    def shard_counters(self):
        """For each shard every counter and gauge by name, also after its death."""
        if self._counter_names is None:
            self._counter_names = list(self.status()["shards"][0]["counters"])
        return self._counters_at(*[SHARDS_OFFSET + i * BLOCK_BYTES + COUNTERS_OFFSET for i in range(self.shards)])

    def _counters_at(self, *offsets):
        names = self._counter_names
        with open(os.path.join(self.runtime_dir, "node.shm"), "rb") as f:
            return [dict(zip(names, struct.unpack("=%dQ" % len(names), os.pread(f.fileno(), 8 * len(names), at)))) for at in offsets]

    def counters(self):
        """The same, summed over the shards and the announcer."""
        shards = self.shard_counters() + self._counters_at(ANNOUNCER_OFFSET)
        return {name: sum(shard[name] for shard in shards) for name in shards[0]}
