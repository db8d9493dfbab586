# SPDX-License-Identifier: MIT
"""As whom the shards and the announcer run, and what they may still do: user and group, capabilities, seccomp; and that
all that a shard does goes on under it. Changing the user needs root: those tests are skipped for others."""

import os
import pwd
import shutil
import signal
import socket
import stat
import tempfile

import pytest

from node import check_echo
from proc import SANITIZED, Register, config_text, free_port, run_tgg, wait_for

pytestmark = pytest.mark.tgg_only
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
USER = "nobody"
NO_CAPABILITIES = "0000000000000000"


def process_status(pid):
    with open("/proc/%d/status" % pid) as f:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in f)}


def pid_of(gateway, kind):
    """None while there is no such process."""
    (found,) = [p["pid"] for p in gateway.status()["processes"] if p["kind"] == kind]
    return found or None


def announcer_pid(gateway):
    return pid_of(gateway, "announcer")


def check_confined(status, filtered=True):
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert status[name] == NO_CAPABILITIES, name
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == ("2" if filtered and not SANITIZED else "0")


def check_is_user(status, user=USER):
    entry = pwd.getpwnam(user)
    assert status["Uid"].split() == [str(entry.pw_uid)] * 4
    assert status["Gid"].split() == [str(entry.pw_gid)] * 4
    assert status["CapBnd"] == NO_CAPABILITIES
    assert "0" not in status["Groups"].split()


def check_nothing_refused(gateway):
    assert "sandbox:" not in gateway.log(), gateway.log()[-4000:]


def free_low_port():
    for port in range(1023, 500, -1):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RuntimeError("no free port below 1024")


@pytest.mark.shards(1, 3)
def test_shards_may_do_little_whoever_starts_them(start):
    site = start()
    wait_for(lambda: announcer_pid(site.gateway), what="the announcer")
    for pid in site.gateway.shard_pids():
        check_confined(process_status(pid))
    check_confined(process_status(announcer_pid(site.gateway)), filtered=False)  # it resolves names
    check_confined(process_status(pid_of(site.gateway, "admin")))
    for protocol in ("websocket", "text", "frame", "tcp"):
        check_echo(site, site.client(protocol))
    check_nothing_refused(site.gateway)


def test_sandbox_off_leaves_everything_as_it_was(start):
    site = start(gateway={"sandbox": "off"})
    own = process_status(os.getpid())
    for pid in site.gateway.shard_pids():
        status = process_status(pid)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid"):
            assert status[name] == own[name], name
    check_echo(site, site.client())


@ROOT_ONLY
@pytest.mark.shards(1, 3)
def test_started_as_root_shards_run_as_the_user(start):
    port = free_low_port()
    site = start(gateway={"user": USER}, listen={"low": {"protocol": "text", "port": port}})
    wait_for(lambda: announcer_pid(site.gateway), what="the announcer")
    for pid in site.gateway.shard_pids():
        status = process_status(pid)
        check_confined(status)
        check_is_user(status)
    check_is_user(process_status(announcer_pid(site.gateway)))
    check_is_user(process_status(pid_of(site.gateway, "admin")))
    assert process_status(site.gateway.process.pid)["Uid"].split() == ["0"] * 4
    check_echo(site, site.client("low"))
    for name in os.listdir(site.gateway.runtime_dir):
        assert os.stat(os.path.join(site.gateway.runtime_dir, name)).st_uid == 0, name
    check_nothing_refused(site.gateway)


@ROOT_ONLY
def test_the_user_alone_without_the_sandbox(start):
    site = start(gateway={"user": USER, "sandbox": "off"})
    status = process_status(site.gateway.shard_pid())
    assert status["Uid"].split() == [str(pwd.getpwnam(USER).pw_uid)] * 4
    assert status["CapEff"] == NO_CAPABILITIES
    assert status["Seccomp"] == "0"
    check_echo(site, site.client())


@ROOT_ONLY
@pytest.mark.shards(1, 3)
def test_a_killed_shard_has_a_successor_that_works(start):
    site = start(gateway={"user": USER})
    old = site.gateway.shard_pids()
    for pid in old:
        os.kill(pid, signal.SIGKILL)

    def successors():
        status = site.gateway.status()
        return status and all(s["state"] == "running" and s["pid"] not in old for s in status["shards"])

    wait_for(successors, what="a successor of each shard")
    for pid in site.gateway.shard_pids():
        check_confined(process_status(pid))
        check_is_user(process_status(pid))
    check_echo(site, site.client())
    check_nothing_refused(site.gateway)


@ROOT_ONLY
@pytest.mark.shards(1, 3)
def test_the_supervisors_end_reaches_shards_of_another_user(start):
    site = start(gateway={"user": USER})
    pids = site.gateway.shard_pids()
    site.gateway.process.expected_end = True
    os.kill(site.gateway.process.pid, signal.SIGKILL)
    gone = lambda pid: not os.path.exists("/proc/%d" % pid) or process_status(pid)["State"].startswith("Z")
    wait_for(lambda: all(map(gone, pids)), what="the end of the shards")


def test_a_stack_can_still_be_asked_for(start):
    site = start()
    pid = site.gateway.shard_pid()
    os.kill(pid, signal.SIGQUIT)
    site.gateway.wait_log("stack of shard 0")
    check_echo(site, site.client())
    assert site.gateway.shard_pid() == pid
    check_nothing_refused(site.gateway)


def test_a_drain_needs_nothing_more(start):
    site = start(gateway={"drain_timeout": 20})
    client = site.client()
    site.gateway.process.send_signal(signal.SIGTERM)
    client.expect_close(1001)
    assert site.gateway.process.wait() == 0
    check_nothing_refused(site.gateway)


# -- logs


@pytest.fixture
def open_folder():
    """That another user can enter, other than pytest's."""
    path = tempfile.mkdtemp(prefix="tgg-logs-")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


def lines_of(path):
    try:
        with open(path) as f:
            return f.read().splitlines()
    except FileNotFoundError:
        return []


@ROOT_ONLY
@pytest.mark.shards(1, 3)
def test_logs_are_opened_again_in_a_folder_that_is_roots(start, open_folder):
    logs = os.path.join(open_folder, "logs")
    site = start(gateway={"user": USER}, log={"target": "file", "directory": logs})
    names = ["shard-%d.log" % i for i in range(site.shards)]
    path = lambda name: os.path.join(logs, name)
    entry = pwd.getpwnam(USER)
    assert os.stat(logs).st_uid == 0
    for name in names:
        assert os.stat(path(name)).st_uid == entry.pw_uid
        assert stat.S_IMODE(os.stat(path(name)).st_mode) == 0o640
        os.rename(path(name), path(name + ".1"))
    site.gateway.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: all(os.path.exists(path(name)) for name in names), what="the new logs")
    wait_for(lambda: any("log_reopened" in line for line in lines_of(path("supervisor.log"))), what="the supervisor's line")

    def all_have_lines():
        site.worker_link()  # each leaves a line with the shard that has it
        return all(lines_of(path(name)) for name in names)

    wait_for(all_have_lines, what="a line in the new log of each shard")
    for name in names:
        assert os.stat(path(name)).st_uid == entry.pw_uid
        assert not any("sandbox:" in line for line in lines_of(path(name)) + lines_of(path(name + ".1")))
    assert os.stat(path("supervisor.log")).st_uid == 0


@ROOT_ONLY
def test_a_log_that_is_a_link_is_not_given_away(start, open_folder, tmp_path):
    """Whoever may write to the folder of the logs does not get root to give files away."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    os.symlink(precious, os.path.join(open_folder, "shard-0.log"))
    config = write_config(tmp_path, gateway={"user": USER}, log={"target": "file", "directory": open_folder})
    done = run_tgg("gateway", "-c", config)
    assert done.returncode == 1
    assert "[log] directory" in done.stderr
    assert precious.read_text() == "precious"
    assert precious.stat().st_uid == 0


@ROOT_ONLY
def test_a_folder_that_the_user_cannot_enter_is_told_at_the_start(tmp_path, open_folder):
    os.chmod(open_folder, 0o700)
    config = write_config(tmp_path, gateway={"user": USER}, log={"target": "file", "directory": open_folder})
    done = run_tgg("gateway", "-c", config)
    assert done.returncode == 1
    assert "[log] directory" in done.stderr
    assert USER in done.stderr
    assert "Permission denied" in done.stderr


# -- what is wrong is told before anything starts


def write_config(folder, gateway=None, log=None):
    sections = {
        "gateway": {"runtime_dir": folder / "run", "start_port": free_port(), **(gateway or {})},
        "listen a": {"address": "127.0.0.1", "port": free_port(), "protocol": "text"},
        "log": {**(log or {})},
    }
    path = folder / "tgg_conf.ini"
    path.write_text(config_text(sections))
    return path


@pytest.mark.parametrize("key", ["user", "group"])
@pytest.mark.parametrize("how", [["-t"], []], ids=["test", "start"])
def test_an_unknown_name_is_told_with_its_line(tmp_path, key, how):
    config = write_config(tmp_path, gateway={key: "no-such-name"})
    done = run_tgg("gateway", *how, "-c", config)
    assert done.returncode == 78
    line = config.read_text().splitlines().index("%s = no-such-name" % key) + 1
    assert "tgg_conf.ini:%d: [gateway] %s: there is no %s \"no-such-name\"" % (line, key, key) in done.stderr


def test_the_announcer_finds_registers_by_name(start, tmp_path):
    """It looks into files and asks servers for that."""
    with Register(tmp_path) as register:
        site = start(registers=[("localhost", register.address[1])])
        site.gateway.wait_log("register_connected")
