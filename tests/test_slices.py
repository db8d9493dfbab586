# SPDX-License-Identifier: MIT
"""Long work goes in slices: 6,000 clients, turns of at most 1 ms. Sends to all of them and queries over all of them take
many turns. Others are served meanwhile, and nothing of the same link overtakes it."""

import os
import statistics
import threading
import time

import pytest

from gwproto import GET_ALL_CLIENT_SESSIONS, ON_CLOSE, ON_CONNECT, ON_MESSAGE, SELECT, packet, to_json
from node import Site, raise_file_limit
from phpvalue import serialize, unserialize
from proc import SHARDS, wait_for

pytestmark = [pytest.mark.tgg_only, pytest.mark.timeout(240), pytest.mark.shards(1, 3)]

COUNT = 6000
# Longer than one client takes in: a fan-out is not over while clients at its end have not been written to.
LONG = b"." * 1000


class Crowd:
    """6,000 text clients at a gateway of their own, with the worker that has them all."""

    def __init__(self, gateway):
        raise_file_limit()
        self.site = Site(gateway)
        self.worker = self.site.worker
        self.clients = []
        self.rounds = 0
        self.fill()

    def fill(self):
        """As many as there have to be, known to the worker."""
        new = [self.site.connect("text") for _ in range(COUNT - len(self.clients))]
        by_port = {client.port: client for client in new}
        for _ in new:
            event = self.worker.wait(ON_CONNECT)
            by_port[event.client_port].id = event.connection_id
        self.clients += new

    def remove(self, clients):
        """Closed by either side; the worker hears of each."""
        gone = {client.id for client in clients}
        for client in clients:
            client.close()
        assert {self.worker.wait(ON_CLOSE).connection_id for _ in gone} == gone
        self.clients = [client for client in self.clients if client.id not in gone]
        self.site.clients = [client for client in self.site.clients if client.sock.fileno() >= 0]

    def check(self):
        """Nobody has anything left over, and nobody is missing."""
        self.fill()
        self.rounds += 1
        last_word = b"end of round %d" % self.rounds
        self.site.g.send_to_all(last_word)
        for client in self.clients:
            assert client.read_message() == last_word
            assert not client.buffer
        assert self.worker.quiet() == []


class Shared:
    def __init__(self, start, shards):
        self.start, self.shards = start, shards
        self.crowd = None

    def get(self):
        if self.crowd is None:
            self.crowd = Crowd(self.start(shards=self.shards, gateway={"turn_max": 1, "query_timeout": 60_000}, log={"level": "warn"}))
        return self.crowd

    def give_back(self):
        """After a failure the next test has a fresh one."""
        crowd, self.crowd = self.crowd, None
        crowd.check()
        self.crowd = crowd


@pytest.fixture(scope="module", params=[SHARDS] if "TGG_TEST_SHARDS" in os.environ else [1, 3], ids="{}-sharded".format)
def shared_crowd(gateway_factory, request):
    shared_ = Shared(gateway_factory, request.param)
    yield shared_
    if shared_.crowd is not None:
        shared_.crowd.site.close()
        shared_.crowd.site.gateway.stop()


@pytest.fixture
def crowd(shared_crowd):
    yield shared_crowd.get()
    shared_crowd.give_back()


class Counted:
    """How a counter changed: with Counted(site, "fanouts_sliced") as n: ...; n.by"""

    def __init__(self, site, name):
        self.site, self.name = site, name

    def __enter__(self):
        self.before = self.site.counter(self.name)
        return self

    @property
    def by(self):
        return self.site.counter(self.name) - self.before

    def check(self, expected):
        """Each shard counts its own part."""
        assert self.by == expected if self.site.shards == 1 else self.by >= expected, self.by

    def __exit__(self, *unused):
        pass


def turns_of(site):
    return site.gateway.turns()


def stream_of(packets):
    return b"".join(p.encode() for p in packets)


def one(client, body):
    return packet(5, client.id, body=body)


def to_all(body, ext=b""):
    return packet(6, ext=ext, body=body)


def to_group(name, body):
    return packet(22, ext=to_json({"group": [name], "exclude": None}), body=body)


def kick(client, body):
    return packet(7, client.id, body=body)


def join(client, group):
    return packet(20, client.id, ext=group)


def leave(client, group):
    return packet(21, client.id, ext=group)


def ungroup(group):
    return packet(27, ext=group)


# ---- the order of one link


def test_a_send_to_all_takes_many_turns(crowd):
    turns = turns_of(crowd.site)
    with Counted(crowd.site, "fanouts_sliced") as sliced:
        crowd.site.g.send_bytes(stream_of([to_all(LONG), to_all(b"2")]))
        for client in crowd.clients:
            assert client.read_message() == LONG
            assert client.read_message() == b"2"
        sliced.check(2)
        assert turns_of(crowd.site) - turns > 10


def test_sends_to_one_do_not_overtake_a_send_to_all(crowd):
    with Counted(crowd.site, "fanouts_sliced") as sliced:
        packets = [to_all(b"all")] + [one(c, b"one") for c in crowd.clients] + [to_all(b"all again")]
        crowd.worker.send_bytes(stream_of(packets))
        for client in crowd.clients:
            assert [client.read_message() for _ in range(3)] == [b"all", b"one", b"all again"]
        sliced.check(2)


def test_who_joins_or_leaves_behind_a_send_to_a_group(crowd):
    """The group is that of the moment of the send, although the send lasts many turns."""
    joins, leaves = crowd.clients[::10], crowd.clients[5::10]
    inside = [c for i, c in enumerate(crowd.clients) if i % 10 != 0]
    crowd.site.g.send_bytes(stream_of(join(c, b"room") for c in inside))
    assert crowd.site.g.group_count(b"room") == len(inside)
    packets = [to_group("room", b"1" + LONG)]
    packets += [join(c, b"room") for c in joins] + [leave(c, b"room") for c in leaves]
    packets += [to_group("room", b"2"), ungroup(b"room"), to_group("room", b"3"), to_all(b"4")]
    with Counted(crowd.site, "fanouts_sliced") as sliced:
        crowd.site.g.send_bytes(stream_of(packets))
        joined, left = {c.id for c in joins}, {c.id for c in leaves}
        for client in crowd.clients:
            expected = [b"2", b"4"] if client.id in joined else [b"1", b"4"] if client.id in left else [b"1", b"2", b"4"]
            assert [client.read_message()[:1] for _ in expected] == expected
        sliced.check(3)
    assert crowd.site.g.group_list() == {}


def test_a_kick_behind_a_send_to_all(crowd):
    """Who is kicked has had the message of all before; what is sent to all after it goes to the others."""
    kicked = crowd.clients[7::20]
    with Counted(crowd.site, "fanouts_sliced") as sliced:
        crowd.site.g.send_bytes(stream_of([to_all(b"all")] + [kick(c, b"out") for c in kicked] + [to_all(b"the rest")]))
        out = {c.id for c in kicked}
        for client in crowd.clients:
            assert client.read_message() == b"all"
            assert client.read_message() == (b"out" if client.id in out else b"the rest")
            if client.id in out:
                client.expect_end()
        sliced.check(2)
    crowd.remove(kicked)


# ---- a GatewayClient that sends and closes


@pytest.mark.parametrize("end", ["close", "reset"])
def test_everything_sent_before_the_end_of_a_link_is_done(crowd, end):
    """Its first command takes many turns; it has gone before the second is looked at."""
    with Counted(crowd.site, "fanouts_sliced") as sliced:
        link = crowd.site.client_link()
        before = crowd.site.counter("link_bytes_in")
        stream = stream_of([to_all(b"1" + LONG), to_all(b"2")] + [one(c, b"3") for c in crowd.clients[::50]])
        link.send_bytes(stream)
        if end == "reset":
            # A reset throws away what the kernel still has; what the gateway has read is to be done.
            wait_for(lambda: crowd.site.counter("link_bytes_in") - before == len(stream), what="all of it read")
        getattr(link, end)()
        third = {c.id for c in crowd.clients[::50]}
        for client in crowd.clients:
            expected = [b"1", b"2", b"3"] if client.id in third else [b"1", b"2"]
            assert [client.read_message()[:1] for _ in expected] == expected
        sliced.check(2)
    crowd.site.wait_gauge("links", 2)


def test_a_link_that_ends_with_much_behind_a_send_to_all(crowd):
    """More than one read behind the long command, then the end of the stream."""
    with crowd.site.client_link() as link:
        link.send_bytes(stream_of([to_all(b"1")] + [one(c, b"2" + LONG) for c in crowd.clients] + [to_all(b"3")]))
    for client in crowd.clients:
        assert [client.read_message()[:1] for _ in range(3)] == [b"1", b"2", b"3"]
    crowd.site.wait_gauge("links", 2)


def test_half_a_packet_behind_a_send_to_all_harms_nobody(crowd):
    with Counted(crowd.site, "fanouts") as fanouts:
        with crowd.site.client_link() as link:
            link.send_bytes(stream_of([to_all(b"1"), to_all(b"2")]) + to_all(b"never").encode()[:-1])
        for client in crowd.clients:
            assert [client.read_message() for _ in range(2)] == [b"1", b"2"]
        crowd.site.wait_gauge("links", 2)
        assert fanouts.by == 2


# ---- queries


class ReplyReader:
    """Reads replies in a thread, with the time of the last."""

    def __init__(self, link, count):
        self.link, self.count = link, count
        self.replies = []
        self.ended_at = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while len(self.replies) < self.count:
            self.replies.append(self.link.read_reply(timeout=60))
        self.ended_at = time.monotonic()

    def is_running(self):
        return self.thread.is_alive()


def echoes_while(crowd, client, reader):
    """How long each round trip of an echo took while answers were still awaited."""
    times = []
    while reader.is_running():
        began = time.monotonic()
        client.send_message(b"echo %d" % len(times))
        event = crowd.worker.wait(ON_MESSAGE)
        crowd.worker.send_to_one(event.connection_id, event.body)
        assert client.read_message() == b"echo %d" % len(times)
        times.append(time.monotonic() - began)
    return times


def check_latency(times, whole):
    assert len(times) >= 20, (len(times), whole)
    assert statistics.median(times) < whole / 20, (statistics.median(times), whole)
    assert max(times) < whole / 3, (max(times), whole)


@pytest.fixture
def with_sessions(crowd):
    """Each client has a session and a uid of its own."""
    sessions = {c.id: serialize({b"n": n, b"text": b"." * 200}) for n, c in enumerate(crowd.clients)}
    packets = [packet(204, id_, ext=session) for id_, session in sessions.items()]
    packets += [packet(12, id_, ext=b"uid-%d" % id_) for id_ in sessions]
    crowd.site.g.send_bytes(stream_of(packets))
    crowd.site.g.sync()
    yield sessions
    crowd.site.g.send_bytes(stream_of([packet(204, id_) for id_ in sessions] + [packet(13, id_) for id_ in sessions]))
    crowd.site.g.sync()


def ask_many_times(crowd, question, count=250):
    """The same long question again and again on one link, echoes meanwhile. All answers."""
    link = crowd.site.client_link()
    link.sync()
    with Counted(crowd.site, "queries_sliced") as sliced:
        reader = ReplyReader(link, count)
        began = time.monotonic()
        link.send_bytes(stream_of([question] * count))
        times = echoes_while(crowd, crowd.clients[17], reader)
        assert len(reader.replies) == count
        whole = reader.ended_at - began
        sliced.check(count)
    check_latency(times, whole)
    link.close()
    return reader.replies


def test_all_sessions_while_an_echo_goes_on(crowd, with_sessions):
    replies = ask_many_times(crowd, packet(GET_ALL_CLIENT_SESSIONS))
    # Sessions come as they are stored, in a string each.
    for reply in set(replies):  # which shard's part is the first may differ
        assert unserialize(reply) == {id_: session for id_, session in with_sessions.items()}


def test_select_over_all_while_an_echo_goes_on(crowd, with_sessions):
    replies = ask_many_times(crowd, packet(SELECT, ext=to_json({"fields": ["session", "uid"], "where": []})))
    for reply in set(replies):
        rows = unserialize(reply)
        assert rows == {id_: {b"session": session, b"uid": b"uid-%d" % id_} for id_, session in with_sessions.items()}


def test_select_over_a_large_group(crowd, with_sessions):
    inside = crowd.clients[: COUNT // 2]
    crowd.site.g.send_bytes(stream_of(join(c, b"half") for c in inside))
    with Counted(crowd.site, "queries_sliced") as sliced:
        rows = crowd.site.g.select(["uid"], {"groups": ["half"]})
        assert rows == {c.id: {b"uid": b"uid-%d" % c.id} for c in inside}
        assert set(crowd.site.g.group_sessions(b"half")) == {c.id for c in inside}
        sliced.check(2)
    crowd.site.g.ungroup(b"half")


def test_one_query_takes_many_turns(crowd):
    """6,000 clients found 200 times each: one answer, small, after many turns of nothing else."""
    crowd.site.g.send_bytes(stream_of(join(c, b"everybody") for c in crowd.clients))
    crowd.site.g.sync()
    question = packet(SELECT, ext=to_json({"fields": ["uid"], "where": {"groups": ["everybody"] * 200}}))
    with Counted(crowd.site, "queries_sliced") as sliced:
        turns = turns_of(crowd.site)
        reply = crowd.site.g.query(question)
        assert turns_of(crowd.site) - turns > 5
        sliced.check(1)
    assert unserialize(reply) == {c.id: {b"uid": None} for c in crowd.clients}
    crowd.site.g.ungroup(b"everybody")


def test_a_link_that_ends_while_its_query_goes_on(crowd, with_sessions):
    """Nobody is there for the answers; everything is released."""
    for end in ("close", "reset"):
        for _ in range(5):
            link = crowd.site.client_link()
            link.send_bytes(stream_of([packet(GET_ALL_CLIENT_SESSIONS)] * 3))
            getattr(link, end)()
    crowd.site.wait_gauge("links", 2)
    assert len(crowd.site.g.all_sessions()) == COUNT


def test_an_echo_goes_on_while_everybody_is_sent_to(crowd):
    """Fan-outs one after the other; the echo's answer waits in no queue but that of its own client."""
    link = crowd.site.client_link()
    link.sync()
    talker = crowd.clients.pop()
    crowd.worker.set_session(talker.id, b"")
    others = to_json({"exclude": {str(talker.id): talker.id}})
    count = 30
    reader = ReplyReader(link, 1)
    began = time.monotonic()
    link.send_bytes(stream_of([to_all(b"%d" % n, others) for n in range(count)] + [packet(11, 0)]))
    times = echoes_while(crowd, talker, reader)
    check_latency(times, reader.ended_at - began)
    for client in crowd.clients:
        assert [client.read_message() for _ in range(count)] == [b"%d" % n for n in range(count)]
    crowd.clients.append(talker)
    link.close()


# ---- clients that come and go meanwhile


def read_all(client, last):
    messages = []
    while not messages or messages[-1] != last:
        messages.append(client.read_message())
    return messages


def test_clients_leave_and_come_during_sends_to_all(crowd):
    count = 30
    bodies = [b"%d" % n for n in range(count)]
    with Counted(crowd.site, "fanouts_sliced") as sliced:
        crowd.site.g.send_bytes(stream_of(to_all(body) for body in bodies))
        gone = crowd.clients[3::6]
        for number, client in enumerate(gone):
            client.reset() if number % 2 else client.close()
        came = [crowd.site.connect("text") for _ in range(300)]
        crowd.site.g.sync()
        crowd.site.g.send_to_all(b"last")
        crowd.site.g.sync()
        sliced.check(count + 1)
    leaving = {c.id for c in gone}
    for client in crowd.clients:
        if client.id not in leaving:
            assert read_all(client, b"last") == bodies + [b"last"]
    for client in came:
        # From some moment on all of them, each once.
        heard = read_all(client, b"last")
        assert heard == (bodies + [b"last"])[-len(heard) :]
    by_port = {client.port: client for client in came}
    for _ in came:
        event = crowd.worker.wait(ON_CONNECT)
        by_port[event.client_port].id = event.connection_id
    crowd.clients += came
    crowd.remove(gone)
    crowd.site.wait_gauge("clients", len(crowd.clients))


def test_everybody_leaves_during_a_send_to_all(start):
    """Nobody is left for the rest of it, nor for the next one."""
    raise_file_limit()
    site = start(gateway={"turn_max": 1})
    assert site.worker
    clients = [site.connect("tcp") for _ in range(2000)]
    for _ in clients:
        site.worker.wait(ON_CONNECT)
    site.g.send_bytes(stream_of(to_all(LONG) for _ in range(40)))
    for client in clients:
        client.reset()
    for _ in clients:
        site.worker.wait(ON_CLOSE)
    site.g.sync()
    assert site.counter("fanouts") == 40
    site.wait_gauge("clients", 0)
    assert site.gauge("client_queue_bytes") == 0


def test_a_worker_ends_during_its_own_send_to_all(start):
    """Its clients go to another at once; what it had said is done for all of them, in order."""
    raise_file_limit()
    site = start(gateway={"turn_max": 1})
    first = site.worker_link()
    clients = [site.connect("text") for _ in range(2000)]
    for _ in clients:
        first.wait(ON_CONNECT)
    second = site.worker_link()
    first.send_bytes(stream_of([to_all(b"1"), to_all(b"2")]))
    first.close()
    for client in clients:
        assert [client.read_message() for _ in range(2)] == [b"1", b"2"]
    site.wait_counter("worker_left", 1)
    site.wait_counter("client_rebound", 2000)
    for number, client in enumerate(clients):
        client.send_message(b"%d" % number)
    assert {int(second.wait(ON_MESSAGE).body) for _ in clients} == set(range(2000))
