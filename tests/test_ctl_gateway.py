# SPDX-License-Identifier: MIT
"""tgg ctl with a gateway: what each command shows is what is there, and each order does what it says. After every scenario
`tgg ctl check` finds nothing."""

import json
import os
import re
import subprocess
import time

import pytest

from gwproto import ON_CLOSE, ON_CONNECT, shard_of
from proc import TGG, can_connect, run_tgg, sanitizer_env, wait_for
from wsclient import CLOSE

pytestmark = [pytest.mark.tgg_only, pytest.mark.shards(1, 3)]

OK, RUNTIME = 0, 1


class Ctl:
    def __init__(self, gateway):
        self.gateway = gateway

    def argv(self, *args):
        return ["ctl", "-c", self.gateway.config_path, *args]

    def run(self, *args):
        return run_tgg(*self.argv(*args))

    def text(self, *args):
        done = self.run(*args)
        assert done.returncode == OK and done.stderr == "", (args, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def json(self, *args):
        return json.loads(self.text(*args, "--json"))

    def rows(self, member, *args):
        answer = self.json(member, *args)
        assert answer.get("missing", []) == []
        return answer[member]

    def ids(self, *args):
        return sorted(row["connection_id"] for row in self.rows("clients", *args))

    def refused(self, *args):
        done = self.run(*args)
        assert done.returncode == RUNTIME and done.stdout == "", (args, done)
        return done.stderr


@pytest.fixture
def node(start):
    """node(**config): a site at a gateway of its own that can be asked, and how to."""
    made = []

    def node_(**config):
        site = start(**config)
        ctl = Ctl(site.gateway)
        wait_for(lambda: ctl.run("status").returncode == OK, what="the admin process to answer")
        made.append(ctl)
        return site, ctl

    yield node_
    for ctl in made:
        if ctl.gateway.is_running():
            done = ctl.run("check")
            assert done.returncode == OK, done.stdout + done.stderr


def ids_of(clients):
    return sorted(client.id for client in clients)


def key_of(worker):
    return "127.0.0.1:" + worker.worker_key


# -- seeing


def test_status_shards_processes_listeners_registers(node, shards):
    site, ctl = node()
    client = site.client()
    status = ctl.json("status")
    assert status["running"] and status["ready"] and status["not_ready"] == [] and status["state"] == "running"
    assert (status["clients_n"], status["workers_n"], len(status["shards"])) == (1, 1, shards)
    assert sum(shard["clients"] for shard in status["shards"]) == 1
    assert status["log_level"] == "info" and status["missing"] == []
    assert [shard["pid"] for shard in status["shards"]] == site.gateway.shard_pids()
    listeners = {row["name"]: row for row in ctl.rows("listeners")}
    assert {name: row["port"] for name, row in listeners.items()} == site.gateway.ports
    assert listeners["websocket"]["clients"] == 1 and listeners["text"]["clients"] == 0
    assert [row["connected"] for row in ctl.rows("registers")] == [False]
    text = ctl.text("status")
    assert text.startswith("tgg %s, running, up " % status["version"]) and "1 clients, 1 workers" in text
    assert ctl.text().splitlines()[1] == text.splitlines()[1]
    assert len(ctl.text("shards").splitlines()) == 1 + shards
    kinds = [line.split()[0] for line in ctl.text("processes").splitlines()[1:]]
    assert kinds.count("shard") == shards and {"supervisor", "announcer", "admin"} <= set(kinds)
    assert "websocket" in ctl.text("listeners") and "127.0.0.1" in ctl.text("registers")
    client.close()
    wait_for(lambda: ctl.json("status")["clients_n"] == 0)


def test_without_a_worker_it_is_not_ready(node):
    site, ctl = node()
    assert not ctl.json("status")["ready"] and "not ready: " in ctl.text("status")
    site.worker_link()
    wait_for(lambda: ctl.json("status")["ready"], what="ready")


def test_workers(node):
    site, ctl = node()
    first, second = site.worker_link("one"), site.worker_link("two")
    clients = [site.connect("text") for _ in range(4)]
    wait_for(lambda: site.gauge("clients") == 4)
    clients[0].send_message(b"hello")
    rows = wait_for(lambda: (lambda r: r if sum(row["messages_out"] for row in r) >= 5 else None)(ctl.rows("workers")), what="the message to be counted")
    assert [row["key"] for row in sorted(rows, key=lambda row: row["key"])] == [key_of(first), key_of(second)]
    assert [row["clients"] for row in rows] == [2, 2] and {row["health"] for row in rows} == {"ok"}
    assert all(sum(row["clients_of"]) == 2 and not row["draining"] and row["queue_bytes"] == 0 for row in rows)
    assert all(re.match(r"127\.0\.0\.1:\d+$", row["address"]) for row in rows)
    text = ctl.text("workers")
    assert [line.split()[0] for line in text.splitlines()[1:]] == [key_of(first), key_of(second)]


@pytest.fixture
def crowd(node):
    """A site with clients that differ in everything that there is a filter for."""
    site, ctl = node(gateway={"send_to_client_buffer_size": "32m"})
    workers = [site.worker_link("one"), site.worker_link("two")]
    old = [site.connect("websocket"), site.connect("text", source="127.0.0.2"), site.connect("text", rcvbuf=4096)]
    time.sleep(2.1)
    new = [site.connect("frame", source="127.0.0.3"), site.connect("text")]
    clients = old + new
    for client in clients:
        # Whichever of the two it was bound to.
        def taken():
            for worker in workers:
                try:
                    return worker, worker.wait(ON_CONNECT, client_port=client.port, timeout=0.02)
                except TimeoutError:
                    pass
        client.worker, event = wait_for(taken, what="ON_CONNECT")
        client.id = event.connection_id
    for client, uid in zip(clients, (b"u 1&", b"u 1&", b"\xe7\x94\xa8", b"u2", None)):
        if uid:
            site.g.bind_uid(client.id, uid)
    site.g.join_group(clients[0].id, b"g")
    site.g.join_group(clients[4].id, b"g")
    site.g.join_group(clients[4].id, b"h")
    for _ in range(100):
        site.g.send_to_one(clients[2].id, b"x" * 100000)
    site.g.sync()
    site.crowd = clients
    site.workers = workers
    return site, ctl


def test_clients_with_each_filter(crowd):
    site, ctl = crowd
    web, second, slow, frame, new = site.crowd
    everyone = ids_of(site.crowd)
    assert ctl.ids() == everyone
    assert ctl.ids("--address", "127.0.0.2") == [second.id]
    assert ctl.ids("--address", "127.0.0.2/31") == ids_of([second, frame])
    assert ctl.ids("--address", "10.0.0.0/8") == []
    assert ctl.ids("--uid", "u 1&") == ids_of([web, second])
    assert ctl.ids("--uid", "用") == [slow.id]
    assert ctl.ids("--uid", "nobody") == []
    assert ctl.ids("--group", "g") == ids_of([web, new]) and ctl.ids("--group", "h") == [new.id]
    for worker in site.workers:
        assert ctl.ids("--worker", key_of(worker)) == ids_of([c for c in site.crowd if c.worker is worker])
    assert ctl.ids("--listener", "text") == ids_of([second, slow, new])
    for shard in range(site.shards):
        assert ctl.ids("--shard", str(shard)) == ids_of([c for c in site.crowd if shard_of(c.id) == shard])
    assert set(ids_of([web, second, slow])) <= set(ctl.ids("--age-min", "2"))
    assert new.id not in ctl.ids("--age-min", "1h") and ctl.ids("--age-min", "1h") == []
    assert ctl.ids("--age-max", "1h") == everyone
    assert ctl.ids("--queue-min", "64k") == [slow.id]
    assert ctl.ids("--client", str(new.id)) == [new.id]
    assert ctl.ids("--uid", "u 1&", "--listener", "text") == [second.id]
    assert ctl.ids("--uid", "u 1&", "--group", "h") == []
    new.send_message(b"here")
    wait_for(lambda: set(ctl.ids("--idle-min", "1")) == set(everyone) - {new.id}, what="all others to be idle")
    assert "no such client is there" in ctl.text("clients", "--uid", "nobody")
    row = next(row for row in ctl.rows("clients") if row["connection_id"] == slow.id)
    assert row["uid"] == "用" and row["queue_bytes"] > 65536 and row["state"] == "open" and row["listener"] == "text"
    assert row["address"] == "127.0.0.1:%d" % slow.port and row["worker"] == key_of(slow.worker)
    assert len(ctl.text("clients").splitlines()) == 6


def test_one_client_in_full(crowd):
    site, ctl = crowd
    new = site.crowd[4]
    client = ctl.json("client", str(new.id))
    assert sorted(client["groups"]) == ["g", "h"] and client["groups_n"] == 2 and client["tls_info"] is None and not client["traced"]
    assert ctl.json("client", client["client_id"])["connection_id"] == new.id
    assert re.fullmatch(r"[0-9a-f]{20}", client["client_id"]) and client["gateway_port"] == site.gateway.ports["text"]
    assert re.search(r"^connection_id +%d$" % new.id, ctl.text("client", str(new.id)), re.M)
    new.close()
    wait_for(lambda: site.gauge("clients") == 4)
    assert ctl.refused("client", str(new.id)).startswith("tgg ctl: ")
    assert ctl.refused("client", "nonsense").startswith("tgg ctl: ")


def sums(rows):
    found = {}
    for row in rows:
        found[row["name"]] = found.get(row["name"], 0) + row["clients"]
    return found


def test_uids_and_groups(crowd):
    site, ctl = crowd
    assert sums(ctl.rows("uids")) == {"u 1&": 2, "用": 1, "u2": 1}
    assert sums(ctl.rows("groups")) == {"g": 2, "h": 1}
    assert [(row["name"], row["clients"]) for row in ctl.rows("uids", "u 1&")] == [("u 1&", 2)]
    assert sums(ctl.rows("uids", "--prefix", "u")) == {"u 1&": 2, "u2": 1}
    assert sums(ctl.json("groups", "--all")) == {"g": 2, "h": 1}
    assert len(ctl.rows("groups", "--limit", "1")) == 1
    assert ctl.text("groups").splitlines()[0].split() == ["clients", "shard", "name"]


def test_top(crowd):
    site, ctl = crowd
    slow = site.crowd[2]
    top = ctl.json("top", "queue", "--limit", "1")["top"]
    assert [row["connection_id"] for row in top] == [slow.id] and top[0]["value"] > 65536
    assert [(row["name"], row["clients"]) for row in ctl.json("top", "groups")["top"]] == [("g", 2), ("h", 1)]
    assert ctl.json("top", "uids")["top"][0] == {"name": "u 1&", "clients": 2}
    talker = site.crowd[1]
    popen = subprocess.Popen([TGG, *map(str, ctl.argv("top", "messages_in", "--for", "2", "--json"))], stdout=subprocess.PIPE, env=sanitizer_env())
    while popen.poll() is None:
        for _ in range(50):
            talker.send_message(b"blah")
        time.sleep(0.01)
        for worker in site.workers:
            worker.quiet(0.001)
    top = json.loads(popen.stdout.read())
    assert top["by"] == "messages_in" and top["top"][0]["connection_id"] == talker.id and top["top"][0]["value"] > 100
    assert ctl.text("top").splitlines()[0] == "messages_in a second, over 1 s"


def test_many_clients_each_once(node):
    site, ctl = node()
    site.worker
    clients = [site.connect("text") for _ in range(450)]
    wait_for(lambda: site.gauge("clients") == len(clients))
    rows = ctl.json("clients", "--all")
    assert len(rows) == len({row["connection_id"] for row in rows}) == len(clients)
    assert {row["address"] for row in rows} == {"127.0.0.1:%d" % client.port for client in clients}
    assert len(ctl.text("clients", "--all").splitlines()) == 451
    done = ctl.run("clients")
    assert len(done.stdout.splitlines()) == 101 and "there are more" in done.stderr
    done = ctl.run("clients", "--limit", "300")
    assert len(done.stdout.splitlines()) == 301
    site.worker.quiet()


def test_counters_closes_tables_histograms_metrics(node, shards):
    site, ctl = node()
    client = site.client()
    client.leave()
    site.worker.wait(ON_CLOSE)
    wait_for(lambda: site.gauge("clients") == 0)
    counters = ctl.json("counters")["counters"]
    assert counters["client_accepted"] == 1 and counters == {**counters, **{n: v for n, v in site.gateway.counters().items() if n.startswith("client_closed")}}
    per_shard = [ctl.json("counters", "--shard", str(i))["shards"][0]["counters"]["client_accepted"] for i in range(shards)]
    assert sorted(per_shard) == [0] * (shards - 1) + [1]
    assert re.search(r"^client_accepted +1  client connections accepted", ctl.text("counters", "--nonzero"), re.M)
    closes = {row["reason"]: row["count"] for row in ctl.json("closes")["closes"]}
    assert closes["peer_close_frame"] == 1 and sum(closes.values()) == 1
    assert {row["shard"] for row in ctl.rows("tables")} == set(range(shards))
    assert all(row["used"] is None or row["peak"] is None or row["used"] <= row["peak"] for row in ctl.rows("tables"))
    histograms = ctl.json("histograms")["histograms"]
    assert histograms["handshake"]["count"] == 1 and histograms["turn"]["count"] > 0
    assert re.search(r"^handshake +1 ", ctl.text("histograms"), re.M)
    assert "# TYPE " in ctl.text("metrics")
    for command in ("closes", "tables", "counters"):
        assert len(ctl.text(command).splitlines()) > 5


def test_names_from_outside_do_nothing_to_a_terminal(node):
    site, ctl = node()
    client = site.client()
    site.g.bind_uid(client.id, b"\x1b]0;pwned\x07\xff\xc2\x9b31m")
    site.g.join_group(client.id, b"\x00\x7f")
    site.g.sync()
    for command in ("clients", "uids", "groups"):
        for form in ([], ["--json"]):
            text = ctl.text(command, *form)
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text), text
    assert "\\x1b]0;pwned\\x07" in ctl.text("uids")


# -- steering


def test_close_by_filter(crowd):
    site, ctl = crowd
    web, second, slow, frame, new = site.crowd
    assert ctl.text("close", "--listener", "websocket", "--code", "4000", "--reason", "off you go") == "closed 1 client\n"
    got = web.read_frame()
    assert got.opcode == CLOSE and got.code == 4000 and got.payload[2:] == b"off you go"
    web.close()
    assert ctl.text("close", "--uid", "nobody") == "closed 0 clients\n"
    assert ctl.json("close", "--group", "g")["closed"] == 1
    new.expect_end()
    wait_for(lambda: ctl.ids() == ids_of([second, slow, frame]))
    assert site.counter("client_closed_ordered") >= 1
    assert ctl.text("close", "--all") == "closed 3 clients\n"
    slow.close()
    second.expect_end()
    wait_for(lambda: ctl.ids() == [])
    closed = [event.connection_id for worker in site.workers for event in (worker.quiet(0.3), *worker.events)[1:] if event.cmd == ON_CLOSE]
    assert sorted(closed) == ids_of(site.crowd)


def test_close_over_a_time(node):
    site, ctl = node()
    site.worker
    clients = [site.connect("text") for _ in range(20)]
    wait_for(lambda: site.gauge("clients") == 20)
    began = time.monotonic()
    assert ctl.text("close", "--all", "--over", "2", "--jitter", "50") == "going to close 20 clients\n"
    assert all(client.is_ended(within=10) for client in clients)
    assert 0.8 < time.monotonic() - began < 10
    for client in clients:
        client.close()
    site.worker.quiet()


def test_kick(node):
    site, ctl = node()
    a, b, c = site.client(), site.client(), site.client()
    for client, uid in ((a, b"tom"), (b, b"tom"), (c, b"eve")):
        site.g.bind_uid(client.id, uid)
    site.g.sync()
    assert ctl.text("kick", "tom", "--code", "4001", "--reason", "bye") == "closed 2 clients\n"
    a.expect_close(4001)
    b.expect_close(4001)
    wait_for(lambda: ctl.ids() == [c.id])
    assert ctl.text("kick", "tom") == "closed 0 clients\n"


def test_ban_and_unban(node):
    site, ctl = node()
    here, other = site.client("text"), site.client("text", source="127.0.0.2")
    assert "127.0.0.2 is banned for 1m00s" in ctl.text("ban", "127.0.0.2", "--for", "1m")
    other.expect_end()
    wait_for(lambda: [row["address"] for row in ctl.json("bans")["bans"]] == ["127.0.0.2"])
    assert "127.0.0.2" in ctl.text("bans") and "127.0.0.2" in run_tgg("bans", "-c", site.gateway.config_path).stdout
    wait_for(lambda: ctl.ids() == [here.id])
    ctl.text("unban", "127.0.0.2")
    wait_for(lambda: ctl.json("bans")["bans"] == [])
    assert ctl.refused("unban", "127.0.0.2").startswith("tgg ctl: ")

    def comes_in():
        try:
            return site.connect("text", source="127.0.0.2").is_ended(0.2) is False
        except OSError:
            return False

    wait_for(comes_in, what="the address to be let in")
    site.worker.quiet()


@pytest.mark.shards(3)
def test_drain_a_shard(node):
    site, ctl = node()
    clients = site.clients_on_each_shard(1)
    others = [client for client in site.clients if shard_of(client.id) != 1]
    assert ctl.text("drain", "shard", "1", "--over", "0").startswith("shard 1 drains")
    clients[1][0].expect_end()
    wait_for(lambda: ctl.ids() == ids_of(others))
    assert [shard["drained"] for shard in ctl.json("status")["shards"]] == [False, True, False]
    new = [site.client("text") for _ in range(12)]
    assert {shard_of(client.id) for client in new} <= {0, 2}
    ctl.text("undrain", "shard", "1")
    assert not ctl.json("status")["shards"][1]["drained"]
    site.clients_on_each_shard(1)


def test_drain_the_node(node):
    site, ctl = node()
    client = site.client()
    assert ctl.json("drain", "node", "--over", "0", "--code", "1012")["ok"]
    client.expect_close(1012)
    wait_for(lambda: ctl.ids() == [])
    status = ctl.json("status")
    assert not status["ready"] and status["not_ready"] and all(shard["drained"] for shard in status["shards"])
    ctl.text("undrain", "node")
    wait_for(lambda: ctl.json("status")["ready"], what="ready again")
    wait_for(lambda: can_connect(site.gateway.client_address("text")))
    again = site.client()
    assert ctl.ids() == [again.id]
    site.worker.quiet()


def clients_of(ctl):
    return {row["key"]: row["clients"] for row in ctl.rows("workers")}


def test_drain_a_worker(node):
    site, ctl = node()
    one, two = site.worker_link("one"), site.worker_link("two")
    clients = [site.connect("text") for _ in range(6)]
    wait_for(lambda: clients_of(ctl) == {key_of(one): 3, key_of(two): 3})
    ctl.text("drain", "worker", key_of(one), "--over", "0")
    wait_for(lambda: clients_of(ctl) == {key_of(one): 0, key_of(two): 6}, what="all clients to be bound to the other worker")
    assert {row["key"]: row["draining"] for row in ctl.rows("workers")} == {key_of(one): True, key_of(two): False}
    site.connect("text")
    wait_for(lambda: clients_of(ctl) == {key_of(one): 0, key_of(two): 7})
    assert not any(client.is_ended() for client in clients)
    ctl.text("undrain", "worker", key_of(one))
    site.connect("text")
    wait_for(lambda: clients_of(ctl) == {key_of(one): 1, key_of(two): 7})
    assert ctl.refused("drain", "worker", "127.0.0.1:nobody").startswith("tgg ctl: ")


def test_rebalance(node):
    site, ctl = node()
    one = site.worker_link("one")
    clients = [site.connect("text") for _ in range(9)]
    wait_for(lambda: clients_of(ctl) == {key_of(one): 9})
    two, three = site.worker_link("two"), site.worker_link("three")
    wait_for(lambda: len(clients_of(ctl)) == 3)
    moved = ctl.json("rebalance", "--over", "0")["moved"]  # in the next turns

    def is_even():
        after = clients_of(ctl)
        return sum(after.values()) == 9 and max(after.values()) - min(after.values()) <= site.shards

    wait_for(is_even, what="an even share of clients for each worker")
    assert {key_of(one), key_of(two), key_of(three)} == set(clients_of(ctl))
    wait_for(lambda: clients_of(ctl)[key_of(one)] == 9 - moved, what="as many moves as were told")
    assert not any(client.is_ended() for client in clients)
    assert re.match(r"\d+ clients? are going to be bound to another worker\n", ctl.text("rebalance", "--over", "0"))


def test_log_level(node):
    site, ctl = node()
    assert ctl.json("status")["log_level"] == "info"
    ctl.text("log-level", "debug")
    wait_for(lambda: ctl.json("status")["log_level"] == "debug")
    ctl.text("log-level", "error")
    wait_for(lambda: ctl.json("status")["log_level"] == "error")
    ctl.text("reload")
    wait_for(lambda: ctl.json("status")["log_level"] == "info", what="the level of the configuration")


def test_reload(node):
    site, ctl = node()
    assert ctl.text("reload") == "no key has changed\n"
    site.gateway.sections["gateway"].update(ping_interval=33, drain_timeout=3)
    site.gateway.sections["log"]["format"] = "json"
    site.gateway.write_config()
    done = ctl.run("reload", "--json")
    changed = {(row["section"], row["key"]): row["live"] for row in json.loads(done.stdout)["changed"]}
    assert changed == {("gateway", "ping_interval"): True, ("gateway", "drain_timeout"): True, ("log", "format"): False}
    site.gateway.sections["gateway"]["ping_interval"] = "fast"
    site.gateway.write_config()
    # The socket is named, because ctl reads the same file.
    done = run_tgg("ctl", "--socket", os.path.join(site.gateway.runtime_dir, "admin.sock"), "reload")
    assert done.returncode == RUNTIME and "[gateway] ping_interval" in done.stderr and done.stdout == ""
    site.gateway.sections["gateway"]["ping_interval"] = 33
    site.gateway.sections["log"]["format"] = None
    site.gateway.write_config()
    ctl.text("reload")
    site.client().close()
    site.worker.wait(ON_CLOSE)


def test_check_looks_at_what_is_there(crowd):
    site, ctl = crowd
    answer = ctl.json("check")
    assert answer["ok"] and [shard["problems"] for shard in answer["shards"]] == [[]] * site.shards
    assert sum(shard["looked_at"] for shard in answer["shards"]) >= len(site.crowd)
    assert len(ctl.text("check").splitlines()) == site.shards


def traced(ctl, *args):
    popen = subprocess.Popen([TGG, *map(str, ctl.argv("trace", *args, "--json"))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=sanitizer_env())
    return popen


@pytest.mark.parametrize("by", ["client", "uid", "address"])
def test_trace(node, by):
    site, ctl = node()
    client, other = site.client("text", source="127.0.0.2"), site.client("text")
    site.g.bind_uid(client.id, b"tom")
    site.g.sync()
    popen = traced(ctl, "--" + by, {"client": str(client.id), "uid": "tom", "address": "127.0.0.2"}[by], "--for", "60")
    wait_for(lambda: ctl.json("client", str(client.id))["traced"], what="the trace to have begun")
    other.send_message(b"not traced")
    client.send_message(b"hello")
    site.g.join_group(client.id, b"room")
    site.g.send_to_one(client.id, b"hi")
    site.g.sync()
    assert client.read_message() == b"hi"
    client.close()
    wait_for(lambda: site.gauge("clients") == 1)
    events = []
    while not any(event["event"] == "close" for event in events):
        line = popen.stdout.readline()
        assert line, popen.stderr.read()
        events.append(json.loads(line))
    popen.terminate()
    popen.communicate(timeout=20)
    assert popen.returncode == OK
    assert {event.get("connection_id", client.id) for event in events} == {client.id}
    kinds = [event["event"] for event in events]
    assert kinds[-1] == "close" and {"in", "out"} <= set(kinds), events
    commands = [event["command"] for event in events if event["event"] == "command"]
    assert len(commands) == 2, events
    assert "JOIN" in commands[0] and "SEND" in commands[1], commands
    assert kinds.index("command") < kinds.index("out")
    size = next(event for event in events if event["event"] == "in")["size"]
    assert size == 5 and all("bytes" not in event for event in events)
    wait_for(lambda: not ctl.json("client", str(other.id))["traced"])


def test_a_trace_by_address_sees_a_client_come(node):
    site, ctl = node()
    popen = traced(ctl, "--address", "127.0.0.3/32", "--for", "60")
    begun = [json.loads(popen.stdout.readline()) for _ in range(site.shards)]
    assert all(event["event"] == "trace_begin" and event["clients"] == 0 for event in begun), begun
    client = site.client("websocket", source="127.0.0.3")
    site.g.bind_uid(client.id, b"tom")
    site.g.sync()
    client.close()
    events = []
    while not any(event["event"] == "close" for event in events):
        events.append(json.loads(popen.stdout.readline()))
    popen.terminate()
    popen.communicate(timeout=20)
    kinds = [event["event"] for event in events]
    assert kinds[0] == "connect" and kinds.index("handshake") < kinds.index("bind") < kinds.index("close"), events
    assert events[kinds.index("bind")]["uid"] == "tom" and events[-1]["reason"] == "peer"


def test_a_trace_for_people_ends_by_its_time(node):
    site, ctl = node()
    client = site.client("text")
    popen = subprocess.Popen([TGG, *map(str, ctl.argv("trace", "--client", str(client.id), "--for", "2"))], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, env=sanitizer_env())
    wait_for(lambda: ctl.json("client", str(client.id))["traced"])
    client.send_message(b"hello")
    out, err = popen.communicate(timeout=20)
    assert popen.returncode == OK and err == ""
    assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} .* shard %d +%d  in +.*size=5" % (shard_of(client.id), client.id), out, re.M), out


def test_after_the_gateway_it_says_what_to_do(node):
    site, ctl = node()
    site.gateway.stop()
    assert re.search("is the gateway running|nobody listens there", ctl.refused("status"))
