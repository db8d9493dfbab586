# SPDX-License-Identifier: MIT
"""The supervisor: signals, a shard that is killed, its successor."""

import os
import signal
import socket
import struct
import threading
import time

import pytest

from gwproto import IS_ONLINE, ON_CLOSE, ON_CONNECT, ON_MESSAGE, PATIENCE, ClientLink, LinkClosed, packet
from proc import wait_for
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
