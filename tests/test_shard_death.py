# SPDX-License-Identifier: MIT
"""A shard that dies or stands still, under load: its clients are told of exactly once, nobody else notices, its place is
taken. Then the deaths of the others: supervisor, announcer, register, workers."""

import collections
import os
import random
import re
import signal
import threading
import time

import pytest

from gwproto import (BATCH_GET_CLIENT_COUNT_BY_GROUP, GET_CLIENT_COUNT_BY_GROUP, ON_CLOSE, ON_CONNECT, ON_MESSAGE, PATIENCE,
                     SEND_TO_ALL, RegisterLink, packet, shard_of, to_json)
from load import Busy, connect_crowd, flat, hear
from phpvalue import unserialize
from proc import Register, slow, wait_for

pytestmark = [pytest.mark.tgg_only, pytest.mark.timeout(120)]


def serve_new(site, listener="text"):
    """A new client is accepted and its echo comes back: how long that took. It stays."""
    began = time.monotonic()
    client = site.connect(listener)
    client.send_message(b"e1")
    assert client.read_message() == b"e1"
    return time.monotonic() - began


def check_new_clients(site, seconds=1.0, bound=1.0):
    """From now on, for so long, everybody who comes is served in time. Where the kernel puts each is its own affair."""
    worst, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        worst = max(worst, serve_new(site))
        time.sleep(0.02)
    assert worst < bound * slow(), "%.3f s" % worst
    return worst


def check_sessions(busy, closes):
    """ON_CLOSE carried the last session: that of the last echo, or of the message behind it."""
    report = busy.crowd.report()
    port_of = {id_: port for port, id_ in busy.id_of.items()}
    for id_, (_, _, event) in closes.items():
        said = report[port_of[id_]]
        assert said["echoed"] <= int(event.ext or 0) <= said["sent"], (hex(id_), event.ext, said)


def check_order(busy):
    """No event of a client after its ON_CLOSE or before its ON_CONNECT; messages in order, none twice."""
    for worker in busy.workers:
        last = {}
        for _, event in list(worker.events):
            id_ = event.connection_id
            assert last.get(id_) != "closed", "%s after ON_CLOSE" % event
            if event.cmd == ON_CLOSE:
                last[id_] = "closed"
            elif event.cmd == ON_MESSAGE:
                number = int(event.body[1:])
                assert number > last.get(id_, 0), (event, last[id_])
                last[id_] = number


def check_others(busy, *dead):
    """Clients of other shards: connected, and served whole when their worker's link was on a shard that lives. The longest
    round trip among those."""
    worst = 0
    for port, said in busy.crowd.report().items():
        id_ = busy.id_of[port]
        if shard_of(id_) in dead:
            continue
        assert said["ended_at"] is None, "a client of shard %d ended" % shard_of(id_)
        assert said["wrong"] == 0, said
        if busy.worker_of[id_].shard not in dead:
            assert said["lost"] == 0 and said["sent"] - said["echoed"] <= 1, said
            worst = max(worst, said["worst"])
    return worst


def check_links_are_back(busy, *dead):
    """Workers whose link was on a dead shard have connected again, the others did not have to."""
    busy.site.wait_gauge("workers", len(busy.workers))
    for worker in busy.workers:
        assert worker.links == (2 if worker.shard in dead else 1), (worker.key, worker.shard, worker.links)


def restarts(site):
    return [shard["restarts"] for shard in site.gateway.status()["shards"]]


def name_everybody(busy):
    """All are in a group, and each has a uid."""
    ids = sorted(busy.id_of.values())
    for id_ in ids:
        busy.site.g.join_group(id_, b"room")
        busy.site.g.bind_uid(id_, b"uid-%d" % id_)
    busy.site.g.sync()
    assert busy.site.g.group_count(b"room") == len(ids)


def check_no_ghosts(link, dead, living):
    """What one link is told of those who are gone, and of the others."""
    assert set(link.group_sessions(b"room")) == living
    assert link.group_count(b"room") == len(living)
    assert not dead & set(link.all_sessions())
    assert not dead & set(link.select(["uid"]))
    some = sorted(dead)[:20]
    assert [link.is_online(id_) for id_ in some] == [0] * len(some)
    assert not any(link.batch_ids_by_uid([b"uid-%d" % id_ for id_ in some]).values())


# ---- one shard is killed


@pytest.mark.parametrize("shards", [2, 4])
def test_a_shard_killed_under_load(start, shards):
    busy = Busy(start, shards)
    site, victim = busy.site, 1
    name_everybody(busy)
    lives = [link for shard, link in enumerate(site.link_on_each_shard()) if shard != victim]
    old = site.gateway.shard_pid(victim)
    dead = busy.ids_on(victim)
    living = set(busy.id_of.values()) - dead
    assert dead and living
    busy.crowd.mark()
    at = busy.kill(victim)
    time.sleep(max(at + min(slow(), 5) - time.monotonic(), 0))
    for link in lives:
        check_no_ghosts(link, dead, living)
    closes = busy.wait_closes(dead)
    assert max(when for when, _, _ in closes.values()) - at < 5 * slow()
    check_new_clients(site, 0.5)
    check_no_ghosts(site.client_link(), dead, living)
    busy.wait_successor(old)
    busy.crowd.pause()
    for id_, (_, worker, _) in closes.items():
        if busy.worker_of[id_].shard != victim:
            assert worker is busy.worker_of[id_], "told to %s, not to %s" % (worker.key, busy.worker_of[id_].key)
    check_sessions(busy, closes)
    check_order(busy)
    worst = check_others(busy, victim)
    assert worst < 0.5 * slow()
    check_links_are_back(busy, victim)
    ended = [said["ended_at"] for port, said in busy.crowd.report().items() if busy.id_of[port] in dead]
    assert all(ended) and max(ended) - at < 1 * slow()
    assert restarts(site) == [int(shard == victim) for shard in range(shards)]
    for word, rest in (("shard_died", "signal=9"), ("shard_buried", "messages_from_it=")):
        (line,) = [line for line in site.gateway.log().splitlines() if word in line]
        assert "shard=%d" % victim in line and rest in line
    assert busy.wait_closes(dead).keys() == closes.keys()
    print("%d clients told of within %.3f s; longest round trip of others %.1f ms"
          % (len(dead), max(when for when, _, _ in closes.values()) - at, 1e3 * worst))


def test_others_see_no_pause_in_a_quiet_moment(start):
    """Few clients, little traffic; a living worker's link. Measured, and bounded generously."""
    busy = Busy(start, 4, workers=4, clients=60, pace=0.02)
    worst = []
    for victim in (1, 3, 2):
        old = busy.site.gateway.shard_pid(victim)
        busy.crowd.mark()
        time.sleep(0.3)
        before = max(said["worst"] for said in busy.crowd.report().values())
        busy.crowd.mark()
        busy.kill(victim)
        time.sleep(0.7)
        report = busy.crowd.report()
        worst.append((before, max(said["worst"] for port, said in report.items() if said["ended_at"] is None
                                  and busy.worker_of[busy.id_of[port]].links == 1)))
        busy.wait_successor(old)
    print("before and after, ms: %s" % ["%.1f %.1f" % (1e3 * a, 1e3 * b) for a, b in worst])
    assert all(after < 0.5 * slow() for _, after in worst), worst


def test_one_shard_alone_is_killed(start):
    """Its clients are told of by its successor, to workers that have come back."""
    busy = Busy(start, 1, workers=2, clients=100)
    old = busy.site.gateway.shard_pid()
    at = busy.kill(0)
    closes = busy.wait_closes(busy.ids_on(0))
    assert max(when for when, _, _ in closes.values()) - at < 5 * slow()
    check_sessions(busy, closes)
    check_order(busy)
    busy.wait_successor(old)
    check_links_are_back(busy, 0)
    assert busy.site.g.group_count() == 0
    check_new_clients(busy.site, 0.3)


@pytest.mark.parametrize("together", [2, 4])
def test_several_shards_killed_at_once(start, together):
    busy = Busy(start, 4)
    site, victims = busy.site, list(range(4))[-together:]
    old = [site.gateway.shard_pid(victim) for victim in victims]
    dead = busy.ids_on(*victims)
    busy.crowd.mark()
    at = busy.kill(*victims)
    closes = busy.wait_closes(dead)
    took = max(when for when, _, _ in closes.values()) - at
    assert took < 5 * slow(), took
    check_new_clients(site, 0.5)
    busy.wait_successor(*old)
    busy.crowd.pause()
    check_sessions(busy, closes)
    check_order(busy)
    check_others(busy, *victims)
    check_links_are_back(busy, *victims)
    assert restarts(site) == [int(shard in victims) for shard in range(4)]
    assert set(site.g.all_sessions()) >= set(busy.id_of.values()) - dead
    assert not dead & set(site.g.all_sessions())


def test_shards_killed_again_and_again(start):
    """Clients come in between; at the end everybody who is gone was told of once, and everybody else is there."""
    busy = Busy(start, 3, clients=90, pace=0.05)
    site, rng = busy.site, random.Random(4)
    dead, kills = set(), collections.Counter()
    for round_ in range(6):
        victim = rng.randrange(3)
        kills[victim] += 1
        old = site.gateway.shard_pid(victim)
        busy.kill(victim)
        dead |= busy.ids_on(victim)
        busy.wait_successor(old)
        busy.site.wait_gauge("workers", 4)
        busy.add(30)
        busy.crowd.echo(0.05)
        time.sleep(0.2)
    busy.wait_closes(dead)
    busy.crowd.pause()
    check_order(busy)
    living = set(busy.id_of.values()) - dead
    assert set(site.g.all_sessions()) == living
    assert site.gauge("clients") == len(living)
    assert restarts(site) == [kills[shard] for shard in range(3)]
    report = busy.crowd.report()
    assert {busy.id_of[port] for port, said in report.items() if said["ended_at"]} == dead


def test_the_successor_is_killed_while_it_tells(start):
    """Paced at 500 a second; killed twice in the middle of it. Still everybody once."""
    busy = Busy(start, 2, workers=2, clients=1200, pace=None, close_rate=500)
    site, victim = busy.site, 1
    dead = busy.ids_on(victim)
    assert 550 < len(dead) < 650
    at = busy.kill(victim)
    for part in (150, 300):
        wait_for(lambda: len(busy.closes()) >= part, what="%d ON_CLOSE" % part)
        assert len(busy.closes()) < len(dead) - 50, "it is not paced"
        busy.kill(victim)
    closes = busy.wait_closes(dead)
    times = sorted(when - at for when, _, _ in closes.values())
    assert times[-1] > 0.8 * len(dead) / 500, "told of %d in %.3f s, at 500 a second" % (len(dead), times[-1])
    assert times[-1] < 10 * slow()
    check_new_clients(site, 0.2)
    assert restarts(site)[victim] == 3


def test_what_is_told_is_paced(start):
    busy = Busy(start, 2, workers=2, clients=2000, pace=None, close_rate=1000)
    dead = busy.ids_on(1)
    at = busy.kill(1)
    time.sleep(min(slow(), 5))
    # Nobody finds them any more, although their workers have not heard of all yet.
    assert not dead & set(busy.site.g.all_sessions())
    closes = busy.wait_closes(dead)
    times = sorted(when - at for when, _, _ in closes.values())
    in_window = max(sum(t <= when < t + 0.25 for when in times) for t in times)
    assert in_window <= 2 * 0.25 * 1000 + 50, "%d in 0.25 s" % in_window
    assert 0.7 * len(dead) / 1000 < times[-1] < len(dead) / 1000 + 3 * slow()


def test_ids_of_the_dead_are_not_given_out_again(start):
    site = start(shards=2)
    seen = set()
    for round_ in range(3):
        for link in site.links:
            link.close()
        site.wait_gauge("links", 0)
        worker = site.worker_link(sync=False)
        clients = []
        for _ in range(30):
            client = site.connect("text")
            client.id = worker.wait(ON_CONNECT, client_port=client.port).connection_id
            clients.append(client)
        ids = {client.id for client in clients}
        assert len(ids) == 30 and not ids & seen
        seen |= ids
        old = site.gateway.shard_pid(1)
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: site.gateway.shard_pid(1) not in (0, old) and site.gateway.status()["shards"][1]["state"] == "running",
                 what="the successor")
        link = site.client_link()
        gone = [id_ for id_ in ids if shard_of(id_) == 1]
        for id_ in gone:
            link.send_to_one(id_, b"x")
            link.join_group(id_, b"ghosts")
        assert [link.is_online(id_) for id_ in gone] == [0] * len(gone)
        assert link.group_count(b"ghosts") == 0


def test_least_connections_is_exact_after_a_death(start):
    """Nobody is counted who is gone, everybody who is there."""
    busy = Busy(start, 3, workers=4, clients=120, pace=None)
    site = busy.site
    old = site.gateway.shard_pid(2)
    dead = busy.ids_on(2)
    busy.kill(2)
    busy.wait_closes(dead)
    busy.wait_successor(old)
    site.wait_gauge("workers", 4)
    time.sleep(0.5)
    clients = [site.connect("text") for _ in range(1)]
    counts = {}

    def count():
        """Whom each client is bound to, by what it says now."""
        heard = [len(worker.events) for worker in busy.workers]
        busy.crowd.echo(0.2)
        time.sleep(0.6)
        busy.crowd.pause()
        for client in clients:
            client.send_message(b"e1")
            assert client.read_message() == b"e1"
        for worker, before in zip(busy.workers, heard):
            counts[worker.key] = len({event.connection_id for _, event in worker.events[before:] if event.cmd == ON_MESSAGE})
        return sorted(counts.values())

    total = 120 - len(dead) + 1
    assert sum(count()) == total
    # One after the other until all are as many as the fullest, and then some.
    top = max(counts.values())
    for _ in range(4 * top - total + 6):
        before = sum(len(worker.of(ON_CONNECT)) for worker in busy.workers)
        clients.append(site.connect("text"))
        wait_for(lambda: sum(len(worker.of(ON_CONNECT)) for worker in busy.workers) > before, what="ON_CONNECT")
    assert max(count()) - min(count()) <= 1, counts


def test_clients_that_come_in_the_moment_of_the_death(start):
    """Also those that were being handed from shard to shard: each is served or its connection ends, and is counted."""
    busy = Busy(start, 3, workers=2, clients=30)
    site = busy.site
    for victim in (1, 0):
        old = site.gateway.shard_pid(victim)
        killer = threading.Timer(0.03, lambda: os.kill(old, signal.SIGKILL))
        killer.start()
        busy.crowd.ports += busy.crowd.connect(400, burst=True)
        killer.join()
        busy.wait_successor(old)
        site.wait_gauge("workers", 2)
        busy.crowd.echo(0.3, resend=1.0)
        time.sleep(1.5)
    time.sleep(1)
    busy.crowd.mark()
    time.sleep(1)
    busy.crowd.pause()
    report = busy.crowd.report()
    there = [said for said in report.values() if said["ended_at"] is None]
    assert len(there) > 400
    silent = [said for said in there if said["worst_at"] is None]
    assert not silent, "%d of %d are not served: %s" % (len(silent), len(there), silent[0])
    site.wait_gauge("clients", len(there))
    assert site.g.group_count() == len(there)
    opened = collections.Counter(event.connection_id for worker in busy.workers for _, event in worker.of(ON_CONNECT))
    closed = busy.closes()
    assert set(opened.values()) == {1}
    assert all(len(whole) == 1 for whole in closed.values()) and set(closed) <= set(opened)
    assert set(opened) - set(closed) == set(site.g.all_sessions())


# ---- what goes on in the moment of a death


def test_a_shard_dies_during_fan_outs_and_questions(start):
    """Everything that a link on a living shard asks is answered, in order; everybody who lives gets every message once."""
    site = start(shards=3, gateway={"turn_max": 1, "query_timeout": 20_000}, log={"level": "info", "rate_max": 0})
    workers = site.worker_on_each_shard()
    crowd, known = connect_crowd(site, workers, 3000)
    victim, count = 2, 60
    links = [link for shard, link in enumerate(site.link_on_each_shard()) if shard != victim]
    living = sum(shard_of(id_) != victim for id_, _ in known.values())
    stream = []
    for number in range(count):
        stream.append(packet(SEND_TO_ALL, body=b"%d" % number))
        stream.append(packet(BATCH_GET_CLIENT_COUNT_BY_GROUP, ext=to_json([b"name-%d" % number])))
        stream.append(packet(GET_CLIENT_COUNT_BY_GROUP))
    data = b"".join(p.encode() for p in stream)
    sender = threading.Thread(target=links[0].send_bytes, args=(data,), daemon=True)
    sender.start()
    other = b"".join(packet(BATCH_GET_CLIENT_COUNT_BY_GROUP, ext=to_json([b"other-%d" % n])).encode() for n in range(1000))
    asker = threading.Thread(target=links[1].send_bytes, args=(other,), daemon=True)
    asker.start()
    # In the middle of it.
    for number in range(count):
        if number == 5:
            os.kill(site.gateway.shard_pid(victim), signal.SIGKILL)
        assert unserialize(links[0].read_reply()) == {b"name-%d" % number: 0}
        assert living <= unserialize(links[0].read_reply()) <= 3000
    for number in range(1000):
        assert unserialize(links[1].read_reply()) == {b"other-%d" % number: 0}
    sender.join(PATIENCE)
    asker.join(PATIENCE)
    found = crowd.take(count)
    assert found == {tuple(str(n) for n in range(count)): living}, [(len(k), v) for k, v in found.items()][:5]
    wait_for(lambda: links[0].group_count() == living, what="an answer without the dead")
    for link in links:
        assert link.is_online(0) == 0 and not link.buffer


def test_a_link_on_the_dying_shard_loses_only_itself(start):
    """Its commands up to some point are done, at all clients of living shards alike or nearly; nothing twice, nothing out of
    order."""
    site = start(shards=3)
    worker = site.worker_on_each_shard()[0]
    clients = []
    while len(clients) < 6:
        client = site.connect("text")
        worker_, event = hear(site.links[:3], ON_CONNECT)
        client.id = event.connection_id
        if shard_of(client.id) != 2:
            clients.append(client)
    link = site.link_on_each_shard()[2]
    stopped = threading.Event()
    sent = []

    def send():
        try:
            while not stopped.is_set():
                link.send_to_all(b"%d" % len(sent))
                sent.append(None)
        except OSError:
            pass

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    time.sleep(0.3)
    os.kill(site.gateway.shard_pid(2), signal.SIGKILL)
    wait_for(lambda: link.is_ended(within=0.01), what="the end of its link")
    stopped.set()
    sender.join(PATIENCE)
    again = site.client_link()
    wait_for(lambda: again.group_count() >= 6, what="an answer")
    again.send_to_all(b"end")
    for client in clients:
        numbers = []
        while True:
            message = client.read_message()
            if message == b"end":
                break
            numbers.append(int(message))
        assert numbers == list(range(len(numbers))), "not in order, or not whole"
        assert 10 < len(numbers) <= len(sent) + 1
    assert worker


def test_a_worker_with_much_unread_on_the_dying_shard(start):
    """What was queued to it and the kernel had not taken comes again, from the successor or another; in order, not twice."""
    site = start(shards=2, gateway={"send_to_worker_buffer_size": 20_000_000})
    slow, shard = site.one_more("workers", lambda: site.worker_link("slow", rcvbuf=4096))
    clients = flat(site.clients_on_each_shard(2, worker=slow))
    lives = [client for client in site.clients if shard_of(client.id) != shard]
    count = 3000
    for number in range(count):
        for client in lives[:2]:
            client.send_message(b"%06d" % number + b"." * 500)
    site.wait_counter("event_message", 2 * count)
    dead = {client.id for client in site.clients if shard_of(client.id) == shard}
    os.kill(site.gateway.shard_pid(shard), signal.SIGKILL)
    slow.is_ended(within=PATIENCE)
    slow._take_packets()
    heard = collections.defaultdict(list)
    closes = collections.Counter()

    def note(event):
        if event.cmd == ON_CLOSE:
            closes[event.connection_id] += 1
        elif event.cmd == ON_MESSAGE:
            heard[event.connection_id].append(int(event.body[:6]))

    for event in slow.events:
        note(event)
    new = site.worker_link("slow", sync=False)
    while set(closes) != dead or any(not heard[c.id] or heard[c.id][-1] != count - 1 for c in lives[:2]):
        note(new.next())
    for event in new.quiet(0.3):
        note(event)
    assert set(closes.values()) == {1}
    for client in lives[:2]:
        numbers = heard[client.id]
        assert numbers == sorted(set(numbers)), "twice or out of order"
        missing = sorted(set(range(count)) - set(numbers))
        # What the kernel had taken is gone, and stood together.
        assert not missing or missing == list(range(missing[0], missing[-1] + 1)), missing[:10]
    assert clients


def test_without_any_worker_they_are_told_when_one_comes(start):
    site = start(shards=2)
    worker = site.worker_link("w")
    clients = site.clients_on_each_shard(20, worker=worker)
    for client in site.clients:
        site.g.set_session(client.id, b"session-%d" % client.id)
    site.g.sync()
    worker.close()
    site.wait_gauge("workers", 0)
    dead = {client.id for client in site.clients if shard_of(client.id) == 1}
    living = [client for client in site.clients if shard_of(client.id) == 0]
    old = site.gateway.shard_pid(1)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: site.gateway.shard_pid(1) not in (0, old), what="a successor")
    time.sleep(0.5)
    worker = site.worker_link("w", sync=False)
    closes = [worker.wait(ON_CLOSE) for _ in dead]
    assert {event.connection_id for event in closes} == dead
    assert all(event.ext == b"session-%d" % event.connection_id for event in closes)
    assert worker.quiet(0.3) == []
    for client in living:
        client.send_message(b"here")
        assert worker.wait(ON_MESSAGE, client.id).body == b"here"
    assert clients


def test_what_waited_for_a_worker_on_the_dead_shard(start):
    """Clients that no worker has heard of are not heard of; those of other shards wait on."""
    site = start(shards=2)
    clients = [site.connect("text") for _ in range(40)]
    wait_for(lambda: sum(site.per_shard("clients")) == 40, what="all clients")
    for client in clients:
        client.send_message(b"hello")
    site.wait_counter("event_parked", 80)
    here = site.per_shard("clients")[0]
    old = site.gateway.shard_pid(1)
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: site.gateway.shard_pid(1) not in (0, old), what="a successor")
    worker = site.worker_link(sync=False)
    events = [worker.next() for _ in range(2 * here)]
    assert collections.Counter(e.cmd for e in events) == {ON_CONNECT: here, ON_MESSAGE: here}
    assert {shard_of(e.connection_id) for e in events} == {0}
    assert worker.quiet(0.3) == []


# ---- crash loops, stuck shards


def test_a_crash_loop_is_slowed_down_and_reported(start):
    busy = Busy(start, 2, workers=1, clients=20)
    site, delays = busy.site, []
    for _ in range(6):
        old = site.gateway.shard_pid(1)
        at = busy.kill(1)
        busy.wait_successor(old)
        delays.append(time.monotonic() - at)
    assert delays[0] < 0.5 * slow(), delays
    assert delays[-1] > 0.3 and delays[-1] > 2 * delays[0], delays
    assert re.search(r"crash_loop.*shard=1", site.gateway.log()), site.gateway.log()[-3000:]
    assert restarts(site) == [0, 6]
    # The others serve meanwhile.
    living = {port: said for port, said in busy.crowd.report().items() if shard_of(busy.id_of[port]) == 0}
    assert living and all(said["ended_at"] is None and said["echoed"] > 5 for said in living.values())
    print("delays %s" % ["%.2f" % delay for delay in delays])


def test_a_stuck_shard_is_noticed_and_replaced(start):
    busy = Busy(start, 3, stuck_timeout=1)
    site, victim = busy.site, 1
    old = site.gateway.shard_pid(victim)
    dead = busy.ids_on(victim)
    at = busy.kill(victim, number=signal.SIGSTOP)
    wait_for(lambda: "shard_stuck" in site.gateway.log(), 3 * slow(), "a word in the log")
    noticed = time.monotonic() - at
    assert 0.8 < noticed < 2.5 * slow(), noticed
    busy.wait_successor(old)
    took = time.monotonic() - at
    assert 2.5 < took < 6 * slow(), took
    closes = busy.wait_closes(dead)
    busy.crowd.pause()
    check_sessions(busy, closes)
    check_order(busy)
    assert restarts(site) == [0, 1, 0]
    for port, said in busy.crowd.report().items():
        assert (said["ended_at"] is not None) == (busy.id_of[port] in dead)
    check_new_clients(site, 0.2)
    print("noticed after %.2f s, replaced after %.2f s" % (noticed, took))


def test_a_shard_that_was_stuck_for_a_moment_only_goes_on(start):
    busy = Busy(start, 2, stuck_timeout=1, clients=40)
    pid = busy.site.gateway.shard_pid(1)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.5)
    os.kill(pid, signal.SIGCONT)
    time.sleep(0.5)
    busy.crowd.pause()
    report = busy.crowd.report()
    assert all(said["ended_at"] is None and said["lost"] == 0 for said in report.values())
    assert busy.site.gateway.shard_pid(1) == pid and restarts(busy.site) == [0, 0]
    assert not busy.closes()


def test_a_stack_is_written_to_the_log_on_quit(start):
    site = start(shards=2)
    worker = site.worker
    pid = site.gateway.shard_pid(1)
    os.kill(pid, signal.SIGQUIT)
    site.gateway.wait_log("stack of ")
    wait_for(lambda: re.search(r"stack of shard 1.*\n(.*\n)*?.*(\+0x|\[0x)", site.gateway.log()), what="frames of it in the log")
    assert site.gateway.shard_pid(1) == pid
    clients = site.clients_on_each_shard(1, worker=worker)
    for (client,) in clients:
        client.send_message(b"still there")
        assert worker.wait(ON_MESSAGE, client.id).body == b"still there"


# ---- the deaths of others


def test_the_supervisor_is_killed(start):
    """Its shards drain: clients are told with 1001, workers get every ON_CLOSE, then all processes are gone."""
    site = start(shards=3, gateway={"drain_timeout": 5})
    workers = site.worker_on_each_shard()
    clients = []
    for _ in range(60):
        client = site.connect("websocket")
        client.worker, event = hear(workers, ON_CONNECT)
        client.id = event.connection_id
        site.g.set_session(client.id, b"session-%d" % client.id)
        clients.append(client)
    site.g.sync()
    pids = site.gateway.shard_pids() + [p["pid"] for p in site.gateway.status()["processes"]]
    site.gateway.process.expected_end = True
    site.gateway.process.popen.kill()
    site.gateway.process.popen.wait()
    for client in clients:
        client.expect_close(1001)
    told = {}
    for _ in clients:
        worker, event = hear(workers, ON_CLOSE)
        assert event.connection_id not in told
        told[event.connection_id] = (worker, event.ext)
    assert told == {client.id: (client.worker, b"session-%d" % client.id) for client in clients}
    wait_for(lambda: not any(os.path.exists("/proc/%d" % pid) for pid in pids if pid), what="the end of all processes")
    site.gateway.start()
    worker = site.worker_link()
    again = site.client("text", worker=worker)
    assert again.id not in told
    again.send_message(b"hello")
    assert worker.wait(ON_MESSAGE, again.id).body == b"hello"


def announcer_pid(site):
    (found,) = [p["pid"] for p in site.gateway.status()["processes"] if p["kind"] == "announcer"]
    return found


def test_the_announcer_is_killed(start, tmp_path):
    with Register(tmp_path) as register:
        busy = Busy(start, 2, clients=40, registers=[register.address])
        site = busy.site
        with RegisterLink(register.address) as worker:
            worker.worker_connect()
            address = ["127.0.0.1:%d" % site.gateway.internal_port]
            while worker.addresses() != address:
                pass
            old = announcer_pid(site)
            os.kill(old, signal.SIGKILL)
            assert worker.addresses() == []
            assert worker.addresses() == address
        assert announcer_pid(site) != old
        check_nobody_noticed(busy)


def check_nobody_noticed(busy):
    busy.crowd.pause()
    report = busy.crowd.report()
    assert all(said["ended_at"] is None and said["lost"] == said["wrong"] == 0 and said["sent"] == said["echoed"] > 0 for said in report.values())
    assert not busy.closes()
    assert [worker.links for worker in busy.workers] == [1] * len(busy.workers)
    assert not any(restarts(busy.site))


def test_the_register_is_killed(start, tmp_path):
    register = Register(tmp_path)
    busy = Busy(start, 2, clients=40, registers=[register.address])
    wait_for(lambda: busy.site.gateway.counters()["register_connected"] >= 1, what="the register")
    register.process.expected_end = True
    register.process.popen.kill()
    register.process.popen.wait()
    time.sleep(1.5)
    check_nobody_noticed(busy)
    register.start()
    wait_for(lambda: busy.site.gateway.counters()["register_connected"] >= 2, what="the register again")
    register.stop()


def test_a_worker_is_killed(start):
    """Its clients go to others; nobody's connection ends; who has another worker does not notice."""
    busy = Busy(start, 3)
    victim = busy.workers[2]
    victim.kill()
    busy.site.wait_gauge("workers", 3)
    time.sleep(1)
    busy.crowd.pause()
    for port, said in busy.crowd.report().items():
        assert said["ended_at"] is None and said["wrong"] == 0
        if busy.worker_of[busy.id_of[port]] is not victim:
            assert said["lost"] == 0 and said["sent"] == said["echoed"], said
    assert not busy.closes()
    busy.crowd.mark()
    busy.crowd.echo(0.1)
    time.sleep(0.5)
    busy.crowd.pause()
    assert all(said["worst_at"] for said in busy.crowd.report().values()), "somebody has no worker"
    assert not any(restarts(busy.site))


def test_a_shard_dies_while_the_node_drains(start):
    """The end comes all the same, in time."""
    site = start(shards=3, gateway={"drain_timeout": 3}, listen={"websocket": {"close_timeout": 10}})
    worker = site.worker
    clients = [site.client("websocket", worker=worker) for _ in range(30)]
    pid = site.gateway.shard_pid(1)
    began = time.monotonic()
    site.gateway.process.send_signal(signal.SIGTERM)
    assert clients[0].read_frame().code == 1001
    os.kill(pid, signal.SIGKILL)
    site.gateway.process.wait()
    assert time.monotonic() - began < 8 * slow()
    closes = collections.Counter(event.connection_id for event in worker.quiet(0.3) if event.cmd == ON_CLOSE)
    assert set(closes) <= {client.id for client in clients} and set(closes.values()) <= {1}
    assert set(closes) >= {client.id for client in clients if shard_of(client.id) != 1}
