# SPDX-License-Identifier: MIT
"""one_connection_per_uid: whoever was bound to a uid before is closed, wherever in the node it is; the last one stays. In order
with what else a link says."""

import random
import threading

import pytest

from gwproto import (BIND_UID, GET_CLIENT_ID_BY_UID, IS_ONLINE, ON_CLOSE, SEND_TO_ALL, SEND_TO_ONE, SEND_TO_UID, UNBIND_UID, packet,
                     shard_of, to_json)
from load import connect_crowd, flat
from phpvalue import unserialize, values
from proc import SANITIZED
from test_reload import change, reload
from wsclient import CLOSE

pytestmark = [pytest.mark.tgg_only, pytest.mark.timeout(180), pytest.mark.shards(1, 3)]

REPLACED = 4001
REASON = b"replaced by a newer connection"


def one_per_uid(start, **gateway):
    return start(gateway={"one_connection_per_uid": "yes", **gateway}).with_worker()


def stream_of(packets):
    return b"".join(p.encode() for p in packets)


def to_uid(uid, body):
    return packet(SEND_TO_UID, ext=to_json([uid]), body=body)


def expect_replaced(client):
    got = client.read_frame()
    assert (got.opcode, got.code, got.payload[2:]) == (CLOSE, REPLACED, REASON), got
    client.send_close(REPLACED)
    client.expect_end()
    client.close()


def is_there(site, client):
    site.g.send_to_one(client.id, b"are you there")
    return client.read_message() == b"are you there"


def check_counters(site, replaced):
    site.wait_counter("uid_replaced", replaced)
    assert site.counter("client_closed_uid_replaced") == replaced


# ---- who goes, and how


def test_off_by_default_as_in_php(start):
    site = start().with_worker()
    clients = flat(site.clients_on_each_shard(2))
    for client in clients:
        site.g.bind_uid(client.id, b"u")
    assert set(values(site.g.ids_by_uid(b"u"))) == {client.id for client in clients}
    site.g.send_to_uid([b"u"], b"all of you")
    assert [client.read_message() for client in clients] == [b"all of you"] * len(clients)
    check_counters(site, 0)


def test_the_older_one_is_closed_on_whatever_shard_it_is(start):
    site = one_per_uid(start)
    pairs = 0
    for link in site.link_on_each_shard():
        older = site.clients_on_each_shard(site.shards, "websocket")
        newer = site.clients_on_each_shard(site.shards, "websocket")
        for a in range(site.shards):
            for b in range(site.shards):
                old, new, uid = older[a][b], newer[b][a], b"uid-%d" % pairs
                link.bind_uid(old.id, uid)
                link.set_session(old.id, {"n": pairs})
                link.bind_uid(new.id, uid)
                assert values(link.ids_by_uid(uid)) == [new.id]
                expect_replaced(old)
                event = site.worker.wait(ON_CLOSE, old.id)
                assert unserialize(event.ext) == {b"n": pairs}
                assert link.is_online(old.id) == 0
                assert is_there(site, new)
                pairs += 1
    check_counters(site, pairs)
    site.wait_gauge("clients", len(site.clients) - pairs)
    assert not site.worker.quiet()


@pytest.mark.parametrize("listener", ["text", "frame", "tcp"])
def test_other_protocols_are_just_closed(start, listener):
    site = one_per_uid(start)
    clients = flat(site.clients_on_each_shard(2, listener))
    for client in clients:
        site.g.bind_uid(client.id, b"u")
    for client in clients[:-1]:
        client.expect_end()
        site.worker.wait(ON_CLOSE, client.id)
    assert is_there(site, clients[-1])
    check_counters(site, len(clients) - 1)


def test_what_waits_for_the_older_one_is_written_before_it_goes(start):
    site = one_per_uid(start)
    old, new = flat(site.clients_on_each_shard(2, "websocket"))[::site.shards * 2 - 1]
    site.g.bind_uid(old.id, b"u")
    for i in range(100):
        site.g.send_to_uid([b"u"], b"%d" % i + b"." * 3000)
    site.g.bind_uid(new.id, b"u")
    assert [old.read_message() for _ in range(100)] == [b"%d" % i + b"." * 3000 for i in range(100)]
    expect_replaced(old)
    assert is_there(site, new)


def test_nothing_happens_to_one_that_is_bound_to_its_own_uid_again(start):
    site = one_per_uid(start)
    clients = flat(site.clients_on_each_shard(1))
    for link in site.link_on_each_shard():
        for client in clients:
            for _ in range(3):
                link.bind_uid(client.id, b"uid-%d" % client.id)
            assert values(link.ids_by_uid(b"uid-%d" % client.id)) == [client.id]
    assert all(is_there(site, client) for client in clients)
    check_counters(site, 0)


def test_a_uid_that_was_left_is_free(start):
    site = one_per_uid(start)
    clients = flat(site.clients_on_each_shard(2))
    for link in site.link_on_each_shard():
        for client in clients:
            link.send_bytes(stream_of([packet(BIND_UID, client.id, ext=b"u"), packet(UNBIND_UID, client.id)]))
        for client in clients:
            link.send_bytes(stream_of([packet(BIND_UID, client.id, ext=b"u"), packet(BIND_UID, client.id, ext=b"own-%d" % client.id)]))
        assert not values(link.ids_by_uid(b"u"))
        link.sync()
    assert all(is_there(site, client) for client in clients)
    check_counters(site, 0)


def test_a_bind_of_one_that_is_gone_or_refused_closes_nobody(start):
    site = one_per_uid(start)
    stay, gone = (flat(site.clients_on_each_shard(2))[i::2] for i in (0, 1))
    for client in gone:
        client.close()
        site.worker.wait(ON_CLOSE, client.id)
    for link in site.link_on_each_shard():
        for client in stay:
            uid = b"uid-%d" % client.id
            link.bind_uid(client.id, uid)
            for other in gone:
                link.bind_uid(other.id, uid)
            link.bind_uid(stay[0].id, b"")
            link.bind_uid(stay[0].id, b"0")
            assert values(link.ids_by_uid(uid)) == [client.id]
    assert all(is_there(site, client) for client in stay)
    check_counters(site, 0)


def test_long_and_odd_uids(start):
    site = one_per_uid(start)
    for uid in (b"x" * 65535, bytes(range(256)), b"1", "ü €".encode()):
        clients = flat(site.clients_on_each_shard(2))
        for client in clients:
            site.g.bind_uid(client.id, uid)
        for client in clients[:-1]:
            client.expect_end()
        assert values(site.g.ids_by_uid(uid)) == [clients[-1].id]


def test_switched_on_and_off_at_run_time(start):
    site = start().with_worker()
    clients = flat(site.clients_on_each_shard(6, "websocket"))
    random.Random(1).shuffle(clients)
    crowd, newer, (later, last) = clients[:-3], clients[-3], clients[-2:]
    for client in crowd:
        site.g.bind_uid(client.id, b"u")
    assert len(site.g.ids_by_uid(b"u")) == len(crowd)
    change(site, "gateway", one_connection_per_uid="yes")
    reload(site)
    assert len(site.g.ids_by_uid(b"u")) == len(crowd)
    site.g.bind_uid(newer.id, b"u")
    assert values(site.g.ids_by_uid(b"u")) == [newer.id]
    for client in crowd:
        expect_replaced(client)
    change(site, "gateway", one_connection_per_uid="no")
    reload(site)
    for client in (later, last):
        site.g.bind_uid(client.id, b"u")
    assert set(values(site.g.ids_by_uid(b"u"))) == {newer.id, later.id, last.id}
    check_counters(site, len(crowd))


# ---- order


def test_a_send_after_the_bind_reaches_the_new_one_only(start):
    """One after the other is bound, in one stream: each hears what was said while it had the uid."""
    site = one_per_uid(start)
    links = site.link_on_each_shard()
    replaced = 0
    for number in range(5 if SANITIZED else 20):
        for at, link in enumerate(links):
            clients = flat(site.clients_on_each_shard(4))
            random.Random(number).shuffle(clients)
            uid = b"uid-%d-%d" % (number, at)
            packets = []
            for i, client in enumerate(clients):
                packets += [packet(BIND_UID, client.id, ext=uid), to_uid(uid, b"%d" % i), packet(GET_CLIENT_ID_BY_UID, ext=uid),
                            packet(IS_ONLINE, client.id), to_uid(uid, b"again %d" % i)]
            link.send_bytes(stream_of(packets))
            for i, client in enumerate(clients):
                assert values(unserialize(link.read_reply())) == [client.id]
                assert unserialize(link.read_reply()) == 1
                assert [client.read_message(), client.read_message()] == [b"%d" % i, b"again %d" % i]
                if client is not clients[-1]:
                    client.expect_end()
            assert is_there(site, clients[-1])
            replaced += len(clients) - 1
    check_counters(site, replaced)


def test_the_last_of_two_binds_on_a_link_wins(start):
    site = one_per_uid(start)
    for link in site.link_on_each_shard():
        for number in range(5 if SANITIZED else 30):
            clients = flat(site.clients_on_each_shard(1))
            random.Random(number).shuffle(clients)
            link.send_bytes(stream_of(packet(BIND_UID, client.id, ext=b"u") for client in clients))
            for client in clients[:-1]:
                client.expect_end()
            assert is_there(site, clients[-1])


def test_long_work_for_the_older_one_is_done_before_it_is_closed(start):
    site = one_per_uid(start, turn_max=1)
    connect_crowd(site, [site.worker], 300 if SANITIZED else 3000)
    for link in site.link_on_each_shard():
        for number in range(3):
            clients = flat(site.clients_on_each_shard(2))
            random.Random(number).shuffle(clients)
            uid = b"uid-%d" % number
            packets = [packet(BIND_UID, client.id, ext=uid) for client in clients[:1]]
            for i, client in enumerate(clients[1:]):
                packets += [packet(SEND_TO_ALL, body=b"all %d" % i), packet(SEND_TO_ONE, clients[i].id, body=b"last words"),
                            packet(BIND_UID, client.id, ext=uid), to_uid(uid, b"welcome")]
            link.send_bytes(stream_of(packets))
            for i, client in enumerate(clients):
                expected = [b"all %d" % k for k in range(i)] + [b"welcome"] * (i > 0)
                if client is not clients[-1]:
                    expected += [b"all %d" % i, b"last words"]
                assert [client.read_message() for _ in expected] == expected
                if client is not clients[-1]:
                    client.expect_end()
            clients[-1].close()
            link.sync()  # or the next ones hear of this round


# ---- races


def storm(site, links, clients, uids, rounds):
    """Every link binds every client to its uid, each in an order of its own, all at the same time."""
    seed = random.Random(len(clients))
    streams = []
    for _ in links:
        binds = [packet(BIND_UID, client.id, ext=uids[i % len(uids)]) for i, client in enumerate(clients)] * rounds
        seed.shuffle(binds)
        streams.append(stream_of(binds))
    barrier = threading.Barrier(len(links))

    def run(link, stream):
        barrier.wait()
        link.send_bytes(stream)

    threads = [threading.Thread(target=run, args=pair) for pair in zip(links, streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_storm_of_binds_leaves_exactly_one_for_each_uid(start):
    site = one_per_uid(start)
    links = [link for _ in range(2) for link in site.link_on_each_shard()]
    replaced = 0
    for number in range(2 if SANITIZED else 6):
        per_shard = (4, 12, 40)[number % 3]
        clients = flat(site.clients_on_each_shard(per_shard, "websocket"))
        random.Random(number).shuffle(clients)
        uids = [b"uid-%d-%d" % (number, k) for k in range(3)]
        storm(site, links, clients, uids, 3)
        replaced += len(clients) - len(uids)
        check_counters(site, replaced)
        left = {site.g.ids_by_uid(uid)[0] for uid in uids if len(site.g.ids_by_uid(uid)) == 1}
        assert len(left) == len(uids)
        for client in clients:
            if client.id in left:
                assert is_there(site, client)
            else:
                expect_replaced(client)
                site.worker.wait(ON_CLOSE, client.id)
        assert not [event for event in site.worker.quiet() if event.cmd == ON_CLOSE]
        check_counters(site, replaced)


def test_logins_at_the_same_time_from_two_devices_leave_one_of_them(start):
    """Pairs, each bound by two workers at once: never both are closed, never both stay."""
    site = one_per_uid(start)
    links = (site.link_on_each_shard() + site.link_on_each_shard())[:2]
    first, second = flat(site.clients_on_each_shard(60)), flat(site.clients_on_each_shard(60))
    random.Random(1).shuffle(second)
    threads = []
    for link, clients in zip(links, (first, second)):
        data = stream_of(packet(BIND_UID, client.id, ext=b"uid-%d" % i) for i, client in enumerate(clients))
        threads.append(threading.Thread(target=link.send_bytes, args=(data,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for link in links:
        link.sync()
    check_counters(site, sum(a is not b for a, b in zip(first, second)))


def test_a_link_that_binds_and_ends_at_once(start):
    site = one_per_uid(start)
    replaced = 0
    for number in range(10):
        clients = flat(site.clients_on_each_shard(2))
        random.Random(number).shuffle(clients)
        for client in clients:
            link = site.client_link()
            link.send_bytes(stream_of([packet(BIND_UID, client.id, ext=b"u"), to_uid(b"u", b"hello")]))
            link.close()
            assert client.read_message() == b"hello"
            site.g.sync()
        for client in clients[:-1]:
            client.expect_end()
        replaced += len(clients) - (number == 0)
    check_counters(site, replaced)
