# SPDX-License-Identifier: MIT
"""Clients that do not read: the limit in bytes, what each policy does at it, and that it is counted."""

import pytest

from gwproto import ON_CLOSE, PATIENCE, LinkClosed
from wsclient import CLOSE, PING, PONG, TEXT, close_payload

pytestmark = pytest.mark.tgg_only

SIZE = 8000
COUNT = 1500  # more than the kernel's buffers and the limit take together
LIMIT = 100_000


def message(number):
    return b"%06d" % number + b"." * (SIZE - 6)


def flood(site, client, first=0):
    for number in range(first, first + COUNT):
        site.g.send_to_one(client.id, message(number))
    site.g.sync()


@pytest.fixture
def slow(start):
    """slow(policy, listener): a site and a client that does not read, flooded."""
    def slow_(policy, listener="websocket"):
        site = start(gateway={"send_to_client_buffer_size": LIMIT, "slow_reader_policy": policy}, listen={"websocket": {"close_timeout": 1}})
        client = site.client(listener, rcvbuf=4096)
        flood(site, client)
        return site, client

    return slow_


def drain(site, client, dropped):
    """Every message that was not dropped."""
    numbers = []
    for _ in range(COUNT - dropped):
        got = client.read_message()
        assert got == message(int(got[:6]))
        numbers.append(int(got[:6]))
    return numbers


@pytest.mark.parametrize("listener", ["websocket", "text", "frame"])
def test_drop_newest(slow, listener):
    site, client = slow("drop_newest", listener)
    dropped = site.counter("dropped_slow_reader_newest")
    assert 0 < dropped < COUNT
    assert site.gauge("client_queue_bytes") <= LIMIT + SIZE + 100
    assert drain(site, client, dropped) == list(range(COUNT - dropped))
    site.g.send_to_one(client.id, b"end")
    assert client.read_message() == b"end"
    assert site.counter("dropped_slow_reader_newest") == dropped
    assert site.g.is_online(client.id) == 1


@pytest.mark.parametrize("listener", ["websocket", "text", "frame"])
def test_drop_oldest(slow, listener):
    site, client = slow("drop_oldest", listener)
    dropped = site.counter("dropped_slow_reader_oldest")
    assert 0 < dropped < COUNT
    assert site.gauge("client_queue_bytes") <= LIMIT + SIZE + 100
    numbers = drain(site, client, dropped)
    assert numbers == sorted(numbers)
    assert numbers[-1] == COUNT - 1, "the newest is never dropped"
    gap = next(i for i, n in enumerate(numbers) if n != i)
    assert numbers[gap:] == list(range(COUNT - (len(numbers) - gap), COUNT)), "what was dropped stood together"
    site.g.send_to_one(client.id, b"end")
    assert client.read_message() == b"end"


def test_close(slow):
    site, client = slow("close")
    site.wait_counter("client_closed_slow_reader", 1)
    site.worker.wait(ON_CLOSE, client.id)
    assert site.g.is_online(client.id) == 0
    number, code = 0, None
    while not client.is_ended(within=0.5) or client.buffer:
        try:
            got = client.read_frame()
        except LinkClosed:
            break
        if got.opcode == CLOSE:
            code = got.code
            break
        assert got.payload == message(number)
        number += 1
    assert code in (None, 1008)


@pytest.mark.parametrize("policy, counter", [("drop_newest", "dropped_slow_reader_newest"), ("drop_oldest", "dropped_slow_reader_oldest")])
def test_control_frames_are_never_dropped(slow, policy, counter):
    site, client = slow(policy)
    assert site.counter(counter) > 0
    for i in range(5):
        client.send_frame(PING, b"%d" % i)
    site.wait_counter("client_pings_in", 5)
    flood(site, client)
    pongs = []
    while len(pongs) < 5:
        got = client.read_frame()
        if got.opcode == PONG:
            pongs.append(got.payload)
        else:
            assert got.opcode == TEXT and len(got.payload) == SIZE
    assert pongs == [b"%d" % i for i in range(5)]


def test_a_close_is_answered_behind_a_full_queue(slow):
    site, client = slow("drop_newest")
    client.send_frame(CLOSE, close_payload(1000))
    while True:
        got = client.read_frame()
        if got.opcode == CLOSE:
            break
    assert got.code == 1000
    client.expect_end()
    assert site.worker.wait(ON_CLOSE, client.id)


def test_kick_of_a_client_that_does_not_read(start):
    """It gets close_timeout to take what is queued, then it is closed all the same."""
    site = start(gateway={"slow_reader_policy": "drop_newest", "send_to_client_buffer_size": LIMIT}, listen={"text": {"close_timeout": 1}})
    client = site.client("text", rcvbuf=4096)
    flood(site, client)
    site.g.kick(client.id, b"bye")
    assert site.worker.wait(ON_CLOSE, client.id)
    site.wait_gauge("clients", 0)
    site.wait_gauge("client_queue_bytes", 0)


def test_a_slow_reader_in_a_fan_out_harms_nobody_else(start):
    site = start(gateway={"send_to_client_buffer_size": LIMIT, "slow_reader_policy": "drop_newest"})
    slow_, readers = site.client(rcvbuf=4096), [site.client() for _ in range(3)]
    for number in range(COUNT):
        site.g.send_to_all(message(number))
        for reader in readers:
            assert reader.read_message() == message(number)
    assert site.counter("dropped_slow_reader_newest") > 0
    assert site.g.is_online(slow_.id) == 1


def test_the_queue_is_freed_with_the_client(slow):
    site, client = slow("drop_newest")
    assert site.gauge("client_queue_bytes") > 0
    client.reset()
    site.worker.wait(ON_CLOSE, client.id, timeout=PATIENCE)
    site.wait_gauge("client_queue_bytes", 0)
