# SPDX-License-Identifier: MIT
"""What the scenarios of live upgrades share: the upgrade itself, and traffic that notices everything that is lost, doubled,
reordered or closed.

A gateway's process ends with each upgrade and another one takes its place, which is nobody's child then. So that its end is
seen all the same, whoever uses this is a subreaper (the fixture `reaper`)."""

import collections
import contextlib
import ctypes
import json
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from gwproto import (BIND_UID, GET_CLIENT_COUNT_BY_GROUP, IS_ONLINE, JOIN_GROUP, ON_CLOSE, ON_CONNECT, ON_MESSAGE, ON_WEBSOCKET_CONNECT,
                     PATIENCE, SEND_TO_ONE, SET_SESSION, ClientLink, LinkClosed, WorkerLink, packet)
from proc import ROOT, Process, run_tgg, wait_for

PR_SET_CHILD_SUBREAPER = 36
UPGRADE_PATIENCE = 4 * PATIENCE


@pytest.fixture
def reaper():
    """Processes whose parents end become children of this one, for as long as the test runs."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


# ---- a gateway that is upgraded


class Orphan:
    """As much of subprocess.Popen as Process needs, for a process that is not started here."""

    def __init__(self, pid):
        self.pid = pid
        self.returncode = None

    def poll(self):
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # not ours yet, its parent is still there
                self.returncode = None if os.path.exists("/proc/%d" % self.pid) else -1
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout=None):
        deadline = time.monotonic() + (timeout or PATIENCE)
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(["pid %d" % self.pid], timeout)
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)


class Adopted(Process):
    """The process that has taken the place of another, and writes to the same files."""

    def __init__(self, pid, predecessor):
        self.name, self.argv = predecessor.name, predecessor.argv
        self.out_path, self.err_path = predecessor.out_path, predecessor.err_path
        self.expected_end = False
        self.may_lose_shards = predecessor.may_lose_shards
        self.popen = Orphan(pid)

    def kill_all(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgid(self.pid), 9)
        self.popen.wait()


def supervisor_pid(gateway):
    status = gateway.status()
    return status["supervisor_pid"] if status else 0


def adopt(gateway, status=0):
    """The old process has ended, with this exit status (None: whatever), and another one is the gateway now."""
    old = gateway.process
    old.expected_end = True
    ended_with = old.popen.wait(PATIENCE)
    if status not in (None, ended_with):
        pytest.fail("it ended with %s\n%s" % (ended_with, gateway.log()[-5000:]))
    wait_for(lambda: supervisor_pid(gateway) not in (0, old.pid), what="another supervisor")
    gateway.process = Adopted(supervisor_pid(gateway), old)
    gateway.wait_ready()


def ask_upgrade(gateway, binary=None, timeout=UPGRADE_PATIENCE):
    """tgg upgrade: what has become of the command."""
    return run_tgg("upgrade", "-c", gateway.config_path, *([binary] if binary else []), timeout=timeout)


def upgrade(gateway, binary=None):
    """One that must succeed; what the command has printed."""
    before = gateway.shard_pids()
    done = ask_upgrade(gateway, binary)
    if done.returncode != 0:
        pytest.fail("tgg upgrade\n%s%s\n%s" % (done.stdout, done.stderr, gateway.log()[-5000:]))
    adopt(gateway)
    after = gateway.shard_pids()
    assert not set(before) & set(after), "all shards are new processes"
    return done.stdout


def processes(gateway):
    return supervisor_pid(gateway), gateway.shard_pids()


def upgrade_refused(gateway, binary=None, timeout=UPGRADE_PATIENCE):
    """One that must be given up, with everything as it was; what the command has said."""
    before = processes(gateway)
    done = ask_upgrade(gateway, binary, timeout)
    assert done.returncode != 0, done.stdout
    assert processes(gateway) == before
    gateway.check()
    return done.stdout + done.stderr


def group_members(pgid):
    """Processes of that process group that have not ended."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % entry) as f:
                state, _, pgrp = f.read().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == pgid and state not in "ZX":
            found.append(int(entry))
    return found


SEEN = ("event_connect", "event_close", "link_closed", "client_refused")


@contextlib.contextmanager
def unseen(site):
    """What happens within is not to be noticed by clients and workers: nobody comes, goes or is closed."""

    def now():
        # A gateway that has just changed processes may be asked in the moment between two files.
        counters = wait_for(lambda: _counters(site), what="counters")
        return {name: counters[name] for name in (*SEEN, "clients", "links", "workers")}

    before = now()
    time.sleep(0.05)
    while before != now():  # what has just happened is counted a moment later
        before = now()
        time.sleep(0.05)
    yield
    after = now()
    changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert not changed, "noticed: %s\n%s" % (changed, site.gateway.log()[-3000:])


def _counters(site):
    try:
        return site.gateway.counters()
    except OSError:
        return None


def upgrade_unseen(site, binary=None):
    with unseen(site):
        return upgrade(site.gateway, binary)


# ---- faults (common/fault.h)


def fault_places():
    """All that are named in the sources."""
    found = set()
    for folder, _, names in os.walk(os.path.join(ROOT, "src")):
        for name in names:
            if name.endswith(".c") and not name.endswith("_test.c"):
                with open(os.path.join(folder, name)) as f:
                    found |= set(re.findall(r'"((?:old|new)_(?:supervisor|shard)\.[a-z0-9_]+)"', f.read()))
    return sorted(found)


# ---- traffic


class Talkers:
    """Clients of other people's libraries in a process of their own: upgrade_crowd.py, upgrade_crowd.js."""

    def __init__(self, site, program):
        path = os.path.join(os.path.dirname(os.path.abspath(__file__)), program)
        node_path = os.pathsep.join(filter(None, [os.environ.get("NODE_PATH"), "/usr/share/nodejs"]))
        self.site = site
        self.popen = subprocess.Popen([sys.executable if program.endswith(".py") else "node", path], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, env={**os.environ, "NODE_PATH": node_path})
        self.count = 0
        site.clients.append(self)  # which closes it

    def tell(self, do, **how):
        self.popen.stdin.write(json.dumps({"do": do, **how}).encode() + b"\n")
        self.popen.stdin.flush()

    def hear(self):
        line = self.popen.stdout.readline()
        assert line, "the clients ended"
        return json.loads(line)

    def ask(self, do, **how):
        self.tell(do, **how)
        return self.hear()

    def connect(self, listener, count, tls=None, **how):
        """To be followed by hear(), of all who were told."""
        url = "%s://%s:%d/" % (("wss" if how.get("ca") else "ws"), *self.site.gateway.client_address(listener))
        self.count += count
        self.tell("connect", url=url, count=count, **{**how, **({"tls": tls} if tls else {})})

    def close(self):
        if self.popen.poll() is None:
            self.popen.stdin.close()
            self.popen.wait(PATIENCE)
            self.popen.stdout.close()


class Worker:
    """A worker in a thread of its own. It sends back what clients of Talkers say, and sees that their numbers are without a
    gap; who comes gets a uid, a session (the number of its last message) and, every second one, the group "even"."""

    def __init__(self, site, key):
        self.link = WorkerLink(site.internal, key)
        self.next = collections.Counter()  # by id
        self.ids = []
        self.closed = []
        self.faults = []
        self.ended = None
        self.stopping = False
        site.links.append(self)  # which closes it
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while True:
                self.link.fill(time.monotonic() + 3600)
                self.link._take_packets()
                out = [p for event in self._events() for p in self._answers(event)]
                if out:
                    self.link.send_bytes(b"".join(p.encode() for p in out))
        except (LinkClosed, OSError, ValueError) as error:
            if not self.stopping:
                self.ended = error

    def _events(self):
        while self.link.events:
            yield self.link.events.popleft()

    def _answers(self, event):
        id_ = event.connection_id
        if event.cmd == ON_WEBSOCKET_CONNECT:
            self.ids.append(id_)
            yield packet(BIND_UID, id_, ext=b"u%d" % id_)
            yield packet(SET_SESSION, id_, ext=b"none")
            if id_ % 2 == 0:
                yield packet(JOIN_GROUP, id_, ext=b"even")
        elif event.cmd == ON_CLOSE:
            self.closed.append(id_)
        elif event.cmd == ON_MESSAGE:
            number = int(re.match(rb"\xff?c(\d+) ", event.body).group(1))
            if number != self.next[id_]:
                self.faults.append("client %#x: %d instead of %d" % (id_, number, self.next[id_]))
            self.next[id_] = number + 1
            yield packet(SET_SESSION, id_, ext=b"last %d" % number)
            yield packet(SEND_TO_ONE, id_, body=event.body)
        elif event.cmd != ON_CONNECT:
            self.faults.append("event %d" % event.cmd)

    def close(self):
        self.stopping = True
        with contextlib.suppress(OSError):
            self.link.sock.shutdown(2)
        self.thread.join(PATIENCE)
        self.link.close()


class Fanner:
    """A GatewayClient in a thread of its own that sends "a<n>" to all and "g<n>" to the group "even", n = 0, 1, ..."""

    def __init__(self, site, pace):
        self.link = site.client_link()
        self.pace = pace
        self.sent = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        with contextlib.suppress(OSError):  # the test has failed, and closes its links
            while not self.stopping.wait(self.pace):
                self.link.send_to_all(b"a%d" % self.sent)
                self.link.send_to_group([b"even"], b"g%d" % self.sent)
                self.sent += 1

    def stop(self):
        self.stopping.set()
        self.thread.join(PATIENCE)
        self.link.sync()  # the link is still there, and all of it is executed


class Asker:
    """A GatewayClient in a thread of its own that always has questions under way, whose answers it knows."""

    WINDOW = 40

    def __init__(self, site, ids):
        self.link = site.client_link()
        even = len([i for i in ids if i % 2 == 0])
        self.questions = [(packet(IS_ONLINE, ids[0]), b"i:1;"), (packet(GET_CLIENT_COUNT_BY_GROUP, ext=b"even"), b"i:%d;" % even),
                          (packet(IS_ONLINE, 1), b"i:0;"), (packet(IS_ONLINE, ids[-1]), b"i:1;")]
        self.answered = 0
        self.faults = []
        self.stopping = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        asked = 0
        try:
            while not self.stopping or self.answered < asked:
                while not self.stopping and asked < self.answered + self.WINDOW:
                    self.link.send_packet(self.questions[asked % len(self.questions)][0])
                    asked += 1
                if self.answered == asked:
                    continue
                reply, wanted = self.link.read_reply(), self.questions[self.answered % len(self.questions)][1]
                if reply != wanted:
                    self.faults.append("answer %d: %r instead of %r" % (self.answered, reply, wanted))
                self.answered += 1
                time.sleep(0.002)
        except (OSError, LinkClosed) as error:
            self.faults.append(repr(error))

    def stop(self):
        self.stopping = True
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


class Traffic:
    """Workers, and clients that talk to them: start(), upgrades, finish(), which sees that nothing was noticed."""

    def __init__(self, site, programs=("upgrade_crowd.py", "upgrade_crowd.js"), workers=2):
        self.site = site
        self.workers = [Worker(site, "traffic-%d" % i) for i in range(workers)]
        wait_for(lambda: site.gauge("workers") == workers * 1, what="the workers")
        self.talkers = [Talkers(site, program) for program in programs]
        self.fanner = self.asker = None

    @property
    def ids(self):
        return [id_ for worker in self.workers for id_ in worker.ids]

    @property
    def count(self):
        return sum(talkers.count for talkers in self.talkers)

    def connect(self, listener, count, **how):
        """So many by each program, all programs at once."""
        for talkers in self.talkers:
            talkers.connect(listener, count, **how)
        for talkers in self.talkers:
            talkers.hear()
        wait_for(lambda: len(self.ids) == self.count, what="ON_WEBSOCKET_CONNECT of all")
        with ClientLink(self.site.internal) as g:
            wait_for(lambda: g.group_count(b"even") == self.even, what="all even ones in their group")

    @property
    def even(self):
        return len([id_ for id_ in self.ids if id_ % 2 == 0])

    def start(self, pace, fan_out=0.25):
        self.site.gateway.check()
        for talkers in self.talkers:
            talkers.ask("talk", pace=pace)
        self.asker = Asker(self.site, self.ids)
        self.fanner = Fanner(self.site, fan_out)
        self.site.wait_gauge("links", len(self.workers) + 2)

    def moves(self):
        """Messages go round: waits for some more echoes."""
        heard = lambda: sum(sum(worker.next.values()) for worker in self.workers)
        before = heard()
        wait_for(lambda: heard() > before + 3, what="messages of clients at the workers")

    def finish(self):
        """{program: report}; everything that was said was heard, once, in order, and nobody was closed."""
        sent = self.fanner.sent
        wait_for(lambda: self.fanner.sent > sent + 1 and self.asker.answered > Asker.WINDOW, what="some fan-outs and answers")
        self.fanner.stop()
        self.asker.stop()
        reports = {}
        for talkers in self.talkers:
            talkers.tell("hush")
        for talkers in self.talkers:
            talkers.hear()
        wait_for(lambda: self._fanned(), what="the last fan-out at all clients")
        for talkers in self.talkers:
            reports[talkers] = talkers.ask("report")
        for worker in self.workers:
            assert worker.ended is None, "a worker's link ended: %r" % worker.ended
            assert not worker.faults and not worker.closed, (worker.faults[:5], worker.closed[:5], self._heard_of(worker.faults[:5]))
        assert not self.asker.faults, self.asker.faults[:5]
        for report in reports.values():
            assert not report["faults"] and not report["closed"] and not report["missing"], {**report, "fanned": None}
            assert report["sent"] == report["echoed"] > 0
        assert sum(r["sent"] for r in reports.values()) == sum(sum(w.next.values()) for w in self.workers)
        assert len(self.ids) == len(set(self.ids)) == self.count
        self._check_sessions()
        return reports

    def _fanned(self):
        last = self.fanner.sent - 1
        fanned = [pair for talkers in self.talkers for pair in talkers.ask("report")["fanned"]]
        return all(a == last for a, _ in fanned) and [g for _, g in fanned].count(last) == self.even

    def _check_sessions(self):
        """Each client's is that of its last message; uid and group are there."""
        with ClientLink(self.site.internal) as g:
            for worker in self.workers:
                for id_ in worker.ids[:: max(1, len(worker.ids) // 50)]:
                    said, session = worker.next[id_], g.session_bytes(id_)
                    assert session == (b"last %d" % (said - 1) if said else b"none"), (id_, said, session)
                    assert len(g.ids_by_uid(b"u%d" % id_)) == 1
            assert g.group_count(b"even") == self.even
            assert g.group_count() == self.count

    def _heard_of(self, faults):
        """What each worker expects next of these clients: whether something was lost, or the binding."""
        ids = {int(fault.split()[1].rstrip(":"), 16) for fault in faults}
        return {hex(id_): [worker.next[id_] for worker in self.workers] for id_ in ids}

    def longest_gap(self, reports):
        return max(report["gap"] for report in reports.values())
