# SPDX-License-Identifier: MIT
"""tgg ctl evacuate: all connections of a shard, clients, workers and GatewayClients, move to the others, and nobody notices;
processes that are killed in the middle of it take along what is theirs at that moment, and nothing else."""

import collections
import os
import signal
import subprocess
import time

import pytest

from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE, SEND_TO_ONE, LinkClosed, packet
from node import check_echo
from proc import SANITIZED, TGG, run_tgg, sanitizer_env, wait_for
from test_upgrade_faults import Faults, injects
from upgrade import Traffic, reaper, unseen, upgrade  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.tgg_only, pytest.mark.usefixtures("reaper"), pytest.mark.timeout(180)]

AUTO = {"send_type": "auto"}
DEFLATE = {"protocol": "websocket", "deflate": True, "deflate_takeover": True, **AUTO}


def scaled(count):
    return count // 5 if SANITIZED else count


def evacuate(site, shard, *more):
    done = run_tgg("ctl", "-c", site.gateway.config_path, "evacuate", shard, *more)
    assert done.returncode == 0, (done, site.gateway.log()[-4000:])
    return done.stdout


def rows(site):
    status, answer = site.gateway.admin("status")
    assert status == 200, answer
    return answer["shards"]


def assert_empty(site, shard):
    wait_for(lambda: not any(site.per_shard(name)[shard] for name in ("clients", "links", "workers")), what="nobody on that shard")
    row = rows(site)[shard]
    assert row["evacuated"] and row["drained"], row


def site_checks(site):
    site.gateway.check()
    site.gateway.check_tables()


# ---- nobody notices


def test_everybody_moves_under_load(start):
    """Each shard in turn, with workers, GatewayClients that ask all the time and clients on all of them."""
    site = start(shards=3, listen={"websocket": AUTO, "deflate": DEFLATE})
    traffic = Traffic(site, workers=5)
    traffic.connect("websocket", scaled(120))
    traffic.connect("deflate", scaled(40), deflate=True)
    traffic.start(pace=0.3, fan_out=0.05)
    pids = site.gateway.shard_pids()
    with unseen(site):
        for shard in (2, 0, 1):
            links = site.per_shard("links")[shard]
            assert links > 0
            said = evacuate(site, shard)
            assert_empty(site, shard)
            assert "%d internal" % links in said, said
            traffic.moves()
            site_checks(site)
            evacuate(site, shard, "--back")
            wait_for(lambda: site.per_shard("clients")[shard] > 0, what="somebody there")
            assert site.per_shard("links")[shard] == 0, "links stay where they are"
            traffic.moves()
    assert site.gateway.shard_pids() == pids
    traffic.finish()
    site_checks(site)


def test_an_evacuated_shard_takes_nobody_until_it_is_back(start):
    site = start(shards=3)
    workers = site.worker_on_each_shard()
    site._worker = workers[0]
    clients = [site.connect("text") for _ in range(60)]
    site.wait_counter("event_connect", 60)
    before = site.per_shard("clients")
    evacuate(site, 0)  # which led those that accept links
    assert_empty(site, 0)
    for _ in range(6):
        site.worker_link(sync=False)
        site.client_link()
    wait_for(lambda: sum(site.per_shard("workers")) == 9 and sum(site.per_shard("links")) == 15)
    assert site.per_shard("links")[0] == site.per_shard("workers")[0] == 0
    run_tgg("ctl", "-c", site.gateway.config_path, "undrain", "node")
    assert_empty(site, 0)
    # Another one: all on the last.
    evacuate(site, 1)
    assert_empty(site, 1)
    assert site.per_shard("workers") == [0, 0, 9]
    refused = run_tgg("ctl", "-c", site.gateway.config_path, "evacuate", 2)
    assert refused.returncode != 0 and "no other shard" in refused.stderr, refused
    # So it stays in an upgrade.
    upgrade(site.gateway)
    assert_empty(site, 0)
    assert_empty(site, 1)
    assert site.per_shard("workers") == [0, 0, 9]
    for shard in (0, 1):
        evacuate(site, shard, "--back")
        assert not rows(site)[shard]["evacuated"] and not rows(site)[shard]["drained"]
    assert site.per_shard("clients") == before
    assert not any(client.is_ended(within=0) for client in clients)
    _, at = site.one_more("workers", lambda: site.worker_link(sync=False))
    assert at != 2


@pytest.mark.parametrize("shards", [1, 3])
def test_an_evacuated_shard_serves_again_when_it_gets_ids(start, shards):
    site = start(shards=2)
    clients = [site.client("text") for _ in range(30)]
    evacuate(site, 0)
    with unseen(site):
        site.gateway.sections["gateway"]["shards"] = site.gateway.shards = shards
        site.gateway.write_config()
        upgrade(site.gateway)
    assert site.per_shard("clients")[0] > 0
    assert not rows(site)[0]["evacuated"] and not rows(site)[0]["drained"]
    for client in [*clients, site.client("text")]:
        check_echo(site, client)


def test_edge_and_link_shards(start):
    site = start(shards=4, gateway={"edge_shards": "0-1", "link_shards": "2-3"})
    worker, at = site.one_more("workers", site.worker_link)
    site._worker = worker
    clients = [site.client("text") for _ in range(20)]
    with unseen(site):
        for shard, other in ((at, 5 - at), (5 - at, at)):
            evacuate(site, shard)
            assert_empty(site, shard)
            assert site.per_shard("workers")[other] == 1
            evacuate(site, shard, "--back")
        evacuate(site, 0)
        assert_empty(site, 0)
    evacuate(site, 2)
    refused = run_tgg("ctl", "-c", site.gateway.config_path, "evacuate", 3)
    assert refused.returncode != 0 and "no other shard takes workers" in refused.stderr, refused
    for client in clients:
        check_echo(site, client)


# ---- what waits


def numbers(worker, clients, count):
    """Until each has been heard count times; {id: [numbers]}."""
    heard = collections.defaultdict(list)
    for _ in range(count * len(clients)):
        event = worker.wait(ON_MESSAGE)
        heard[event.connection_id].append(int(event.body.split()[0]))
    return heard


def slow_worker(site, shard):
    """The only worker, whose link is on that shard and has little room in the kernel."""
    others = []
    while True:
        worker, at = site.one_more("workers", lambda: site.worker_link(rcvbuf=4096))
        if at == shard:
            break
        others.append(worker)
    for other in others:
        other.close()
        site.links.remove(other)
    site.wait_gauge("workers", 1)
    return worker


def say_much(site, clients, first, count, size=3000):
    for number in range(first, first + count):
        for client in clients:
            client.send_message(b"%d %s" % (number, b"x" * size))


def test_what_waits_for_a_slow_worker_goes_with_it(start):
    """Clients on all shards say numbers to a worker that does not read, before, between and behind; half a packet of it is
    under way; questions of it are, too."""
    site = start(shards=3)
    site._worker = slow_worker(site, 1)
    worker = site._worker
    clients = [c for of_shard in site.clients_on_each_shard(3) for c in of_shard]
    sent = 60
    half = packet(SEND_TO_ONE, clients[0].id, body=b"in halves").encode()
    with unseen(site):
        say_much(site, clients, 0, sent)
        worker.send_bytes(half[:20])
        for round, (shard, more) in enumerate(((1, ()), (1, ("--back",)), (0, ()), (0, ("--back",)), (2, ())), 1):
            evacuate(site, shard, *more)
            say_much(site, clients, sent * round, sent)
        assert site.per_shard("workers")[1:] == [0, 0] or site.per_shard("workers")[1] == 1
        worker.send_bytes(half[20:])
        assert clients[0].read_message() == b"in halves"
        heard = numbers(worker, clients, 6 * sent)
    assert set(heard) == {client.id for client in clients}
    assert all(told == list(range(6 * sent)) for told in heard.values())
    for client in clients:
        check_echo(site, client)


def test_what_is_parked_moves(start):
    site = start(shards=2, gateway={"no_worker_wait": 30})
    clients = [site.connect("text") for _ in range(10)]
    for client in clients:
        client.send_message(b"0")
    site.wait_gauge("parked_clients", 10)
    gone = site.connect("text")
    gone.send_message(b"0")
    site.wait_gauge("parked_clients", 11)
    gone.close()
    site.wait_gauge("clients", 10)
    for shard, more in ((0, ()), (0, ("--back",)), (1, ()), (1, ("--back",))):
        evacuate(site, shard, *more)
        site.gateway.check_tables()
        assert site.gauge("parked_clients") == 10
    worker = site._worker = site.worker_link(sync=False)
    events = collections.defaultdict(list)
    for _ in range(10 * 2 + 3):
        event = worker.next()
        events[event.connection_id].append(event.cmd)
    assert sorted(map(tuple, events.values())) == 10 * [(ON_CONNECT, ON_MESSAGE)] + [(ON_CONNECT, ON_MESSAGE, ON_CLOSE)], events
    assert not worker.quiet()


# ---- somebody is killed


@pytest.fixture
def faults(tmp_path):
    os.environ["TGG_FAULT_FILE"] = str(tmp_path / "faults")
    yield Faults(tmp_path / "faults")
    del os.environ["TGG_FAULT_FILE"]


class Crowd:
    """Three shards; a worker reads nothing, with its link on shard 1 and much that waits for it, and clients on all shards."""

    COUNT = 40

    def __init__(self, start):
        self.site = start(shards=3, gateway={"upgrade_pause_max": 4000, "stuck_timeout": 20}, log={"rate_max": 0})
        self.worker = slow_worker(self.site, 1)
        self.by_shard = self.site.clients_on_each_shard(4, worker=self.worker)
        for clients in self.by_shard:
            say_much(self.site, clients, 0, self.COUNT)
        self.pids = self.site.gateway.shard_pids()

    def begin(self):
        return subprocess.Popen([TGG, "ctl", "-c", self.site.gateway.config_path, "evacuate", "1", "--yes"], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=sanitizer_env())

    def end(self, command, shard):
        said = command.communicate(timeout=20)[0].decode()
        gateway = self.site.gateway
        wait_for(lambda: gateway.shard_pid(shard) not in (0, self.pids[shard]) and gateway.status()["shards"][shard]["state"] == "running",
                 what="a successor")
        return command.returncode, said

    def check(self, lost, worker_lives):
        """Clients of these shards, by their ids, end; all others go on, and no event is lost or told twice."""
        site, worker = self.site, self.worker
        dead = {client.id for shard in lost for client in self.by_shard[shard]}
        living = [client for clients in self.by_shard for client in clients if client.id not in dead]
        if not worker_lives:
            with pytest.raises(LinkClosed):
                while True:
                    worker.next()
            worker = self.site._worker = self.site.worker_link(sync=False)
        say_much(site, living, self.COUNT, 5)
        heard, closed = collections.defaultdict(list), collections.Counter()
        wanted = {client.id: self.COUNT + 5 for client in living}
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                event = worker.next(timeout=1.5)
            except TimeoutError:
                if all(closed[id_] for id_ in dead) and all(heard[id_] and heard[id_][-1] == last - 1 for id_, last in wanted.items()):
                    break
                continue
            if event.cmd == ON_MESSAGE:
                heard[event.connection_id].append(int(event.body.split()[0]))
            elif event.cmd == ON_CLOSE:
                closed[event.connection_id] += 1
        everybody = [client for clients in self.by_shard for client in clients]
        assert all(closed[client.id] == (client.id in dead) for client in everybody), (closed, sorted(dead))
        for id_, last in wanted.items():
            told = heard[id_]
            # With its worker's link, what the kernel had of it is gone.
            assert told == (list(range(last)) if worker_lives else list(range(told[0], last))), (hex(id_), told)
        for id_ in dead:
            assert heard[id_] == sorted(set(heard[id_])), (hex(id_), heard[id_])
        site._worker = worker
        for client in living:
            check_echo(site, client)
        site.gateway.check_tables()


if injects():

    @pytest.mark.parametrize("place", ["old_shard.export_links", "old_shard.export_clients"])
    def test_the_giving_shard_dies_before_it_is_decided(start, faults, place):
        crowd = Crowd(start)
        faults.set(place, "kill")
        status, said = crowd.end(crowd.begin(), 1)
        assert status != 0 and "all is as before" in said, said
        faults.clear()
        crowd.check(lost=[1], worker_lives=False)
        assert not rows(crowd.site)[1]["evacuated"]

    def test_the_giving_shard_dies_when_it_has_given(start, faults):
        crowd = Crowd(start)
        faults.set("old_shard.evacuate_settle", "kill")
        status, said = crowd.end(crowd.begin(), 1)
        assert status == 0, said
        faults.clear()
        crowd.check(lost=[], worker_lives=True)
        assert_empty(crowd.site, 1)

    @pytest.mark.parametrize("place", ["new_shard.imported_links", "new_shard.imported_clients"])
    @pytest.mark.parametrize("shard", [0, 2])
    def test_a_taking_shard_dies_before_it_is_decided(start, faults, place, shard):
        crowd = Crowd(start)
        faults.set(place, "slow")
        command = crowd.begin()
        crowd.site.gateway.wait_log("state=links" if place.endswith("links") else "state=clients")
        time.sleep(0.2)
        os.kill(crowd.pids[shard], signal.SIGKILL)
        status, said = crowd.end(command, shard)
        assert status != 0 and "all is as before" in said, said
        faults.clear()
        crowd.check(lost=[shard], worker_lives=True)

    @pytest.mark.parametrize("shard", [0, 2])
    def test_a_taking_shard_dies_when_it_has_taken(start, faults, shard):
        crowd = Crowd(start)
        faults.set("new_shard.evacuate_settle", "slow")
        command = crowd.begin()
        crowd.site.gateway.wait_log("state=thaws")
        time.sleep(0.2)
        os.kill(crowd.pids[shard], signal.SIGKILL)
        status, said = crowd.end(command, shard)
        assert status == 0, said
        faults.clear()
        site = crowd.site
        lives = crowd.worker.sock.fileno() >= 0 and not is_ended(crowd.worker)
        # Half of those of shard 1 are the dead one's now.
        there = {c.id for clients in crowd.by_shard for c in clients if not c.is_ended(within=0.5)}
        crowd.by_shard = [[c for clients in crowd.by_shard for c in clients if c.id in there],
                          [c for clients in crowd.by_shard for c in clients if c.id not in there]]
        assert len(crowd.by_shard[1]) >= 4
        crowd.check(lost=[1], worker_lives=lives)
        assert_empty(site, 1)


def is_ended(link):
    """Its socket is, perhaps behind what has come on it."""
    while True:
        try:
            link.fill(time.monotonic() + 0.3)
        except TimeoutError:
            return False
        except LinkClosed:
            return True
