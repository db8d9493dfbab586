# SPDX-License-Identifier: MIT
"""Ten thousand clients at once."""

import os
import time

import pytest

from gwproto import ON_CLOSE, ON_CONNECT, ON_WEBSOCKET_CONNECT
from node import raise_file_limit
from proc import wait_for
from wsclient import TEXT, request, server_frame

pytestmark = [pytest.mark.tgg_only, pytest.mark.timeout(240)]

COUNT = 10_000


def open_files(pids):
    return sum(len(os.listdir("/proc/%d/fd" % pid)) for pid in pids)


def test_ten_thousand_clients(start):
    limit = raise_file_limit()
    assert limit >= COUNT + 1000, "the hard limit of open files is too low for this test"
    site = start(gateway={"send_to_worker_buffer_size": 64_000_000})
    worker = site.worker
    site.g.sync()
    shards = site.gateway.shard_pids()
    files_before = open_files(shards)

    clients = []
    for _ in range(COUNT):
        client = site.connect(open=False)
        client.send_bytes(request())
        clients.append(client)
    for client in clients:
        client.finish_handshake()
    by_port = {}
    handshaken = set()
    for _ in range(2 * COUNT):
        event = worker.next()
        if event.cmd == ON_CONNECT:
            assert event.connection_id not in handshaken
            by_port[event.client_port] = event.connection_id
        else:
            assert event.cmd == ON_WEBSOCKET_CONNECT
            handshaken.add(event.connection_id)
    assert len(by_port) == len(handshaken) == len(set(by_port.values())) == COUNT
    assert site.gauge("clients") == COUNT
    assert site.g.group_count() == COUNT

    for number in range(3):
        site.g.send_to_all(b"to everybody %d" % number)
    expected = b"".join(server_frame(TEXT, b"to everybody %d" % number) for number in range(3))
    for client in clients:
        assert client.read_exactly(len(expected), time.monotonic() + 60) == expected

    for client in clients[: COUNT // 2]:
        site.worker.join_group(by_port[client.port], b"half")
    site.worker.send_to_group([b"half"], b"to one half")
    expected = server_frame(TEXT, b"to one half")
    for client in clients[: COUNT // 2]:
        assert client.read_exactly(len(expected), time.monotonic() + 60) == expected
    assert site.per_shard("groups") == [1] * site.shards

    assert len(site.g.all_sessions()) == COUNT

    for client in clients:
        client.close()
    closed = {worker.wait(ON_CLOSE).connection_id for _ in range(COUNT)}
    assert closed == handshaken
    for gauge in ("clients", "groups", "uids", "client_queue_bytes", "parked_bytes"):
        site.wait_gauge(gauge, 0)
    assert site.counter("event_connect") == site.counter("event_close") == COUNT
    assert site.counter("client_accepted") == COUNT
    assert site.g.group_list() == {}
    wait_for(lambda: open_files(shards) == files_before, what="no descriptor left over")


def test_connections_that_come_and_go(start):
    """No descriptor, client or event is lost over many short connections."""
    site = start()
    worker = site.worker
    site.g.sync()
    shards = site.gateway.shard_pids()
    files_before = open_files(shards)
    for round_ in range(20):
        clients = [site.connect("text") for _ in range(100)]
        for client in clients:
            client.send_message(b"x")
        if site.shards > 1:  # one that is reset on its way from shard to shard is never heard of
            for _ in clients:
                worker.wait(ON_CONNECT)
        for i, client in enumerate(clients):
            client.reset() if i % 2 else client.close()
        closed = [worker.wait(ON_CLOSE).connection_id for _ in clients]
        assert len(set(closed)) == 100
        worker.events.clear()
        site.clients.clear()
    site.wait_gauge("clients", 0)
    assert site.counter("event_connect") == site.counter("event_close") == 2000
    wait_for(lambda: open_files(shards) == files_before, what="no descriptor left over")
