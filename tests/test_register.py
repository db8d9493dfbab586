# SPDX-License-Identifier: MIT
"""The register, spoken to in plain lines over sockets as gateways, workers and GatewayClient do."""

import json
import socket
import time

import pytest

from proc import PATIENCE, Register, wait_for

pytestmark = pytest.mark.tgg_only


class Peer:
    def __init__(self, register, rcvbuf=None):
        self.sock = socket.socket()
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(register.address)
        self.buffer = b""

    def send(self, **event):
        self.send_raw(json.dumps(event).encode() + b"\n")

    def send_raw(self, data):
        self.sock.sendall(data)

    def line(self, timeout=PATIENCE):
        """The next line as JSON; None at the end of the connection."""
        self.sock.settimeout(timeout)
        while b"\n" not in self.buffer:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def addresses(self):
        message = self.line()
        assert set(message) == {"event", "addresses"} and message["event"] == "broadcast_addresses"
        assert isinstance(message["addresses"], list)
        return message["addresses"]

    def wait_addresses(self, wanted):
        """Lists may come in between; the last one counts."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.addresses() == wanted:
                return
        raise TimeoutError(wanted)

    def is_closed(self):
        return self.line() is None

    def is_silent(self, seconds=0.2):
        """Nothing comes, and the connection stays."""
        try:
            self.line(timeout=seconds)
            return False
        except socket.timeout:
            return True

    def close(self):
        self.sock.close()


@pytest.fixture
def peers(request):
    opened = []

    def open_(register, **how):
        peer = Peer(register, **how)
        opened.append(peer)
        return peer

    yield open_
    for peer in opened:
        peer.close()


@pytest.fixture
def start_register(tmp_path):
    running = []

    def start(**keys):
        running.append(Register(tmp_path, **keys))
        return running[-1]

    yield start
    for register in running:
        register.stop()


@pytest.fixture
def register(start_register):
    return start_register()


def worker(peers, register, key=""):
    peer = peers(register)
    peer.send(event="worker_connect", secret_key=key)
    return peer


def gateway(peers, register, address, key=""):
    peer = peers(register)
    peer.send(event="gateway_connect", address=address, secret_key=key)
    return peer


def test_a_worker_gets_the_empty_list_at_once(register, peers):
    assert worker(peers, register).addresses() == []


def test_a_worker_hears_of_gateways_that_come_and_go(register, peers):
    w = worker(peers, register)
    assert w.addresses() == []
    first = gateway(peers, register, "127.0.0.1:2900")
    assert w.addresses() == ["127.0.0.1:2900"]
    gateway(peers, register, "10.0.0.2:2900")
    assert w.addresses() == ["127.0.0.1:2900", "10.0.0.2:2900"]
    first.close()
    assert w.addresses() == ["10.0.0.2:2900"]
    late = worker(peers, register)
    assert late.addresses() == ["10.0.0.2:2900"]


def test_a_gateway_that_breaks_off_leaves_the_list(register, peers):
    w = worker(peers, register)
    g = gateway(peers, register, "127.0.0.1:2900")
    w.wait_addresses(["127.0.0.1:2900"])
    g.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # RST
    g.close()
    w.wait_addresses([])


def test_an_address_registered_twice_stands_once_and_stays_for_the_other(register, peers):
    one = gateway(peers, register, "127.0.0.1:2900")
    gateway(peers, register, "127.0.0.1:2900")
    w = worker(peers, register)
    w.wait_addresses(["127.0.0.1:2900"])
    one.close()
    wait_for(lambda: "gateway_left" in register.log())
    assert worker(peers, register).addresses() == ["127.0.0.1:2900"]


def test_a_gateway_may_register_anew_with_another_address(register, peers):
    w = worker(peers, register)
    g = gateway(peers, register, "127.0.0.1:2900")
    w.wait_addresses(["127.0.0.1:2900"])
    g.send(event="gateway_connect", address="127.0.0.1:2901", secret_key="")
    w.wait_addresses(["127.0.0.1:2901"])


def test_gateways_hear_nothing(register, peers):
    g = gateway(peers, register, "127.0.0.1:2900")
    gateway(peers, register, "127.0.0.1:2901")
    assert g.is_silent()


def test_ping_is_taken_from_everybody_without_an_answer(register, peers):
    w = worker(peers, register)
    assert w.addresses() == []
    g = gateway(peers, register, "127.0.0.1:2900")
    w.wait_addresses(["127.0.0.1:2900"])
    for peer in (w, g):
        peer.send(event="ping")
        assert peer.is_silent()


def test_several_lines_in_one_packet_and_one_line_in_several(register, peers):
    peer = peers(register)
    peer.send_raw(b'{"event":"ping"}\n{"event":"worker_connect","secret_key":""}\n{"event":"ping"}\n')
    assert peer.addresses() == []
    slow = peers(register)
    for byte in b'{"event":"worker_connect","secret_key":""}\n':
        slow.send_raw(bytes([byte]))
    assert slow.addresses() == []


def test_a_missing_key_is_an_empty_key(register, peers):
    peer = peers(register)
    peer.send(event="worker_connect")
    assert peer.addresses() == []


@pytest.mark.parametrize("key", ["wrong", "", "the-key-and-more", "the-ke"])
@pytest.mark.parametrize("event", ["worker_connect", "gateway_connect"])
def test_a_wrong_key_is_closed_and_never_logged(start_register, peers, event, key):
    register = start_register(secret_key="the-key")
    right = worker(peers, register, "the-key")
    assert right.addresses() == []
    peer = peers(register)
    peer.send(event=event, address="127.0.0.1:2900", secret_key=key)
    assert peer.is_closed()
    register.wait_log("register_wrong_key")
    assert "the-key" not in register.log()
    assert right.is_silent()


def test_the_gateways_key_holds_when_the_register_has_none_of_its_own(tmp_path, peers):
    register = Register(tmp_path, start=False)
    register.sections["gateway"] = {"secret_key": "from-gateway"}
    register.write_config()
    with register.start():
        assert worker(peers, register, "from-gateway").addresses() == []
        assert worker(peers, register, "other").is_closed()


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n",
        b"\n",
        b"[]\n",
        b"{}\n",
        b'{"event":""}\n',
        b'{"event":"unknown"}\n',
        b'{"event":"broadcast_addresses","addresses":["1.2.3.4:5"]}\n',
        b'{"event":"gateway_connect","secret_key":""}\n',
        b'{"event":"gateway_connect","address":"","secret_key":""}\n',
        b'{"event":"gateway_connect","address":"a b","secret_key":""}\n',
        b'{"event":"gateway_connect","address":"' + b"a" * 300 + b'","secret_key":""}\n',
        b'{"event":"gateway_connect","address":{"a":1},"secret_key":""}\n',
        b'{"event":"worker_connect","secret_key":["a"]}\n',
        b"\xff\xfe\x00\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_a_bad_line_is_logged_and_closed(register, peers, line):
    peer = peers(register)
    peer.send_raw(line)
    assert peer.is_closed()
    register.wait_log("register_bad_line")
    assert worker(peers, register).addresses() == []


def test_what_follows_a_bad_line_is_not_looked_at(register, peers):
    w = worker(peers, register)
    assert w.addresses() == []
    peer = peers(register)
    peer.send_raw(b'garbage\n{"event":"gateway_connect","address":"127.0.0.1:2900","secret_key":""}\n')
    assert peer.is_closed()
    assert w.is_silent()


def test_a_line_without_end_is_closed_at_64_kib(register, peers):
    peer = peers(register)
    try:
        for _ in range(100):
            peer.send_raw(b"x" * 4096)
    except OSError:
        pass
    assert peer.is_closed()
    register.wait_log("64 KiB")


def test_a_long_line_below_the_limit_is_fine(register, peers):
    peer = peers(register)
    peer.send(event="worker_connect", secret_key="", padding="x" * 60000)
    assert peer.addresses() == []


def test_a_silent_peer_is_closed(start_register, peers):
    register = start_register(auth_timeout=1)
    peer = peers(register)
    started = time.monotonic()
    assert peer.is_closed()
    assert 0.9 < time.monotonic() - started < 10
    register.wait_log("register_auth_timeout")


def test_pings_alone_do_not_keep_a_peer(start_register, peers):
    register = start_register(auth_timeout=1)
    peer = peers(register)
    peer.send(event="ping")
    assert peer.is_closed()


def test_who_has_named_itself_may_be_silent(start_register, peers):
    register = start_register(auth_timeout=1)
    w = worker(peers, register)
    assert w.addresses() == []
    assert w.is_silent(2.0)


def test_connections_past_the_limit_are_refused(start_register, peers):
    register = start_register(max_connections=2)

    def two_workers():  # the connection that looked whether the register listens may still be there
        try:
            w = [worker(peers, register) for _ in range(2)]
        except OSError:
            return None
        lists = [x.line() for x in w]
        if all(x is not None for x in lists):
            return w
        for x in w:
            x.close()
        return None

    kept = wait_for(two_workers, what="two workers")
    try:
        assert peers(register).is_closed()
    except ConnectionResetError:
        pass  # it was refused before connect returned
    register.wait_log("register_refused")
    kept[0].close()

    def one_more():
        try:
            return worker(peers, register).line() is not None
        except OSError:
            return False

    wait_for(one_more, what="a free place")


def test_a_worker_that_does_not_read_is_closed_and_the_others_go_on(register, peers):
    lazy = peers(register, rcvbuf=4096)
    lazy.send(event="worker_connect", secret_key="")
    reader = worker(peers, register)
    assert reader.addresses() == []
    # 200 gateways of long addresses: every list is tens of KiB.
    many = ["127.0.0.1:%s%d" % ("0" * 200, i) for i in range(200)]
    for address in many:
        gateway(peers, register, address)
    reader.wait_addresses(many)
    changing = gateway(peers, register, "127.0.0.1:1")
    deadline = time.monotonic() + PATIENCE
    turn = 0
    while "register_slow_reader" not in register.log():
        assert time.monotonic() < deadline
        turn += 1
        changing.send(event="gateway_connect", address="127.0.0.1:%d" % turn, secret_key="")
        reader.wait_addresses(many + ["127.0.0.1:%d" % turn])
    assert worker(peers, register).addresses() == many + ["127.0.0.1:%d" % turn]


def test_at_the_end_everybody_is_closed_in_order(start_register, peers):
    register = start_register()
    w = worker(peers, register)
    assert w.addresses() == []
    g = gateway(peers, register, "127.0.0.1:2900")
    w.wait_addresses(["127.0.0.1:2900"])
    idle = peers(register)
    assert register.stop() == 0
    assert all(peer.is_closed() for peer in (w, g, idle))
    assert "register_ended" in register.log()
