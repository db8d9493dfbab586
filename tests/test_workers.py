# SPDX-License-Identifier: MIT
"""Workers that are not there, come, leave, replace each other, do not read; routing; order; keys; garbage."""

import collections
import json
import os
import random
import signal
import socket
import struct
import time

import pytest

from gwproto import (GET_ALL_CLIENT_SESSIONS, IS_ONLINE, JOIN_GROUP, LEAVE_GROUP, ON_CLOSE, ON_CONNECT, ON_MESSAGE, ON_WEBSOCKET_CONNECT, PATIENCE, SEND_TO_ALL, SEND_TO_GROUP,
                     SEND_TO_ONE, WORKER_CONNECT, LinkClosed, Packet, WorkerLink, packet, to_json)
from node import Site, raise_file_limit
from proc import wait_for
from wsclient import read_until_end, request

pytestmark = [pytest.mark.tgg_only, pytest.mark.shards(1, 3)]

SECRET = "a-Secret_that.must never be logged"


def hearers(workers, count):
    """count messages from any of these workers: {body: worker}."""
    heard = {}
    deadline = time.monotonic() + PATIENCE
    while len(heard) < count:
        assert time.monotonic() < deadline, "%d of %d heard" % (len(heard), count)
        for worker in workers:
            try:
                event = worker.wait(ON_MESSAGE, timeout=0.01)
                heard[event.body] = worker
            except TimeoutError:
                pass
    return heard


def connect_many(site, workers, count, listener="text", **how):
    """Clients one after the other, and for each the worker that it was bound to."""
    bound = []
    for _ in range(count):
        client = site.connect(listener, **how)
        deadline = time.monotonic() + PATIENCE
        while not hasattr(client, "worker"):
            assert time.monotonic() < deadline
            for worker in workers:
                try:
                    event = worker.wait(ON_CONNECT, client_port=client.port, timeout=0.003)
                    client.worker, client.id = worker, event.connection_id
                    break
                except TimeoutError:
                    pass
        bound.append(client)
    return bound


def spread(clients):
    return collections.Counter(client.worker for client in clients)


# ---- no worker


def test_without_a_worker_everything_waits_and_comes_in_order(start):
    site = start()
    client = site.connect()
    for i in range(100):
        client.send_text("%d" % i)
    site.wait_counter("event_parked", 102)
    assert site.gauge("parked_clients") == 1
    assert site.gauge("parked_bytes") > 0
    worker = site.worker_link(sync=False)
    events = [worker.next() for _ in range(102)]
    assert [e.cmd for e in events] == [ON_CONNECT, ON_WEBSOCKET_CONNECT] + [ON_MESSAGE] * 100
    assert [e.body for e in events[2:]] == [b"%d" % i for i in range(100)]
    assert len({e.connection_id for e in events}) == 1
    site.wait_counter("event_unparked", 102)
    assert site.gauge("parked_clients") == site.gauge("parked_bytes") == 0
    client.send_text("after")
    assert worker.next().body == b"after"


def test_many_clients_wait_for_a_worker(start):
    site = start()
    clients = [site.connect("text") for _ in range(50)]
    for i in range(20):
        for client in clients:
            client.send_message(b"%d" % i)
    site.wait_counter("event_parked", 50 * 21)
    workers = [site.worker_link(sync=False)]
    seen = collections.defaultdict(list)
    for _ in range(50 * 21):
        event = workers[0].next()
        seen[event.connection_id].append(event)
    for events in seen.values():
        assert events[0].cmd == ON_CONNECT
        assert [e.body for e in events[1:]] == [b"%d" % i for i in range(20)]
    assert len(seen) == 50


def test_who_leaves_in_silence_before_a_worker_came_is_not_heard_of(start):
    site = start()
    gone, stays = site.connect("text"), site.connect("text")
    site.wait_counter("event_parked", 2)
    gone.close()
    site.wait_gauge("clients", 1)
    worker = site.worker_link(sync=False)
    event = worker.next()
    assert (event.cmd, event.client_port) == (ON_CONNECT, stays.port)
    assert worker.quiet() == []
    assert site.counter("event_forgotten") == 1
    assert site.counter("event_connect") == 1 and site.counter("event_close") == 0


def test_the_words_of_who_left_before_a_worker_came_are_not_lost(start):
    site = start()
    gone, stays = site.connect("text"), site.connect("text")
    gone.send_message(b"last words")
    stays.send_message(b"hello")
    site.wait_counter("event_parked", 4)
    gone.close()
    site.wait_gauge("clients", 1)
    worker = site.worker_link(sync=False)
    events = [worker.next() for _ in range(5)]
    assert [(e.cmd, e.body) for e in events if e.client_port == gone.port] == [(ON_CONNECT, b""), (ON_MESSAGE, b"last words"), (ON_CLOSE, b"")]
    assert [(e.cmd, e.body) for e in events if e.client_port == stays.port] == [(ON_CONNECT, b""), (ON_MESSAGE, b"hello")]
    assert worker.quiet() == []
    assert site.counter("event_connect") == 2 and site.counter("event_close") == 1


def test_a_known_client_that_leaves_while_no_worker_is_there(start):
    """It was announced to one worker; its last words and its end go to the next one."""
    site = start()
    first = site.worker_link()
    client = site.client("text", worker=first)
    first.close()
    site.wait_gauge("workers", 0)
    client.send_message(b"last words")
    client.close()
    site.wait_gauge("clients", 0)
    second = site.worker_link(sync=False)
    events = [second.next(), second.next()]
    assert [(e.cmd, e.body, e.connection_id) for e in events] == [(ON_MESSAGE, b"last words", client.id), (ON_CLOSE, b"", client.id)]
    assert second.quiet() == []
    assert site.counter("event_connect") == site.counter("event_close") == 1


def test_commands_reach_clients_while_no_worker_is_there(start):
    site = start()
    first = site.worker_link()
    client = site.client("text", worker=first)
    first.close()
    site.wait_gauge("workers", 0)
    site.g.send_to_one(client.id, b"from GatewayClient")
    assert client.read_message() == b"from GatewayClient"


def test_after_the_time_without_a_worker_who_spoke_is_closed(start):
    """A client that has said nothing has nothing that waits."""
    site = start(gateway={"no_worker_wait": 1})
    client, silent = site.connect(), site.connect()
    client.send_text("anybody?")
    began = time.monotonic()
    client.expect_close(1013)
    assert time.monotonic() - began > 0.8
    site.wait_counter("client_closed_no_worker", 1)
    worker = site.worker_link(sync=False)
    events = [worker.next(), worker.next()]
    assert [(e.cmd, e.client_port) for e in events] == [(ON_CONNECT, silent.port), (ON_WEBSOCKET_CONNECT, silent.port)]
    assert worker.quiet() == []
    assert site.counter("dropped_no_worker") == 1
    assert site.gauge("parked_bytes") == 0


def test_a_worker_in_time_saves_them(start):
    site = start(gateway={"no_worker_wait": 2})
    client, late = site.connect(), site.connect()
    client.send_text("anybody?")
    worker = site.worker_link(sync=False)
    assert worker.wait(ON_MESSAGE).body == b"anybody?"
    with pytest.raises(TimeoutError):
        late.read_frame(timeout=2.5)
    client.send_text("still there")
    assert worker.wait(ON_MESSAGE).body == b"still there"
    assert site.counter("client_closed_no_worker") == 0


def test_no_time_to_wait_closes_at_the_first_message(start):
    site = start(gateway={"no_worker_wait": 0})
    client = site.connect("text")
    client.send_message(b"anybody?")
    client.expect_end()
    site.wait_counter("client_closed_no_worker", 1)
    assert site.gauge("parked_bytes") == 0


def test_too_much_of_one_client_waits(start):
    site = start(gateway={"no_worker_client_bytes": 20_000})
    talker, other = site.connect(), site.connect()
    other.send_text("little")
    for _ in range(5):
        talker.send_text("x" * 8000)
    talker.expect_close(1013)
    site.wait_counter("client_closed_no_worker", 1)
    worker = site.worker_link(sync=False)
    assert worker.wait(ON_MESSAGE, client_port=other.port).body == b"little"
    other.send_text("more")
    assert worker.wait(ON_MESSAGE, client_port=other.port).body == b"more"
    of_talker = [worker.wait(client_port=talker.port) for _ in range(5)]
    assert [e.cmd for e in of_talker] == [ON_CONNECT, ON_WEBSOCKET_CONNECT, ON_MESSAGE, ON_MESSAGE, ON_CLOSE]


@pytest.mark.shards(1)  # a limit of each shard
def test_too_much_of_all_clients_waits(start):
    site = start(gateway={"no_worker_total_bytes": 50_000})
    clients = [site.connect("text") for _ in range(8)]
    for client in clients[:5]:
        client.send_message(b"x" * 8000)
    site.wait_counter("event_parked", 8 + 5)
    clients[5].send_message(b"y" * 40_000)
    clients[5].expect_end()
    site.wait_counter("client_closed_no_worker", 1)
    worker = site.worker_link(sync=False)
    assert {worker.wait(ON_MESSAGE).body for _ in range(5)} == {b"x" * 8000}


# ---- workers that leave


def test_least_connections(start):
    site = start()
    workers = [site.worker_link() for _ in range(3)]
    clients = connect_many(site, workers, 12)
    assert sorted(spread(clients).values()) == [4, 4, 4]


def test_clients_of_a_worker_that_leaves_are_spread_at_once(start):
    site = start()
    workers = [site.worker_link() for _ in range(3)]
    clients = connect_many(site, workers, 12)
    workers[2].close()
    site.wait_counter("worker_left", 1)
    site.wait_counter("client_rebound", 4)
    for i, client in enumerate(clients):
        client.send_message(b"%d" % i)
    heard = hearers(workers[:2], 12)
    assert collections.Counter(heard.values()) == {workers[0]: 6, workers[1]: 6}
    for i, client in enumerate(clients):
        if client.worker is not workers[2]:
            assert heard[b"%d" % i] is client.worker, "a client whose worker stays, stays with it"
    assert site.counter("event_close") == 0


def test_least_connections_after_a_worker_came_back(start):
    """PHP forgets the silent clients of a worker that comes back under its key."""
    site = start()
    a, b = site.worker_link("a"), site.worker_link("b")
    clients = connect_many(site, [a, b], 10)
    assert spread(clients) == {a: 5, b: 5}
    a.close()
    site.wait_counter("client_rebound", 5)
    a = site.worker_link("a")
    more = connect_many(site, [a, b], 10)
    assert spread(more) == {a: 10}
    more += connect_many(site, [a, b], 2)
    assert spread(more[10:]) == {a: 1, b: 1}
    for client in more[:4]:
        client.close()
        a.wait(ON_CLOSE, client.id)
    assert spread(connect_many(site, [a, b], 4)) == {a: 4}


def test_a_new_worker_takes_only_new_clients(start):
    site = start()
    a = site.worker_link()
    clients = connect_many(site, [a], 6)
    b = site.worker_link()
    assert spread(connect_many(site, [a, b], 6)) == {b: 6}
    for client in clients:
        client.send_message(b"x")
        a.wait(ON_MESSAGE, client.id)


def test_queued_events_of_a_worker_that_leaves_move_to_another(start):
    """Nothing is lost between what the old one was sent and what the new one hears, and the order holds."""
    site = start(gateway={"send_to_worker_buffer_size": 4_000_000})
    old = site.worker_link(rcvbuf=4096)
    client = site.client("text", worker=old)
    count, size = 3000, 1000
    for i in range(count):
        client.send_message(b"%06d" % i + b"." * size)
    site.wait_counter("event_message", count)
    new = site.worker_link(sync=False)
    old.sock.shutdown(socket.SHUT_WR)
    heard_new = []
    while not heard_new or heard_new[-1] != count - 1:
        heard_new.append(int(new.wait(ON_MESSAGE, client.id).body[:6]))
    assert heard_new == list(range(heard_new[0], count))
    site.wait_counter("event_moved", len(heard_new))
    rest = read_until_end(old)
    old.buffer += rest
    old._take_packets()
    heard_old = [int(e.body[:6]) for e in old.events if e.cmd == ON_MESSAGE]
    assert heard_old == list(range(len(heard_old)))
    assert len(heard_old) >= heard_new[0], "messages between the two were lost"
    client.send_message(b"after")
    assert new.wait(ON_MESSAGE).body == b"after"


def test_lifecycle_events_move_too(start):
    site = start(gateway={"send_to_worker_buffer_size": 4_000_000})
    old = site.worker_link(rcvbuf=4096)
    filler = site.client("text", worker=old)
    for _ in range(100):
        filler.send_message(b"x" * 30_000)
    # In front of the others, wherever those are.
    wait_for(lambda: site.counter("link_bytes_out") > 100 * 30_000, what="its messages in the queue of the link")
    clients = [site.connect("tcp") for _ in range(20)]
    site.wait_counter("event_connect", 21)
    for client in clients[:10]:
        client.close()
    site.wait_counter("event_close", 10)
    new = site.worker_link(sync=False)
    old.reset()
    opened, closed = set(), set()
    for _ in range(30):
        event = new.wait()
        while event.cmd == ON_MESSAGE:
            event = new.wait()
        if event.cmd == ON_CONNECT:
            opened.add(event.connection_id)
        else:
            assert event.cmd == ON_CLOSE and event.connection_id in opened
            closed.add(event.connection_id)
    assert len(opened) == 20 and len(closed) == 10


def test_the_same_worker_key_replaces_the_old_link(start):
    site = start()
    old = site.worker_link("twin")
    client = site.client("text", worker=old)
    new = site.worker_link("twin", sync=False)
    old.expect_end()
    site.wait_counter("worker_replaced", 1)
    client.send_message(b"hello")
    assert new.wait(ON_MESSAGE).body == b"hello"
    assert site.gauge("workers") == 1
    assert site.counter("event_close") == 0
    site.connect("text")
    assert new.wait(ON_CONNECT)


def test_a_replaced_worker_that_reads_slowly_still_gets_what_was_written_to_it(start):
    """What the kernel has taken for the old link is not thrown away with it, however long the old worker takes."""
    site = start()
    old = site.worker_link("twin", rcvbuf=4096)
    client = site.client("text", worker=old)
    count = 300
    for i in range(count):
        client.send_message(b"%06d" % i + b"." * 1000)
    site.wait_counter("event_message", count)
    new = site.worker_link("twin", sync=False)
    site.wait_counter("worker_replaced", 1)
    site.wait_gauge("links", 1, timeout=PATIENCE)  # past the time that the old one is given to close
    rest = read_until_end(old)
    old.buffer += rest
    old._take_packets()
    heard = [int(e.body[:6]) for e in old.events if e.cmd == ON_MESSAGE]
    client.send_message(b"%06d" % count)
    while not heard or heard[-1] != count:
        heard.append(int(new.wait(ON_MESSAGE, client.id).body[:6]))
    assert heard == list(range(count + 1))


def test_workers_of_other_hosts_may_have_the_same_key(start):
    site = start(gateway={"inner_listen": "0.0.0.0"})
    one = site.worker_link("twin", source="127.0.0.1")
    two = site.worker_link("twin", source="127.0.0.2")
    assert spread(connect_many(site, [one, two], 4)) == {one: 2, two: 2}
    assert site.gauge("workers") == 2


def test_commands_of_a_worker_that_ends_at_once_are_carried_out(start):
    site = start()
    worker = site.worker_link()
    client = site.client("text", worker=worker)
    worker.send_bytes(b"".join(packet(SEND_TO_ONE, client.id, body=b"%d" % i).encode() for i in range(500)))
    worker.close()
    for i in range(500):
        assert client.read_message() == b"%d" % i


# ---- workers that do not read


def push_until_blocked(client, body, seconds=1.5):
    """Send until nothing more is taken for so long; the number of whole messages that went out."""
    client.sock.setblocking(False)
    data, sent = body + b"\n", 0
    last = time.monotonic()
    rest = b""
    while time.monotonic() - last < seconds:
        try:
            rest = rest or data
            done = client.sock.send(rest)
            last = time.monotonic()
            rest = rest[done:]
            sent += not rest
        except BlockingIOError:
            time.sleep(0.01)
    client.sock.settimeout(PATIENCE)
    client.unsent = rest
    return sent


def test_a_worker_that_does_not_read_pauses_its_own_clients_only(start):
    site = start(gateway={"send_to_worker_buffer_size": 65536})
    slow, fast = site.worker_link(rcvbuf=4096), site.worker_link()
    clients = connect_many(site, [slow, fast], 2)
    stuck = next(c for c in clients if c.worker is slow)
    lively = next(c for c in clients if c.worker is fast)
    body = b"x" * 8000
    sent = push_until_blocked(stuck, body)
    assert sent > 0 and site.counter("worker_paused") >= 1
    for i in range(200):
        lively.send_message(b"%d" % i)
        assert fast.wait(ON_MESSAGE).body == b"%d" % i
        fast.send_to_one(lively.id, b"echo")
        assert lively.read_message() == b"echo"
    site.g.send_to_one(stuck.id, b"you too")
    assert stuck.read_message() == b"you too"
    for _ in range(sent):
        assert slow.wait(ON_MESSAGE, stuck.id).body == body
    stuck.send_bytes(stuck.unsent or b"y\n")
    assert slow.wait(ON_MESSAGE, stuck.id).body in (body, b"y")
    assert not stuck.is_ended()


def test_clients_that_come_and_go_do_not_fill_the_queue_of_a_worker_that_does_not_read(start):
    """ON_CONNECT and ON_CLOSE pass its limit, but not without end; who is heard of at all has both."""
    limit = 65536
    site = start(gateway={"send_to_worker_buffer_size": limit, "ring_size": 65536})  # rings are on top of the limit
    worker = site.worker_link(rcvbuf=4096)
    talker = site.client("text", worker=worker)
    sent = push_until_blocked(talker, b"x" * 8000)
    for _ in range(200):
        comers = [site.connect("text") for _ in range(50)]
        for comer in comers:
            comer.reset()
        if site.counter("client_closed_worker_slow") > 100:
            break
    assert site.counter("client_closed_worker_slow") > 100
    site.wait_gauge("clients", 1)
    heard = collections.Counter()
    expected = site.counter("client_accepted") - 1 - site.counter("client_closed_worker_slow")
    while heard[ON_CLOSE] < expected or heard[ON_MESSAGE] < sent:
        event = worker.wait()
        heard[event.cmd] += 1
    assert heard[ON_CONNECT] == heard[ON_CLOSE] == expected
    assert heard[ON_MESSAGE] == sent > 0


def test_one_client_that_floods_does_not_hold_up_the_turn(start):
    """A read may hold tens of thousands of tiny messages; they are handed over in slices, whole and in order."""
    site = start(gateway={"turn_max": 1})
    worker = site.worker_link()
    client = site.client("frame", worker=worker)
    count = 60_000
    client.send_bytes(b"".join(struct.pack(">II", 8, i) for i in range(count)))
    for i in range(count):
        assert worker.wait(ON_MESSAGE).body == struct.pack(">I", i)


def test_a_handshake_waits_for_a_worker_that_does_not_read(start):
    # A turn as long as a busy machine makes it: what one shard reads in it must not pass the limits of its worker.
    gateway = {"send_to_worker_buffer_size": 65536, "ring_size": 65536, "turn_max": 500}
    site = start(gateway=gateway, listen={"websocket": {"handshake_timeout": 1}})
    slow = site.worker_link(rcvbuf=4096)
    push_until_blocked(site.client("text", worker=slow), b"x" * 8000)
    late = site.connect("websocket", open=False)
    late.send_bytes(request())
    assert not late.is_ended(within=2.5) and not late.buffer
    while slow.next().cmd != ON_WEBSOCKET_CONNECT:
        pass
    late.finish_handshake()
    assert site.counter("client_closed_handshake_timeout") == 0


def test_a_paused_client_that_leaves_has_its_close(start):
    site = start(gateway={"send_to_worker_buffer_size": 65536})
    slow = site.worker_link(rcvbuf=4096)
    client = site.client("text", worker=slow)
    sent = push_until_blocked(client, b"x" * 8000)
    client.reset()
    site.wait_gauge("clients", 0)
    while True:
        event = slow.next()
        if event.cmd == ON_CLOSE:
            break
        assert event.cmd == ON_MESSAGE
        sent -= 1
    assert event.connection_id == client.id
    assert slow.quiet() == []


def test_clients_of_a_paused_worker_go_on_when_it_leaves(start):
    site = start(gateway={"send_to_worker_buffer_size": 65536, "ring_size": 65536})
    slow = site.worker_link(rcvbuf=4096)
    client = site.client("text", worker=slow)
    push_until_blocked(client, b"x" * 8000)
    other = site.worker_link()
    slow.reset()
    client.send_bytes(client.unsent + b"end\n")
    while other.wait(ON_MESSAGE, client.id).body != b"end":
        pass


def test_policy_close(start):
    site = start(gateway={"send_to_worker_buffer_size": 65536, "worker_backpressure": "close"})
    slow, fast = site.worker_link(rcvbuf=4096), site.worker_link()
    clients = connect_many(site, [slow, fast], 2, "websocket")
    stuck = next(c for c in clients if c.worker is slow)
    lively = next(c for c in clients if c.worker is fast)
    try:
        for _ in range(4000):
            stuck.send_text("x" * 8000)
    except OSError:
        pass
    site.wait_counter("client_closed_worker_slow", 1)
    lively.send_text("hello")
    assert fast.wait(ON_MESSAGE).body == b"hello"
    event = slow.wait(ON_CLOSE)
    assert event.connection_id == stuck.id


# ---- routers


@pytest.mark.shards(1)  # each shard goes round for itself, see test_shards.py
def test_round_robin(start):
    site = start(gateway={"router": "round_robin"})
    workers = [site.worker_link() for _ in range(3)]
    clients = connect_many(site, workers, 9)
    order = [client.worker for client in clients]
    assert len(set(order[:3])) == 3
    assert order[3:6] == order[:3] and order[6:] == order[:3]


def test_random_router(start):
    site = start(gateway={"router": "random"})
    workers = [site.worker_link() for _ in range(2)]
    counts = spread(connect_many(site, workers, 120))
    assert min(counts.values()) > 25, counts
    order = [c.worker for c in site.clients]
    assert any(order[i] is order[i + 1] for i in range(100)), "it alternates"


def test_client_hash_router(start):
    site = start(gateway={"router": "client_hash"}, listen={"text": {"address": "0.0.0.0"}})
    workers = [site.worker_link() for _ in range(4)]
    of_address = {}
    for _ in range(3):
        for i in range(2, 34):
            address = "127.0.0.%d" % i
            (client,) = connect_many(site, workers, 1, source=address)
            assert of_address.setdefault(address, client.worker) is client.worker
    assert len(set(of_address.values())) >= 3


@pytest.mark.parametrize("router", ["random", "round_robin", "client_hash"])
def test_a_client_stays_with_its_worker(start, router):
    site = start(gateway={"router": router})
    workers = [site.worker_link() for _ in range(3)]
    clients = connect_many(site, workers, 6)
    for _ in range(5):
        for client in clients:
            client.send_message(b"x")
            client.worker.wait(ON_MESSAGE, client.id)


# ---- order


def test_nothing_overtakes_a_fan_out(start):
    """3,000 clients: a send to their group, then more to each of them on the same link. The order holds at every client."""
    raise_file_limit()
    site = start(gateway={"turn_max": 1})
    worker = site.worker
    clients = [site.connect("text") for _ in range(3000)]
    by_port = {client.port: client for client in clients}
    for _ in clients:
        event = worker.wait(ON_CONNECT)
        by_port[event.client_port].id = event.connection_id
    stream = [packet(JOIN_GROUP, client.id, ext=b"room") for client in clients]
    stream.append(packet(SEND_TO_GROUP, ext=b'{"group":["room"],"exclude":null}', body=b"1 " + b"x" * 500))
    stream += [packet(SEND_TO_ONE, client.id, body=b"2") for client in clients]
    stream.append(packet(SEND_TO_ALL, body=b"3"))
    stream += [packet(LEAVE_GROUP, client.id, ext=b"room") for client in clients[:1500]]
    stream.append(packet(SEND_TO_GROUP, ext=b'{"group":["room"],"exclude":null}', body=b"4"))
    stream.append(packet(SEND_TO_ALL, ext=to_json({"exclude": {str(c.id): c.id for c in clients[1500:]}}), body=b"5"))
    stream += [packet(SEND_TO_ONE, client.id, body=b"6") for client in clients]
    worker.send_bytes(b"".join(p.encode() for p in stream))
    for number, client in enumerate(clients):
        expected = [b"1", b"2", b"3", b"5" if number < 1500 else b"4", b"6"]
        assert [client.read_message()[:1] for _ in expected] == expected
    assert site.counter("fanouts") == 4


def test_a_query_after_a_fan_out_is_answered_after_it(start):
    raise_file_limit()
    site = start(gateway={"turn_max": 1})
    worker = site.worker
    clients = [site.connect("tcp") for _ in range(2000)]
    for _ in clients:
        worker.wait(ON_CONNECT)
    for i in range(20):
        site.g.send_to_all(b"x" * 100)
        assert site.g.is_online(1) == 0
    assert len(site.g.all_sessions()) == 2000
    assert site.counter("client_messages_out") == 40_000
    assert site.g.group_count() == 2000


def test_two_links_do_not_wait_for_each_other(start):
    """One link's long fan-outs do not keep another's queries from being answered."""
    raise_file_limit()
    site = start(gateway={"turn_max": 1})
    worker = site.worker
    clients = [site.connect("tcp") for _ in range(1000)]
    for _ in clients:
        worker.wait(ON_CONNECT)
    other = site.client_link()
    other.sync()
    before = site.counter("fanouts")
    site.g.send_bytes(b"".join(packet(SEND_TO_ALL, body=b"x" * 10).encode() for _ in range(300)))
    for _ in range(5):
        assert other.is_online(0) == 0
    site.g.sync()
    assert site.counter("fanouts") - before == 300


# ---- the secret key


def test_the_right_key(start):
    site = start(gateway={"secret_key": SECRET})
    worker = site.worker_link(secret_key=SECRET)
    client = site.client("text", worker=worker)
    with_key = site.client_link(secret_key=SECRET)
    assert with_key.is_online(client.id) == 1
    worker.send_to_one(client.id, b"x")
    assert client.read_message() == b"x"
    assert SECRET not in site.gateway.log()
    assert site.counter("link_unauthorized") == 0


@pytest.mark.parametrize("body", [
    {"worker_key": "w", "secret_key": "wrong"}, {"worker_key": "w", "secret_key": ""}, {"worker_key": "w"}, {"worker_key": "w", "secret_key": None},
    {"worker_key": "w", "secret_key": [SECRET]}, {"worker_key": "w", "secret_key": SECRET + "x"}, {"worker_key": "w", "secret_key": SECRET[:-1]},
    {"worker_key": "w", "secret_key": 0}, [], "x", None], ids=repr)
@pytest.mark.parametrize("cmd", [WORKER_CONNECT, 202])
def test_a_wrong_key_closes_the_link(key_site, body, cmd):
    site = key_site
    link = site.worker_link(connect=False, sync=False)
    link.send_packet(packet(cmd, body=json.dumps(body)))
    link.expect_end()
    site.wait_counter("link_unauthorized", 1)
    assert site.gauge("workers") == 0
    assert SECRET not in site.gateway.log()


@pytest.fixture(scope="module")
def key_gateway(gateway_factory):
    gateway = gateway_factory(gateway={"secret_key": SECRET, "worker_auth_timeout": 1})
    yield gateway
    gateway.stop()


@pytest.fixture
def key_site(key_gateway):
    site_ = Site(key_gateway)
    yield site_
    site_.close()


@pytest.mark.parametrize("cmd", [1, 5, 6, 7, 8, 9, 10, 11, 14, 20, 22, 25, 26, 201, 203, 204, 99])
def test_nothing_is_accepted_before_the_key(key_site, cmd):
    site = key_site
    worker = site.worker_link(secret_key=SECRET)
    client = site.client("text", worker=worker)
    link = site.client_link()
    link.send_packet(packet(cmd, client.id, ext=b"x", body=b"x"))
    link.expect_end()
    site.wait_counter("link_unauthorized", 1)
    good = site.client_link(secret_key=SECRET)
    assert good.is_online(client.id) == 1
    assert good.session_bytes(client.id) == b"a:0:{}"
    assert not client.is_ended() and not client.buffer


def test_a_key_and_a_command_in_one_write(key_site):
    """As GatewayClient writes them."""
    link = key_site.client_link()
    link.send_bytes(packet(202, body=json.dumps({"secret_key": SECRET})).encode() + packet(IS_ONLINE, 0).encode())
    assert link.read_reply() == b"i:0;"


@pytest.mark.parametrize("data", [b"", b"\0\0\0\x1c", packet(202, body=b"x" * 100).encode()[:-1]], ids=["silent", "half a head", "half a packet"])
def test_a_link_that_does_not_show_the_key_in_time_is_closed(key_site, data):
    site = key_site
    link = site.client_link()
    link.send_bytes(data)
    began = time.monotonic()
    link.expect_end()
    assert time.monotonic() - began > 0.8
    site.wait_counter("link_unauthorized", 1)


def test_an_authorized_link_may_be_silent(key_site):
    link = key_site.client_link(secret_key=SECRET)
    link.sync()
    silent = key_site.client_link()
    silent.expect_end()
    link.sync()


def test_without_a_key_a_link_may_be_silent(site):
    assert not site.client_link().is_ended(within=0.2)


def test_a_worker_without_a_key_is_refused_where_none_is_set(site):
    """PHP compares with !==: somebody who has a key is not who is meant here."""
    link = site.worker_link(connect=False, sync=False)
    link.send_packet(packet(WORKER_CONNECT, body=json.dumps({"worker_key": "w", "secret_key": "some key"})))
    link.expect_end()
    site.wait_counter("link_unauthorized", 1)


# ---- garbage

GARBAGE = {
    "length 0": struct.pack(">I", 0) + b"x" * 40,
    "length 27": struct.pack(">I", 27) + b"x" * 40,
    "length too large": struct.pack(">I", 10485761) + b"x" * 40,
    "length 4 GB": b"\xff" * 40,
    "ext longer than the packet": Packet(SEND_TO_ONE, 1, b"", b"").encode()[:24] + struct.pack(">I", 1),
    "ext of 4 GB": Packet(SEND_TO_ONE, 1, b"", b"").encode()[:24] + b"\xff\xff\xff\xff",
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"x" * 100,
}


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.parametrize("after_connect", [False, True], ids=["stranger", "worker"])
def test_garbage_closes_that_link_only_and_is_logged_with_the_sender(site, name, after_connect):
    client = site.client("text")
    link = site.worker_link(connect=after_connect, sync=after_connect)
    port = link.sock.getsockname()[1]
    link.send_bytes(GARBAGE[name])
    assert link.is_ended(within=PATIENCE)
    site.wait_counter("link_bad_packet", 1)
    site.gateway.wait_log("127.0.0.1:%d" % port)
    client.send_message(b"undisturbed")
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"undisturbed"
    site.g.sync()


def test_random_bytes(site):
    rng = random.Random(3)
    for _ in range(30):
        link = site.client_link()
        try:
            link.send_bytes(b"\0\0" + rng.randbytes(2000))
        except OSError:
            pass
        link.close()
    site.g.sync()


def test_half_a_packet_waits_and_the_rest_completes_it(site):
    client = site.client("text")
    data = packet(SEND_TO_ONE, client.id, body=b"whole").encode()
    half = site.client_link()
    half.send_bytes(data[:30])
    for _ in range(20):
        site.g.sync()
    half.send_bytes(data[30:])
    assert client.read_message() == b"whole"


def test_a_link_that_ends_in_half_a_packet(site):
    client = site.client("text")
    half = site.worker_link()
    half.send_bytes(packet(SEND_TO_ONE, client.id, body=b"whole").encode() + packet(SEND_TO_ONE, client.id, body=b"never whole").encode()[:-1])
    half.close()
    assert client.read_message() == b"whole"
    site.wait_counter("worker_left", 1)
    site.g.send_to_one(client.id, b"next")
    assert client.read_message() == b"next"


def test_worker_packet_size_max(start):
    site = start(gateway={"worker_packet_size_max": 2048})
    client = site.client("text")
    site.g.send_packet(packet(SEND_TO_ONE, client.id, body=b"x" * (2048 - 28)))
    assert client.read_message() == b"x" * (2048 - 28)
    site.g.send_packet(packet(SEND_TO_ONE, client.id, body=b"x" * (2049 - 28)))
    assert site.g.is_ended(within=PATIENCE)
    site.wait_counter("link_bad_packet", 1)


def test_a_message_that_no_worker_would_take_closes_its_client_only(start):
    """A PHP worker drops its link at the head of such a packet; handed on, it would end one worker after the other."""
    site = start(gateway={"worker_packet_size_max": 2048})
    client, other = site.client("frame"), site.client("text")
    largest = b"x" * (2048 - 28)
    client.send_message(largest)
    assert site.worker.wait(ON_MESSAGE, client.id).body == largest
    site.g.set_session(client.id, b"s" * 100)
    site.g.sync()
    client.send_message(b"x" * (2048 - 28 - 100))
    assert len(site.worker.wait(ON_MESSAGE, client.id).ext) == 100
    client.send_message(b"x" * (2048 - 28 - 99))
    client.expect_end()
    site.worker.wait(ON_CLOSE, client.id)
    assert site.counter("client_closed_too_big") == 1
    other.send_message(b"still there")
    assert site.worker.wait(ON_MESSAGE, other.id).body == b"still there"


def test_a_session_may_not_grow_past_what_a_worker_takes(start):
    site = start(gateway={"worker_packet_size_max": 2048})
    client = site.client("text")
    site.g.set_session(client.id, {"a": "x" * 1500})
    site.g.update_session(client.id, {"b": "y" * 1500})
    assert len(site.g.session_bytes(client.id)) < 2000
    assert site.counter("command_refused") == 1


def test_a_link_that_is_reset_while_its_replies_pile_up_is_let_go(start):
    site = start(gateway={"send_to_worker_buffer_size": 65536})
    for _ in range(3):
        site.g.set_session(site.client("tcp").id, b"s" * 60000)
    site.g.sync()
    links = site.gauge("links")
    link = site.client_link()
    link.sync()
    # Questions and RST are to be there at once, so that the reply meets the reset.
    shards = site.gateway.shard_pids()
    for shard in shards:
        os.kill(shard, signal.SIGSTOP)
    for _ in range(5):
        link.send_packet(packet(GET_ALL_CLIENT_SESSIONS))
    link.reset()
    for shard in shards:
        os.kill(shard, signal.SIGCONT)
    site.wait_gauge("links", links)


def test_worker_connect_with_nonsense_closes_or_is_refused(site):
    for body in (b"", b"{", b"[]", b"null", b'"x"', b'{"worker_key":[1],"secret_key":""}'):
        link = site.worker_link(connect=False, sync=False)
        link.send_packet(packet(WORKER_CONNECT, body=body))
        link.send_packet(packet(IS_ONLINE, 0))
        wait_for(lambda: link.is_ended(within=0.02) or link.buffer, what="an answer or the end")
        assert site.gauge("workers") == 1, body
        link.close()
    site.g.sync()


def test_a_worker_that_floods_and_never_reads_does_not_stop_the_others(start):
    """Replies that nobody takes pile up within limits; everybody else is served."""
    site = start()
    client = site.client("text")
    site.g.set_session(client.id, b"s" * 100_000)
    site.g.sync()
    flood = site.client_link(rcvbuf=4096)
    flood.sock.setblocking(False)
    query = packet(203, client.id).encode() * 50
    try:
        for _ in range(200):
            flood.sock.send(query)
    except (BlockingIOError, ConnectionError):
        pass
    for i in range(100):
        client.send_message(b"%d" % i)
        assert site.worker.wait(ON_MESSAGE).body == b"%d" % i
        site.g.sync()
    flood.close()


def test_pings_to_workers_when_lan_ip_is_not_localhost(start):
    site = start(gateway={"lan_ip": "127.0.0.2", "worker_ping_interval": 1})
    link = WorkerLink(("127.0.0.2", site.gateway.internal_port), "w")
    site.links.append(link)
    data = link.read_exactly(28, time.monotonic() + PATIENCE)
    event = Packet.decode(data)
    assert event.cmd == 201 and event.body == b"" and event.ext == b""
    client = site.connect("text")
    assert link.wait(ON_CONNECT, client_port=client.port).client_id.startswith("7f000002")


def test_the_link_closes_when_the_gateway_ends(start):
    site = start()
    worker = site.worker
    site.gateway.stop()
    with pytest.raises(LinkClosed):
        worker.next()


# ---- faults of the past, in words


def test_clients_are_spread_evenly_when_all_workers_were_gone(start):
    """The first worker to come back does not get everybody: its fellows come within moments."""
    site = start()
    first = site.worker_link()
    clients = [site.client("text", worker=first) for _ in range(200)]
    first.close()
    site.wait_counter("worker_left", 1)
    workers = []
    for _ in range(4):
        workers.append(site.worker_link(sync=False))
        time.sleep(0.07)
    site.wait_counter("client_rebound", 200)
    for number, client in enumerate(clients):
        client.send_message(b"%d" % number)
    heard = collections.Counter(hearers(workers, 200).values())
    assert [49 <= heard[worker] <= 51 for worker in workers] == [True] * 4, heard.values()


def test_questions_behind_answers_that_piled_up_are_answered(start):
    """One link asks for more than its buffer holds, in one write, and reads only then."""
    site = start(gateway={"send_to_worker_buffer_size": 65536})
    client = site.client("text")
    session = b"s" * 40_000
    questions = [packet(203, client.id).encode()] * 200 + [packet(IS_ONLINE, client.id).encode()]
    site.g.send_bytes(packet(204, client.id, ext=session).encode() + b"".join(questions))
    for _ in range(200):
        assert session in site.g.read_reply()
    assert site.g.read_reply() == b"i:1;"


@pytest.mark.parametrize("client_too", [False, True])
def test_the_only_worker_ends_while_its_client_is_paused(start, client_too):
    """What the client has sent is more than may wait without a worker: it is closed while it is being resumed."""
    site = start(gateway={"send_to_worker_buffer_size": 65536, "no_worker_client_bytes": 1000})
    slow = site.worker_link(rcvbuf=4096)
    client = site.client("text", worker=slow)
    push_until_blocked(client, b"x" * 4000)
    if client_too:
        client.close()
    slow.reset()
    site.wait_gauge("clients", 0)
    site.wait_gauge("workers", 0)
    assert site.worker_link(sync=False).wait(ON_CLOSE, client.id)


def test_a_worker_key_writes_no_lines_of_its_own_into_the_log(start):
    site = start()
    site.worker_link('a"\n2026-01-01T00:00:00.000Z error shard-0 forged x="')
    site.gateway.wait_log("worker_connected")
    lines = [line for line in site.gateway.log().splitlines() if "forged" in line]
    assert lines and all("worker_connected" in line for line in lines)


def test_what_waits_for_a_worker_that_does_not_read_keeps_nobody_busy(start):
    site = start(gateway={"send_to_worker_buffer_size": 65536, "no_worker_client_bytes": "60m"})
    clients = [site.connect("text") for _ in range(4)]
    for client in clients:
        client.send_bytes((b"m" * 4000 + b"\n") * 1500)
    site.wait_counter("event_parked", 4 + 4 * 1500)
    worker = site.worker_link(sync=False, rcvbuf=4096)
    site.wait_counter("worker_paused", 1)
    time.sleep(0.3)
    turns = site.gateway.turns()
    time.sleep(1)
    assert site.gateway.turns() - turns < 100 * site.shards
    assert sum(worker.next().cmd == ON_MESSAGE for _ in range(4 + 4 * 1500)) == 4 * 1500
    assert site.gauge("parked_bytes") == 0
