# SPDX-License-Identifier: MIT
"""ping_interval, ping_not_response_limit, ping_data with PHP's meaning, and ping_mode websocket.

With an interval of 1 s PHP's gateway (measured) sends the first heartbeat 1 to 2 s after the connect, then one a
second; with a limit of 1 it looks twice a second, sends one after 1 to 1.5 s and closes half a second later.
"""

import time

import pytest

from gwproto import ON_CLOSE, ON_MESSAGE, PATIENCE
from wsclient import PING, PONG, TEXT

pytestmark = pytest.mark.tgg_only


def test_a_silent_client_is_pinged_every_interval(start):
    site = start(gateway={"ping_interval": 1, "ping_data": '{"type":"ping"}'})
    client, line = site.client(), site.client("text")
    began = time.monotonic()
    for number in range(3):
        got = client.read_frame()
        assert (got.opcode, got.payload) == (TEXT, b'{"type":"ping"}')
        assert number + 0.7 < time.monotonic() - began
        assert line.read_message() == b'{"type":"ping"}'
    assert time.monotonic() - began < 10
    assert site.counter("client_heartbeats_out") >= 6
    assert site.g.is_online(client.id) == 1, "without a limit nobody is closed"


def test_a_client_that_talks_is_not_pinged(start):
    site = start(gateway={"ping_interval": 1, "ping_data": "hb"})
    talker, silent = site.client("text"), site.client("text")
    pings = 0
    while pings < 3:
        talker.send_message(b"x")
        site.worker.wait(ON_MESSAGE, talker.id)
        try:
            assert silent.read_message(timeout=0.2) == b"hb"
            pings += 1
        except TimeoutError:
            pass
    assert not talker.is_ended() and not talker.buffer


def test_past_the_limit_the_client_is_closed(start):
    site = start(gateway={"ping_interval": 1, "ping_not_response_limit": 1, "ping_data": "hb"})
    client = site.client()
    began = time.monotonic()
    assert client.read_message() == b"hb"
    assert site.worker.wait(ON_CLOSE, client.id)
    assert 1.3 < time.monotonic() - began < 10
    assert client.is_ended(within=PATIENCE)
    assert site.counter("client_closed_heartbeat") == 1


def test_a_longer_limit(start):
    site = start(gateway={"ping_interval": 1, "ping_not_response_limit": 2, "ping_data": "hb"})
    client = site.client("text")
    began = time.monotonic()
    assert client.read_message() == client.read_message() == b"hb"
    site.worker.wait(ON_CLOSE, client.id)
    assert 2.3 < time.monotonic() - began < 12
    assert client.is_ended(within=PATIENCE) and not client.buffer


@pytest.mark.parametrize("answer", ["message", "pong", "ping"])
def test_any_byte_of_the_client_counts_as_an_answer(start, answer):
    site = start(gateway={"ping_interval": 1, "ping_not_response_limit": 1, "ping_data": "hb"})
    client, silent = site.client(), site.client()
    began = time.monotonic()
    while time.monotonic() - began < 4:
        got = client.read_frame()
        if got.opcode == PONG:
            continue
        assert got.payload == b"hb"
        if answer == "message":
            client.send_text("I am here")
        else:
            client.send_frame(PONG if answer == "pong" else PING, b"")
    assert site.g.is_online(client.id) == 1
    assert site.g.is_online(silent.id) == 0
    assert site.counter("client_closed_heartbeat") == 1


def test_a_limit_without_ping_data_only_closes(start):
    site = start(gateway={"ping_interval": 1, "ping_not_response_limit": 1})
    client = site.client("text")
    site.worker.wait(ON_CLOSE, client.id)
    client.expect_end()
    assert site.counter("client_heartbeats_out") == 0


def test_ping_mode_websocket(start):
    site = start(gateway={"ping_interval": 1, "ping_data": "hb", "ping_mode": "websocket"})
    client, line = site.client(), site.client("text")
    got = client.read_frame()
    assert (got.opcode, got.fin, got.rsv, got.payload) == (PING, True, 0, b"hb")
    assert line.read_message() == b"hb"


def test_ping_mode_websocket_without_data_sends_an_empty_ping(start):
    site = start(gateway={"ping_interval": 1, "ping_not_response_limit": 2, "ping_mode": "websocket"})
    client = site.client()
    got = client.read_frame()
    assert (got.opcode, got.payload) == (PING, b"")


def test_no_heartbeat_by_default(site):
    client = site.client()
    assert not client.is_ended(within=1.2) and not client.buffer


def test_no_heartbeat_before_the_handshake(start):
    """Nothing but the answer to the handshake may come first."""
    site = start(gateway={"ping_interval": 1, "ping_data": "hb"})
    client, other = site.client(open=False), site.client("text")
    assert other.read_message() == b"hb"
    assert other.read_message() == b"hb"
    client.handshake()
    assert client.read_message() == b"hb"
