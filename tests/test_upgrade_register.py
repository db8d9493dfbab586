# SPDX-License-Identifier: MIT
"""The register hands over to a new process: nobody reconnects, the addresses never leave the list; and whatever is
wrong with the new process leaves the old one as it was."""

import ctypes
import os
import signal
import socket
import stat
import threading
import time

import pytest

from proc import PATIENCE, Register, TGG, run_tgg, slow, wait_for
from test_register import Peer

pytestmark = pytest.mark.tgg_only

PR_SET_CHILD_SUBREAPER = 36


class Upgradable(Register):
    """A register and its successors, whose parent the test becomes."""

    def __init__(self, folder, **keys):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        super().__init__(folder, **keys)
        self.pid = self.process.pid

    def upgrade(self, binary=TGG, status=0):
        done = run_tgg("upgrade", "--register", "-c", self.config_path, binary, timeout=60)
        assert done.returncode == status, done
        if status == 0:
            self.succeeded_by(int(done.stdout.partition("pid=")[2].split()[0]))
        return done

    def succeeded_by(self, pid):
        """The one before ends well."""
        assert self.ended() == 0
        self.pid = pid

    def ended(self):
        if self.pid == self.process.pid:
            return self.process.wait()
        return os.waitstatus_to_exitcode(wait_for(lambda: self._reap(), what="the end of process %d" % self.pid)[1])

    def _reap(self):
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return (pid, status) if pid else None

    def is_same(self):
        """The process that served before still does, and the list is right."""
        os.kill(self.pid, 0)
        peer = Peer(self)
        peer.send(event="worker_connect", secret_key="")
        addresses = peer.addresses()
        peer.close()
        return addresses

    def stop(self, number=signal.SIGINT, timeout=PATIENCE):
        if self.pid == self.process.pid:
            return super().stop(number, timeout)
        if self.pid:
            os.kill(self.pid, number)
            assert self.ended() == 0
            self.process.check()
            self.pid = 0


@pytest.fixture
def start_register(tmp_path):
    running = []

    def start(**keys):
        running.append(Upgradable(tmp_path, **keys))
        return running[-1]

    yield start
    for register in running:
        try:
            register.stop()
        finally:
            register.process.kill_all()


@pytest.fixture
def register(start_register):
    return start_register()


@pytest.fixture
def script(tmp_path):
    """A program that passes for tgg when it is asked beforehand, and does something else as the register."""

    def make(text):
        path = tmp_path / "other"
        path.write_text(
            '#!/bin/sh\ncase "$*" in\n--version) echo tgg 9.9 ;;\n*" -t "*) exit 0 ;;\n*) %s ;;\nesac\n' % text
        )
        path.chmod(0o755)
        return path

    return make


def gateway(register, address):
    peer = Peer(register)
    peer.send(event="gateway_connect", address=address, secret_key="")
    return peer


def worker(register, **how):
    peer = Peer(register, **how)
    peer.send(event="worker_connect", secret_key="")
    return peer


def is_open(peer):
    """Nothing has ended it, and nothing waits to be read."""
    peer.sock.setblocking(False)
    try:
        return len(peer.sock.recv(1, socket.MSG_PEEK)) > 0
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        peer.sock.settimeout(PATIENCE)


class Newcomers(threading.Thread):
    """Connect all the time; each gets the whole list."""

    def __init__(self, register, base):
        super().__init__(daemon=True)
        self.register, self.base = register, base
        self.wrong, self.count, self.ends = [], 0, threading.Event()
        self.start()

    def run(self):
        while not self.ends.is_set():
            try:
                peer = worker(self.register)
                addresses = peer.addresses()
                peer.close()
                if not self.base <= set(addresses):
                    self.wrong.append(addresses)
            except Exception as error:
                self.wrong.append(error)
            self.count += 1
            time.sleep(0.002)

    def stop(self):
        self.ends.set()
        self.join()
        assert self.wrong == []
        assert self.count > 0


def test_two_hundred_connections_and_ten_upgrades(register):
    names = ["10.0.0.%d:2900" % i for i in range(60)]
    gateways = [gateway(register, name) for name in names]
    watcher = worker(register)
    watcher.wait_addresses(names)
    workers = [worker(register) for _ in range(49)]
    for w in workers:
        assert w.addresses() == names
    slow_ones = [worker(register, rcvbuf=2304) for _ in range(10)]
    line = b'{"event":"gateway_connect","address":"10.1.%d.1:2900","secret_key":""}\n'
    halves = [Peer(register) for _ in range(40)]
    cut = [1 + i * (len(line) - 3) // 40 for i in range(40)]
    for i, peer in enumerate(halves):
        peer.send_raw((line % i)[: cut[i]])
    silent = [Peer(register) for _ in range(40)]
    everybody = gateways + workers + slow_ones + halves + silent + [watcher]
    assert len(everybody) == 200
    newcomers = Newcomers(register, set(names))

    guests = []
    for turn in range(10):
        # The list changes shortly before and after each upgrade, so that lists are under way to slow readers.
        for _ in range(10):
            guests.append(gateway(register, "10.9.%d.%d:2900" % (turn, len(guests))))
            names.append("10.9.%d.%d:2900" % (turn, len(guests) - 1))
            watcher.wait_addresses(names)
        done = register.upgrade()
        assert "connections=" in done.stdout
        assert all(is_open(peer) for peer in everybody)
    newcomers.stop()

    # Every list in order, none twice, none cut: each is one longer than the one before.
    for w in workers:
        before = 60
        while before < len(names):
            addresses = w.addresses()
            assert addresses == names[: len(addresses)] and len(addresses) > before
            before = len(addresses)
        assert w.is_silent(0.01)
    for w in slow_ones:
        before = 0
        while before < len(names):
            addresses = w.addresses()
            assert addresses == names[: len(addresses)] and len(addresses) > before
            before = len(addresses)
    # Half lines are whole now.
    for i, peer in enumerate(halves):
        peer.send_raw((line % i)[cut[i] :])
        names.append("10.1.%d.1:2900" % i)
        watcher.wait_addresses(names)
    # Those that were silent are heard.
    for peer in silent:
        peer.send(event="worker_connect", secret_key="")
        assert peer.addresses() == names
    # Who leaves leaves the list.
    gateways[0].close()
    watcher.wait_addresses(names[1:])
    for peer in everybody + guests:
        peer.close()


def test_a_slow_reader_gets_what_waits_for_it(register):
    """More than the kernel takes is in the register when it hands over."""
    w = worker(register, rcvbuf=2304)
    names = ["gateway-%03d-%s:2900" % (i, "x" * 180) for i in range(150)]
    quick = worker(register)
    gateways = []
    for name in names:
        gateways.append(gateway(register, name))
        quick.wait_addresses(names[: len(gateways)])
    register.upgrade()
    register.upgrade()
    before = -1
    while before < len(names):
        addresses = w.addresses()
        assert addresses == names[: len(addresses)] and len(addresses) > before
        before = len(addresses)
    for peer in gateways + [w, quick]:
        peer.close()


def test_the_time_to_say_something_goes_on(start_register):
    register = start_register(auth_timeout=3)
    begin = time.monotonic()
    peer = Peer(register)
    time.sleep(1.5)
    register.upgrade()
    assert peer.is_closed()
    assert 2.9 < time.monotonic() - begin < 3 + 1.2 * slow()


def test_signal_usr2_does_it_too(register):
    peer = worker(register)
    assert peer.addresses() == []
    os.kill(register.pid, signal.SIGUSR2)
    register.wait_log("register_handed_over")
    register.succeeded_by(int(register.log().partition("register_handed_over pid=")[2].split()[0]))
    assert is_open(peer)
    g = gateway(register, "10.0.0.1:2900")
    assert peer.addresses() == ["10.0.0.1:2900"]
    g.close()


def test_the_socket_is_for_its_user_and_goes_with_the_register(register):
    path = os.path.join(register.folder, "register-run", "register-%d.sock" % register.address[1])
    register.upgrade()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    register.stop()
    assert not os.path.exists(path)


def test_where_no_socket_can_be_the_register_serves(start_register, tmp_path):
    (tmp_path / "register-run").write_text("a file")
    register = start_register()
    assert "no_upgrade_socket" in register.log()
    register.upgrade(status=1)
    assert register.is_same() == []
    os.kill(register.pid, signal.SIGUSR2)
    register.wait_log("register_handed_over")
    register.succeeded_by(int(register.log().partition("register_handed_over pid=")[2].split()[0]))


@pytest.fixture
def watched(register):
    """With a gateway and a worker; check() says that nothing has happened to them and to the register."""
    g = gateway(register, "10.0.0.1:2900")
    w = worker(register)
    w.wait_addresses(["10.0.0.1:2900"])
    while not w.is_silent(0.1):  # it may come twice: as the first one, and because it has changed
        pass
    half = Peer(register)
    half.send_raw(b'{"event":"worker_conn')

    def check():
        assert is_open(g) and is_open(half) and w.is_silent(0.05)
        assert register.is_same() == ["10.0.0.1:2900"]

    register.check_watched = check
    yield register
    half.send_raw(b'ect","secret_key":""}\n')
    assert half.addresses() == ["10.0.0.1:2900"]
    assert is_open(g) and w.is_silent(0.05)
    for peer in (g, w, half):
        peer.close()


def test_a_new_process_that_hangs(watched, script):
    begin = time.monotonic()
    done = watched.upgrade(script("exec sleep 100"), status=1)
    assert 4.5 < time.monotonic() - begin < 6 + 2 * slow()
    assert "not ready within 5000 ms" in done.stderr and "nothing has changed" in done.stderr
    watched.check_watched()
    watched.upgrade()


@pytest.mark.parametrize(
    "text, why", [("exit 3", "status 3"), ("exit 78", "configuration"), ("kill -9 $$", "signal 9")], ids=["3", "78", "killed"]
)
def test_a_new_process_that_ends(watched, script, text, why):
    done = watched.upgrade(script(text), status=1)
    assert why in done.stderr
    watched.check_watched()
    watched.upgrade()


def test_a_new_process_that_talks_nonsense(watched, script):
    done = watched.upgrade(script("echo nonsense >&3; exec sleep 100"), status=1)
    assert "makes no sense" in done.stderr
    watched.check_watched()
    watched.upgrade()


def test_too_few_connections_in_the_new_configuration(watched):
    watched.sections["register"]["max_connections"] = 2
    watched.write_config()
    done = watched.upgrade(status=1)
    assert "max_connections" in done.stderr
    watched.check_watched()
    watched.sections["register"]["max_connections"] = 2000
    watched.write_config()
    watched.upgrade()


def test_another_port_in_the_new_configuration(watched):
    """The tool asks where the configuration says; so the signal."""
    watched.sections["register"]["port"] = watched.address[1] + 1
    watched.write_config()
    os.kill(watched.pid, signal.SIGUSR2)
    watched.wait_log("that takes a restart")
    watched.wait_log("upgrade_failed")
    watched.check_watched()


def test_a_wrong_configuration_is_told_before_anything_begins(watched):
    watched.sections["register"]["max_connections"] = "many"
    watched.write_config()
    done = watched.upgrade(status=78)
    assert "tgg_conf.ini:" in done.stderr and "max_connections" in done.stderr
    assert "upgrade_begun" not in watched.log()
    watched.check_watched()


def test_one_at_a_time(watched, script):
    other = script("exec sleep 100")
    thread = threading.Thread(target=watched.upgrade, args=(other, 1))
    thread.start()
    watched.wait_log("upgrade_begun")
    done = watched.upgrade(status=75)
    assert "another upgrade is under way" in done.stderr
    os.kill(watched.pid, signal.SIGUSR2)
    watched.wait_log("upgrade_under_way")
    thread.join()
    watched.check_watched()


def test_a_register_that_ends_ends_the_new_one_too(register, script):
    path = script("echo $$ >$0.pid; exec sleep 100")
    thread = threading.Thread(target=register.upgrade, args=(path, 1))
    thread.start()
    register.wait_log("upgrade_begun")
    pid_file = str(path) + ".pid"
    wait_for(lambda: os.path.exists(pid_file) and open(pid_file).read().endswith("\n"), what="the new process")
    assert register.stop() == 0
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int(open(pid_file).read()), 0)


def test_the_service_manager_hears_of_the_new_process(tmp_path, start_register, monkeypatch):
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.settimeout(PATIENCE)
    manager.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    register = start_register()

    def hear(text):
        for _ in range(50):
            heard = manager.recv(500).decode()
            if text in heard:
                return heard
        raise AssertionError(text)

    hear("READY=1")
    hear("WATCHDOG=1")
    register.upgrade()
    hear("MAINPID=%d" % register.pid)
    hear("WATCHDOG=1")
    hear("WATCHDOG=1")
    register.stop()
    hear("STOPPING=1")
    manager.close()


# ---- errors on purpose, in builds that have them (-Dinject=true)


def injects():
    with open(TGG, "rb") as f:
        return b"TGG_FAULT_FILE" in f.read()


if injects():

    @pytest.fixture
    def fault(tmp_path, monkeypatch):
        path = tmp_path / "faults"
        monkeypatch.setenv("TGG_FAULT_FILE", str(path))
        path.write_text("")
        return path.write_text

    NEW_STEPS = ["start", "import", "taken", "go"]
    OLD_STEPS = ["exec", "ready", "export", "taken", "go"]

    @pytest.mark.parametrize("step", NEW_STEPS)
    @pytest.mark.parametrize("action", ["kill", "fail", "hang"])
    def test_the_new_one_dies_fails_or_hangs_at(fault, watched, step, action):
        fault("new_register.%s %s\n" % (step, action))
        watched.upgrade(status=1)
        watched.check_watched()
        fault("")
        watched.upgrade()
        watched.check_watched()

    @pytest.mark.parametrize("step", OLD_STEPS)
    def test_the_old_one_fails_at(fault, watched, step):
        fault("old_register.%s fail\n" % step)
        watched.upgrade(status=1)
        watched.check_watched()
        fault("")
        watched.upgrade()

    @pytest.mark.parametrize("step", ["taken", "go", "serving"])
    def test_the_old_one_is_killed_when_the_new_one_has_all(fault, watched, step):
        fault("old_register.%s kill\n" % step)
        done = run_tgg("upgrade", "--register", "-c", watched.config_path)
        assert done.returncode == 1 and "without saying" in done.stderr
        assert watched.ended() == -signal.SIGKILL
        watched.pid = int(done.stdout.partition("runs as process ")[2].split()[0])
        watched.check_watched()
        fault("")
        watched.upgrade()

    @pytest.mark.parametrize("step", ["start", "import", "taken", "go", "serving"])
    def test_a_new_one_that_is_slow_is_waited_for(fault, watched, step):
        fault("new_register.%s slow\n" % step)
        watched.upgrade()
        watched.check_watched()
