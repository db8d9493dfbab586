# SPDX-License-Identifier: MIT
"""Where clients can be listened for beside an IPv4 port: Unix sockets, IPv6."""

import os
import signal
import socket
import stat

import pytest

from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE, PATIENCE
from proc import Process, TGG, free_port, wait_for
from wsclient import TextClient, WsClient

pytestmark = pytest.mark.tgg_only

PORT = 7272  # what workers see


class _Over:
    """Instead of the IPv4 connection of Stream."""

    def __init__(self, family, address):
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(address)
        self.buffer = bytearray()
        self.ended = False


class TextOver(_Over, TextClient):
    pass


class WsOver(_Over, WsClient):
    def __init__(self, family, address):
        super().__init__(family, address)
        self.handshake()
        self.send_message = self.send_text


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "clients.sock")


@pytest.fixture
def unix(start, path):
    """unix(protocol, ...): a site whose listener of that protocol is the Unix socket."""
    return lambda protocol, listen=None, **config: start(
        listen={protocol: {"address": "unix:" + path, "port": PORT, **(listen or {})}}, **config)


def say_and_hear(site, client):
    """Of a client that has just come: both ways, and its end."""
    event = site.worker.wait(ON_CONNECT)
    client.send_message(b"to the worker")
    assert site.worker.wait(ON_MESSAGE, event.connection_id).body == b"to the worker"
    site.g.send_to_one(event.connection_id, b"to the client")
    assert client.read_message() == b"to the client"
    client.close()
    site.worker.wait(ON_CLOSE, event.connection_id)
    return event


@pytest.mark.shards(1, 3)
@pytest.mark.parametrize("protocol,make", [("text", TextOver), ("websocket", WsOver)])
def test_clients_of_a_unix_socket(unix, path, shards, protocol, make):
    site = unix(protocol)
    assert site.worker
    for _ in range(2 * shards):
        assert say_and_hear(site, make(socket.AF_UNIX, path)).gateway_port == PORT
    say_and_hear(site, site.connect("frame"))  # the others are where they were


@pytest.mark.shards(3)
def test_all_shards_take_clients_of_a_unix_socket(unix, path, shards):
    site = unix("text")
    assert site.worker
    clients = [TextOver(socket.AF_UNIX, path) for _ in range(60)]
    site.wait_gauge("clients", len(clients))
    counts = site.per_shard("clients")
    assert min(counts) > 0, counts
    for client in clients:
        client.close()
    site.wait_gauge("clients", 0)


@pytest.mark.shards(3)
def test_a_shard_that_dies_leaves_the_socket_to_the_others(unix, path, shards):
    site = unix("text")
    os.kill(site.gateway.shard_pid(0), signal.SIGKILL)
    clients = [TextOver(socket.AF_UNIX, path) for _ in range(10)]
    site.wait_gauge("clients", len(clients))
    site.gateway.wait_ready()
    clients += [TextOver(socket.AF_UNIX, path) for _ in range(10)]
    site.wait_gauge("clients", len(clients))
    assert not any(client.is_ended() for client in clients)
    for client in clients:
        client.close()
    site.wait_gauge("clients", 0)


@pytest.mark.parametrize("mode,expected", [(None, 0o660), ("0600", 0o600), ("666", 0o666)])
def test_the_file_has_the_mode_and_goes_at_the_end(unix, path, mode, expected):
    site = unix("text", {"socket_mode": mode} if mode else None)
    found = os.stat(path).st_mode
    assert stat.S_ISSOCK(found) and stat.S_IMODE(found) == expected
    site.gateway.stop(signal.SIGTERM)
    assert not os.path.exists(path)


def test_a_file_of_a_dead_gateway_is_replaced(unix, path):
    site = unix("text")
    pids = site.gateway.shard_pids()
    site.gateway.process.expected_end = True
    os.kill(site.gateway.process.pid, signal.SIGKILL)
    site.gateway.process.wait()
    wait_for(lambda: not any(os.path.exists("/proc/%d" % pid) for pid in pids), what="the shards to end")
    assert os.path.exists(path)
    site.gateway.start()
    with TextOver(socket.AF_UNIX, path):
        site.wait_gauge("clients", 1)


def start_another(tmp_path, path):
    """The status and the messages of a gateway that cannot start."""
    config = tmp_path / "other.ini"
    config.write_text("[gateway]\nstart_port = %d\nregister_address = 127.0.0.1:%d\nruntime_dir = %s\n"
                      "[listen x]\naddress = unix:%s\nport = 1\nprotocol = text\n"
                      % (free_port(), free_port(), tmp_path / "other", path))
    process = Process([TGG, "gateway", "-c", config], tmp_path, "other")
    return process.wait(), process.err()


def test_a_second_gateway_is_told_who_has_the_socket(unix, path, tmp_path):
    site = unix("text")
    status, said = start_another(tmp_path, path)
    assert status == 1
    assert "[listen x] address: unix:%s is in use" % path in said and "ss -lxp src %s" % path in said
    assert site.worker
    say_and_hear(site, TextOver(socket.AF_UNIX, path))


def test_what_is_no_socket_is_left_alone(tmp_path, path):
    with open(path, "w") as f:
        f.write("precious")
    status, said = start_another(tmp_path, path)
    assert status == 1 and "exists and is no socket" in said
    with open(path) as f:
        assert f.read() == "precious"


@pytest.mark.shards(1, 3)
@pytest.mark.parametrize("protocol,make", [("text", TextOver), ("websocket", WsOver)])
def test_clients_over_ipv6(start, shards, protocol, make):
    """:: is IPv6 only: the same port of 0.0.0.0 is another listener's."""
    port = free_port()
    site = start(listen={protocol: {"address": "::", "port": port}, "four": {"protocol": "text", "address": "0.0.0.0", "port": port}})
    assert site.worker
    for _ in range(2 * shards):
        say_and_hear(site, make(socket.AF_INET6, ("::1", port)))
    say_and_hear(site, TextOver(socket.AF_INET, ("127.0.0.1", port)))
