# SPDX-License-Identifier: MIT
"""Lists, bans and limits: who is let in, how many, how fast; what those get who are not; dry runs, and that every one of
them is counted. All of it over one shard and over three, where it counts over all of them.

Clients come from 127.0.0.x, and from ::1."""

import re
import signal
import socket
import subprocess
import time

import pytest

import certs
import proxyproto
from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE, LinkClosed
from node import CLIENTS, raise_file_limit
from proc import run_tgg, slow, wait_for
from tlsclient import WssClient
from wsclient import CONTINUATION, PING, PONG, TEXT, WsClient, frame, read_until_end, request

pytestmark = pytest.mark.tgg_only

HOME, OTHER, THIRD = "127.0.0.5", "127.0.0.6", "127.0.0.7"
LISTEN = {"websocket": {"close_timeout": 1}, "six": {"protocol": "text", "address": "::1"}}
CHECKS = ("deny", "ban", "per_address", "per_subnet", "accept_rate", "handshake_rate", "total", "message_rate", "byte_rate")


# ---- how a test calls


def come(site, source, listener="text"):
    """A client from there that the worker has heard of. Sources share no port: it is told by that."""
    return site.client(listener, source=source)


def come_over_ipv6(site):
    client = CLIENTS["text"](("::1", site.gateway.ports["six"]))
    site.clients.append(client)
    client.id = site.worker.wait(ON_CONNECT, client_port=client.sock.getsockname()[1]).connection_id
    return client


def knock(site, listener="text", **how):
    """A connection that nobody may want."""
    if listener == "websocket":
        how["open"] = False
    if listener != "six":
        return site.connect(listener, **how)
    client = CLIENTS["text"](("::1", site.gateway.ports["six"]))
    site.clients.append(client)
    return client


def is_closed_at_once(site, source, listener="text"):
    """Not let in, and nothing said."""
    client = knock(site, listener, source=source)
    client.expect_end()
    client.close()


def is_closed_over_ipv6(site):
    knock(site, "six").expect_end()


def is_told(site, status, source=None, say=b"", listener="websocket"):
    """Not let in, and told so in HTTP: with 429 and 503 also when to come again."""
    client = site.connect(listener, open=False, source=source)
    if say:
        client.send_bytes(say)
    response = client.refused()
    client.close()
    assert response.status == status, response.status_line
    assert b"close" in response.headers["connection"].lower()
    if status in (429, 503):
        most = int(site.gateway.sections["gateway"].get("retry_after", 10))
        assert most <= int(response.headers["retry-after"]) <= 2 * most
    return response


def is_let_in(client, site, text=b"here"):
    client.send_text(text) if isinstance(client, WsClient) else client.send_message(text)
    assert site.worker.wait(ON_MESSAGE, client.id).body == text


def hup(site):
    site.gateway.process.send_signal(signal.SIGHUP)


def reload(site, listen=None, **gateway):
    """Other values for keys of [gateway] (None: the default) and of listeners, taken over by all shards."""
    site.gateway.sections["gateway"].update(gateway)
    for name, keys in (listen or {}).items():
        site.gateway.sections["listen " + name].update(keys)
    site.gateway.write_config()
    before = site.gateway.counters()["reloads"]
    hup(site)
    wait_reloads(site, before)


def wait_reloads(site, before, times=1):
    wait_for(lambda: site.gateway.counters()["reloads"] >= before + times * site.shards, what="the reload")


def tgg(site, command, *args):
    """tgg ban, unban, bans; what it says."""
    done = run_tgg(command, "-c", site.gateway.config_path, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ban(site, command, *args):
    """The same, and all shards know of it."""
    before = site.gateway.counters()["reloads"]
    said = tgg(site, command, *args)
    wait_reloads(site, before)
    return said


def all_refused(site):
    now = {name: site.counter("refused_" + name) for name in CHECKS}
    return {name: n for name, n in now.items() if n > 0}


def all_dry_run(site):
    now = {name: site.counter("dry_run_" + name) for name in CHECKS}
    return {name: n for name, n in now.items() if n > 0}


# ---- allow and deny lists


@pytest.mark.shards(1, 3)
def test_the_longest_match_decides(start, tmp_path):
    denied = tmp_path / "denied"
    denied.write_text("# whom we know\n\n127.0.0.0/28   # all of these\n127.0.0.77\r\n2001:db8::/32\n")
    allowed = tmp_path / "allowed"
    allowed.write_text("127.0.0.9\n127.0.0.7/32\n")
    site = start(gateway={"deny_list": "%s, 127.0.0.7/32, ::/0, 127.0.0.128/26" % denied, "allow_list": "%s,127.0.0.8/30, ::/64" % allowed}, listen=LISTEN)
    site.worker
    turned_away = ["127.0.0.2", "127.0.0.15", "127.0.0.77", "127.0.0.128", "127.0.0.191", "127.0.0.7"]
    for source in turned_away:
        is_closed_at_once(site, source)
        is_closed_at_once(site, source, "websocket")
    assert site.worker.quiet() == []
    for source in ("127.0.0.9", "127.0.0.10", "127.0.0.8", "127.0.0.16", "127.0.0.76", "127.0.0.192", "127.1.2.3"):
        is_let_in(come(site, source), site)
        is_let_in(come(site, source, "websocket"), site)
    is_let_in(come_over_ipv6(site), site)
    assert all_refused(site) == {"deny": 2 * len(turned_away)}
    assert site.counter("client_refused") == site.counter("client_refused_rst") == 2 * len(turned_away)
    assert site.counter("client_accepted") == 15
    site.gateway.wait_log("lists_disagree")
    assert "check=deny address=127.0.0.77 dry_run=no" in site.gateway.log()


@pytest.mark.shards(1, 3)
def test_with_only_an_allow_list_strangers_stay_outside(start):
    site = start(gateway={"allow_list": "127.0.0.4/30, 10.0.0.0/8"}, listen=LISTEN)
    is_let_in(come(site, HOME), site)
    is_closed_at_once(site, "127.0.0.8")
    is_closed_over_ipv6(site)
    # Workers are no clients: they come from 127.0.0.1.
    assert site.g.sync() is None
    assert all_refused(site) == {"deny": 2}
    reload(site, deny_list="127.0.0.6")  # with both, who is on none may come
    is_let_in(come(site, "127.0.0.8"), site)
    is_let_in(come_over_ipv6(site), site)
    is_closed_at_once(site, OTHER)


@pytest.mark.shards(1, 3)
def test_who_comes_on_a_list_is_closed_at_the_reload(start, shards, tmp_path):
    denied = tmp_path / "denied"
    denied.write_text("")
    site = start(gateway={"deny_list": denied}, listen=LISTEN)
    stay = [come(site, HOME, name) for name in ("websocket", "text") for _ in range(2 * shards)]
    websockets = [come(site, OTHER, "websocket") for _ in range(3 * shards)]
    lines = [come(site, OTHER) for _ in range(3 * shards)]
    in_handshake = site.client("websocket", source=OTHER, open=False)
    denied.write_text("127.0.0.6/32\n")
    time.sleep(0.05)
    is_let_in(lines[0], site)  # not before it is said
    before = site.gateway.counters()["reloads"]
    hup(site)
    wait_reloads(site, before)
    for client in websockets:
        client.expect_close(1008)
    for client in lines:
        client.expect_end()
    assert in_handshake.refused().status in (403, 503)
    for client in websockets + lines + [in_handshake]:
        site.worker.wait(ON_CLOSE, client.id)
    for client in stay:
        is_let_in(client, site)
    gone = len(websockets) + len(lines) + 1
    site.wait_counter("client_closed_listed", gone)
    assert site.counter("refused_deny") == gone
    is_closed_at_once(site, OTHER)
    denied.write_text("# nobody\n")
    before = site.gateway.counters()["reloads"]
    hup(site)
    wait_reloads(site, before)
    is_let_in(come(site, OTHER), site)


def test_a_wrong_list_changes_nothing(start, tmp_path):
    denied = tmp_path / "denied"
    denied.write_text("127.0.0.6\n")
    site = start(gateway={"deny_list": denied}, listen=LISTEN)
    client = come(site, HOME)
    for text, why in (("127.0.0.5\n127.0.0.0/33\n", "denied:2:"), (None, "denied")):
        denied.unlink() if text is None else denied.write_text(text)
        logged = len(site.gateway.log())
        hup(site)
        wait_for(lambda: why in site.gateway.log()[logged:], what="the log to say %r" % why)
        is_let_in(client, site)
        is_closed_at_once(site, OTHER)
    assert site.counter("reloads") == 0
    denied.write_text("127.0.0.7\n")
    reload(site, dry_run=None)
    is_let_in(come(site, OTHER), site)
    is_closed_at_once(site, THIRD)


def test_a_large_list_from_a_file(start, tmp_path):
    """100,000 lines: taken at the start, and again by a reload, while clients come and go."""
    denied = tmp_path / "denied"
    many = "".join("10.%d.%d.%d/32\n" % (i >> 16, i >> 8 & 255, i & 255) for i in range(100_000))
    denied.write_text(many + "127.0.0.6\n")
    site = start(gateway={"deny_list": denied}, listen=LISTEN)
    client = come(site, HOME)
    is_closed_at_once(site, OTHER)
    denied.write_text(many + "127.0.0.7\n")
    reload(site)
    is_let_in(client, site)
    is_let_in(come(site, OTHER), site)
    is_closed_at_once(site, THIRD)


# ---- bans


@pytest.mark.shards(1, 3)
def test_bans(start, shards):
    site = start(listen=LISTEN)
    assert tgg(site, "bans") == ""
    stays = come(site, HOME)
    clients = [come(site, OTHER, "websocket") for _ in range(2 * shards)]
    assert "127.0.0.6 is banned until 20" in ban(site, "ban", OTHER, "--for", "1h")
    for client in clients:
        client.expect_close(1008)
        site.worker.wait(ON_CLOSE, client.id)
    site.wait_counter("client_closed_listed", len(clients))
    is_closed_at_once(site, OTHER)
    is_closed_at_once(site, OTHER, "websocket")
    assert all_refused(site) == {"ban": len(clients) + 2}
    is_let_in(stays, site)
    ban(site, "ban", "127.0.0.128/25", "--for", "2d")
    ban(site, "ban", "::1")
    is_closed_at_once(site, "127.0.0.200")
    is_closed_over_ipv6(site)
    shown = tgg(site, "bans").splitlines()
    assert [line.split()[0] for line in shown] == ["127.0.0.6", "127.0.0.128/25", "::1"]
    for line, seconds in zip(shown, (3600, 172800, 3600)):
        assert seconds - 60 <= int(line.split()[2].rstrip("s")) <= seconds, line
    ban(site, "unban", OTHER)
    is_let_in(come(site, OTHER), site)
    is_closed_at_once(site, "127.0.0.200")
    done = run_tgg("unban", "-c", site.gateway.config_path, OTHER)
    assert done.returncode == 1 and "not banned" in done.stderr


@pytest.mark.shards(1, 3)
def test_a_ban_ends_by_itself(start, shards):
    site = start(listen=LISTEN)
    ban(site, "ban", OTHER, "--for", "2s")
    until = time.monotonic() + 2
    for _ in range(2 * shards):
        is_closed_at_once(site, OTHER)

    def may_come():
        client = knock(site, source=OTHER)
        if client.is_ended(within=0.05):
            return False
        client.close()
        return True

    wait_for(may_come, what="the end of the ban")
    # A shard looks at the clock once a second; so does whoever wrote down the end.
    assert until - 1.1 < time.monotonic() < until + 1.5 * slow()
    time.sleep(1)  # now certainly on every shard
    for _ in range(2 * shards):
        is_let_in(site.client("text", source=OTHER), site)
    assert tgg(site, "bans") == ""


def test_bans_outlive_the_gateway(start, tmp_path):
    """Those that have not ended; also written while none runs."""
    site = start(gateway={"ban_file": tmp_path / "bans"}, listen=LISTEN)
    ban(site, "ban", OTHER)
    site.close()
    site.gateway.stop()
    done = run_tgg("ban", "-c", site.gateway.config_path, THIRD, "--for", "5m")
    assert done.returncode == 0 and "no gateway runs" in done.stderr
    with open(tmp_path / "bans", "a") as f:
        f.write("127.0.0.5/32 %d  # long ago\n" % (time.time() - 100))
    site.gateway.start()
    again = type(site)(site.gateway)
    is_closed_at_once(again, OTHER)
    is_closed_at_once(again, THIRD)
    is_let_in(come(again, HOME), again)
    again.close()


def test_allowed_and_banned_is_banned(start):
    site = start(gateway={"allow_list": "127.0.0.0/8"}, listen=LISTEN)
    is_let_in(come(site, OTHER), site)
    ban(site, "ban", "127.0.0.0/24")
    is_closed_at_once(site, OTHER)
    assert site.counter("refused_ban") == 2 and site.counter("refused_deny") == 0


# ---- connections per address and subnet


def fill(site, source, count, listener="text"):
    """So many are let in, and not one more."""
    clients = [come(site, source, listener) for _ in range(count)]
    before = site.counter("refused_per_address")
    is_closed_at_once(site, source)
    is_told(site, 429, source)
    assert site.counter("refused_per_address") == before + 2
    return clients


def leave(site, clients, how="close"):
    site.wait_gauge("refusals", 0)
    left = site.gauge("clients") - len(clients)
    for client in clients:
        getattr(client, how)()
    for client in clients:
        site.worker.wait(ON_CLOSE, client.id)
    site.wait_gauge("clients", left)


@pytest.mark.shards(1, 3)
def test_connections_per_address(start, shards):
    site = start(gateway={"connections_per_address": 5, "retry_after": 7}, listen=LISTEN)
    clients = fill(site, HOME, 5)
    others = fill(site, OTHER, 5, "websocket")
    is_let_in(come(site, THIRD), site)
    for client in clients + others:
        is_let_in(client, site)
    # Counts are right again after clients leave, one by one and all at once, orderly or not.
    for _ in range(3):
        leave(site, clients[:1])
        clients = clients[1:] + [come(site, HOME)]
        is_closed_at_once(site, HOME)
    for how in ("reset", "close"):
        leave(site, clients, how)
        clients = fill(site, HOME, 5)
    for client in others:
        assert client.leave() == 1000
        site.worker.wait(ON_CLOSE, client.id)
    site.wait_gauge("clients", 6)
    fill(site, OTHER, 5, "websocket")
    assert set(all_refused(site)) == {"per_address"}


@pytest.mark.shards(1, 3)
def test_connections_per_subnet(start):
    site = start(gateway={"connections_per_subnet": 6, "connections_per_address": 4}, listen=LISTEN)
    fill(site, HOME, 4)
    clients = [come(site, "127.0.0.%d" % last) for last in (100, 200)]
    is_closed_at_once(site, "127.0.0.201")
    is_told(site, 429, OTHER)
    assert site.counter("refused_per_subnet") == 2
    fill(site, "127.0.1.5", 4)
    leave(site, clients[:1])
    is_let_in(come(site, "127.0.0.99"), site)
    is_closed_at_once(site, OTHER)
    for _ in range(4):
        is_let_in(come_over_ipv6(site), site)
    is_closed_over_ipv6(site)
    assert set(all_refused(site)) == {"per_address", "per_subnet"}


def test_subnets_are_as_large_as_it_says(start):
    site = start(gateway={"connections_per_subnet": 2, "subnet_bits_ipv4": 30, "subnet_bits_ipv6": 16}, listen=LISTEN)
    for last in (4, 7, 8, 11):
        come(site, "127.0.0.%d" % last)
    for last in (4, 5, 6, 7, 8, 9, 10, 11):
        is_closed_at_once(site, "127.0.0.%d" % last)
    come(site, "127.0.0.12")
    come_over_ipv6(site), come_over_ipv6(site)
    is_closed_over_ipv6(site)
    assert all_refused(site) == {"per_subnet": 9}


def test_limits_of_clients_over_tls(start):
    """They are closed before a byte of TLS: that is what they would cost."""
    ca = certs.make_ca()
    cert = certs.make_cert(ca, ["localhost"])
    site = start(gateway={"connections_per_address": 2}, listen={"websocket": {"tls_certificate": cert.chain, "tls_key": cert.key}})
    tls = certs.client_context(ca)
    clients = [WssClient(site.gateway.client_address("websocket"), tls, source=HOME) for _ in range(2)]
    site.clients.extend(clients)
    is_closed_at_once(site, HOME, "websocket")
    assert site.counter("client_refused_rst") == site.counter("refused_per_address") == 1
    clients[0].close()
    site.wait_gauge("clients", 1)
    site.clients.append(WssClient(site.gateway.client_address("websocket"), tls, source=HOME))


@pytest.mark.shards(3)
def test_counts_are_right_after_a_shard_was_killed(start):
    site = start(gateway={"connections_per_address": 12, "connections_per_subnet": 14}, listen=LISTEN)
    worker = site.worker
    clients = [come(site, HOME) for _ in range(12)]
    is_closed_at_once(site, HOME)
    for shard in (0, 2, 1):
        victims = [client for client in clients if client.id >> 26 == shard]
        clients = [client for client in clients if client.id >> 26 != shard]
        assert victims, "each shard has some"
        restarts = site.gateway.status()["restarts"]
        subprocess.run(["kill", "-9", str(site.gateway.shard_pid(shard))], check=True)
        wait_for(lambda: site.gateway.status() and site.gateway.status()["restarts"] > restarts
                 and {s["state"] for s in site.gateway.status()["shards"]} == {"running"}, what="the successor")
        for client in victims:
            client.expect_end()
        if worker.ended or worker.is_ended(within=0.1):
            worker = site._worker = site.worker_link()
            site._g = None
        for _ in victims:
            clients.append(come(site, HOME))
        is_closed_at_once(site, HOME)
        come(site, OTHER).close()
        site.wait_gauge("clients", 12)
    before = [come(site, OTHER), come(site, OTHER)]
    is_closed_at_once(site, THIRD)
    leave(site, before)


@pytest.mark.shards(1, 3)
def test_counts_are_right_after_storms(start, shards):
    """Many come at once, those who may stay are as many as it says (over several shards, which look at the same moment, at
    most one more for each other shard); then all leave at once."""
    site = start(gateway={"connections_per_address": 20}, listen=LISTEN)
    for how in ("close", "reset", "close"):
        sockets = [socket.socket() for _ in range(150)]
        for s in sockets:
            s.bind((HOME, 0))
            s.setblocking(False)
            s.connect_ex(site.gateway.client_address("text"))
        accepted, refused = site.counter("client_accepted"), site.counter("refused_per_address")
        wait_for(lambda: site.counter("client_accepted") + site.counter("refused_per_address") >= 150, what="all to be seen")
        there = site.gauge("clients")
        assert 20 <= there <= 20 + shards - 1
        is_closed_at_once(site, HOME)
        for s in sockets:
            if how == "reset":
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            s.close()
        site.wait_gauge("clients", 0)
        site._before = site.gateway.counters()
    site.worker.settle()
    fill(site, HOME, 20)
    assert "address_not_counted" not in site.gateway.log() and "addresses_full" not in site.gateway.log()


@pytest.mark.shards(1, 3)
def test_a_limit_that_comes_with_a_reload_counts_from_then_on(start):
    site = start(listen=LISTEN)
    old = [come(site, HOME) for _ in range(4)]
    reload(site, connections_per_address=3)
    new = fill(site, HOME, 3)
    leave(site, old)  # was not counted, and is not counted out
    is_closed_at_once(site, HOME)
    reload(site, connections_per_address=5)
    new += [come(site, HOME), come(site, HOME)]
    is_closed_at_once(site, HOME)
    reload(site, connections_per_address=None)
    new += [come(site, HOME) for _ in range(3)]
    leave(site, new)
    reload(site, connections_per_address=2)
    fill(site, HOME, 2)


# ---- rates


@pytest.mark.shards(1, 3)
def test_accept_rate(start, shards):
    """One second's worth at once, each shard with its part of it."""
    site = start(gateway={"accept_rate": 12}, listen=LISTEN)
    site.worker
    began = time.monotonic()
    clients = [knock(site) for _ in range(60)]
    wait_for(lambda: site.counter("client_accepted") + site.counter("client_refused") == 60, what="all to be seen")
    passed = time.monotonic() - began
    let_in = site.counter("client_accepted")
    assert let_in <= 12 + 12 * passed + 1 and let_in >= (12 if shards == 1 else 4)
    assert site.counter("refused_accept_rate") == 60 - let_in == site.counter("client_refused_rst")
    is_told(site, 503)
    time.sleep(1.05)
    late = site.client("text")
    is_let_in(late, site)
    reload(site, accept_rate=None)
    for _ in range(30):
        site.client("text")
    assert set(all_refused(site)) == {"accept_rate"}


@pytest.mark.shards(1, 3)
def test_handshake_rate(start, shards):
    """Only handshakes that are in order use it up; other protocols have none."""
    site = start(gateway={"handshake_rate": 6}, listen=LISTEN)
    for _ in range(10):
        client = site.connect("websocket", open=False)
        client.send_bytes(request(key=None))
        assert client.refused().status == 400
        is_let_in(site.client("text"), site)
    clients = [site.connect("websocket", open=False) for _ in range(40)]
    for client in clients:
        client.send_bytes(request())
    began = time.monotonic()
    statuses = []
    for client in clients:
        head = client.read_response_head()
        statuses.append(int(head.split()[1]))
        if statuses[-1] == 503:
            assert re.search(rb"(?i)\r\nretry-after: 1?\d\r\n|\r\nretry-after: 20\r\n", head + b"\r\n"), head
    assert set(statuses) == {101, 503}
    good = statuses.count(101)
    assert good >= (6 if shards == 1 else 2) and good <= 6 + 6 * (time.monotonic() - began) + 2
    assert site.counter("refused_handshake_rate") == 40 - good
    assert site.counter("client_closed_refused") == 40 - good
    assert site.counter("client_handshakes") == good
    time.sleep(1.05)
    is_let_in(site.client("websocket"), site)
    reload(site, handshake_rate=0)
    for _ in range(20):
        site.client("websocket")
    assert set(all_refused(site)) == {"handshake_rate"}


# ---- the total, and the reserve


@pytest.mark.shards(1)  # max_connections is of each shard
def test_the_total_and_its_reserve(start):
    site = start(gateway={"max_connections": 6, "connection_reserve": 2, "reserve_list": "127.0.0.7, ::1", "retry_after": 3}, listen=LISTEN)
    clients = [come(site, HOME) for _ in range(4)]
    for _ in range(3):
        is_told(site, 503, HOME)
        is_closed_at_once(site, HOME)
    reserved = [come(site, THIRD, "websocket"), come_over_ipv6(site)]
    is_told(site, 503, THIRD)
    is_closed_at_once(site, THIRD)
    is_closed_over_ipv6(site)
    assert all_refused(site) == {"total": 9}
    for client in clients + reserved:
        is_let_in(client, site)
    leave(site, clients[:1])
    site.wait_gauge("refusals", 0)
    is_told(site, 503, HOME)  # the place is one of the reserve's
    is_let_in(come(site, THIRD), site)
    is_closed_at_once(site, THIRD)
    reload(site, connection_reserve=0)
    is_closed_at_once(site, HOME)
    leave(site, clients[1:2])
    is_let_in(come(site, HOME), site)


@pytest.mark.shards(1)  # max_connections is of each shard
def test_the_total_of_clients_behind_a_proxy(start):
    """Exactly as many as without one."""
    site = start(gateway={"max_connections": 4, "connection_reserve": 1, "reserve_list": "203.0.113.7"},
                 listen={"text": {"proxy_protocol": "required", "trusted_proxies": "127.0.0.1"}})

    site.worker

    def proxied(address, is_let_in=True):
        client = knock(site, "text")
        if is_let_in:
            client.send_bytes(proxyproto.v1((address, 1234)))
            return client
        try:
            client.send_bytes(proxyproto.v1((address, 1234)))
            client.expect_end()
        except OSError:
            pass  # reset already

    for _ in range(3):
        client = proxied("203.0.113.1")
        client.send_message(b"here")
        assert site.worker.wait(ON_MESSAGE).body == b"here"
    proxied("203.0.113.1", False)
    client = proxied("203.0.113.7")
    client.send_message(b"reserve")
    assert site.worker.wait(ON_MESSAGE).body == b"reserve"
    proxied("203.0.113.7", False)
    assert all_refused(site) == {"total": 2}
    assert site.counter("client_refused") == 2


@pytest.mark.shards(1)  # max_connections is of each shard
def test_refusals_are_bounded_too(start):
    """Those who are told and do not go away: so many at once, for close_timeout; past that a reset."""
    raise_file_limit()
    site = start(gateway={"max_connections": 2}, listen=LISTEN)
    stay = [come(site, HOME), come(site, HOME)]
    crowd = [knock(site, "websocket") for _ in range(300)]
    wait_for(lambda: site.counter("client_refused") == 300, what="all to be refused")
    told = 300 - site.counter("client_refused_rst")
    assert told == 128
    assert site.gauge("refusals") <= 128 and site.gauge("clients") <= 130
    for client in stay:
        is_let_in(client, site)
    site.wait_gauge("refusals", 0)  # though nobody left
    site.wait_gauge("clients", 2)
    answers = [read_until_end(client) if client is not None else b"" for client in crowd]
    assert sum(answer.startswith(b"HTTP/1.1 503 ") for answer in answers) == told
    assert sum(answer == b"" for answer in answers) == 300 - told
    waits = {int(re.search(rb"(?i)retry-after: (\d+)", answer)[1]) for answer in answers if answer}
    assert len(waits) > 3 and min(waits) >= 10 and max(waits) <= 20
    is_told(site, 503, say=request())


# ---- messages and bytes of one client

RATE = 40
COUNT = 90


def fragmented(text):
    cut = len(text) // 2
    return (frame(TEXT, text[:cut], fin=False) + frame(PING, b"p") + frame(CONTINUATION, b"", fin=False) + frame(CONTINUATION, text[cut:]))


FORMS = {
    "websocket": ("websocket", lambda texts: b"".join(frame(TEXT, t) for t in texts), None),
    "websocket, each alone": ("websocket", lambda texts: [frame(TEXT, t) for t in texts], None),
    "websocket, cut anywhere": ("websocket", lambda texts: b"".join(frame(TEXT, t) for t in texts), 7),
    "websocket, fragmented": ("websocket", lambda texts: b"".join(fragmented(t) for t in texts), None),
    "websocket, fragmented and cut": ("websocket", lambda texts: b"".join(fragmented(t) for t in texts), 11),
    "tls": ("tls", lambda texts: b"".join(frame(TEXT, t) for t in texts), None),
    "tls, cut anywhere": ("tls", lambda texts: b"".join(frame(TEXT, t) for t in texts), 13),
    "text": ("text", lambda texts: b"".join(t + b"\n" for t in texts), None),
    "text, cut anywhere": ("text", lambda texts: b"".join(t + b"\n" for t in texts), 5),
    "frame": ("frame", lambda texts: b"".join((len(t) + 4).to_bytes(4, "big") + t for t in texts), None),
}


def pieces_of(data, chop):
    if isinstance(data, list):
        return data
    return [data] if chop is None else [data[at : at + chop] for at in range(0, len(data), chop)]


@pytest.fixture
def rated(start):
    """rated(keys): a site with a listener of each protocol and one with TLS."""

    def rated_(listen=None, **keys):
        ca = certs.make_ca()
        cert = certs.make_cert(ca, ["localhost"])
        names = {name: dict(listen or {}) for name in ("websocket", "text", "frame")}
        names["tls"] = {"protocol": "websocket", "tls_certificate": cert.chain, "tls_key": cert.key, **(listen or {})}
        site = start(gateway=keys, listen=names)
        site.tls = certs.client_context(ca)
        return site

    return rated_


def rated_client(site, listener):
    if listener != "tls":
        return site.client(listener)
    client = WssClient(site.gateway.client_address("tls"), site.tls)
    site.clients.append(client)
    client.id = site.worker.wait(ON_CONNECT, client_port=client.local_port).connection_id
    return client


def speak_in_all_forms(site, texts):
    """A client for each form says these texts as fast as it can; (the clients, when the last message of each came)."""
    clients = {name: rated_client(site, form[0]) for name, form in FORMS.items()}
    names = {client.id: name for name, client in clients.items()}
    got = {name: [] for name in clients}
    ended = {}
    began = time.monotonic()
    for name, client in clients.items():
        _, make, chop = FORMS[name]
        for piece in pieces_of(make(texts), chop):
            client.send_bytes(piece)
    while len(ended) < len(clients):
        event = site.worker.wait(ON_MESSAGE)
        name = names[event.connection_id]
        got[name].append(event.body)
        if len(got[name]) == len(texts):
            ended[name] = time.monotonic() - began
    for name in clients:
        assert got[name] == texts, name
    return clients, ended


@pytest.mark.shards(1, 3)
def test_message_rate_pauses(rated):
    """Nothing is lost, nothing comes out of turn, whatever the pieces; deadlines wait meanwhile."""
    site = rated({"message_timeout": 1, "idle_timeout": 2}, message_rate=RATE)
    texts = [b"%03d" % i + b"x" * (i % 40) for i in range(COUNT)]
    clients, ended = speak_in_all_forms(site, texts)
    takes = (COUNT - RATE) / RATE  # the last ones, after one second's worth at once
    for name, seconds in ended.items():
        assert takes - 0.1 < seconds < takes + 1.5 * slow(), (name, seconds)
    assert site.counter("client_messages_in") == COUNT * len(FORMS)
    assert site.counter("client_closed_rate") == 0
    # Each message over the rate is counted, and each makes a pause of its own.
    over = site.counter("refused_message_rate")
    assert over == site.counter("client_rate_paused")
    assert (COUNT - RATE - 15) * len(FORMS) < over <= (COUNT - RATE) * len(FORMS)
    assert set(all_refused(site)) == {"message_rate"}
    pongs = [clients[name].read_frame() for name in ("websocket, fragmented", "websocket, fragmented and cut") for _ in range(COUNT)]
    assert {(pong.opcode, pong.payload) for pong in pongs} == {(PONG, b"p")}
    for client in clients.values():
        assert not client.is_ended()


def test_byte_rate_pauses(rated):
    site = rated({"message_timeout": 1}, byte_rate=20_000)
    texts = [b"%04d" % i + b"." * 3996 for i in range(11)]
    clients, ended = speak_in_all_forms(site, texts)
    # 20,000 at once, the next when one of them is over: the last goes out once all but it are paid for.
    for name, seconds in ended.items():
        assert 0.9 < seconds < 2 + 1.5 * slow(), (name, seconds)
    assert site.counter("client_message_bytes_in") == 44_000 * len(FORMS)
    assert site.counter("refused_byte_rate") == site.counter("client_rate_paused") > len(FORMS)
    assert set(all_refused(site)) == {"byte_rate"}


def test_one_message_over_the_byte_rate_is_taken_and_paid_for(start):
    site = start(gateway={"byte_rate": 50_000})
    client, other = site.client(), site.client()
    began = time.monotonic()
    client.send_bytes(frame(TEXT, b"x" * 100_000) + frame(TEXT, b"next"))
    assert len(site.worker.wait(ON_MESSAGE, client.id).body) == 100_000
    is_let_in(other, site)
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"next"
    assert 0.9 < time.monotonic() - began < 1 + 1.5 * slow()


def test_who_leaves_in_a_pause_is_heard_to_the_end(start):
    site = start(gateway={"message_rate": 20})
    clients = [site.client("text"), site.client("websocket"), site.client("frame")]
    encode = {"TextClient": lambda t: t + b"\n", "WsClient": lambda t: frame(TEXT, t), "FrameClient": lambda t: (len(t) + 4).to_bytes(4, "big") + t}
    for client in clients:
        client.send_bytes(b"".join(encode[type(client).__name__](b"%d" % i) for i in range(35)))
        if isinstance(client, WsClient):
            client.send_close(1000)
        else:
            client.sock.shutdown(socket.SHUT_WR)
    for client in clients:
        for i in range(35):
            assert site.worker.wait(ON_MESSAGE, client.id).body == b"%d" % i
        site.worker.wait(ON_CLOSE, client.id)
    assert clients[1].read_frame().code == 1000


def test_a_paused_client_is_sent_to_and_can_be_kicked(start):
    site = start(gateway={"byte_rate": 100, "ping_interval": 1, "ping_not_response_limit": 1})
    client = site.client()
    client.send_text("x" * 5000)  # 49 seconds
    site.worker.wait(ON_MESSAGE, client.id)
    site.wait_counter("client_rate_paused", 1)
    time.sleep(1.7)  # it is silent because we do not read: no heartbeat ends it
    site.g.send_to_one(client.id, b"down")
    assert client.read_message() == b"down"
    site.g.kick(client.id, b"bye")
    assert client.read_message() == b"bye"
    client.expect_close(1000)
    site.worker.wait(ON_CLOSE, client.id)


def test_a_reload_that_lifts_the_rate_ends_pauses(start):
    site = start(gateway={"byte_rate": 100})
    client = site.client()
    client.send_bytes(frame(TEXT, b"x" * 100_000) + frame(TEXT, b"next"))  # 999 seconds
    assert len(site.worker.wait(ON_MESSAGE, client.id).body) == 100_000
    site.wait_counter("client_rate_paused", 1)
    reload(site, byte_rate=None)
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"next"
    client.send_text("and on")
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"and on"


@pytest.mark.shards(1, 3)
def test_rates_that_close(start):
    site = start(gateway={"message_rate": 10, "rate_policy": "close"}, listen=LISTEN)
    client, lines, polite = site.client(), site.client("text"), site.client()
    client.send_bytes(b"".join(frame(TEXT, b"%d" % i) for i in range(30)))
    lines.send_bytes(b"".join(b"%d\n" % i for i in range(30)))
    polite.send_bytes(b"".join(frame(TEXT, b"%d" % i) for i in range(10)))
    for who in (client, lines, polite):
        for i in range(10):
            assert site.worker.wait(ON_MESSAGE, who.id).body == b"%d" % i
    client.expect_close(1008)
    lines.expect_end()
    site.worker.wait(ON_CLOSE, client.id)
    site.worker.wait(ON_CLOSE, lines.id)
    assert site.worker.quiet() == []
    assert (site.counter("client_closed_rate"), site.counter("refused_message_rate"), site.counter("client_messages_in")) == (2, 2, 30)
    reload(site, message_rate=None, byte_rate=1000)
    client = site.client()
    client.send_bytes(frame(TEXT, b"a" * 600) + frame(TEXT, b"b" * 600) + frame(TEXT, b"c"))
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"a" * 600
    client.expect_close(1008)
    site.worker.wait(ON_CLOSE, client.id)
    assert site.worker.quiet() == []
    assert (site.counter("client_closed_rate"), site.counter("refused_byte_rate")) == (3, 1)
    is_let_in(polite, site)


# ---- dry runs

# Keys that make a check refuse a client from OTHER, and how that shows itself.
TRAPS = {
    "deny": {"deny_list": OTHER},
    "ban": {},
    "per_address": {"connections_per_address": 1},
    "per_subnet": {"connections_per_subnet": 1},
    "accept_rate": {"accept_rate": 1},
    "handshake_rate": {"handshake_rate": 1},
    "total": {"connection_reserve": 98, "reserve_list": "203.0.113.7"},
    "message_rate": {"message_rate": 1, "rate_policy": "close"},
    "byte_rate": {"byte_rate": 10, "rate_policy": "close"},
}
NO_TRAPS = {key: None for keys in TRAPS.values() for key in keys}


def spring(site, name):
    """Two clients from OTHER, the second with something to say: whether all went well."""
    for _ in range(2):
        client = knock(site, "websocket", source=OTHER)
        try:
            client.send_bytes(request() + frame(TEXT, b"how are you?") * 2)
            is_good = client.read_response_head().startswith(b"HTTP/1.1 101 ")
        except (OSError, LinkClosed):
            is_good = False
        if not is_good or client.is_ended(within=0.1) or client.buffer:
            return False
    return True


@pytest.mark.shards(1)  # each shard has its part of a rate, at least one a second
@pytest.mark.parametrize("name", CHECKS)
def test_a_dry_run_of_one_check(start, name):
    site = start(gateway={"max_connections": 99, "dry_run": name, **TRAPS[name]}, listen=LISTEN)
    if name == "ban":
        ban(site, "ban", OTHER)
    assert spring(site, name)
    site.wait_counter("client_messages_in", 4)
    counted = all_dry_run(site)
    assert set(counted) == {name} and 1 <= counted[name] <= 4, counted
    assert all_refused(site) == {} and site.counter("client_refused") == 0
    if "rate" not in name or name in ("accept_rate", "handshake_rate"):
        site.gateway.wait_log("check=%s" % name)
        assert "dry_run=yes" in site.gateway.log() and "dry_run=no" not in site.gateway.log()
    # And now in earnest: a reload is enough.
    for client in site.clients:
        client.close()
    site.wait_gauge("clients", 0)
    reload(site, dry_run=", ".join(other for other in CHECKS if other != name))
    assert not spring(site, name)
    assert set(all_refused(site)) == {name}
    assert all_dry_run(site) == counted


@pytest.mark.shards(1, 3)
def test_a_dry_run_of_all(start, shards):
    """Every check would refuse, none does."""
    traps = {key: value for keys in TRAPS.values() for key, value in keys.items()}
    site = start(gateway={**traps, "max_connections": 99, "dry_run": "all"}, listen=LISTEN)
    ban(site, "ban", "127.0.0.0/24")
    for _ in range(3 * shards):
        client = site.client("websocket", source=OTHER)
        client.send_bytes(frame(TEXT, b"as fast as I can") * 3)
    for _ in range(9 * shards):
        site.worker.wait(ON_MESSAGE)
    counted = all_dry_run(site)
    assert set(counted) == set(CHECKS)
    for name in ("deny", "ban"):
        assert counted[name] == 3 * shards, counted
    assert counted["total"] == 2 * shards, counted  # the first of each shard has its place
    for name in ("per_address", "per_subnet"):
        assert counted[name] == 3 * shards - 1, counted
    assert counted["message_rate"] == 6 * shards and counted["byte_rate"] == 9 * shards, counted
    assert all_refused(site) == {}
    # A reload looks at all again, and leaves them alone.
    reload(site)
    assert site.gauge("clients") == 3 * shards and site.counter("client_closed_listed") == 0


@pytest.mark.shards(1)  # max_connections is of each shard
def test_even_in_a_dry_run_there_is_no_room_where_none_is(start):
    site = start(gateway={"max_connections": 2, "connection_reserve": 1, "reserve_list": "203.0.113.7", "dry_run": "all"}, listen=LISTEN)
    come(site, HOME), come(site, HOME)
    is_told(site, 503, HOME)
    assert site.counter("dry_run_total") == site.counter("refused_total") == 1


def test_a_wrong_check_in_dry_run_is_said(start):
    site = start(listen=LISTEN)
    site.gateway.sections["gateway"]["dry_run"] = "deny, no_such"
    site.gateway.write_config()
    done = run_tgg("gateway", "-t", "-c", site.gateway.config_path)
    assert done.returncode != 0 and "no_such" in done.stderr and "accept_rate" in done.stderr
    hup(site)
    site.gateway.wait_log("no_such")
    assert site.counter("reloads") == 0
