# SPDX-License-Identifier: MIT
"""The supervisor: signals, a shard that is killed, its successor."""

import glob
import http.client
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from gwproto import IS_ONLINE, ON_CLOSE, ON_CONNECT, ON_MESSAGE, PATIENCE, ClientLink, LinkClosed, packet
from proc import UnixHTTP, SANITIZED, TGG, free_port, run_tgg, wait_for
from wsclient import read_until_end

pytestmark = pytest.mark.tgg_only


def kill_shards(site):
    """Kill every shard, and wait for the successors."""
    old = site.gateway.shard_pids()
    for pid in old:
        os.kill(pid, signal.SIGKILL)

    def successors():
        status = site.gateway.status()
        return status and all(s["state"] == "running" and s["pid"] not in old for s in status["shards"])

    wait_for(successors, what="a successor of each shard")


def test_term_drains(start):
    site = start(gateway={"drain_timeout": 20})
    client = site.client()
    began = time.monotonic()
    site.gateway.process.send_signal(signal.SIGTERM)
    client.expect_close(1001)
    assert site.worker.wait(ON_CLOSE).connection_id == client.id
    assert site.gateway.process.wait() == 0
    assert time.monotonic() - began < 15, "nobody was left to wait for"


def test_new_clients_are_not_taken_while_draining(start):
    site = start(gateway={"drain_timeout": 20}, listen={"websocket": {"close_timeout": 10}})
    client = site.client()
    site.gateway.process.send_signal(signal.SIGTERM)
    assert client.read_frame().code == 1001
    accepted = site.gateway.counters()["client_accepted"]
    try:
        late = site.connect("text")
        assert late.is_ended(within=0.3) or site.gateway.counters()["client_accepted"] == accepted
    except OSError:
        pass
    client.send_close(1001)
    client.expect_end()
    client.close()
    assert site.gateway.process.wait() == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_a_second_signal_stops_at_once(start, second):
    site = start(gateway={"drain_timeout": 60}, listen={"websocket": {"close_timeout": 60}})
    client = site.client()
    site.gateway.process.send_signal(signal.SIGTERM)
    assert client.read_frame().code == 1001
    began = time.monotonic()
    site.gateway.process.send_signal(second)
    site.gateway.process.wait()
    assert time.monotonic() - began < 10
    assert client.is_ended(within=PATIENCE)


def test_int_stops_at_once(start):
    site = start(gateway={"drain_timeout": 60}, listen={"websocket": {"close_timeout": 60}})
    client = site.client()
    began = time.monotonic()
    site.gateway.process.send_signal(signal.SIGINT)
    site.gateway.process.wait()
    assert time.monotonic() - began < 10
    assert client.is_ended(within=PATIENCE)


def test_term_without_anybody(start):
    site = start(gateway={"drain_timeout": 60})
    site.gateway.process.send_signal(signal.SIGTERM)
    assert site.gateway.process.wait(10) == 0


def test_a_killed_shard_has_a_successor_that_serves(start):
    site = start()
    worker = site.worker
    client = site.client("text")
    kill_shards(site)
    assert client.is_ended(within=PATIENCE)
    with pytest.raises(LinkClosed):
        while True:
            worker.next()
    again = site.worker_link()
    other = site.client("text", worker=again)
    other.send_message(b"hello")
    assert again.wait(ON_MESSAGE, other.id).body == b"hello"
    again.send_to_one(other.id, b"you too")
    assert other.read_message() == b"you too"


def test_connection_ids_of_a_successor_are_new(start):
    site = start()
    before = {site.client("text").id for _ in range(20)}
    seen = set(before)
    for _ in range(2):
        kill_shards(site)
        worker = site.worker_link()
        ids = {site.client("text", worker=worker).id for _ in range(20)}
        assert not ids & seen, "stored client_ids would point at other people"
        seen |= ids
    with ClientLink(site.internal) as g:
        assert [g.is_online(i) for i in before] == [0] * 20


def test_connection_ids_after_a_restart_of_everything_are_new(start):
    site = start()
    before = {site.client("text").id for _ in range(20)}
    site.gateway.stop()
    site.gateway.start()
    worker = site.worker_link()
    after = {site.client("text", worker=worker).id for _ in range(20)}
    assert not before & after


def test_no_connection_is_refused_while_a_shard_restarts(start):
    """The supervisor holds the listening sockets: who comes meanwhile waits for the successor."""
    site = start()
    for pid in site.gateway.shard_pids():
        os.kill(pid, signal.SIGKILL)
    clients = []
    for _ in range(20):
        client = site.connect("text")
        client.send_message(b"hello")
        clients.append(client)
    worker = site.worker_link(sync=False)
    heard = set()
    deadline = time.monotonic() + PATIENCE
    while len(heard) < 15 and time.monotonic() < deadline:
        heard.add(worker.wait(ON_MESSAGE).connection_id)
    assert len(heard) >= 15, "those whom the dying shard had accepted are lost, the others not"


def test_shards_that_die_again_and_again(start):
    site = start()
    for _ in range(3):
        kill_shards(site)
    worker = site.worker_link()
    assert site.client("text", worker=worker)
    site.gateway.check()


def test_the_shard_ends_with_its_supervisor(start):
    """No orphan may go on holding the ports: the gateway must come up again."""
    site = start()
    client = site.client("text")
    shards = site.gateway.shard_pids()
    site.gateway.process.expected_end = True
    site.gateway.process.popen.kill()
    site.gateway.process.popen.wait()
    assert client.is_ended(within=PATIENCE)
    wait_for(lambda: not any(os.path.exists("/proc/%d" % shard) for shard in shards), what="the end of the shards")
    site.gateway.start()
    worker = site.worker_link()
    again = site.client("text", worker=worker)
    again.send_message(b"hello")
    assert worker.wait(ON_MESSAGE, again.id).body == b"hello"


def test_a_shard_that_hangs_is_killed_at_the_end(start):
    site = start()
    shard = site.gateway.shard_pid()
    os.kill(shard, signal.SIGSTOP)
    try:
        began = time.monotonic()
        site.gateway.process.send_signal(signal.SIGINT)
        site.gateway.process.wait()
        assert time.monotonic() - began < 15
        assert not os.path.exists("/proc/%d" % shard)
    finally:
        try:
            os.kill(shard, signal.SIGCONT)
        except ProcessLookupError:
            pass


def test_a_worker_that_keeps_asking_hears_of_every_client_that_leaves_at_the_drain(start):
    """What it has sent and nobody has read must not turn the end of its link into a reset, which takes the events."""
    site = start(gateway={"drain_timeout": 3}).with_worker()
    clients = [site.connect("text") for _ in range(300)]
    for _ in clients:
        site.worker.wait(ON_CONNECT)
    site.gateway.process.expected_end = True
    site.gateway.process.send_signal(signal.SIGTERM)
    for client in clients:
        client.sock.shutdown(socket.SHUT_WR)
    ended = threading.Event()

    def ask():
        try:
            while not ended.is_set():
                site.worker.sock.sendall(packet(IS_ONLINE, 1).encode() * 50)
        except OSError:
            pass

    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    closes, data = 0, read_until_end(site.worker)
    ended.set()
    asker.join()
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        is_reply = length < 28
        closes += not is_reply and data[at + 4] == ON_CLOSE
        at += length + 4 if is_reply else length
    assert closes == 300
    assert site.gateway.process.wait() == 0


# ---- the admin process


def ask_admin(site, path, method="GET"):
    """Over its Unix socket: status and body."""
    connection = UnixHTTP(site.gateway.admin_socket)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def admin_entry(site):
    (found,) = [p for p in site.gateway.status()["processes"] if p["kind"] == "admin"]
    return found


@pytest.mark.shards(1, 3)
def test_a_killed_admin_process_comes_back_and_nobody_notices(start):
    site = start(gateway={"drain_timeout": 1})
    client = site.client("text")
    shards = site.gateway.shard_pids()
    old = admin_entry(site)["pid"]
    assert ask_admin(site, "/livez")[0] == 200
    os.kill(old, signal.SIGKILL)
    # Who comes meanwhile waits for the successor.
    assert ask_admin(site, "/livez")[0] == 200
    wait_for(lambda: admin_entry(site)["pid"] not in (0, old), what="the successor")
    assert admin_entry(site)["restarts"] == 1
    status, body = ask_admin(site, "/api/clients")
    assert status == 200 and len(json.loads(body)["clients"]) == 1 and json.loads(body)["missing"] == []
    client.send_message(b"still here")
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"still here"
    assert site.gateway.shard_pids() == shards


def test_without_an_admin_process(start):
    site = start(admin={"enabled": False, "port": free_port()})
    assert admin_entry(site)["state"] == "none" and admin_entry(site)["pid"] == 0
    assert not os.path.exists(os.path.join(site.gateway.runtime_dir, "admin.sock"))
    assert site.client("text")


def test_the_sockets_and_the_token_of_the_admin_process(start):
    port = free_port()
    site = start(admin={"port": port, "socket_mode": "0640"})
    run = site.gateway.runtime_dir
    assert os.stat(os.path.join(run, "admin.sock")).st_mode & 0o777 == 0o640
    token_path = os.path.join(run, "admin.token")
    assert os.stat(token_path).st_mode & 0o777 == 0o600
    with open(token_path) as f:
        token = f.read().strip()
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert token not in site.gateway.log()

    def ask(headers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", "/api/status", headers=headers)
        return connection.getresponse().status

    assert ask({}) == 401
    assert ask({"Authorization": "Bearer " + token}) == 200
    site.gateway.stop()
    assert not os.path.exists(os.path.join(run, "admin.sock"))
    site.gateway.start()
    with open(token_path) as f:
        assert f.read().strip() == token


def test_an_admin_port_in_use_is_told_with_its_line(tmp_path, start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = tmp_path / "tgg_conf.ini"
        path.write_text("[gateway]\nstart_port = %d\nruntime_dir = %s\n[listen a]\nport = %d\nprotocol = text\n[admin]\nport = %d\n" % (free_port(), tmp_path / "run", free_port(), port))
        done = run_tgg("gateway", "-c", path)
        assert done.returncode == 1
        assert "%s:8: [admin] port: 127.0.0.1 port %d is in use" % (path, port) in done.stderr


def test_a_socket_of_the_admin_process_that_cannot_be_made_is_no_reason_not_to_serve(start, tmp_path):
    site = start(admin={"socket": tmp_path / "no" / "such" / "folder.sock"})
    site.gateway.wait_log("admin_socket_not_opened")
    assert site.client("text")


def test_the_log_level_of_all_processes_changes_by_an_order_and_by_a_reload(start):
    site = start(log={"level": "notice"})
    level = lambda: json.loads(ask_admin(site, "/api/status")[1])["log_level"]
    assert ask_admin(site, "/api/log?level=debug", "POST")[0] == 200
    wait_for(lambda: level() == "debug", what="the admin process to see it")
    site.gateway.sections["log"]["level"] = "warn"
    site.gateway.write_config()
    site.gateway.process.send_signal(signal.SIGHUP)
    wait_for(lambda: level() == "warn", what="the level of the file")


def test_a_flood_of_orders_does_not_keep_the_supervisor_from_its_work(start):
    site = start()
    ended = threading.Event()

    def flood():
        while not ended.is_set():
            ask_admin(site, "/api/log?level=info", "POST")

    askers = [threading.Thread(target=flood, daemon=True) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        kill_shards(site)
    finally:
        ended.set()
        for asker in askers:
            asker.join()
    assert site.gateway.status()["state"] == "running"


# ---- the service manager


class Manager:
    """The socket of a service manager (sd_notify(3))."""

    def __init__(self, path):
        self.path = str(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        self.sock.settimeout(PATIENCE)
        self.heard = []

    def wait(self, begins):
        while True:
            message = self.sock.recv(4096).decode()
            self.heard.append(message)
            if message.startswith(begins):
                return message


def test_the_service_manager_hears_of_everything(gateway_factory, tmp_path):
    manager = Manager(tmp_path / "notify")
    os.environ.update(NOTIFY_SOCKET=manager.path, WATCHDOG_USEC="400000")
    try:
        gateway = gateway_factory(start=False, shards=2, gateway={"drain_timeout": 1})
        gateway.start()
    finally:
        del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
    manager.wait("READY=1")
    manager.wait("STATUS=2 shards run")
    began = time.monotonic()
    for _ in range(4):
        manager.wait("WATCHDOG=1")
    assert time.monotonic() - began > 0.5
    gateway.process.send_signal(signal.SIGHUP)
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", manager.wait("RELOADING=1"))
    manager.wait("READY=1")
    old = gateway.shard_pid(1)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: gateway.shard_pid(1) not in (0, old), what="the successor")
    gateway.process.send_signal(signal.SIGTERM)
    manager.wait("STOPPING=1")
    manager.wait("STATUS=drains")
    assert gateway.process.wait() == 0


# ---- crash records


def crash_files(logs):
    return sorted(glob.glob(str(logs / "crash-shard*.txt")))


def with_some_commands(site):
    client = site.client("text")
    site.worker.send_to_one(client.id, b"hello")
    assert client.read_message() == b"hello"
    site.worker.sync()
    return client


if not SANITIZED:  # those have handlers of their own for crashes

    @pytest.mark.shards(1, 3)
    def test_a_crash_leaves_a_readable_record(start, tmp_path):
        logs = tmp_path / "logs"
        site = start(log={"target": "file", "directory": logs})
        client = with_some_commands(site)
        shard = client.id >> 26
        pid = site.gateway.shard_pid(shard)
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        os.kill(pid, signal.SIGSEGV)
        wait_for(lambda: crash_files(logs), what="the record")
        (path,) = crash_files(logs)
        assert re.fullmatch(r"crash-shard%d-\d{8}T\d{6}Z\.txt" % shard, os.path.basename(path))
        with open(path) as f:
            text = f.read()
        notes = subprocess.run(["readelf", "-n", TGG], capture_output=True, text=True).stdout
        build_id = re.search(r"Build ID: ([0-9a-f]+)", notes).group(1)
        assert "shard %d, pid %d, died at" % (shard, pid) in text and "by signal 11 (SEGV)" in text
        assert "build id " + build_id in text
        assert "sent by process %d" % os.getpid() in text
        assert re.search(r"#\d+ +tgg\+0x[0-9a-f]+ shard_main\+0x", text), text
        assert re.search(r"ms before: SEND_TO_ONE \(5\), connection_id %d, \d+ bytes" % client.id, text), text
        addresses = re.search(r"addr2line -fipe tgg (.*)", text).group(1).split()
        done = subprocess.run(["addr2line", "-fipe", TGG, *addresses], capture_output=True, text=True)
        assert "shard_main at " in done.stdout, done.stdout
        log = (logs / "supervisor.log").read_text()
        wait_for(lambda: "crash_command" in (logs / "supervisor.log").read_text(), what="the commands in the log")
        log = (logs / "supervisor.log").read_text()
        assert re.search(r"shard_crashed shard=%d pid=%d signal=11 name=SEGV .*build_id=%s .*record=\"%s\"" % (shard, pid, build_id, re.escape(path)), log)
        assert "crash_stack shard=%d frame=0 at=" % shard in log
        assert re.search(r"crash_command shard=%d ago_ms=\d+ cmd=SEND_TO_ONE connection_id=%d" % (shard, client.id), log)
        site.gateway.process.expected_end = True


def test_a_killed_shard_leaves_its_last_commands(start, tmp_path):
    logs = tmp_path / "logs"
    site = start(log={"target": "file", "directory": logs})
    client = with_some_commands(site)
    os.kill(site.gateway.shard_pid(client.id >> 26), signal.SIGKILL)
    wait_for(lambda: crash_files(logs), what="the record")
    wait_for(lambda: "commands: " in open(crash_files(logs)[0]).read(), what="all of it")
    text = open(crash_files(logs)[0]).read()
    assert "by signal 9 (KILL)" in text and "there is no stack" in text
    assert "SEND_TO_ONE (5), connection_id %d" % client.id in text
