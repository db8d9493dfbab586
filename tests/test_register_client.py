# SPDX-License-Identifier: MIT
"""How a gateway behaves towards its registers, good ones and bad ones (fakes in Python, and tgg register)."""

import socket
import time

import pytest

from gwproto import ON_MESSAGE, PATIENCE, LinkClosed, RegisterLink
from proc import Register, free_port, wait_for

pytestmark = pytest.mark.tgg_only


RIGHT, WRONG = "the-right-secret", "quite-another-one"


class Peer(RegisterLink):
    """An accepted connection."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = bytearray()
        self.ended = False


class FakeRegister:
    """A port that gateways connect to, and nothing more."""

    def __init__(self, host="127.0.0.1", port=None, listening=True):
        self.address = (host, port or free_port())
        self.listener = None
        self.peers = []
        if listening:
            self.listen()

    def listen(self):
        self.listener = socket.create_server(self.address)
        self.listener.settimeout(PATIENCE)

    def accept(self, timeout=PATIENCE):
        self.listener.settimeout(timeout)
        peer = Peer(self.listener.accept()[0])
        self.peers.append(peer)
        return peer

    def close(self):
        for peer in self.peers:
            peer.close()
        if self.listener:
            self.listener.close()


@pytest.fixture
def register():
    made = []

    def make(**how):
        made.append(FakeRegister(**how))
        return made[-1]

    yield make
    for fake in made:
        fake.close()


def announcement(site, secret_key=""):
    return {"event": "gateway_connect", "address": "127.0.0.1:%d" % site.gateway.internal_port, "secret_key": secret_key}


def serves(site):
    client = site.client("text")
    client.send_message(b"x")
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"x"
    client.close()


def test_the_announcement(start, register):
    fake = register()
    site = start(registers=[fake.address])
    peer = fake.accept()
    assert peer.read_line() == announcement(site)
    assert site.gateway.counters()["register_connected"] == 1
    assert not peer.is_ended(within=0.2) and not peer.buffer


def test_the_key_and_the_lan_ip_are_announced(start, register):
    fake = register()
    site = start(registers=[fake.address], gateway={"secret_key": 'a"b\\c', "lan_ip": "127.0.0.3"})
    line = fake.accept().read_line()
    assert line == {"event": "gateway_connect", "address": "127.0.0.3:%d" % site.gateway.internal_port, "secret_key": 'a"b\\c'}


def test_two_registers_are_told(start, register):
    one, two = register(), register()
    site = start(registers=[one.address, two.address])
    assert one.accept().read_line() == two.accept().read_line() == announcement(site)


def test_a_register_that_dies_and_comes_back_is_told_again(start, register):
    dying, steady = register(), register()
    site = start(registers=[dying.address, steady.address])
    peer = dying.accept()
    peer.read_line()
    steady_peer = steady.accept()
    steady_peer.read_line()
    dying.close()
    wait_for(lambda: site.gateway.counters()["register_lost"] >= 1)
    dying.listen()
    assert dying.accept().read_line() == announcement(site)
    assert not steady_peer.is_ended() and not steady_peer.buffer
    serves(site)


def test_a_register_that_is_not_there_at_first(start, register):
    late = register(listening=False)
    site = start(registers=[late.address])
    serves(site)
    wait_for(lambda: site.gateway.counters()["register_lost"] >= 1)
    late.listen()
    assert late.accept().read_line() == announcement(site)


def test_reconnects_come_once_a_second_not_faster(start, register):
    fake = register()
    site = start(registers=[fake.address])
    times = []
    for _ in range(4):
        peer = fake.accept()
        assert peer.read_line() == announcement(site)
        times.append(time.monotonic())
        peer.close()
    for before, after in zip(times, times[1:]):
        assert 0.8 < after - before < 10


def test_a_register_that_says_nothing_is_borne_with(start, register):
    fake = register()
    site = start(registers=[fake.address])
    peer = fake.accept()
    peer.read_line()
    serves(site)
    assert not peer.is_ended(within=1.5)


def test_a_register_that_does_not_even_accept(start):
    """The kernel takes the connection, nobody reads it."""
    with socket.create_server(("127.0.0.1", free_port()), backlog=1) as deaf:
        site = start(registers=[deaf.getsockname()])
        serves(site)


@pytest.mark.parametrize("data", [b"garbage\n", b"\n\n\n", b"{\"event\":", b"\0\xff" * 5000, b'{"event":"broadcast_addresses","addresses":5}\n',
                                  b'{"event":"unknown"}\n', b"[" * 100_000 + b"\n", b"x" * 3_000_000], ids=lambda d: repr(d[:20]))
def test_garbage_from_a_register(start, register, data):
    fake = register()
    site = start(registers=[fake.address])
    peer = fake.accept()
    peer.read_line()
    try:
        peer.send_bytes(data)
    except (ConnectionError, LinkClosed, TimeoutError):
        pass
    serves(site)
    peer.close()
    assert fake.accept().read_line() == announcement(site)


def test_keep_alive_to_a_register_elsewhere(start, register):
    fake = register(host="127.0.0.4")
    site = start(registers=[fake.address], gateway={"worker_ping_interval": 1})
    peer = fake.accept()
    assert peer.read_line() == announcement(site)
    assert peer.read_line() == {"event": "ping"}
    assert peer.read_line() == {"event": "ping"}


def test_no_keep_alive_to_a_register_on_this_host(start, register):
    fake = register()
    start(registers=[fake.address], gateway={"worker_ping_interval": 1})
    peer = fake.accept()
    peer.read_line()
    assert not peer.is_ended(within=1.5) and not peer.buffer


# ---- with tgg register


@pytest.fixture
def real_register(tmp_path):
    made = []

    def make(**keys):
        folder = tmp_path / ("register%d" % len(made))
        folder.mkdir()
        made.append(Register(folder, **keys))
        return made[-1]

    yield make
    for register_ in made:
        register_.stop()


def addresses_seen_by_a_worker(register_, secret_key=""):
    with RegisterLink(register_.address) as link:
        link.worker_connect(secret_key)
        return link.addresses()


def test_workers_learn_of_the_gateway(start, real_register):
    register_ = real_register()
    with RegisterLink(register_.address) as worker:
        worker.worker_connect()
        assert worker.addresses() == []
        site = start(registers=[register_.address])
        address = "127.0.0.1:%d" % site.gateway.internal_port
        assert worker.addresses() == [address]
        site.gateway.stop()
        assert worker.addresses() == []


def test_two_gateways_and_two_registers(start, real_register):
    registers = [real_register(), real_register()]
    sites = [start(registers=[r.address for r in registers]) for _ in range(2)]
    expected = sorted("127.0.0.1:%d" % site.gateway.internal_port for site in sites)
    for register_ in registers:
        wait_for(lambda: addresses_seen_by_a_worker(register_) == expected)


def test_a_register_that_is_killed_and_started_again(start, real_register):
    register_ = real_register()
    site = start(registers=[register_.address])
    expected = ["127.0.0.1:%d" % site.gateway.internal_port]
    wait_for(lambda: addresses_seen_by_a_worker(register_) == expected)
    register_.process.expected_end = True
    register_.process.popen.kill()
    register_.process.popen.wait()
    register_.start()
    wait_for(lambda: addresses_seen_by_a_worker(register_) == expected)


def test_a_gateway_with_the_wrong_key_is_not_announced(start, real_register):
    register_ = real_register(secret_key=RIGHT)
    site = start(registers=[register_.address], gateway={"secret_key": WRONG})
    wait_for(lambda: site.gateway.counters()["register_lost"] >= 2)
    assert addresses_seen_by_a_worker(register_, RIGHT) == []
    good = start(registers=[register_.address], gateway={"secret_key": RIGHT})
    expected = ["127.0.0.1:%d" % good.gateway.internal_port]
    wait_for(lambda: addresses_seen_by_a_worker(register_, RIGHT) == expected)
    for log in (register_.log(), site.gateway.log(), good.gateway.log()):
        assert RIGHT not in log and WRONG not in log
