# SPDX-License-Identifier: MIT
"""Processes of an upgrade die, hang or fail at each step that has a name (common/fault.h). Before the new node is
committed the old one goes on as if nothing had been; from then on the new one does. Only in builds with -Dinject=true, such
as the sanitized one of make test.

What takes a process of the serving side along takes what that process had, upgrade or not: a killed shard its clients, a
killed supervisor the node. Then this looks for a node that is in order again, or gone for good, within bounded time."""

import json
import os
import resource
import signal
import subprocess
import time

import pytest

from gwproto import ON_CONNECT
from node import Site, check_echo
from proc import BUILD, PATIENCE, TGG, run_tgg, sanitizer_env, slow, wait_for
from upgrade import Traffic, adopt, fault_places, group_members, reaper, supervisor_pid, unseen, upgrade, upgrade_refused  # noqa: F401 (a fixture)
from wsclient import TextClient

pytestmark = [pytest.mark.tgg_only, pytest.mark.usefixtures("reaper"), pytest.mark.timeout(300)]


def injects():
    try:
        with open(os.path.join(BUILD, "meson-info", "intro-buildoptions.json")) as f:
            return any(option["name"] == "inject" and option["value"] for option in json.load(f))
    except OSError:
        return False


UPGRADE_TIMEOUT_S, PAUSE_MAX_MS = 3, 1500
# Not passed by an upgrade that goes well, or only in its end.
ELSEWHERE = {"old_supervisor.idle", "old_supervisor.gives_up", "new_supervisor.none", "new_supervisor.sets_up", "new_supervisor.ends"}
AFTER = ("old_supervisor.leaves", "old_shard.leave", "new_supervisor.committed", "new_supervisor.settles", "new_shard.go")
EVACUATE = ["old_supervisor.evacuate_" + state for state in ("holds", "stops", "links", "clients")]
PLACES = [place for place in fault_places() if place not in ELSEWHERE and ".evacuate_" not in place]
BEFORE = [place for place in PLACES if place not in AFTER]


def of(places, *roles):
    return [place for place in places if place.split(".")[0] in roles]


class Faults:
    def __init__(self, path):
        self.path = str(path)
        self.clear()

    def set(self, place, action):
        with open(self.path + ".new", "w") as f:
            f.write("%s %s\n" % (place, action))
        os.rename(self.path + ".new", self.path)

    def clear(self):
        with open(self.path, "w"):
            pass


@pytest.fixture
def faults(tmp_path):
    os.environ["TGG_FAULT_FILE"] = str(tmp_path / "faults")
    cores = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, cores[1]))  # of those that the watchdog ends: large with a sanitizer
    yield Faults(tmp_path / "faults")
    resource.setrlimit(resource.RLIMIT_CORE, cores)
    del os.environ["TGG_FAULT_FILE"]


@pytest.fixture
def launch(gateway_factory):
    """A gateway of two shards that soon gives up. may_lose_shards: also by the watchdog's hand."""
    made = []

    def launch_(may_lose_shards=False, **keys):
        gateway = gateway_factory(shards=2, gateway={"upgrade_timeout": UPGRADE_TIMEOUT_S, "upgrade_pause_max": PAUSE_MAX_MS, "stuck_timeout": 1,
                                                     "drain_timeout": 1, **keys}, listen={"websocket": {"send_type": "auto"}}, log={"rate_max": 0})
        gateway.process.may_lose_shards = may_lose_shards
        made.append(gateway)
        return Site(gateway)

    yield launch_
    for gateway in made:
        if gateway.is_running():
            gateway.stop()


def ask(gateway):
    """tgg upgrade, without waiting for it."""
    return subprocess.Popen([TGG, "upgrade", "-c", gateway.config_path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, env=sanitizer_env())


def end(command, timeout=3 * PATIENCE):
    try:
        return command.communicate(timeout=timeout)[0].decode()
    except subprocess.TimeoutExpired:
        command.kill()
        return command.communicate()[0].decode() + "(killed)"


def talk(site):
    traffic = Traffic(site, programs=("upgrade_crowd.py",))
    traffic.connect("websocket", 40)
    traffic.start(pace=0.3)
    return traffic


def served(site):
    """Somebody new comes in, is heard of, and is answered."""
    for link in site.links:
        link.close()
    site.wait_gauge("workers", 0)
    worker = site.worker_link(sync=False)
    client = TextClient(site.gateway.client_address("text"))
    site.clients.append(client)
    client.send_message(b"hello")
    client.id = worker.wait(ON_CONNECT, client_port=client.sock.getsockname()[1]).connection_id
    site._worker = worker
    assert worker.wait(3, client.id).body == b"hello"
    check_echo(site, client)


def parent_of(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return int(f.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def new_processes_before_the_commit(faults, launch, action):
    site = launch()
    traffic = talk(site)
    with unseen(site):
        for place in of(BEFORE, "new_supervisor", "new_shard"):
            print(place)  # said when it fails
            faults.set(place, action)
            began = time.monotonic()
            upgrade_refused(site.gateway)
            took = time.monotonic() - began
            assert took < (UPGRADE_TIMEOUT_S + 3) + 2 * slow(), (place, took)
            traffic.moves()
        faults.clear()
        upgrade(site.gateway)
    traffic.finish()


def old_shards_before_the_commit(faults, launch, action):
    """One of them or both: their clients are lost, as ever; the node is in order again, and the upgrade is given up."""
    site = launch(may_lose_shards=True)
    for place in of(BEFORE, "old_shard"):
        before = site.gateway.shard_pids()
        faults.set(place, action)
        command = ask(site.gateway)
        wait_for(lambda: site.gateway.shard_pids() != before, UPGRADE_TIMEOUT_S + 2 * PATIENCE, "the end of a shard at %s" % place)
        said = end(command)
        assert command.returncode != 0, said
        faults.clear()
        assert supervisor_pid(site.gateway) == site.gateway.process.pid
        site.gateway.wait_ready()
        served(site)
    upgrade(site.gateway)
    served(site)


if injects():

    def test_there_are_places():
        roles = {place.split(".")[0] for place in PLACES}
        assert roles == {"old_supervisor", "new_supervisor", "old_shard", "new_shard"} and len(PLACES) > 20

    @pytest.mark.parametrize("action", ["kill", "fail"])
    def test_new_processes_before_the_commit(faults, launch, action):
        new_processes_before_the_commit(faults, launch, action)

    def test_old_processes_that_fail_before_the_commit(faults, launch):
        site = launch()
        traffic = talk(site)
        with unseen(site):
            for place in of(BEFORE, "old_supervisor", "old_shard"):
                print(place)
                faults.set(place, "fail")
                upgrade_refused(site.gateway)
                traffic.moves()
            faults.clear()
            upgrade(site.gateway)
        traffic.finish()

    def test_an_evacuation_that_fails_changes_nothing(faults, launch):
        site = launch()
        traffic = talk(site)
        before, per_shard = site.gateway.shard_pids(), site.per_shard("clients")
        with unseen(site):
            for place in EVACUATE + [p for p in of(BEFORE, "old_shard", "new_shard") if p != "new_shard.start"]:
                print(place)
                faults.set(place, "fail")
                assert run_tgg("ctl", "-c", site.gateway.config_path, "evacuate", 1).returncode != 0
                assert site.per_shard("clients") == per_shard
                traffic.moves()
            faults.clear()
            assert run_tgg("ctl", "-c", site.gateway.config_path, "evacuate", 1).returncode == 0
            traffic.moves()
            upgrade(site.gateway)
        assert site.gateway.shard_pids() != before
        traffic.finish()

    @pytest.mark.parametrize("action", ["kill", "fail", "hang"])
    @pytest.mark.parametrize("place", of(AFTER, "old_supervisor", "old_shard"))
    def test_old_processes_after_the_commit(faults, launch, place, action):
        site = launch()
        traffic = talk(site)
        old = site.gateway.process
        with unseen(site):
            faults.set(place, action)
            command = ask(site.gateway)
            wait_for(lambda: supervisor_pid(site.gateway) not in (0, old.pid), UPGRADE_TIMEOUT_S + PATIENCE, "the new supervisor")
            traffic.moves()
            faults.clear()
            if action == "hang" and place.startswith("old_supervisor"):
                time.sleep(1)
                os.kill(old.pid, signal.SIGKILL)
            end(command)
            adopt(site.gateway, status=None)
            traffic.moves()
            # Nothing of the old ones is left.
            wait_for(lambda: not [pid for pid in group_members(old.pid) if parent_of(pid) == old.pid], what="the old processes gone")
            upgrade(site.gateway)
        traffic.finish()

    def test_old_shards_that_are_killed_before_the_commit(faults, launch):
        old_shards_before_the_commit(faults, launch, "kill")

    @pytest.mark.parametrize("place", of(BEFORE, "old_supervisor"))
    def test_the_old_supervisor_is_killed_before_the_commit(faults, launch, place):
        """All of the node ends, the new processes too, as without an upgrade; and it can be started again."""
        site = launch()
        client = site.client("text")
        faults.set(place, "kill")
        end(ask(site.gateway))
        gateway = site.gateway
        gateway.process.expected_end = True
        assert gateway.process.popen.wait(PATIENCE) == -signal.SIGKILL
        began = time.monotonic()
        wait_for(lambda: not group_members(gateway.process.pid), UPGRADE_TIMEOUT_S + PATIENCE, "all processes gone")
        assert time.monotonic() - began < UPGRADE_TIMEOUT_S + 5 + 2 * slow()
        assert client.is_ended(within=PATIENCE)
        faults.clear()
        gateway.start()
        served(site)

    @pytest.mark.parametrize("place", of(BEFORE, "old_supervisor"))
    def test_the_old_supervisor_hangs_before_the_commit(faults, launch, place):
        """The shards go on by themselves."""
        site = launch()
        traffic = talk(site)
        with unseen(site):
            faults.set(place, "hang")
            command = ask(site.gateway)
            traffic.moves()
            time.sleep(PAUSE_MAX_MS / 1000 + 1)
            traffic.moves()
            time.sleep(0.5)
        traffic.finish()
        command.kill()
        end(command)
        site.gateway.process.kill_all()
        site.gateway.process.expected_end = True

    @pytest.mark.parametrize("action", ["kill", "hang"])
    @pytest.mark.parametrize("place", of(AFTER, "new_supervisor", "new_shard"))
    def test_new_processes_after_the_commit(faults, launch, place, action):
        """They are the node now. A supervisor that hangs stops nobody; one that is killed ends the node; a shard has a
        successor."""
        site = launch(may_lose_shards=True)
        traffic = talk(site)
        old = site.gateway.process
        faults.set(place, action)
        command = ask(site.gateway)
        if place.startswith("new_shard"):
            wait_for(lambda: supervisor_pid(site.gateway) not in (0, old.pid), UPGRADE_TIMEOUT_S + PATIENCE, "the new supervisor")
            faults.clear()
            end(command)
            adopt(site.gateway, status=None)
            site.gateway.wait_ready()
            served(site)
            return
        if action == "hang":
            site.gateway.wait_log("shard_took_over")
            time.sleep(PAUSE_MAX_MS / 1000 + 1)
            traffic.moves()
            traffic.finish()
            command.kill()
            end(command)
            os.killpg(old.pid, signal.SIGKILL)
            wait_for(lambda: not group_members(old.pid), what="all processes gone")
        else:
            end(command)
            wait_for(lambda: not group_members(old.pid), UPGRADE_TIMEOUT_S + 2 * PATIENCE, "all processes gone")
            faults.clear()
        old.expected_end = True
        old.popen.wait(PATIENCE)
