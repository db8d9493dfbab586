# SPDX-License-Identifier: MIT
"""The listeners that are not WebSocket: text (lines), frame (u32 total length and payload), tcp (raw)."""

import socket
import struct

import pytest

from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE, PATIENCE
from node import Site
from wsclient import read_until_end


@pytest.fixture(params=["text", "frame", "tcp"])
def protocol(request):
    return request.param


@pytest.fixture
def at(shared):
    """at("text"): a Site whose links speak to the gateway of that listener (PHP has one internal port for each)."""
    sites = []

    def at_(name):
        site_ = shared.site(name)
        sites.append(site_)
        return site_

    yield at_
    for site_ in sites:
        shared.close(site_)


@pytest.fixture(scope="module")
def small_gateway(gateway_factory):
    gateway = gateway_factory(listen={name: {"package_size_max": 1000} for name in ("text", "frame", "tcp")})
    yield gateway
    gateway.stop()


@pytest.fixture
def small(small_gateway):
    site_ = Site(small_gateway).with_worker()
    yield site_
    site_.close()


def body_of(site, client, size):
    """The bytes of as many messages as it takes: tcp has no messages."""
    body = b""
    while len(body) < size:
        body += site.worker.wait(ON_MESSAGE, client.id).body
    return body


# ---- all three


def test_connect_message_close(at, protocol):
    site = at(protocol)
    client = site.client()
    assert (client.event.ext, client.event.body) == (b"", b"")
    assert client.event.gateway_port == site.gateway.client_address(protocol)[1]
    client.send_message(b"hello")
    event = site.worker.wait(ON_MESSAGE, client.id)
    assert (event.body, event.flag) == (b"hello", 1)
    client.close()
    site.worker.wait(ON_CLOSE, client.id)
    assert site.worker.quiet() == []


def test_down(at, protocol):
    site = at(protocol)
    client = site.client()
    site.g.send_to_one(client.id, b"hello")
    assert client.read_message().rstrip() == b"hello"


def test_echo_of_every_size(at, protocol):
    site = at(protocol)
    client = site.client()
    for size in (1, 2, 3, 4, 5, 100, 1000, 65535, 65536, 300_000):
        payload = bytes(i * 7 % 26 + 65 for i in range(size))
        client.send_message(payload)
        body = body_of(site, client, size)
        assert body == payload
        site.g.send_to_one(client.id, body)
        got = client.read_message()
        while len(got) < size:
            got += client.read_message()
        assert got == payload


def test_kick_with_a_body(at, protocol):
    site = at(protocol)
    client = site.client()
    site.g.kick(client.id, b"bye")
    wire = {"text": b"bye\n", "frame": b"\0\0\0\7bye", "tcp": b"bye"}
    assert read_until_end(client) == wire[protocol]
    site.worker.wait(ON_CLOSE, client.id)


def test_kick_with_null(at, protocol):
    site = at(protocol)
    client = site.client()
    site.g.kick(client.id)
    assert read_until_end(client) == b""
    site.worker.wait(ON_CLOSE, client.id)


def test_raw_bodies(at, protocol):
    site = at(protocol)
    client = site.client()
    site.g.send_to_one(client.id, b"as it is\0", raw=True)
    site.g.kick(client.id)
    assert read_until_end(client) == b"as it is\0"


def test_fan_out(at, protocol):
    site = at(protocol)
    clients = [site.client() for _ in range(5)]
    site.g.send_to_all(b"news")
    for client in clients:
        assert client.read_message() == b"news"


@pytest.mark.tgg_only  # ends the PHP process
def test_a_body_that_is_not_a_string_goes_out_as_json(at, protocol):
    site = at(protocol)
    client = site.client()
    site.g.send_to_one(client.id, {"a": [1, None]})
    site.g.kick(client.id)
    wire = b'{"a":[1,null]}'
    assert read_until_end(client) == {"text": wire + b"\n", "frame": struct.pack(">I", 4 + len(wire)) + wire, "tcp": wire}[protocol]


def test_many_messages_in_one_write(at, protocol):
    site = at(protocol)
    client = site.client()
    parts = [b"%05d" % i for i in range(2000)]
    wrap = {"text": lambda b: b + b"\n", "frame": lambda b: struct.pack(">I", len(b) + 4) + b, "tcp": lambda b: b}[protocol]
    client.send_bytes(b"".join(wrap(p) for p in parts))
    if protocol == "tcp":
        assert body_of(site, client, 10_000) == b"".join(parts)
    else:
        for part in parts:
            assert site.worker.wait(ON_MESSAGE, client.id).body == part


def test_reset(at, protocol):
    site = at(protocol)
    client = site.client()
    client.reset()
    site.worker.wait(ON_CLOSE, client.id)


def test_a_message_in_flight_when_the_client_ends(at, protocol):
    """What came before the FIN still counts, if it is whole."""
    site = at(protocol)
    client = site.client()
    client.send_message(b"last words")
    client.close()
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"last words"
    site.worker.wait(ON_CLOSE, client.id)


# ---- text


def test_text_line_ends(at):
    site = at("text")
    client = site.client()
    client.send_bytes(b"one\ntwo\r\nthree\r\r\n\n\r\na\rb\n")
    for line in (b"one", b"two", b"three", b"", b"", b"a\rb"):
        assert site.worker.wait(ON_MESSAGE, client.id).body == line


def test_text_byte_by_byte(at):
    site = at("text")
    client = site.client()
    for byte in b"hello\r\nagain\n":
        client.send_bytes(bytes([byte]))
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"hello"
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"again"


def test_text_is_any_bytes(at):
    site = at("text")
    client = site.client()
    data = bytes(b for b in range(256) if b not in b"\r\n")
    client.send_message(data)
    assert site.worker.wait(ON_MESSAGE, client.id).body == data
    site.g.send_to_one(client.id, data)
    assert client.read_message() == data


def test_text_a_line_that_never_ends_is_no_message(at):
    site = at("text")
    client = site.client()
    client.send_bytes(b"whole\nhalf")
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"whole"
    client.close()
    assert site.worker.wait(connection_id=client.id).cmd == ON_CLOSE


def test_text_empty_body_is_an_empty_line(at):
    site = at("text")
    client = site.client()
    site.g.send_to_one(client.id, b"")
    site.g.kick(client.id)
    assert read_until_end(client) == b"\n"


@pytest.mark.tgg_only
def test_text_limit(small):
    client = small.client("text")
    client.send_message(b"x" * 900)
    assert len(small.worker.wait(ON_MESSAGE, client.id).body) == 900
    client.send_bytes(b"x" * 1100)
    client.expect_end()
    small.worker.wait(ON_CLOSE, client.id)
    small.wait_counter("client_closed_too_big", 1)


# ---- frame


def test_frame_byte_by_byte(at):
    site = at("frame")
    client = site.client()
    for byte in b"\0\0\0\x09hello\0\0\0\x05x":
        client.send_bytes(bytes([byte]))
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"hello"
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"x"


def test_frame_empty_message(at):
    site = at("frame")
    client = site.client()
    client.send_bytes(b"\0\0\0\4\0\0\0\5x")
    assert site.worker.wait(ON_MESSAGE, client.id).body == b""
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"x"
    site.g.send_to_one(client.id, b"")
    assert client.read_message() == b""


@pytest.mark.tgg_only  # PHP waits for ever at 0, and takes 1 to 3 as messages of less than nothing
@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_frame_a_length_less_than_its_own_closes(at, length):
    site = at("frame")
    client = site.client()
    client.send_bytes(struct.pack(">I", length))
    client.expect_end()
    site.worker.wait(ON_CLOSE, client.id)
    site.wait_counter("client_closed_protocol_error", 1)


@pytest.mark.parametrize("length", [10 * 1024 * 1024 + 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_frame_a_length_over_the_limit_closes(at, length):
    site = at("frame")
    client = site.client()
    client.send_bytes(struct.pack(">I", length))
    client.expect_end()
    site.worker.wait(ON_CLOSE, client.id)


@pytest.mark.tgg_only
def test_frame_limit(small):
    client = small.client("frame")
    client.send_message(b"x" * 996)
    assert len(small.worker.wait(ON_MESSAGE, client.id).body) == 996
    client.send_message(b"x" * 997)
    assert client.is_ended(within=PATIENCE)
    small.worker.wait(ON_CLOSE, client.id)
    small.wait_counter("client_closed_too_big", 1)


# ---- tcp


def test_tcp_is_a_stream(at):
    site = at("tcp")
    client = site.client()
    data = bytes(range(256)) * 2000
    client.send_bytes(data)
    assert body_of(site, client, len(data)) == data


def test_tcp_empty_body_is_nothing(at):
    site = at("tcp")
    client = site.client()
    site.g.send_to_one(client.id, b"")
    site.g.send_to_one(client.id, b"x")
    site.g.kick(client.id)
    assert read_until_end(client) == b"x"


def test_tcp_half_closed_clients_are_closed(at):
    """A client that ends its side has gone, as in PHP."""
    site = at("tcp")
    client = site.client()
    client.send_bytes(b"x")
    client.sock.shutdown(socket.SHUT_WR)
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"x"
    site.worker.wait(ON_CLOSE, client.id)
    assert client.is_ended(within=PATIENCE)


def test_no_websocket_connect_for_other_protocols(at, protocol):
    site = at(protocol)
    client = site.client()
    client.send_message(b"GET / HTTP/1.1")
    assert site.worker.wait(connection_id=client.id).cmd == ON_MESSAGE


@pytest.mark.tgg_only
def test_all_listeners_share_one_internal_port(at, protocol):
    site = at("websocket")
    client = site.client(protocol)
    other = site.client("websocket")
    site.g.join_group(client.id, b"g")
    site.g.join_group(other.id, b"g")
    site.g.send_to_group([b"g"], b"x")
    assert client.read_message() == b"x"
    assert other.read_message() == b"x"


def test_connection_ids_differ(at):
    site = at("text")
    ids = {site.client().id for _ in range(50)}
    assert len(ids) == 50 and 0 not in ids


def test_connect_events_precede_messages(at, protocol):
    site = at(protocol)
    clients = [site.connect() for _ in range(20)]
    for client in clients:
        client.send_message(b"first")
    ports = set()
    for _ in range(40):
        event = site.worker.next()
        if event.cmd == ON_CONNECT:
            ports.add(event.client_port)
        else:
            assert event.client_port in ports
    assert len(ports) == 20
