# SPDX-License-Identifier: MIT
"""Several shards behind one address: workers, GatewayClients and clients see one gateway. Each test says how many there
are. What is said between shards: test_shards_order.py; their end: test_shard_death.py."""

import collections
import random
import signal
import socket
import threading
import time

import pytest

from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE, PATIENCE, LinkClosed, RegisterLink, shard_of
from load import connect_crowd, flat, hear
from proc import Register, wait_for

pytestmark = [pytest.mark.tgg_only, pytest.mark.timeout(180)]


# ---- one address


@pytest.mark.parametrize("shards", [1, 4])
def test_one_entry_in_the_register_and_one_connection_to_it(start, shards, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener, Register(tmp_path) as register:
        site = start(shards=shards, registers=[listener.getsockname(), register.address])
        listener.settimeout(PATIENCE)
        peer, _ = listener.accept()
        assert b'"127.0.0.1:%d"' % site.gateway.internal_port in peer.recv(4096)
        listener.settimeout(0.3)
        with pytest.raises(TimeoutError):
            listener.accept()
        peer.close()

        def addresses():
            with RegisterLink(register.address) as worker:
                worker.worker_connect()
                return worker.addresses()

        wait_for(addresses, what="the gateway in the register")
        assert addresses() == ["127.0.0.1:%d" % site.gateway.internal_port]
        one = site.worker_link()
        assert site.client("text", worker=one).event.gateway_port == site.gateway.ports["text"]


def test_a_worker_is_sent_a_broadcast_once_not_once_per_shard(start):
    site = start(shards=4)
    clients = flat(site.clients_on_each_shard(3))
    site.worker.send_to_all(b"once")
    site.worker.sync()
    for client in clients:
        assert client.read_message() == b"once"
        assert not client.buffer


# ---- even spreading


@pytest.mark.parametrize("burst", [False, True], ids=["one by one", "burst"])
def test_ten_thousand_clients_are_spread_evenly(start, burst):
    site = start(shards=4)
    workers = [site.worker_link() for _ in range(4)]
    crowd, known = connect_crowd(site, workers, 10_000, burst)
    wait_for(lambda: sum(site.per_shard("clients")) == 10_000, what="everybody counted")
    counts = site.per_shard("clients")
    assert all(abs(count - 2500) <= 125 for count in counts), counts
    ids = [id_ for id_, _ in known.values()]
    assert len(set(ids)) == 10_000
    assert collections.Counter(map(shard_of, ids)) == dict(enumerate(counts)), "the id says where its client is"
    of_worker = collections.Counter(worker for _, worker in known.values())
    assert all(abs(count - 2500) <= 125 for count in of_worker.values()), of_worker.values()
    crowd.close()
    closed = {hear(workers, ON_CLOSE)[1].connection_id for _ in range(10_000)}
    assert closed == set(ids)


def test_clients_that_come_after_others_left_even_it_out(start):
    site = start(shards=3)
    worker = site.worker
    crowd, known = connect_crowd(site, [worker], 900)
    counts = site.per_shard("clients")
    assert all(abs(count - 300) <= 15 for count in counts), counts
    crowd.close_some(450)
    wait_for(lambda: sum(site.per_shard("clients")) == 450, what="half of them gone")
    crowd.connect(450)
    wait_for(lambda: sum(site.per_shard("clients")) == 900, what="as many as before")
    counts = site.per_shard("clients")
    assert all(abs(count - 300) <= 15 for count in counts), counts


def test_worker_links_are_spread_within_one(start):
    site = start(shards=4)
    workers = []
    for count in range(1, 10):
        workers.append(site.worker_link())
        wait_for(lambda: sum(site.per_shard("workers")) == count, what="%d workers" % count)
        counts = site.per_shard("workers")
        assert max(counts) - min(counts) <= 1, counts
    # Where some left, the next ones go.
    for worker in workers[0:8:4] + workers[1:8:4]:
        worker.close()
    wait_for(lambda: sum(site.per_shard("workers")) == 5, what="four fewer")
    for _ in range(4):
        site.worker_link()
    wait_for(lambda: sum(site.per_shard("workers")) == 9, what="nine again")
    counts = site.per_shard("workers")
    assert max(counts) - min(counts) <= 1, counts


def test_worker_links_that_come_at_once_are_spread_within_one(start):
    site = start(shards=4)
    for worker in [site.worker_link(sync=False) for _ in range(9)]:
        worker.sync()
    wait_for(lambda: sum(site.per_shard("workers")) == 9, what="nine workers")
    assert sorted(site.per_shard("workers")) == [2, 2, 2, 3]


def test_links_and_clients_where_the_configuration_says(start):
    site = start(shards=4, gateway={"edge_shards": "1-3", "link_shards": "0,1"})
    workers = [site.worker_link() for _ in range(4)]
    wait_for(lambda: site.per_shard("workers") == [2, 2, 0, 0], what="workers where they belong")
    clients = []
    for _ in range(60):
        client = site.connect("text")
        worker, event = hear(workers, ON_CONNECT)
        client.id, client.worker = event.connection_id, worker
        clients.append(client)
    counts = collections.Counter(shard_of(client.id) for client in clients)
    assert set(counts) == {1, 2, 3}
    for client in clients:
        client.send_message(b"hello")
        assert client.worker.wait(ON_MESSAGE, client.id).body == b"hello"
        client.worker.send_to_one(client.id, b"you too")
        assert client.read_message() == b"you too"
    assert site.g.group_count() == 60


# ---- ids


def test_ids_are_not_used_again_after_a_restart(start):
    site = start(shards=4)
    seen = set()
    for _ in range(3):
        worker = site.worker_link()
        clients = flat(site.clients_on_each_shard(5, worker=worker))
        ids = {client.id for client in clients}
        assert len(ids) == len(clients) and not ids & seen
        for client in clients:
            assert client.event.client_id == "7f000001%04x%08x" % (site.gateway.internal_port, client.id)
        seen |= ids
        site.gateway.stop()
        site.gateway.start()
    assert site.g.batch_ids_by_uid([b"nobody"]) in ({b"nobody": {}}, {})
    for id_ in list(seen)[:50]:
        assert site.g.is_online(id_) == 0


# ---- least connections


def spread(clients):
    return collections.Counter(client.worker for client in clients)


def check_spread(clients, workers):
    counts = [spread(clients)[worker] for worker in workers]
    assert max(counts) - min(counts) <= 1, counts


def connect_each(site, workers, count, check=()):
    """Clients one after the other, each with its worker. check: with these clients before, it must be spread within one
    after each."""
    new = []
    for _ in range(count):
        client = site.connect("text")
        client.worker, event = hear(workers, ON_CONNECT)
        assert event.client_port == client.port
        client.id = event.connection_id
        new.append(client)
        if check is not None:
            check_spread(list(check) + new, workers)
    return new


def bound_to(clients, workers):
    """Whom each is bound to now: client.worker."""
    by_id = {client.id: client for client in clients}
    for client in clients:
        client.send_message(b"who?")
    for _ in clients:
        worker, event = hear(workers, ON_MESSAGE)
        by_id[event.connection_id].worker = worker


def test_least_connections_is_exact_over_all_shards(start):
    site = start(shards=4)
    workers = [site.worker_link() for _ in range(5)]
    clients = connect_each(site, workers, 100)
    assert len({shard_of(client.id) for client in clients}) == 4
    assert sorted(spread(clients).values()) == [20] * 5
    # Some leave, of some workers more than of others: the next ones fill the gaps.
    rng = random.Random(2)
    for client in rng.sample(clients, 50):
        client.close()
        assert hear(workers, ON_CLOSE)[0] is client.worker
        clients.remove(client)
    new = connect_each(site, workers, 50, check=None)
    check_spread(clients + new, workers)


def test_least_connections_after_a_worker_left_and_came_back(start):
    """Bindings of silent clients are counted too, on every shard."""
    site = start(shards=4)
    workers = [site.worker_link("w%d" % i) for i in range(4)]
    clients = connect_each(site, workers, 40)
    workers[3].close()
    site.wait_counter("client_rebound", 10)
    bound_to(clients, workers[:3])
    check_spread(clients, workers[:3])
    workers[3] = site.worker_link("w3")
    new = connect_each(site, workers, 14, check=None)
    # 40 clients are with three; the one that came back is filled up to them first.
    assert spread(new)[workers[3]] >= 13
    check_spread(clients + new, workers)
    more = connect_each(site, workers, 20, clients + new)
    bound_to(clients + new + more, workers)
    check_spread(clients + new + more, workers)


def test_least_connections_when_several_workers_leave_at_once(start):
    site = start(shards=4)
    workers = [site.worker_link() for _ in range(6)]
    clients = connect_each(site, workers, 60, check=None)
    for worker in workers[3:]:
        worker.close()
    site.wait_counter("worker_left", 3)
    time.sleep(0.2)
    new = connect_each(site, workers[:3], 6, check=None)
    bound_to(clients + new, workers[:3])
    check_spread(clients + new, workers[:3])


def test_clients_are_spread_evenly_when_all_workers_were_gone(start):
    site = start(shards=3)
    first = site.worker_link()
    clients = connect_each(site, [first], 120, check=None)
    first.close()
    site.wait_counter("worker_left", 1)
    workers = [site.worker_link(sync=False) for _ in range(4)]
    site.wait_counter("client_rebound", 120)
    bound_to(clients, workers)
    counts = [spread(clients)[worker] for worker in workers]
    assert max(counts) - min(counts) <= 3, counts
    new = connect_each(site, workers, 8, check=None)
    check_spread(clients + new, workers)


# ---- other routers


@pytest.mark.parametrize("router", ["round_robin", "random", "client_hash"])
def test_a_client_stays_with_its_worker(start, router):
    site = start(shards=3, gateway={"router": router})
    workers = [site.worker_link() for _ in range(3)]
    clients = connect_each(site, workers, 30, check=None)
    for _ in range(3):
        for client in clients:
            client.send_message(b"x")
            client.worker.wait(ON_MESSAGE, client.id)


def test_round_robin_is_even(start):
    site = start(shards=4, gateway={"router": "round_robin"})
    workers = [site.worker_link() for _ in range(4)]
    counts = spread(connect_each(site, workers, 80, check=None))
    # Each shard goes round for itself.
    assert all(abs(counts[worker] - 20) <= 4 for worker in workers), counts.values()


def test_random_is_random(start):
    site = start(shards=4, gateway={"router": "random"})
    workers = [site.worker_link() for _ in range(2)]
    counts = spread(connect_each(site, workers, 120, check=None))
    assert min(counts.values()) > 25, counts.values()


def test_client_hash_is_the_same_on_all_shards(start):
    site = start(shards=4, gateway={"router": "client_hash"}, listen={"text": {"address": "0.0.0.0"}})
    workers = [site.worker_link() for _ in range(4)]
    of_address, shards = {}, collections.defaultdict(set)
    for _ in range(6):
        for i in range(2, 14):
            site.connect("text", source="127.0.0.%d" % i)
            worker, event = hear(workers, ON_CONNECT)
            assert of_address.setdefault(i, worker) is worker
            shards[i].add(shard_of(event.connection_id))
    assert len(set(of_address.values())) >= 2
    assert any(len(found) > 1 for found in shards.values())


# ---- those who do not read


def stuck_clients(site, slow, fast):
    """For each of the two workers one client on each shard."""
    found = {slow: {}, fast: {}}
    while any(len(of) < site.shards for of in found.values()):
        client = site.connect("text")
        client.worker, event = hear([slow, fast], ON_CONNECT)
        client.id = event.connection_id
        found[client.worker].setdefault(shard_of(client.id), client)
    return found


def test_a_worker_that_does_not_read_pauses_its_own_clients_on_every_shard(start):
    from test_workers import push_until_blocked

    site = start(shards=3, gateway={"send_to_worker_buffer_size": 65536})
    slow, fast = site.worker_link(rcvbuf=4096), site.worker_link()
    found = stuck_clients(site, slow, fast)
    body = b"x" * 8000
    sent = {}
    for client in found[slow].values():
        sent[client] = push_until_blocked(client, body, seconds=1)
        assert sent[client] < 20_000, "nobody held it back"
    for number in range(100):
        for client in found[fast].values():
            client.send_message(b"%d" % number)
            assert fast.wait(ON_MESSAGE, client.id).body == b"%d" % number
            fast.send_to_one(client.id, b"echo")
            assert client.read_message() == b"echo"
    for client in found[slow].values():
        site.g.send_to_one(client.id, b"you too")
        assert client.read_message() == b"you too"
    site.g.sync()
    heard = collections.Counter()
    for _ in range(sum(sent.values())):
        event = slow.wait(ON_MESSAGE)
        assert event.body == body
        heard[event.connection_id] += 1
    for client in found[slow].values():
        client.send_bytes((client.unsent or b"") + b"end\n")
    ends = set()
    while len(ends) < site.shards:
        event = slow.wait(ON_MESSAGE)
        if event.body == b"end":
            ends.add(event.connection_id)
        else:
            heard[event.connection_id] += 1
    for client in found[slow].values():
        assert heard[client.id] >= sent[client]
        assert not client.is_ended()


def test_clients_of_other_shards_that_come_and_go_do_not_fill_the_queue_of_a_worker_that_does_not_read(start):
    """ON_CONNECT and ON_CLOSE pass its limit, but not without end, wherever they come from."""
    from test_workers import push_until_blocked

    site = start(shards=2, gateway={"send_to_worker_buffer_size": 65536, "ring_size": 65536, "edge_shards": "1", "link_shards": "0"})
    worker = site.worker_link(rcvbuf=4096)
    talker = site.client("text", worker=worker)
    sent = push_until_blocked(talker, b"x" * 8000)
    for _ in range(300):
        comers = [site.connect("text") for _ in range(50)]
        for comer in comers:
            comer.reset()
        site.clients = [talker]
        if site.counter("client_closed_worker_slow") > 100:
            break
    assert site.counter("client_closed_worker_slow") > 100
    site.wait_gauge("clients", 1)
    heard = collections.Counter()
    expected = site.counter("client_accepted") - 1 - site.counter("client_closed_worker_slow")
    while heard[ON_CLOSE] < expected or heard[ON_MESSAGE] < sent:
        heard[worker.wait().cmd] += 1
    assert heard[ON_CONNECT] == heard[ON_CLOSE] == expected


def test_a_client_that_does_not_read_harms_no_link_and_no_shard(start):
    site = start(shards=3, gateway={"send_to_client_buffer_size": 100_000, "slow_reader_policy": "drop_newest"})
    worker = site.worker
    lively = site.clients_on_each_shard(1)
    slow = [site.client("text", rcvbuf=4096) for _ in range(6)]
    for link in site.link_on_each_shard():
        for number in range(1500):
            for client in slow[:2]:
                link.send_to_one(client.id, b"." * 4000)
        link.send_to_all(b"all")
        link.sync()
        for (client,) in lively:
            assert client.read_message() == b"all"
            client.send_message(b"here")
            assert worker.wait(ON_MESSAGE, client.id).body == b"here"
    assert site.counter("dropped_slow_reader_newest") > 0
    assert [site.g.is_online(client.id) for client in slow] == [1] * 6


# ---- no worker; a worker that is replaced


def test_without_a_worker_messages_wait_on_every_shard(start):
    site = start(shards=3)
    clients = [site.connect("text") for _ in range(60)]
    wait_for(lambda: sum(site.per_shard("clients")) == 60, what="all clients")
    assert all(site.per_shard("clients"))
    for i in range(20):
        for client in clients:
            client.send_message(b"%d" % i)
    site.wait_counter("event_parked", 60 * 21)
    assert all(site.per_shard("parked_clients"))
    workers = [site.worker_link(sync=False) for _ in range(2)]
    seen, at = collections.defaultdict(list), collections.defaultdict(set)
    for _ in range(60 * 21):
        worker, event = hear(workers)
        seen[event.client_port].append(event)
        at[event.client_port].add(worker)
    for client in clients:
        events = seen[client.port]
        assert [e.cmd for e in events] == [ON_CONNECT] + [ON_MESSAGE] * 20
        assert [e.body for e in events[1:]] == [b"%d" % i for i in range(20)]
        assert len(at[client.port]) == 1
    site.wait_counter("event_unparked", 60 * 21)
    wait_for(lambda: site.gauge("parked_clients") == site.gauge("parked_bytes") == 0, what="nothing that waits")


def test_a_worker_comes_and_goes_again_and_again(start):
    """The only one: its clients on all shards find the next one, every time, and nothing is told twice."""
    site = start(shards=3)
    worker = site.worker_link("only")
    clients = flat(site.clients_on_each_shard(3, worker=worker))
    for round_ in range(10):
        worker.close()
        site.wait_gauge("workers", 0)
        for client in clients:
            client.send_message(b"%d" % round_)
        worker = site.worker_link("only", sync=False)
        heard = [worker.next() for _ in clients]
        assert {e.connection_id for e in heard} == {c.id for c in clients}
        assert all((e.cmd, e.body) == (ON_MESSAGE, b"%d" % round_) for e in heard)
        worker.send_to_all(b"yes")
        for client in clients:
            assert client.read_message() == b"yes"
    assert worker.quiet() == []
    assert site.counter("event_close") == 0


def test_a_worker_is_replaced_by_one_with_its_link_on_another_shard(start):
    site = start(shards=3)
    old, shard = site.one_more("workers", lambda: site.worker_link("twin"))
    clients = flat(site.clients_on_each_shard(4, worker=old))
    shards = {shard}
    for round_ in range(8):
        new = site.worker_link("twin", sync=False)
        old.expect_end()
        site.wait_counter("worker_replaced", round_ + 1)
        wait_for(lambda: sum(site.per_shard("workers")) == 1, what="one worker")
        shards.add(site.per_shard("workers").index(1))
        for client in clients:
            client.send_message(b"%d" % round_)
        heard = [new.wait(ON_MESSAGE) for _ in clients]
        assert {e.connection_id for e in heard} == {c.id for c in clients}
        assert {e.body for e in heard} == {b"%d" % round_}
        for client in clients:
            new.send_to_one(client.id, b"yes")
            assert client.read_message() == b"yes"
        old = new
    assert len(shards) > 1, "its link was never on another shard"
    assert site.counter("event_close") == 0
    assert old.quiet() == []
    # All of them are its, and counted once.
    fellow = site.worker_link("fellow")
    new = connect_each(site, [old, fellow], len(clients), check=None)
    assert spread(new)[fellow] == len(clients)


def test_a_worker_is_replaced_while_its_clients_talk(start):
    """Messages that the old link was given and did not take are not lost, nor does one overtake another."""
    site = start(shards=3)
    old = site.worker_link("twin")
    clients = flat(site.clients_on_each_shard(2, worker=old))
    count = 2000
    heard = collections.defaultdict(list)

    def listen(link):
        try:
            while len(heard) < len(clients) or any(numbers[-1] != count - 1 for numbers in heard.values()):
                event = link.next()
                assert event.cmd == ON_MESSAGE
                heard[event.connection_id].append(int(event.body))
        except LinkClosed:
            pass

    def talk():
        for i in range(count):
            for client in clients:
                client.send_message(b"%d" % i)

    talker = threading.Thread(target=talk, daemon=True)
    talker.start()
    for _ in range(3):
        time.sleep(0.05)
        new = site.worker_link("twin", sync=False)
        listen(old)
        old = new
    listen(old)
    talker.join(PATIENCE)
    for client in clients:
        assert heard[client.id] == list(range(count))


# ---- the end of all


def test_term_tells_everybody_on_every_shard(start):
    site = start(shards=4, gateway={"drain_timeout": 20})
    workers = site.worker_on_each_shard()
    clients = []
    for i in range(80):
        client = site.connect("websocket" if i % 2 else "text")
        client.worker, event = hear(workers, ON_CONNECT)
        client.id = event.connection_id
        site.g.set_session(client.id, b"session-%d" % client.id)
        clients.append(client)
    site.g.sync()
    assert len({shard_of(client.id) for client in clients}) == 4
    site.gateway.process.send_signal(signal.SIGTERM)
    for i, client in enumerate(clients):
        if i % 2:
            client.expect_close(1001)
        else:
            client.expect_end()
        client.close()
    closes = {}
    for _ in clients:
        worker, event = hear(workers, ON_CLOSE)
        assert event.connection_id not in closes
        closes[event.connection_id] = (worker, event.ext)
    assert closes == {client.id: (client.worker, b"session-%d" % client.id) for client in clients}
    assert site.gateway.process.wait() == 0
    for worker in workers:
        worker.events.clear()
        assert worker.is_ended(within=PATIENCE)


def test_too_many_workers_are_turned_away_and_counted(start):
    """Each shard has its part of the 4096 numbers that workers get: 64 of 64 shards."""
    site = start(shards=64, gateway={"link_shards": "0"})
    workers = [site.worker_link(sync=False) for _ in range(64)]
    site.wait_gauge("workers", 64)
    with pytest.raises((LinkClosed, ConnectionError)):
        site.worker_link(sync=False).next()
    site.wait_counter("worker_refused", 1)
    workers[0].close()
    site.wait_gauge("workers", 63)
    site.worker_link(sync=False)
    site.wait_gauge("workers", 64)
