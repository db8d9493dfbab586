# SPDX-License-Identifier: MIT
"""Clients are moved from one worker to another while both are there (drain, rebalance): each worker is told a run of what a
client says, in order, nothing is lost or told twice, and ON_CLOSE comes where the client is then."""

import threading
from urllib.parse import quote

import pytest

from gwproto import ON_CLOSE, ON_MESSAGE
from proc import wait_for

pytestmark = [pytest.mark.tgg_only, pytest.mark.shards(1, 3), pytest.mark.timeout(120)]


def ask(site, path, method="GET"):
    status, answer = site.gateway.admin(path, method)
    assert status == 200, answer
    return answer


def rows(site):
    return {row["key"]: row for row in ask(site, "workers")["workers"]}


def key_of(worker):
    return "127.0.0.1:" + worker.worker_key


def drain(site, worker, seconds):
    ask(site, "drain?worker=%s&seconds=%d" % (quote(key_of(worker)), seconds), "POST")


def loads(site, workers):
    found = rows(site)
    return [found[key_of(worker)]["clients"] for worker in workers]


class Talk:
    """Clients say number after number, until they have said so many."""

    def __init__(self, clients, count):
        self.count = count
        self.thread = threading.Thread(target=self._run, args=(clients,))
        self.thread.start()

    def _run(self, clients):
        for number in range(self.count):
            for client in clients:
                client.send_message(b"%d" % number)

    def join(self):
        self.thread.join()


class Listener(threading.Thread):
    """Reads all that a worker is told: (command, connection_id, body) in told."""

    def __init__(self, worker):
        super().__init__()
        self.worker = worker
        self.told = []
        self.ended = False
        self.start()

    def run(self):
        while not self.ended:
            try:
                packet = self.worker.next(timeout=0.2)
            except TimeoutError:
                continue
            self.told.append((packet.cmd, packet.connection_id, packet.body))

    def of(self, cmd, client):
        return [body for c, connection_id, body in self.told if c == cmd and connection_id == client.id]


def test_clients_that_talk_all_the_time_are_drained_in_order(start):
    site = start()
    old = site.worker_link("old")
    clients = [site.client("text", worker=old) for _ in range(12)]
    new = site.worker_link("new")
    listeners = [Listener(old), Listener(new)]
    talk = Talk(clients, 3000)
    drain(site, old, 1)
    wait_for(lambda: loads(site, [old, new]) == [0, 12], timeout=30, what="all clients at the other worker")
    row = rows(site)[key_of(old)]
    assert row["draining"] and row["health"] == "ok"
    talk.join()
    for client in clients:
        client.close()
    wait_for(lambda: site.gauge("clients") == 0)
    wait_for(lambda: sum(len(listener.of(ON_CLOSE, client)) for client in clients for listener in listeners) >= 12)
    for listener in listeners:
        listener.ended = True
        listener.join()
    for client in clients:
        before, after = [[int(body) for body in listener.of(ON_MESSAGE, client)] for listener in listeners]
        assert before + after == list(range(3000))
        assert [len(listener.of(ON_CLOSE, client)) for listener in listeners] == [0, 1]
    assert site.counter("worker_rebalanced") == 12 and site.counter("client_rebound") == 0


def test_a_new_client_passes_over_one_that_drains(start):
    site = start()
    one, other = site.worker_link("one"), site.worker_link("other")
    drain(site, one, 0)
    clients = [site.client("text", worker=other) for _ in range(8)]
    assert loads(site, [one, other]) == [0, 8]
    ask(site, "undrain?worker=%s" % quote(key_of(one)), "POST")
    site.client("text", worker=one)
    assert len(clients) == 8 and not rows(site)[key_of(one)]["draining"]


def test_a_worker_that_comes_back_is_undrained(start):
    site = start()
    one, other = site.worker_link("one"), site.worker_link("other")
    drain(site, one, 0)
    assert rows(site)[key_of(one)]["draining"]
    one.close()
    wait_for(lambda: key_of(one) not in rows(site))
    again = site.worker_link("one")
    assert [rows(site)[key_of(worker)]["draining"] for worker in (again, other)] == [False, False]


def test_rebalance_makes_all_workers_even_and_moves_nobody_twice(start):
    site = start()
    first = site.worker_link("first")
    clients = [site.client("text", worker=first) for _ in range(31)]
    workers = [first] + [site.worker_link(name) for name in ("second", "third")]
    assert ask(site, "rebalance?seconds=1", "POST")["moved"] == 20
    wait_for(lambda: sorted(loads(site, workers)) == [10, 10, 11], timeout=10, what="as many clients at each worker")
    assert ask(site, "rebalance?seconds=0", "POST")["moved"] == 0
    assert site.counter("worker_rebalanced") == 20
    for client in clients:
        client.send_message(b"here")
    for worker, load in zip(workers, loads(site, workers)):
        assert len(worker.collect(load, ON_MESSAGE)) == load
