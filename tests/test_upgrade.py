# SPDX-License-Identifier: MIT
"""Live upgrades: all of a node moves to new processes while everybody talks, and nobody notices; what is refused leaves
everything as it was. tests/test_upgrade_state.py looks at what a connection is made of, tests/test_upgrade_faults.py at
processes that die or hang on the way."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

import certs
from gwproto import ON_CLOSE, ON_MESSAGE, PATIENCE, RegisterLink
from node import check_echo
from proc import SANITIZED, TGG, Register, free_port, run_tgg, wait_for
from test_reload_listeners import is_refused, put, take_out
from test_supervision import Manager
from upgrade import (Adopted, Traffic, adopt, ask_upgrade, group_members, processes, reaper, unseen, upgrade,  # noqa: F401 (a fixture)
                     upgrade_refused, upgrade_unseen)
from wsclient import TextClient

pytestmark = [pytest.mark.tgg_only, pytest.mark.usefixtures("reaper"), pytest.mark.timeout(240)]

AUTO = {"send_type": "auto"}
DEFLATE = {"protocol": "websocket", "deflate": True, "deflate_takeover": True, **AUTO}
OTHER = os.environ.get("TGG_BUILD_OTHER")  # a build whose records differ (-Dtransfer_future=true)


def scaled(count):
    return count // 5 if SANITIZED else count


# ---- everybody talks


def test_two_thousand_clients_and_twenty_upgrades(start):
    ca = certs.make_ca()
    cert = certs.make_cert(ca, ["localhost", "127.0.0.1"])
    tls = {"protocol": "websocket", "tls_certificate": cert.chain, "tls_key": cert.key, **AUTO}
    site = start(shards=2, listen={"websocket": AUTO, "deflate": DEFLATE, "tls": tls})
    traffic = Traffic(site)
    traffic.connect("websocket", scaled(650))
    traffic.connect("deflate", scaled(150), deflate=True)
    traffic.connect("tls", scaled(100), ca=ca.cert, tls="TLSv1_3")
    traffic.connect("tls", scaled(100), ca=ca.cert, tls="TLSv1_2")
    traffic.start(pace=3.0)
    with unseen(site):
        for _ in range(20):
            upgrade(site.gateway)
            traffic.moves()
    reports = traffic.finish()
    site.gateway.check_tables()
    assert site.counter("clients_taken_over") >= 20 * traffic.count
    print("longest gap of a client: %.2f s" % traffic.longest_gap(reports))


def set_shards(site, shards, **keys):
    site.gateway.sections["gateway"].update(shards=shards, **keys)
    site.gateway.shards = shards
    site.gateway.write_config()


def test_the_number_of_shards_and_their_roles_change(start):
    site = start(shards=1, listen={"websocket": AUTO, "deflate": DEFLATE})
    traffic = Traffic(site)
    traffic.connect("websocket", scaled(100))
    traffic.connect("deflate", scaled(50), deflate=True)
    traffic.start(pace=0.5)
    with unseen(site):
        for shards, keys in ((4, {}), (2, {}), (3, {"edge_shards": "0,1", "link_shards": "2"}), (3, {"edge_shards": "2", "link_shards": "0-1"}),
                             (3, {"edge_shards": "all", "link_shards": "all"}), (1, {})):
            set_shards(site, shards, **keys)
            upgrade(site.gateway)
            traffic.moves()
            assert sum(site.per_shard("clients")) == traffic.count
            if keys.get("edge_shards") == "2":
                assert site.per_shard("clients") == [0, 0, traffic.count] and site.per_shard("links") == [2, 2, 0]
            elif shards > 1 and not keys:
                assert min(site.per_shard("clients")) > traffic.count // shards // 3, "spread evenly: %s" % site.per_shard("clients")
    # Ids of newcomers are new, whichever shard gives them.
    traffic.asker.stop()
    before = traffic.count
    traffic.connect("websocket", 20)
    assert len(set(traffic.ids)) == before + 40
    traffic.finish()


def test_newcomers_wait_and_are_not_refused(start):
    site = start(shards=2, gateway={"no_worker_wait": 60})
    stop, failed, came = threading.Event(), [], []

    def come():
        while not stop.is_set():
            try:
                client = TextClient(site.gateway.client_address("text"))
                client.send_message(b"hello %d" % client.sock.getsockname()[1])
                came.append(client)
            except OSError as error:
                failed.append(error)
            time.sleep(0.002)

    worker = site.worker_link()
    thread = threading.Thread(target=come)
    thread.start()
    for _ in range(4):
        upgrade(site.gateway)
    stop.set()
    thread.join()
    site.clients += came
    assert not failed, failed[:3]
    heard = {worker.wait(ON_MESSAGE).body for _ in came}
    assert heard == {b"hello %d" % client.sock.getsockname()[1] for client in came}
    assert not [event for event in worker.quiet() if event.cmd == ON_CLOSE]
    assert not any(client.is_ended() for client in came)


# ---- what changes with it


def test_start_keys_take_effect(start):
    site = start(shards=1, gateway={"max_connections": 10})
    clients = [site.client("text") for _ in range(4)]
    site.gateway.sections["gateway"]["max_connections"] = 3
    site.gateway.write_config()
    assert "max_connections" in upgrade_refused(site.gateway)
    site.gateway.sections["gateway"]["max_connections"] = 4
    site.gateway.write_config()
    upgrade_unseen(site)
    for client in clients:
        check_echo(site, client)
    more = site.connect("text")
    assert more.is_ended(within=PATIENCE)
    clients[0].close()
    site.worker.wait(ON_CLOSE)
    wait_for(lambda: not site.connect("text").is_ended(within=0.2), what="a place for one")


def test_listeners_are_added_and_those_without_clients_go(start):
    site = start(shards=2, listen={"lone": {"protocol": "text"}, "crowded": {"protocol": "text"}})
    take_out(site, "lone")
    upgrade(site.gateway)  # while there is nobody
    client = site.client("crowded")
    put(site, "more")
    upgrade_unseen(site)
    for one in (client, site.client("more"), site.client("crowded")):
        check_echo(site, one)
    assert is_refused(site.gateway.client_address("lone"))
    keys = take_out(site, "crowded")
    said = upgrade_refused(site.gateway)
    assert "crowded" in said
    check_echo(site, client)
    put(site, "crowded", **keys)
    upgrade_unseen(site)
    check_echo(site, client)


@pytest.mark.skipif(not OTHER, reason="TGG_BUILD_OTHER names no build with other records")
def test_up_to_another_format_and_back(start):
    other = os.path.join(OTHER, "src", "main", "tgg")
    site = start(shards=2, listen={"websocket": AUTO, "deflate": DEFLATE})
    traffic = Traffic(site)
    traffic.connect("websocket", scaled(150))
    traffic.connect("deflate", scaled(50), deflate=True)
    traffic.start(pace=0.5)
    with unseen(site):
        for binary in (other, other, TGG, other, TGG):
            upgrade(site.gateway, binary)
            assert os.path.samefile("/proc/%d/exe" % site.gateway.process.pid, binary)
            traffic.moves()
    traffic.finish()


def test_to_a_copy_and_rolled_back_while_the_file_is_replaced(start, tmp_path):
    """As packages do it: the file of that name is another one afterwards."""
    path = str(tmp_path / "tgg")
    shutil.copy(TGG, path)
    site = start(shards=1)
    client = site.client("text")
    upgrade_unseen(site, path)
    assert os.path.samefile("/proc/%d/exe" % site.gateway.process.pid, path)
    shutil.copy(TGG, path + ".new")
    os.rename(path + ".new", path)
    site.gateway.process.send_signal(signal.SIGUSR2)  # the file that it was started from, by name
    adopt(site.gateway)
    assert os.path.samefile("/proc/%d/exe" % site.gateway.process.pid, path)
    upgrade_unseen(site, TGG)
    check_echo(site, client)


# ---- what is refused


def impostor(folder, does):
    """A program that passes for tgg until it is to take over; then it `does` this."""
    path = str(folder / "impostor")
    with open(path, "w") as f:
        f.write('#!/bin/sh\ncase "$1 $2" in --version*) echo "tgg 99"; exit 0;; "gateway -t") exit 0;; esac\n%s\n' % does)
    os.chmod(path, 0o755)
    return path


@pytest.fixture
def talking(start):
    """A node of two shards with clients that talk, and what they must not notice."""
    site = start(shards=2, gateway={"upgrade_timeout": 2}, listen={"websocket": AUTO})
    traffic = Traffic(site, programs=("upgrade_crowd.py",))
    traffic.connect("websocket", 100)
    traffic.start(pace=0.3)
    yield site
    traffic.moves()
    traffic.finish()


def test_a_wrong_configuration_is_refused_with_its_place(talking):
    gateway = talking.gateway
    before = processes(gateway)
    with open(gateway.config_path) as f:
        good = f.read()
    with open(gateway.config_path, "w") as f:
        f.write(good.replace("[log]", "nonsense = 1\n[log]"))
    where = "%s:%d:" % (gateway.config_path, good[: good.index("[log]")].count("\n") + 1)
    done = ask_upgrade(gateway)
    assert done.returncode == 78 and where in done.stderr and "nonsense" in done.stderr, done.stderr
    # The same when nobody looked before, as with USR2.
    gateway.process.send_signal(signal.SIGUSR2)
    gateway.wait_log("upgrade_over done=no")
    assert where in gateway.log()
    gateway.write_config()
    assert processes(gateway) == before
    upgrade(gateway)


@pytest.mark.parametrize("binary", ["/bin/true", "/etc/hostname", "/nonexistent", "/"])
def test_a_program_that_is_not_tgg_is_refused(start, binary):
    site = start(shards=1)
    client = site.client("text")
    with unseen(site):
        assert binary in upgrade_refused(site.gateway, binary)
    check_echo(site, client)


IMPOSTORS = {"exits": "exit 3", "exits well": "exit 0", "says no": "echo 'tgg: no' >&2; exit 78", "crashes": "kill -SEGV $$",
             "hangs": "exec sleep 1000", "stops": "kill -STOP $$", "talks nonsense": 'eval "printf nonsense >&$TGG_UPGRADE_FD"; exec sleep 1000',
             "closes": 'eval "exec $TGG_UPGRADE_FD>&-"; exec sleep 1000'}


@pytest.mark.parametrize("does", IMPOSTORS)
def test_a_program_that_does_not_take_over_changes_nothing(talking, tmp_path, does):
    began = time.monotonic()
    upgrade_refused(talking.gateway, impostor(tmp_path, IMPOSTORS[does]))
    assert time.monotonic() - began < 2 + PATIENCE
    assert not subprocess.run(["pgrep", "-f", str(tmp_path / "impostor")], capture_output=True).stdout, "it is gone"


def test_only_one_at_a_time(start, tmp_path):
    site = start(shards=1, gateway={"upgrade_timeout": 2})
    client = site.client("text")
    first = subprocess.Popen([TGG, "upgrade", "-c", site.gateway.config_path, impostor(tmp_path, "exec sleep 1000")], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, text=True)
    while "it sets up" not in first.stdout.readline():
        assert first.poll() is None
    assert ask_upgrade(site.gateway).returncode == 75
    assert first.wait(PATIENCE) == 1
    first.stdout.close()
    upgrade_unseen(site)
    check_echo(site, client)


def test_a_gateway_that_stops_is_not_upgraded(start):
    site = start(shards=1, gateway={"drain_timeout": 20}, listen={"websocket": {"close_timeout": 20}})
    client = site.client()
    site.gateway.process.send_signal(signal.SIGTERM)
    assert client.read_frame().code == 1001
    assert ask_upgrade(site.gateway).returncode == 1
    client.send_close(1001)
    client.expect_end()
    client.close()
    assert site.gateway.process.wait() == 0
    assert ask_upgrade(site.gateway).returncode == 1, "nobody is there"


# ---- the other processes


def test_the_registered_address_never_leaves_the_list(gateway_factory, start, tmp_path):
    with Register(tmp_path) as register:
        site = start(shards=2, registers=[register.address])
        watcher = RegisterLink(register.address)
        watcher.worker_connect()
        address = ["127.0.0.1:%d" % site.gateway.internal_port]
        lists = [watcher.addresses()]
        while lists[-1] != address:
            lists.append(watcher.addresses())
        client = site.client("text")
        for _ in range(3):
            upgrade_unseen(site)
        check_echo(site, client)
        while True:
            try:
                lists.append(watcher.addresses(timeout=0.5))
            except TimeoutError:
                break
        came = lists.index(address)
        assert all(seen == address for seen in lists[came:]), lists
        watcher.close()
        site.close()


def test_the_register_is_upgraded_too(tmp_path, start):
    with Register(tmp_path, log={"level": "info"}, runtime_dir=None) as register:
        site = start(shards=1, registers=[register.address])
        watcher = RegisterLink(register.address)
        watcher.worker_connect()
        address = ["127.0.0.1:%d" % site.gateway.internal_port]
        wait_for(lambda: watcher.addresses() == address)
        old = register.process
        old.send_signal(signal.SIGUSR2)
        assert old.wait() == 0
        (pid,) = set(group_members(old.pid)) - {old.pid}
        register.process = Adopted(pid, old)
        assert not watcher.is_ended(within=1)
        late = RegisterLink(register.address)
        late.worker_connect()
        assert late.addresses() == address
        late.close()
        watcher.close()
        site.close()


def test_the_admin_process_goes_on_serving(start):
    site = start(shards=2, admin={"port": free_port(), "metrics_open": True})
    socket_inode = os.stat(site.gateway.admin_socket).st_ino
    client = site.client("text")
    for _ in range(2):
        upgrade_unseen(site)
        status, answer = site.gateway.admin("clients")
        assert status == 200 and [row["client_id"] for row in answer["clients"]] == [client.event.client_id]
    assert os.stat(site.gateway.admin_socket).st_ino == socket_inode
    with socket.create_connection(("127.0.0.1", site.gateway.sections["admin"]["port"]), PATIENCE) as http:
        http.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = b""
        while data := http.recv(65536):
            text += data
    assert b"clients_taken_over" in text


def test_usr2_and_the_service_manager(gateway_factory, tmp_path):
    manager = Manager(tmp_path / "notify")
    os.environ.update(NOTIFY_SOCKET=manager.path)
    try:
        gateway = gateway_factory(start=False, shards=2, gateway={"drain_timeout": 1})
        gateway.start()
    finally:
        del os.environ["NOTIFY_SOCKET"]
    manager.wait("READY=1")
    for _ in range(2):
        old = gateway.process.pid
        gateway.process.send_signal(signal.SIGUSR2)
        adopt(gateway)
        assert gateway.process.pid != old
        manager.wait("MAINPID=%d" % gateway.process.pid)
    gateway.process.send_signal(signal.SIGHUP)
    manager.wait("RELOADING=1")
    manager.wait("READY=1")
    gateway.process.send_signal(signal.SIGTERM)
    manager.wait("STOPPING=1")
    assert gateway.process.wait() == 0


# ---- afterwards


def test_a_gateway_that_was_upgraded_is_like_any_other(start, tmp_path):
    """Reload, ban, a killed shard, traces of descriptors, the end."""
    site = start(shards=2, gateway={"drain_timeout": 20}, listen={"websocket": {"close_timeout": 1}})
    worker = site.worker
    clients = [site.client("text") for _ in range(10)]

    def descriptors():
        return [len(os.listdir("/proc/%d/fd" % pid)) for pid in [site.gateway.process.pid] + site.gateway.shard_pids()]

    upgrade_unseen(site)
    before = descriptors()
    for _ in range(2):
        upgrade_unseen(site)
    wait_for(lambda: sum(descriptors()) == sum(before), what="as many descriptors as before: %s" % before)
    put(site, "more")
    assert run_tgg("reload", "-c", site.gateway.config_path).returncode == 0
    site.gateway.wait_log("listener_added name=more")
    check_echo(site, site.client("more"))
    # A shard without the worker's link dies: its clients' ON_CLOSE, nobody else's.
    shard = 1 - site.per_shard("workers").index(1)
    lost = {client.id for client in clients if site_shard(site, client) == shard}
    old = site.gateway.shard_pid(shard)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: site.gateway.shard_pid(shard) not in (0, old), what="a successor")
    told = {worker.wait(ON_CLOSE).connection_id for _ in lost}
    assert lost <= told | lost and told >= lost
    for client in clients:
        if client.id not in lost:
            check_echo(site, client)
    upgrade(site.gateway)
    last = site.client()
    site.gateway.process.send_signal(signal.SIGTERM)
    last.expect_close(1001)
    assert site.gateway.process.wait() == 0


def site_shard(site, client):
    status, answer = site.gateway.admin("clients/%s" % client.event.client_id)
    assert status == 200, answer
    return answer["client"]["shard"] if "client" in answer else answer["shard"]


# ---- a shard is emptied


def ctl(site, *args):
    return run_tgg("ctl", "-c", site.gateway.config_path, *args)


def test_a_shard_is_evacuated_and_comes_back_under_load(start):
    site = start(shards=3, listen={"websocket": AUTO, "deflate": DEFLATE})
    traffic = Traffic(site)
    traffic.connect("websocket", scaled(150))
    traffic.connect("deflate", scaled(50), deflate=True)
    traffic.start(pace=0.5)
    pids = site.gateway.shard_pids()
    with unseen(site):
        for shard in (1, 0):
            done = ctl(site, "evacuate", shard)
            assert done.returncode == 0, (done, site.gateway.log()[-3000:])
            wait_for(lambda: site.per_shard("clients")[shard] == 0, what="nobody there")
            traffic.moves()
            done = ctl(site, "evacuate", shard, "--back")
            assert done.returncode == 0, (done, site.gateway.log()[-3000:])
            wait_for(lambda: site.per_shard("clients")[shard] > 0, what="somebody there")
            traffic.moves()
    assert site.gateway.shard_pids() == pids
    traffic.finish()


def test_an_evacuated_shard_may_die_and_nobody_notices(start):
    site = start(shards=3)
    link, shard = site.one_more("workers", site.worker_link)
    site._worker = link
    empty = (shard + 1) % 3
    clients = [site.client("text", worker=link) for _ in range(30)]
    assert ctl(site, "evacuate", empty).returncode == 0
    wait_for(lambda: site.per_shard("clients")[empty] == 0)
    old = site.gateway.shard_pid(empty)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: site.gateway.shard_pid(empty) not in (0, old) and site.gateway.status()["shards"][empty]["state"] == "running")
    for client in clients:
        check_echo(site, client)
    newcomers = [site.client("text", worker=link) for _ in range(20)]
    assert site.per_shard("clients")[empty] == 0, "it stays empty"
    for client in newcomers:
        check_echo(site, client)


@pytest.mark.parametrize("args", [["7"], ["x"], ["0", "1"], []])
def test_what_cannot_be_evacuated_is_told(start, args):
    site = start(shards=2)
    done = ctl(site, "evacuate", *args)
    assert done.returncode != 0 and done.stderr


def test_the_only_shard_cannot_be_evacuated(start):
    site = start(shards=1)
    client = site.client("text")
    done = ctl(site, "evacuate", 0)
    assert done.returncode != 0 and done.stderr
    check_echo(site, client)
