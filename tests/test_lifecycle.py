# SPDX-License-Identifier: MIT
"""Exactly one ON_CONNECT, first, and exactly one ON_CLOSE, last, however a client ends; each end counted by its reason."""

import collections
import random
import signal

import pytest

from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE, ON_WEBSOCKET_CONNECT, PATIENCE, LinkClosed
from node import Site
from proc import wait_for
from phpvalue import serialize
from wsclient import CLOSE, TEXT, frame, request

pytestmark = [pytest.mark.tgg_only, pytest.mark.shards(1, 3)]


@pytest.fixture(scope="module")
def impatient_gateway(gateway_factory):
    """Every deadline at its shortest, each at a listener of its own."""
    gateway = gateway_factory(
        gateway={"send_to_client_buffer_size": 4096},
        listen={
            "handshake": {"protocol": "websocket", "handshake_timeout": 1},
            "first": {"protocol": "text", "first_byte_timeout": 1},
            "idle": {"protocol": "websocket", "idle_timeout": 1, "close_timeout": 1},
            "idletext": {"protocol": "text", "idle_timeout": 1},
        })
    yield gateway
    gateway.stop()


@pytest.fixture
def impatient(impatient_gateway):
    site_ = Site(impatient_gateway).with_worker()
    yield site_
    site_.close()


def give_state(site, client):
    """A session, a uid and groups; the session's bytes."""
    session = serialize({"name": "Tom"})
    site.g.set_session(client.id, session)
    site.g.bind_uid(client.id, b"tom")
    for i in range(3):
        site.g.join_group(client.id, b"g%d" % i)
    site.g.sync()
    return session


def expect_one_close(site, client, reason, session=b""):
    event = site.worker.wait(ON_CLOSE, client.id)
    assert event.ext == session
    assert event.body == b"" and event.flag == 1 and event.client_port == client.port
    site.wait_counter("client_closed_" + reason, 1)
    assert [e for e in site.worker.quiet() if e.connection_id == client.id] == []
    assert site.g.is_online(client.id) == 0
    assert site.g.group_list() == {}
    assert site.g.ids_by_uid(b"tom") == {}
    assert site.counter("event_connect") == site.counter("event_close") + site.g.group_count()
    assert site.gauge("uids") == site.gauge("groups") == 0


ENDS = {
    "the client ends": (lambda site, c: c.close(), "peer"),
    "the client resets": (lambda site, c: c.reset(), "reset"),
    "the client sends a close frame": (lambda site, c: c.leave(), "peer_close_frame"),
    "KICK with a body": (lambda site, c: site.g.kick(c.id, b"bye"), "kicked"),
    "KICK without": (lambda site, c: site.g.kick(c.id), "kicked"),
    "DESTROY": (lambda site, c: site.g.destroy(c.id), "destroyed"),
    "protocol error": (lambda site, c: c.send_frame(3, b"x"), "protocol_error"),
    "bad UTF-8": (lambda site, c: c.send_frame(TEXT, b"\xff"), "bad_utf8"),
    "too big": (lambda site, c: c.send_bytes(frame(2, b"")[:1] + b"\xff\0\0\0\0\x01\0\0\0mask"), "too_big"),
}


@pytest.mark.parametrize("name", ENDS)
def test_one_close_with_the_session(site, name):
    end, reason = ENDS[name]
    client = site.client()
    session = give_state(site, client)
    end(site, client)
    expect_one_close(site, client, reason, session)


@pytest.mark.parametrize("name", ["the client ends", "the client resets", "KICK with a body", "KICK without", "DESTROY"])
@pytest.mark.parametrize("protocol", ["text", "frame", "tcp"])
def test_one_close_of_other_protocols(site, name, protocol):
    end, reason = ENDS[name]
    client = site.client(protocol)
    session = give_state(site, client)
    end(site, client)
    expect_one_close(site, client, reason, session)


@pytest.mark.parametrize("name", ["the client ends", "the client resets", "KICK with a body", "DESTROY"])
def test_one_close_before_the_handshake(site, name):
    end, reason = ENDS[name]
    client = site.client(open=False)
    session = give_state(site, client)
    end(site, client)
    expect_one_close(site, client, reason, session)


def test_a_refused_handshake(site):
    client = site.client(open=False)
    client.send_bytes(b"nonsense\r\n\r\n")
    expect_one_close(site, client, "bad_handshake")


def test_handshake_timeout(impatient):
    client = impatient.client("handshake", open=False)
    client.send_bytes(request()[:-1])
    session = give_state(impatient, client)
    expect_one_close(impatient, client, "handshake_timeout", session)
    assert client.is_ended(within=PATIENCE)


def test_a_handshake_in_time_is_not_cut(impatient):
    client = impatient.client("handshake")
    slow = impatient.client("handshake", open=False)
    impatient.worker.wait(ON_CLOSE, slow.id)
    client.send_text("still here")
    assert impatient.worker.wait(ON_MESSAGE, client.id).body == b"still here"


def test_first_byte_timeout(impatient):
    silent, heard = impatient.client("first"), impatient.client("first")
    heard.send_bytes(b"x")
    expect_one_close(impatient, silent, "first_byte_timeout")
    heard.send_bytes(b"y\n")
    assert impatient.worker.wait(ON_MESSAGE, heard.id).body == b"xy"


@pytest.mark.parametrize("listener", ["idle", "idletext"])
def test_idle_timeout(impatient, listener):
    client = impatient.client(listener)
    session = give_state(impatient, client)
    expect_one_close(impatient, client, "idle_timeout", session)
    assert client.is_ended(within=PATIENCE)


def test_a_client_that_sends_is_not_idle(impatient):
    """It talks until a silent client beside it has been closed, twice: its own time never passes whole."""
    talker = impatient.client("idletext")
    for _ in range(2):
        silent = impatient.client("idletext")
        while True:
            talker.send_message(b"still here")
            assert impatient.worker.wait(connection_id=talker.id).cmd == ON_MESSAGE
            try:
                impatient.worker.wait(ON_CLOSE, silent.id, timeout=0.2)
                break
            except TimeoutError:
                pass
    talker.send_message(b"still here")
    assert impatient.worker.wait(connection_id=talker.id).cmd == ON_MESSAGE


def test_slow_reader(impatient):
    client = impatient.client("tcp", rcvbuf=4096)
    body = b"x" * 65536
    for _ in range(400):
        impatient.g.send_to_one(client.id, body)
        impatient.g.sync()
        if impatient.counter("client_closed_slow_reader"):
            break
    expect_one_close(impatient, client, "slow_reader")


def test_drain_at_term(start):
    site = start()
    clients = {name: site.client(name) for name in ("websocket", "text", "frame", "tcp")}
    bare = site.client("websocket", open=False)
    for client in list(clients.values()) + [bare]:
        site.g.set_session(client.id, b"session of %d" % client.id)
    site.g.sync()
    site.gateway.process.send_signal(signal.SIGTERM)
    clients["websocket"].expect_close(1001)
    for name in ("text", "frame", "tcp"):
        clients[name].expect_end()
        clients[name].close()
    assert bare.is_ended(within=PATIENCE)
    bare.close()
    closes = [site.worker.wait(ON_CLOSE) for _ in range(5)]
    assert sorted(e.connection_id for e in closes) == sorted(c.id for c in list(clients.values()) + [bare])
    assert all(e.ext == b"session of %d" % e.connection_id for e in closes)
    with pytest.raises(LinkClosed):
        raise AssertionError("unexpected %r" % site.worker.next())
    assert site.gateway.process.wait() == 0
    assert site.counter("client_closed_shutdown") == 5
    assert site.counter("event_close") == site.counter("event_connect") == 5


def test_drain_ends_in_time_although_a_client_does_not_answer(start):
    site = start(gateway={"drain_timeout": 1})
    client = site.client()
    site.gateway.process.send_signal(signal.SIGTERM)
    assert site.gateway.process.wait() == 0
    assert client.read_frame().code == 1001
    assert site.worker.wait(ON_CLOSE).connection_id == client.id


def test_queued_messages_reach_clients_before_the_drain_closes_them(start):
    site = start()
    client = site.client()
    for i in range(100):
        site.g.send_to_one(client.id, b"%d" % i)
    site.g.sync()
    site.gateway.process.send_signal(signal.SIGTERM)
    for i in range(100):
        assert client.read_message() == b"%d" % i
    client.expect_close(1001)
    assert site.gateway.process.wait() == 0


def test_all_ends_at_once(site):
    """KICK, DESTROY and the client's own end race each other; every client has its one ON_CLOSE."""
    rng = random.Random(11)
    clients = [site.client() for _ in range(150)]
    for client in clients:
        ways = rng.sample(["kick", "destroy", "close", "reset", "frame", "kick"], 2)
        for way in ways:
            try:
                if way == "kick":
                    site.worker.kick(client.id, b"bye")
                elif way == "destroy":
                    site.worker.destroy(client.id)
                elif way == "close":
                    client.close()
                elif way == "reset":
                    client.reset()
                else:
                    client.send_close()
            except OSError:
                pass
    closes = collections.Counter(site.worker.wait(ON_CLOSE).connection_id for _ in clients)
    assert sorted(closes) == sorted(client.id for client in clients)
    assert site.worker.quiet() == []
    for client in clients:
        client.close()
    site.wait_gauge("clients", 0)
    assert site.worker.quiet() == []
    assert site.counter("event_connect") == site.counter("event_close") == 150


def test_the_order_of_events_of_each_client(site):
    """ON_CONNECT, ON_WEBSOCKET_CONNECT, messages as they were sent, ON_CLOSE: also when all arrives in one segment."""
    clients = []
    for i in range(50):
        client = site.connect(open=False)
        client.send_bytes(request() + b"".join(frame(TEXT, b"%d" % n) for n in range(i % 5)) + frame(CLOSE, b"\x03\xe8"))
        clients.append(client)
    by_id = collections.defaultdict(list)
    while sum(events[-1].cmd == ON_CLOSE for events in by_id.values()) < 50:
        event = site.worker.next()
        by_id[event.connection_id].append(event)
    for events in by_id.values():
        assert [e.cmd for e in events[:2]] == [ON_CONNECT, ON_WEBSOCKET_CONNECT]
        assert [e.body for e in events[2:-1]] == [b"%d" % n for n in range(len(events) - 3)]
        assert all(e.cmd == ON_MESSAGE for e in events[2:-1])
    assert site.worker.quiet() == []


def test_connection_ids_are_not_reused_soon(site):
    seen = set()
    for _ in range(200):
        client = site.client("tcp")
        assert client.id not in seen
        seen.add(client.id)
        client.close()
        site.worker.wait(ON_CLOSE, client.id)


def test_commands_of_on_connect_reach_the_client(site):
    """A worker that answers ON_CONNECT with everything it has, before the handshake is done."""
    def welcome(link, event):
        if event.cmd == ON_CONNECT:
            link.bind_uid(event.connection_id, b"u")
            link.join_group(event.connection_id, b"g")
            link.send_to_uid([b"u"], b"1")
            link.send_to_group([b"g"], b"2")
            link.send_to_one(event.connection_id, b"3")

    site.worker.close()
    site.wait_counter("worker_left", 1)
    site.echo_worker(welcome)
    client = site.connect()
    assert [client.read_message() for _ in range(3)] == [b"1", b"2", b"3"]


# ---- option on_connect = handshake


def test_on_connect_after_the_handshake(start):
    site = start(gateway={"on_connect": "handshake"})
    site.with_worker()
    client = site.connect(open=False)
    client.send_bytes(request(path="/x?a=1")[:40])
    other = site.client("text")
    assert site.worker.quiet() == [], "only the text client is known so far"
    client.send_bytes(request(path="/x?a=1")[40:] + frame(TEXT, b"m"))
    client.finish_handshake()
    events = [site.worker.next() for _ in range(3)]
    assert [e.cmd for e in events] == [ON_CONNECT, ON_WEBSOCKET_CONNECT, ON_MESSAGE]
    assert len({e.connection_id for e in events}) == 1
    assert other.id != events[0].connection_id


def test_scanners_never_reach_a_worker(start):
    site = start(gateway={"on_connect": "handshake"})
    site.with_worker()
    for data in (b"", b"\x16\x03\x01garbage", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", request()[:50]):
        client = site.connect(open=False)
        client.send_bytes(data)
        client.close()
    site.wait_counter("client_accepted", 4)
    site.wait_gauge("clients", 0)
    assert site.worker.quiet() == []
    assert site.counter("event_connect") == site.counter("event_close") == 0


# ---- limits


@pytest.mark.shards(1)  # a limit of each shard
def test_max_connections(start):
    site = start(gateway={"max_connections": 5})
    clients = [site.client("tcp") for _ in range(5)]
    try:
        assert site.connect("tcp").is_ended(within=PATIENCE)
    except ConnectionError:
        pass  # the reset was there before connect() returned
    site.wait_counter("client_refused", 1)
    clients[0].close()
    site.worker.wait(ON_CLOSE, clients[0].id)
    again = site.client("tcp")
    again.send_bytes(b"x")
    assert site.worker.wait(ON_MESSAGE, again.id).body == b"x"
    wait_for(lambda: site.gauge("clients") == 5)


@pytest.mark.shards(1)  # a limit of each shard
def test_unfinished_messages_of_all_clients_together_are_bounded(start):
    """Each is far below package_size_max; who goes past the limit of all is closed, the others go on."""
    site = start(gateway={"client_input_total_bytes": 2_000_000})
    worker = site.worker
    clients = [site.client("text") for _ in range(20)]
    for client in clients:
        client.send_bytes(b"a" * 200_000)
    # Until everybody's bytes are there, or he is closed: else one is closed later.
    wait_for(lambda: site.counter("client_closed_input_limit") >= 8
             and site.gauge("client_input_bytes") >= 200_000 * (20 - site.counter("client_closed_input_limit")), what="some to be closed")
    assert site.gauge("client_input_bytes") <= 2_000_000
    closed = {worker.wait(ON_CLOSE).connection_id for _ in range(site.counter("client_closed_input_limit"))}
    stay = [client for client in clients if client.id not in closed]
    assert len(stay) >= 2
    for client in stay:
        client.send_bytes(b"b\n")
        assert worker.wait(ON_MESSAGE, client.id).body == b"a" * 200_000 + b"b"
    site.wait_gauge("client_input_bytes", 0)
