# SPDX-License-Identifier: MIT
"""tgg run: everything in one command."""

import http.client
import json
import os
import re
import signal

import pytest

from proc import Process, TGG, can_connect, config_text, free_port, run_tgg, wait_for
from wsclient import WsClient

pytestmark = pytest.mark.tgg_only


class Run:
    def __init__(self, folder, **gateway):
        self.http_port = free_port()
        self.ws_port = free_port()
        self.register_port = free_port()
        self.internal_port = free_port()
        self.admin_port = free_port()
        self.config_path = folder / "run.ini"
        self.config_path.write_text(
            config_text(
                {
                    "gateway": {
                        "start_port": self.internal_port,
                        "register_address": "127.0.0.1:%d" % self.register_port,
                        "runtime_dir": folder / "run",
                        "drain_timeout": 2,
                        **gateway,
                    },
                    "listen web": {"address": "127.0.0.1", "port": self.ws_port, "protocol": "websocket"},
                    "register": {"port": self.register_port},
                    "admin": {"port": self.admin_port},
                }
            )
        )
        self.process = Process([TGG, "run", "-c", self.config_path, "--http", self.http_port], folder, "run")

    def wait_ready(self):
        def ready():
            self.process.check()
            return "open http://" in self.process.out()

        wait_for(ready, what="the announcement")

    def get(self, path, method="GET"):
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, response.getheader("Content-Type"), body

    def ports(self):
        return [self.http_port, self.ws_port, self.register_port, self.internal_port, self.admin_port]


@pytest.fixture
def run(tmp_path):
    run_ = Run(tmp_path)
    run_.wait_ready()
    yield run_
    run_.process.stop()


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return [int(child) for child in f.read().split()]


def message(client):
    """The next message of the chat."""
    return json.loads(client.read_message())


def test_the_page_and_its_configuration(run):
    status, kind, body = run.get("/")
    assert status == 200 and kind.startswith("text/html") and b"<html" in body
    assert run.get("/chat.js")[:2] == (200, "text/javascript; charset=utf-8")
    status, _, body = run.get("/config.json")
    assert status == 200 and json.loads(body) == {"websocket_port": run.ws_port}


@pytest.mark.parametrize("path", ["/../LICENSE", "/..%2fLICENSE", "/.git", "/none", "//etc/passwd", "/chat.js/"])
def test_nothing_but_the_files_of_the_page(run, path):
    assert run.get(path)[0] in (400, 404)


def test_only_get_and_head(run):
    assert run.get("/", "HEAD")[0] == 200
    assert run.get("/", "POST")[0] == 405


def test_two_tabs_can_talk(run):
    tabs = [WsClient(("127.0.0.1", run.ws_port)) for _ in range(2)]
    for name, client in zip(("anna", "bert"), tabs):
        client.send_text(json.dumps({"type": "login", "name": name, "room": "r"}))
        wait_for(lambda: message(client)["type"] == "welcome", what="the welcome")
    tabs[0].send_text(json.dumps({"type": "say", "text": "hello"}))

    def heard():
        said = message(tabs[1])
        return said["type"] == "say" and said["text"] == "hello" and said["name"] == "anna"

    wait_for(heard, what="what anna says")
    for client in tabs:
        client.close()


def command_line(pid):
    with open("/proc/%d/cmdline" % pid, "rb") as f:
        return f.read()


def test_the_secret_key_is_in_no_argument(tmp_path):
    """Everybody may read arguments; the demo worker gets the key all the same."""
    run = Run(tmp_path, secret_key="k3y-that-nobody-sees")
    run.wait_ready()
    client = WsClient(("127.0.0.1", run.ws_port))
    client.send_text(json.dumps({"type": "login", "name": "anna", "room": "r"}))
    wait_for(lambda: message(client)["type"] == "welcome", what="the welcome")
    lines = [command_line(pid) for pid in [run.process.pid, *children(run.process.pid)]]
    assert any(b"tgg-demo-chat" in line for line in lines)
    assert not any(b"k3y-that-nobody-sees" in line for line in lines)
    client.close()
    run.process.stop()
    assert "k3y-that-nobody-sees" not in run.process.err() + run.process.out()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_everything_ends_together(tmp_path, number):
    run = Run(tmp_path)
    run.wait_ready()
    parts = children(run.process.pid)
    assert len(parts) == 4
    assert run.process.stop(number) == 0
    assert not any(os.path.exists("/proc/%d" % pid) for pid in parts)
    assert not any(can_connect(("127.0.0.1", port)) for port in run.ports())


def test_a_part_that_dies_ends_all_with_status_1(tmp_path):
    run = Run(tmp_path)
    run.wait_ready()
    parts = children(run.process.pid)
    os.kill(parts[0], signal.SIGKILL)
    assert run.process.wait() == 1
    assert "the register ended (signal 9)" in run.process.err()
    wait_for(lambda: not any(os.path.exists("/proc/%d" % pid) for pid in parts), what="all parts to end")


def test_nothing_is_left_when_it_is_killed(tmp_path):
    run = Run(tmp_path)
    run.wait_ready()
    parts = children(run.process.pid)
    run.process.expected_end = True
    run.process.send_signal(signal.SIGKILL)
    run.process.wait()
    wait_for(lambda: not any(can_connect(("127.0.0.1", port)) for port in run.ports()), what="all ports free")
    run.process.check()


def test_a_port_in_use_is_told_and_nothing_is_left(tmp_path):
    run = Run(tmp_path)
    run.wait_ready()
    other = free_port()
    done = run_tgg("run", "-c", run.config_path, "--http", other)
    assert done.returncode == 1 and "[register] port:" in done.stderr and "in use" in done.stderr
    assert not can_connect(("127.0.0.1", other))
    run.process.stop()


def test_the_admin_page_is_named_with_its_token(run):
    found = re.search(r"admin page +http://127\.0\.0\.1:(\d+)/#token=([0-9a-f]{64})\n", run.process.out())
    assert found and int(found.group(1)) == run.admin_port, run.process.out()
    connection = http.client.HTTPConnection("127.0.0.1", run.admin_port, timeout=10)
    connection.request("GET", "/api/status", headers={"Authorization": "Bearer " + found.group(2)})
    assert connection.getresponse().status == 200
    connection.close()
    assert found.group(2) not in run.process.err()
