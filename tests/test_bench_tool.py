# SPDX-License-Identifier: MIT
"""tgg bench: what it says of a gateway is what its workers have seen; errors are told; reports can be read by programs."""

import collections
import ipaddress
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import xml.dom.minidom

import pytest

import certs
from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE, SEND_TO_ALL, SEND_TO_ONE, packet
from proc import ROOT, TGG, Process, free_port, run_tgg, sanitizer_env, slow, wait_for

pytestmark = [pytest.mark.tgg_only, pytest.mark.shards(1)]

OK, RUNTIME, USAGE = 0, 1, 2


class Counting:
    """A worker that counts, and answers each message as it is told: echo, all (to everybody), embed (within JSON), none."""

    def __init__(self, site, reply="echo"):
        self.reply = reply
        self.counts = collections.Counter()
        self.bytes = 0
        self.sources = collections.Counter()
        self.bodies = []
        self.worker = site.echo_worker(self.event)

    def event(self, link, event):
        self.counts[event.cmd] += 1
        if event.cmd == ON_CONNECT:
            self.sources[str(ipaddress.ip_address(event.client_ip))] += 1
        if event.cmd != ON_MESSAGE:
            return
        self.bytes += len(event.body)
        self.bodies.append(event.body)
        if self.reply == "echo":
            link.send_packet(packet(SEND_TO_ONE, event.connection_id, body=event.body))
        elif self.reply == "all":
            link.send_packet(packet(SEND_TO_ALL, 0, body=event.body))
        elif self.reply == "embed":
            body = b'{"type":"say","content":' + json.dumps(event.body.decode()).encode() + b"}"
            link.send_packet(packet(SEND_TO_ONE, event.connection_id, body=body))
        elif self.reply == "ok":
            link.send_packet(packet(SEND_TO_ONE, event.connection_id, body=b"it is ok"))


def url(site, listener="websocket", path="", scheme=None):
    schemes = {"websocket": "ws"}
    return "%s://127.0.0.1:%d%s" % (scheme or schemes.get(listener, listener), site.gateway.ports[listener], path)


def bench(*args, status=OK, timeout=60):
    """The result as JSON, and what people read."""
    done = run_tgg("bench", "--json", "-", "--quiet", *args, timeout=timeout)
    assert done.returncode == status, done.stderr
    result = json.loads(done.stdout)
    return result, done.stderr


@pytest.mark.parametrize("listener", ["websocket", "text", "frame", "tcp"])
def test_echo_over_every_protocol(start, listener):
    site = start()
    worker = Counting(site)
    result, text = bench("--connections", 5, "--rate", 20, "--time", 1, url(site, listener))
    counts = result["counts"]
    assert counts["opened"] == 5 and counts["failed"] == counts["dropped"] == 0
    assert counts["messages_out"] == 100
    assert worker.counts[ON_MESSAGE] == 100 or (listener == "tcp" and worker.counts[ON_MESSAGE] < 100)  # bytes, not messages
    assert counts["bytes_out"] == 6400 == worker.bytes
    assert counts["answered"] == 100 == result["latency"]["count"] and counts["unanswered"] == 0
    assert result["good"] and result["latency"]["p50_ns"] > 0
    assert "latency" in text and "answers" in text
    wait_for(lambda: worker.counts[ON_CLOSE] == 5, what="everybody gone")


def test_the_rate_is_kept(start):
    site = start()
    worker = Counting(site, "none")
    result, _ = bench("--connections", 20, "--total-rate", 400, "--time", 3, "--expect", "none", url(site))
    wait_for(lambda: worker.counts[ON_MESSAGE] == 1200, what="all messages")
    assert result["counts"]["messages_out"] == 1200
    whole = [s["out_per_s"] for s in result["samples"][1:-1]]
    assert whole and all(abs(rate - 400) <= 40 * slow() for rate in whole), whole


def test_a_closed_loop_goes_as_fast_as_answers_come(start):
    site = start()
    worker = Counting(site)
    result, text = bench("--connections", 4, "--outstanding", 3, "--time", 1, url(site))
    assert result["counts"]["answered"] == result["counts"]["messages_out"] == worker.counts[ON_MESSAGE] > 50
    assert "closed loop" in text


def test_a_mix_of_sizes_reaches_the_worker(start):
    site = start()
    worker = Counting(site)
    result, _ = bench("--connections", 2, "--rate", 50, "--time", 1, "--mix", "64:8,1000:1,70000:1", "--binary", url(site))
    sizes = collections.Counter(len(body) for body in worker.bodies)
    assert sizes == {64: 80, 1000: 10, 70000: 10} and result["counts"]["answered"] == 100


def test_fan_out(start):
    site = start()
    worker = Counting(site, "all")
    result, text = bench("--connections", 30, "--expect", "fanout", "--rate", 10, "--time", 1, url(site))
    counts = result["counts"]
    assert result["options"]["senders"] == 1
    assert counts["messages_out"] == 10 == worker.counts[ON_MESSAGE]
    assert counts["deliveries"] == 300 == counts["messages_in"] == result["latency"]["count"]
    assert "30.0 of each message" in text


def test_templates_subscribe_and_answers_that_embed(start):
    site = start()
    worker = Counting(site, "embed")
    template = '{"type":"say","id":{id},"n":{seq},"at":{time},"text":"{mark}"}'
    result, _ = bench("--connections", 3, "--rate", 5, "--time", 1, "--message", template, "--subscribe",
                      '{"type":"join","room":"r{id}"}', url(site))
    joins = [body for body in worker.bodies if b"join" in body]
    says = [json.loads(body) for body in worker.bodies if b"say" in body]
    assert sorted(json.loads(body)["room"] for body in joins) == ["r0", "r1", "r2"]
    assert sorted((s["id"], s["n"]) for s in says) == [(i, n) for i in range(3) for n in range(5)]
    assert all(abs(s["at"] / 1000 - time.time()) < 60 for s in says)
    assert result["counts"]["answered"] == 15 and result["counts"]["subscribes"] == 3


@pytest.mark.parametrize("listener", ["websocket", "tcp"])
def test_a_text_answers_the_oldest_message(start, listener):
    site = start()
    Counting(site, "ok")
    result, _ = bench("--connections", 2, "--rate", 10, "--time", 1, "--message", "are you?", "--expect", "answer:is ok",
                      url(site, listener))
    assert result["counts"]["answered"] == 20 and result["counts"]["repeated"] == 0


def test_what_nobody_answers_is_an_error(start):
    site = start()
    Counting(site, "none")
    result, text = bench("--connections", 2, "--rate", 10, "--time", 1, "--drain", "200ms", url(site), status=RUNTIME)
    assert result["counts"]["unanswered"] == 20 and result["errors_percent"] == 100 and not result["good"]
    assert result["latency"]["max_ns"] > 1e9, "it counts with its age"
    result, _ = bench("--connections", 2, "--rate", 10, "--time", 1, "--drain", 0, "--max-errors", 100, url(site))
    assert result["good"]
    result, _ = bench("--connections", 1, "--time", 1, "--answer-timeout", "300ms", "--drain", 0, url(site), status=RUNTIME)
    assert 3 <= result["counts"]["messages_out"] <= 5


def test_two_processes_from_two_addresses(start):
    site = start()
    worker = Counting(site)
    result, _ = bench("--connections", 41, "--processes", 2, "--source", "127.0.0.21,127.0.0.22", "--rate", 10, "--time", 1, url(site))
    assert worker.sources == {"127.0.0.21": 21, "127.0.0.22": 20}
    assert result["counts"]["opened"] == 41 and result["counts"]["answered"] == 410 == worker.counts[ON_MESSAGE]
    marks = [body[8:16] for body in worker.bodies]
    assert len(set(marks)) == 410, "client and number of every mark"


def test_a_ramp_takes_its_time(start):
    site = start()
    Counting(site)
    result, _ = bench("--connections", 30, "--ramp", 30, "--idle", "--time", "500ms", "--processes", 2, url(site))
    assert 0.8 < result["connect_s"] < 1.3 * slow()
    assert result["counts"]["opened"] == 30 and result["counts"]["messages_out"] == 0


def test_idle_with_pings(start):
    site = start()
    worker = Counting(site)
    result, _ = bench("--connections", 10, "--idle", "--pings", "200ms", "--time", 1, url(site))
    assert result["counts"]["pings"] == result["counts"]["pongs"] == result["ping"]["count"]
    assert 40 <= result["counts"]["pings"] <= 52 and worker.counts[ON_MESSAGE] == 0


def test_wss(start):
    ca = certs.make_ca()
    cert = certs.make_cert(ca, ["localhost", "127.0.0.1"])
    keys = {"tls_certificate": cert.chain, "tls_key": cert.key}
    site = start(listen={"websocket": keys, "text": keys})
    Counting(site)
    how = ("--connections", 5, "--rate", 10, "--time", 1)
    wss = url(site, scheme="wss")
    for trust in (("--insecure",), ("--ca", ca.cert)):
        result, _ = bench(*how, *trust, wss)
        assert result["counts"]["answered"] == 50
    result, _ = bench(*how, "--tls", "--insecure", url(site, "text"))
    assert result["counts"]["answered"] == 50
    result, text = bench(*how, wss, status=RUNTIME)
    assert result["errors"]["tls"] == 5 and "--insecure" in text and "certificate" in result["tls_error"]
    result, text = bench(*how, "--ca", ca.cert, "--server-name", "other.example", wss, status=RUNTIME)
    assert "hostname mismatch" in text.lower()


def test_headers_and_subprotocol_are_sent():
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard = []

        def serve():
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(4096))
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        target = "ws://127.0.0.1:%d/chat?x=1" % server.getsockname()[1]
        result, text = bench("--header", "Origin: http://example.org", "--header", "Cookie: a=b", "--subprotocol", "json", target,
                             status=RUNTIME)
        thread.join()
    request = heard[0].decode()
    assert request.startswith("GET /chat?x=1 HTTP/1.1\r\n") and request.endswith("\r\n\r\n")
    for line in ("Origin: http://example.org", "Cookie: a=b", "Sec-WebSocket-Protocol: json"):
        assert "\r\n%s\r\n" % line in request
    assert result["errors"]["handshake"] == 1 and result["http_answers"] == {"403": 1} and "HTTP 403" in text


def test_a_unix_socket(start, tmp_path):
    path = tmp_path / "web.sock"
    site = start(listen={"local": {"protocol": "websocket", "address": "unix:%s" % path}})
    Counting(site)
    result, _ = bench("--connections", 3, "--rate", 10, "--time", 1, "ws://unix:%s:/room" % path)
    assert result["counts"]["answered"] == 30
    result, text = bench("--time", 1, "ws://unix:%s" % (tmp_path / "nobody.sock"), status=RUNTIME)
    assert result["errors"]["unreachable"] == 1 and "Nothing connected" in text


def test_nobody_there_is_said_clearly():
    result, text = bench("--connections", 3, "ws://127.0.0.1:%d" % free_port(), status=RUNTIME)
    assert result["errors"]["refused"] == 3 and result["counts"]["opened"] == 0
    assert "Nothing connected to 127.0.0.1: connection refused" in text
    done = run_tgg("bench", "ws://no-such-host.invalid/")
    assert done.returncode == RUNTIME and "no-such-host.invalid" in done.stderr


def test_a_name_of_several_addresses(start):
    site = start()
    Counting(site)
    result, _ = bench("--connections", 2, "--rate", 10, "--time", 1, url(site).replace("127.0.0.1", "localhost"))
    assert result["counts"]["answered"] == 20


def test_another_protocol_is_said_clearly(start):
    site = start()
    result, _ = bench("--time", 1, "--timeout", "1s", url(site, "text", scheme="ws"), status=RUNTIME)
    assert result["counts"]["failed"] == 1 and result["errors"]["connect_timeout"] == 1


def test_clients_that_are_closed_are_counted_with_their_code(start):
    site = start(gateway={"drain_timeout": 1})
    Counting(site)
    process = Process([TGG, "bench", "--quiet", "--json", "-", "--connections", "4", "--rate", "5", "--time", "30", url(site)],
                      os.path.dirname(site.gateway.config_path), "bench")
    wait_for(lambda: site.gauge("clients") == 4, what="the clients")
    time.sleep(0.3)
    process.expected_end = True
    site.gateway.stop(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    assert process.wait() == RUNTIME
    result = json.loads(process.out())
    assert result["closes"] == {"1001": 4} and result["counts"]["dropped"] == 4


def test_int_ends_it_early_with_a_report(start, tmp_path):
    site = start()
    worker = Counting(site)
    process = Process([TGG, "bench", "--json", "-", "--html", tmp_path / "r.html", "--connections", "5", "--processes", "2", "--rate", "10",
                       "--time", "60", url(site)], tmp_path, "bench")
    wait_for(lambda: worker.counts[ON_MESSAGE] > 60, what="messages")
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == OK
    result = json.loads(process.out())
    assert result["interrupted"] and result["counts"]["messages_out"] == result["counts"]["answered"] == worker.counts[ON_MESSAGE]
    assert 0.9 < result["run_s"] < 30 and (tmp_path / "r.html").exists()
    assert re.search(r"^ +1 s +\w+ +connected 5 of 5, failed 0", process.err(), re.M), "a line of progress each second"


def test_int_while_connecting(start, tmp_path):
    site = start()
    Counting(site)
    process = Process([TGG, "bench", "--quiet", "--json", "-", "--connections", "1000", "--ramp", "10", url(site)], tmp_path, "bench")
    wait_for(lambda: site.gauge("clients") > 3, what="the first clients")
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == OK
    result = json.loads(process.out())
    assert result["interrupted"] and 3 < result["counts"]["opened"] < 200 and result["counts"]["messages_out"] == 0


def test_pages_and_charts_are_well_formed_and_hold_nothing_from_outside(start, tmp_path):
    site = start()
    Counting(site)
    html, svg = tmp_path / "r.html", tmp_path / "r.svg"
    bench("--connections", 5, "--rate", 20, "--time", 2, "--html", html, "--svg", svg, url(site, path="/<script>&'\""))
    page = html.read_text()
    document = xml.dom.minidom.parseString(page.replace("<!DOCTYPE html>", ""))
    assert len(document.getElementsByTagName("svg")) == 5 and not document.getElementsByTagName("script")
    assert "/&lt;script&gt;&amp;&#39;&quot;" in page
    drawing = xml.dom.minidom.parse(str(svg))
    assert len(drawing.getElementsByTagName("polyline")) >= 3 and len(drawing.getElementsByTagName("rect")) > 3
    for text in (page, svg.read_text()):
        assert not re.search(r"(src|href)=|url\(|@import", text)
        assert set(re.findall(r"https?://[^\"< ]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_json_histogram_and_samples_add_up(start):
    site = start()
    Counting(site)
    result, _ = bench("--connections", 10, "--rate", 20, "--time", 2, url(site))
    assert sum(count for _, _, count in result["latency_histogram"]) == result["latency"]["count"] == 400
    assert all(first <= last for first, last, _ in result["latency_histogram"])
    times = [s["end_ms"] for s in result["samples"]]
    assert times == sorted(times)
    begins = [0] + times
    sent = sum(s["out_per_s"] * (end - begin) / 1000 for s, begin, end in zip(result["samples"], begins, times))
    assert 340 <= sent <= 408, "what is left after the last full second is not drawn when it is short"


def limited(n):
    """bench with so many descriptors, and no right to more."""
    import resource

    def prepare():
        resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)

    return subprocess.run([TGG, "bench", "--connections", "1000", "--idle", "ws://127.0.0.1:1"], capture_output=True, text=True, preexec_fn=prepare,
                          env=sanitizer_env(), timeout=30)


def test_too_few_descriptors_are_told_with_what_would_do():
    if subprocess.run([TGG, "--version"], capture_output=True, preexec_fn=lambda: os.getuid() or os.setuid(65534)).returncode != 0:
        pytest.fail("the program cannot be run by another user")
    done = limited(300)
    assert done.returncode == RUNTIME
    assert "--processes 4" in done.stderr and "ulimit -n 1032" in done.stderr


def test_usage(tmp_path):
    done = run_tgg("bench", "--help")
    assert done.returncode == OK and "--source-range" in done.stdout
    for wrong in ((), ("ws://h", "ws://i"), ("--rate", "x", "ws://h"), ("http://h",), ("--nonsense", "ws://h")):
        done = run_tgg("bench", *wrong)
        assert done.returncode == USAGE and "tgg" in done.stderr and done.stdout == ""
    done = run_tgg("bench", "--html", tmp_path / "no" / "folder", "--quiet", "ws://127.0.0.1:%d" % free_port())
    assert done.returncode == RUNTIME and "no/folder" in done.stderr


def test_every_count_and_option_is_documented():
    with open(os.path.join(ROOT, "docs", "BENCH-TOOL.md")) as f:
        doc = f.read()
    with open(os.path.join(ROOT, "src", "load", "bench_counts.def")) as f:
        rows = re.findall(r'^BENCH_(?:COUNT|ERROR)\((\w+), "(.*)"\)', f.read(), re.M)
    assert len(rows) > 25
    for name, text in rows:
        assert "| `%s` | %s |" % (name, text) in doc
    options = re.findall(r"^  (--[a-z-]+)", run_tgg("bench", "--help").stdout, re.M)
    assert len(options) > 30
    for option in options:
        assert option in doc, option
