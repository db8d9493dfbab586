# SPDX-License-Identifier: MIT
"""Faults that were found in what sees and steers a running gateway, each with the smallest scenario that shows it."""

import http.client
import json
import os
import re
import signal
import socket
import threading
import time

import pytest

from proc import free_port, wait_for
from wsclient import request

pytestmark = [pytest.mark.tgg_only, pytest.mark.shards(1)]

LONG = 86400


class AdminConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("tgg", timeout=20)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Api:
    def __init__(self, gateway):
        self.gateway = gateway
        self.path = os.path.join(gateway.runtime_dir, "admin.sock")
        wait_for(lambda: os.path.exists(self.path), what="the admin socket")

    def ask(self, target, method="GET"):
        """Status and what the JSON says."""
        connection = AdminConnection(self.path)
        connection.request(method, target)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text.startswith(b"{") else text

    def get(self, target):
        status, answer = self.ask(target)
        assert status == 200, answer
        return answer

    def post(self, target):
        status, answer = self.ask(target, "POST")
        assert status == 200, answer
        return answer

    def leave_at_once(self, target):
        """Asks for something and does not wait for the answer."""
        connection = AdminConnection(self.path)
        connection.request("POST", target)
        time.sleep(0.02)
        connection.close()

    def open_clients(self, target="/api/clients?limit=1000"):
        return [row for row in self.get(target)["clients"] if row["state"] == "open"]

    @property
    def tcp_address(self):
        return ("127.0.0.1", int(self.gateway.sections["admin"]["port"]))

    def tcp(self, head, timeout=20):
        sock = socket.create_connection(self.tcp_address, timeout=timeout)
        sock.sendall(head)
        return sock

    @property
    def authorization(self):
        with open(os.path.join(self.gateway.runtime_dir, "admin.token")) as f:
            return b"Authorization: Bearer %s\r\n" % f.read().strip().encode()


@pytest.fixture
def node(start):
    def node_(**config):
        site = start(**config)
        return site.with_worker(), Api(site.gateway)

    return node_


def admin_port():
    return {"address": "127.0.0.1", "port": free_port()}


# -- orders that take time


def test_orders_whose_askers_left_do_not_take_the_places_of_others(node):
    """32 closes over a day, whose askers are gone, and the shard answers nothing more until the day is over."""
    site, api = node()
    site.client("text")
    for _ in range(34):
        api.leave_at_once("/api/close?all=yes&seconds=%d" % LONG)
    assert api.get("/api/clients")["missing"] == []
    assert api.post("/api/close?all=yes")["closed"] == 1


def test_an_asker_by_tcp_who_leaves_is_forgotten(node):
    """He closes his socket while his order is carried out: that is no hangup for epoll, only the end of what he says."""
    site, api = node(admin=admin_port())
    site.client("text")
    head = b"POST /api/close?all=yes&seconds=%d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n%s\r\n" % (LONG, api.authorization)
    for _ in range(21):
        sock = api.tcp(head)
        time.sleep(0.02)
        sock.close()
    wait_for(lambda: api.ask("/api/check")[0] == 200, 5, "a place for another question")


def test_the_last_drain_counts(node):
    """Drained over a long time after all: what was ordered first does not go on beside it."""
    site, api = node()
    for _ in range(20):
        site.client("text")
    api.post("/api/drain?node=yes&seconds=2")
    api.post("/api/drain?node=yes&seconds=%d" % LONG)
    time.sleep(3)
    assert len(api.open_clients()) >= 15


def test_who_comes_in_behind_a_proxy_while_it_drains_is_closed_too(node):
    """Accepted before the drain, an application's client only after it: nobody has closed it."""
    site, api = node(listen={"proxied": {"protocol": "text", "proxy_protocol": "required", "trusted_proxies": "127.0.0.1"}})
    with socket.create_connection(site.gateway.client_address("proxied")) as early:
        wait_for(lambda: [row["state"] for row in api.get("/api/clients")["clients"]] == ["preamble"])
        api.post("/api/drain?node=yes&seconds=0")
        time.sleep(0.3)
        try:
            early.sendall(b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\nhello\n")
        except OSError:
            pass  # closed already, which is fine
        time.sleep(0.5)
        wait_for(lambda: not api.open_clients(), 3, "no client on a drained node")


def test_jitter_leaves_the_time_between_two_to_chance(node):
    """Not only a part of the 20 ms between two looks at the clock."""
    site, api = node()
    clients = [site.client("text") for _ in range(8)]
    ends = []

    def watch(client):
        client.expect_end()
        ends.append(time.monotonic())
        client.close()

    threads = [threading.Thread(target=watch, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    api.post("/api/close?all=yes&seconds=4&jitter=100")
    for thread in threads:
        thread.join()
    between = [later - sooner for sooner, later in zip(sorted(ends), sorted(ends)[1:])]
    assert max(between) - min(between) > 0.1, between


@pytest.mark.shards(3)
def test_nobody_is_refused_while_other_shards_take_clients(node):
    """Connections that were on their way to a shard when that was drained go to another one."""
    site, api = node()
    for _ in range(4):
        pid = site.gateway.shard_pid(0)
        os.kill(pid, signal.SIGSTOP)
        try:
            clients = [socket.create_connection(site.gateway.client_address("websocket"), timeout=20) for _ in range(400)]
            for client in clients:
                client.sendall(request())
            drained = threading.Thread(target=api.ask, args=("/api/drain?shard=0&seconds=%d" % LONG, "POST"))
            drained.start()
            time.sleep(0.1)
        finally:
            os.kill(pid, signal.SIGCONT)
        drained.join()
        answers = []
        for client in clients:
            site.worker.quiet(0.001)
            answers.append(client.recv(300).split(b"\r\n")[0])
            client.close()
        assert set(answers) == {b"HTTP/1.1 101 Switching Protocols"}
        assert site.counter("refused_draining") == 0
        api.post("/api/undrain?shard=0")


# -- who is meant


def test_age_max_zero_is_not_everybody(node):
    site, api = node()
    client = site.client("text")
    time.sleep(2.1)
    status, answer = api.ask("/api/clients?age_max=0")
    assert status == 400 or answer["clients"] == []
    status, answer = api.ask("/api/close?age_max=0", "POST")
    assert status == 400 or answer["closed"] == 0
    assert not client.is_ended(0.2)


@pytest.mark.parametrize("name", ["age_min", "idle_min", "queue_min"])
def test_a_filter_that_all_match_is_none(node, name):
    """To close everybody is to be said: all=yes."""
    site, api = node()
    client = site.client("text")
    assert api.ask("/api/close?%s=0" % name, "POST")[0] == 400
    assert not client.is_ended(0.2)


def test_clients_of_a_removed_listener_can_be_named(node):
    site, api = node(listen={"extra": {"protocol": "text"}})
    client = site.client("extra")
    removed = site.gateway.sections.pop("listen extra")
    site.gateway.write_config()
    assert api.post("/api/reload")["removed"] == ["extra"]
    site.gateway.sections["listen extra"] = removed  # for the end of the test
    assert [row["connection_id"] for row in api.get("/api/clients?listener=extra")["clients"]] == [client.id]
    assert api.post("/api/close?listener=extra")["closed"] == 1


# -- what is shown


def test_two_who_ask_for_the_top_talkers_do_not_share_a_sum(node):
    """The second one asks for one second, and was given what was counted since the first one began."""
    site, api = node()
    client = site.client("text")
    ends = threading.Event()

    def talk():
        while not ends.wait(0.02):
            client.send_message(b"x")
            site.worker.quiet(0.001)
            site.worker.events.clear()

    talker = threading.Thread(target=talk)
    first = threading.Thread(target=lambda: api.get("/api/top?by=messages_in&seconds=6"))
    talker.start()
    first.start()
    try:
        time.sleep(4)
        before = site.counter("client_messages_in")
        top = api.get("/api/top?by=messages_in&seconds=1")["top"]
        said = site.counter("client_messages_in") - before
    finally:
        first.join()
        ends.set()
        talker.join()
    assert len(top) == 1 and top[0]["value"] <= said


def test_a_reason_stays_within_its_quotes_in_the_log(node):
    site, api = node(log={"closes": "all"})
    client = site.client("text")
    api.post("/api/close?client=%d&reason=a%%22%%20level=%%22forged" % client.id)
    site.gateway.wait_log("client_closed reason=ordered")
    line = re.search("^.*client_closed reason=ordered.*$", site.gateway.log(), re.M).group(0)
    assert ' level="forged"' not in line, line


# -- the admin port


def test_who_is_slow_does_not_keep_the_probes_out(node):
    """128 who say a byte of a request now and then, without a token, and /livez answers nobody any more."""
    site, api = node(admin=admin_port())
    slow = [api.tcp(b"GET /livez HTTP/1.1\r\nX: ") for _ in range(140)]

    def drip():
        for sock in slow:
            try:
                sock.send(b"a")
            except OSError:
                pass

    def is_alive():
        drip()
        try:
            with api.tcp(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", timeout=2) as sock:
                return sock.recv(100).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    try:
        wait_for(is_alive, 20, "an answer of /livez")
    finally:
        for sock in slow:
            sock.close()


@pytest.mark.parametrize("lengths", [b"Content-Length: 0\r\nContent-Length: 50\r\n", b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"])
def test_a_request_of_two_lengths_is_refused(node, lengths):
    """RFC 9112 section 6.3: a proxy in front may have seen the other one, and with it other requests."""
    site, api = node(admin=admin_port())
    body = b"0\r\n\r\n" if b"chunked" in lengths else b""
    with api.tcp(b"POST /api/undrain?node=yes HTTP/1.1\r\nHost: x\r\n" + api.authorization + lengths + b"\r\n" + body) as sock:
        assert sock.recv(1000).startswith(b"HTTP/1.1 400")


def test_the_token_is_in_no_process_that_does_not_need_it(node):
    site, api = node(admin=admin_port())
    token = api.authorization.split()[2]
    status = api.get("/api/status")
    others = [process["pid"] for process in status["processes"] if process["kind"] not in ("admin", "supervisor")]
    for pid in others + [shard["pid"] for shard in status["shards"]]:
        with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb") as memory:
            for line in maps:
                low, high = (int(end, 16) for end in line.split()[0].split("-"))
                if line.split()[1].startswith("rw") and high - low < 1 << 28:
                    memory.seek(low)
                    assert token not in memory.read(high - low), line
