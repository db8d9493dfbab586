# SPDX-License-Identifier: MIT
"""Peers that are gone without a word: unplugged, or their network is. tcp_keepalive_* and tcp_user_timeout.

A client is unplugged by a socket filter that drops whatever comes to it: its kernel then neither acknowledges nor
refuses anything, as if it were not there. That needs no privileges and works on the loopback."""

import ctypes
import socket
import struct
import time

import pytest

from gwproto import ON_CLOSE, ON_MESSAGE, PATIENCE
from node import PROTOCOLS
from proc import slow, wait_for

pytestmark = pytest.mark.tgg_only

SO_ATTACH_FILTER = 26
QUICK = {"tcp_keepalive_idle": 1, "tcp_keepalive_interval": 1, "tcp_keepalive_count": 2}
QUICK_S = 3  # idle + interval * count
IN_TIME_S = PATIENCE / 2  # and certainly before the default or anything of the kernel's


def unplug(client):
    """Nothing reaches it any more; what it sends still goes out, but it is not to send anything."""
    drop_all = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K: take 0 bytes
    program = struct.pack("@HP", 1, ctypes.addressof(drop_all))
    client.sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def timer_of(local_port, remote_port):
    """(kind, seconds) of the gateway's end, /proc/net/tcp: kind 2 is keep-alive."""
    with open("/proc/net/tcp") as f:
        for line in f.readlines()[1:]:
            fields = line.split()
            if [int(a.split(":")[1], 16) for a in fields[1:3]] == [local_port, remote_port]:
                kind, ticks = fields[5].split(":")
                return int(kind, 16), int(ticks, 16) / 100
    return None


def gone_after(site, client, began):
    site.worker.wait(ON_CLOSE, client.id)
    return time.monotonic() - began


@pytest.mark.shards(1, 3)
def test_every_connection_is_asked_for_a_sign_of_life(start, shards):
    """Whichever shard has it, and however it came there."""
    site = start()
    for protocol in PROTOCOLS:
        for _ in range(2 * shards):
            client = site.client(protocol)
            port = site.gateway.client_address(protocol)[1]
            kind, seconds = wait_for(lambda: timer_of(port, client.port))
            # With something on the way another timer runs first.
            wait_for(lambda: timer_of(port, client.port)[0] == 2, what="the keep-alive timer")
            kind, seconds = timer_of(port, client.port)
            assert 40 < seconds <= 55, (protocol, kind, seconds)
    link = site.worker.sock.getsockname()[1]
    wait_for(lambda: timer_of(site.gateway.internal_port, link)[0] == 2, what="the keep-alive timer of the link")
    assert timer_of(site.gateway.internal_port, link)[1] <= 55


@pytest.mark.shards(1, 3)
def test_unplugged_clients_are_gone_within_the_stated_time(start, shards):
    """The longer tcp_user_timeout, by default 120 s, does not make it longer."""
    site = start(gateway=QUICK)
    there = site.client("text")
    clients = [site.client(protocol) for protocol in PROTOCOLS]
    began = time.monotonic()
    for client in clients:
        unplug(client)
    for client in clients:
        assert 1 < gone_after(site, client, began) < QUICK_S + IN_TIME_S, client
    site.wait_counter("client_closed_reset", len(clients))
    # Who answers the questions stays.
    there.send_message(b"still here")
    assert site.worker.wait(ON_MESSAGE, there.id).body == b"still here"


def test_no_client_is_given_up_too_early(start):
    site = start(gateway={**QUICK, "tcp_keepalive_count": 5})
    client = site.client()
    began = time.monotonic()
    unplug(client)
    assert 4.5 < gone_after(site, client, began) < 6 + IN_TIME_S


@pytest.mark.parametrize("protocol", ["websocket", "tcp"])
def test_an_unplugged_client_that_is_sent_something(start, protocol):
    """Keep-alive asks nobody who owes an acknowledgement."""
    site = start(gateway={"tcp_user_timeout": 2})
    client, there = site.client(protocol), site.client(protocol)
    unplug(client)
    began = time.monotonic()
    site.g.send_to_one(client.id, b"are you there?")
    site.g.send_to_one(there.id, b"and you?")
    assert 1.5 < gone_after(site, client, began) < 2 + IN_TIME_S
    site.wait_counter("client_closed_reset", 1)
    assert there.read_message() == b"and you?"
    assert site.g.is_online(there.id) == 1


def test_a_client_that_takes_nothing_more(start):
    """As tcp_user_timeout says; slow_reader_policy is for those that read, but not fast enough."""
    site = start(gateway={"tcp_user_timeout": 2, "send_to_client_buffer_size": 100_000_000})
    client = site.client("tcp", rcvbuf=4096)
    began = time.monotonic()
    for _ in range(200):
        site.g.send_to_one(client.id, bytes(50_000))
    assert 1.5 < gone_after(site, client, began) < (2 + IN_TIME_S) * slow()


def test_a_worker_that_does_not_read_for_long_is_busy_not_gone(start):
    site = start(gateway={**QUICK, "tcp_user_timeout": 1})
    worker = site.worker_link(rcvbuf=4096)
    client = site.client("text", worker=worker)
    count = 200
    for number in range(count):
        client.send_message(b"%06d" % number + b"." * 10_000)
    time.sleep(4)  # reading nothing, longer than any of the times
    for number in range(count):
        assert worker.wait(ON_MESSAGE, client.id).body[:6] == b"%06d" % number
    assert site.counter("client_closed_reset") == 0


def test_an_unplugged_worker_is_gone_within_the_stated_time(start):
    site = start(gateway=QUICK)
    worker = site.worker_link()
    wait_for(lambda: site.gauge("workers") == 1)
    unplug(worker)
    began = time.monotonic()
    wait_for(lambda: site.gauge("workers") == 0, QUICK_S + IN_TIME_S, "the worker to be gone")
    assert time.monotonic() - began > 1
