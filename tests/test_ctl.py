# SPDX-License-Identifier: MIT
"""tgg ctl against an admin process that is played (mock_admin.py): requests, tables, pages, watching, errors; and its
documents. With a real gateway: test_ctl_gateway.py."""

import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time

import pytest

from mock_admin import Mock, Raw, client, pages, refuse, status, worker
from proc import PATIENCE, ROOT, TGG, config_text, run_tgg, sanitizer_env, wait_for

pytestmark = pytest.mark.tgg_only

OK, RUNTIME, USAGE, CONFIG = 0, 1, 2, 78


@pytest.fixture
def mock(tmp_path):
    with Mock(tmp_path) as m:
        yield m


def ctl(mock, *args, **how):
    return run_tgg("ctl", "--socket", mock.path, *args, **how)


def good(mock, *args):
    done = ctl(mock, *args)
    assert done.returncode == OK and done.stderr == "", (done.returncode, done.stderr)
    return done.stdout


def table(text, first):
    """Rows of the table whose first title is that one, by title; for cells without two blanks in them."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if re.match(r"\s*%s(\s|$)" % re.escape(first), line))
    titles = lines[at].split()
    rows = []
    for line in lines[at + 1:]:
        if not line.strip():
            break
        cells = re.split(r"\s{2,}", line.strip())
        assert len(cells) == len(titles), line
        rows.append(dict(zip(titles, cells)))
    return rows


class Terminal:
    """tgg ctl with a terminal: as its stdout, or as its stdin."""

    def __init__(self, *args, width=80, height=24, stdin=False):
        self.side, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        attributes = termios.tcgetattr(child)
        attributes[1] &= ~termios.ONLCR
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(child, termios.TCSANOW, attributes)
        self.popen = subprocess.Popen(
            [TGG, "ctl", *[str(a) for a in args]],
            stdin=child if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE if stdin else child,
            stderr=subprocess.PIPE,
            env=sanitizer_env(),
        )
        os.close(child)
        self.text = ""

    def type(self, text):
        os.write(self.side, text.encode())

    def read_until(self, condition, timeout=PATIENCE):
        deadline = time.monotonic() + timeout
        while not condition(self.text):
            assert time.monotonic() < deadline, self.text
            if select.select([self.side], [], [], 0.05)[0] and not self._read():
                assert condition(self.text), self.text
                return

    def _read(self):
        try:
            data = os.read(self.side, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""
        self.text += data.decode(errors="replace")
        return data

    def end(self):
        """(exit status, stderr); all of the output is in text."""
        while self._read():
            pass
        self.popen.wait(PATIENCE)
        err = self.popen.stderr.read().decode()
        os.close(self.side)
        return self.popen.returncode, err


# -- whom to ask


def write_config(tmp_path, **admin):
    path = tmp_path / "conf.ini"
    path.write_text(config_text({"gateway": {"start_port": 2900, "runtime_dir": tmp_path}, "admin": admin}))
    return path


def test_the_socket_is_admin_sock_in_runtime_dir(tmp_path, mock):
    mock.answers["/api/bans"] = {"bans": []}
    done = run_tgg("ctl", "bans", "-c", write_config(tmp_path))
    assert done.returncode == OK and done.stdout == "none\n"


def test_the_socket_of_the_configuration_comes_first(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with Mock(other, {"/api/bans": {"bans": []}}) as mock:
        done = run_tgg("ctl", "-c", write_config(tmp_path, socket=mock.path), "bans")
        assert done.returncode == OK and len(mock.requests) == 1


def test_a_wrong_configuration_is_78(tmp_path):
    path = tmp_path / "conf.ini"
    path.write_text("[admin]\nport = x\n")
    done = run_tgg("ctl", "-c", path)
    assert done.returncode == CONFIG and "[admin] port" in done.stderr
    assert run_tgg("ctl", "-c", tmp_path / "none.ini").returncode == CONFIG


def test_without_a_gateway_it_says_what_to_do(tmp_path):
    done = run_tgg("ctl", "--socket", tmp_path / "none.sock")
    assert done.returncode == RUNTIME
    assert done.stderr == "tgg ctl: no admin socket at %s/none.sock: is the gateway running, and [admin] enabled? tgg status works without it\n" % tmp_path


def test_a_socket_that_nobody_listens_on(tmp_path):
    path = str(tmp_path / "dead.sock")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
    done = run_tgg("ctl", "--socket", path)
    assert done.returncode == RUNTIME and "nobody listens there" in done.stderr


def test_a_path_too_long_for_a_socket(tmp_path):
    done = run_tgg("ctl", "--socket", str(tmp_path / ("x" * 200)))
    assert done.returncode == RUNTIME and "too long" in done.stderr


# -- HTTP


BODY = b'{"bans":[{"address":"10.0.0.0/8","until_unix_s":4102444800}]}'


@pytest.mark.parametrize(
    "answer",
    [
        Raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY), BODY),
        Raw(b"HTTP/1.0 200 OK\r\n\r\n" + BODY),
        Raw(*[b"HTTP/1.1 200 OK\nX: y\n\n"[i:i + 1] for i in range(22)], *[BODY[i:i + 1] for i in range(len(BODY))]),
        Raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY + b"and more", hold=True),
    ],
    ids=["length", "to-the-end", "byte-by-byte", "kept-open"],
)
def test_answers_come_in_any_form(mock, answer):
    mock.answers["/api/bans"] = answer
    assert "10.0.0.0/8  2100-01-01T00:00:00Z" in good(mock, "bans")
    assert mock.requests[0].version == "HTTP/1.0"


@pytest.mark.parametrize(
    "answer, said",
    [
        (Raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "not the admin process"),
        (Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"), "cut off"),
        (Raw(b"HTTP/1.1 200 OK\r\nContent-"), "not the admin process"),
        (Raw(), "cut off"),
        (Raw(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 20000 + b"\r\n\r\n{}"), "not the admin process"),
        ("not JSON", "makes no sense"),
        ("[1]", "makes no sense"),
        ("", "makes no sense"),
    ],
)
def test_nonsense_is_an_error_and_no_output(mock, answer, said):
    mock.answers["/api/status"] = answer
    done = ctl(mock)
    assert done.returncode == RUNTIME and said in done.stderr and done.stdout == ""


def test_a_large_answer(mock):
    rows = [{"shard": i, "name": "t%d" % i, "used": i, "peak": i, "capacity": None, "bytes": 1024 * i} for i in range(20000)]
    mock.answers["/api/tables"] = {"tables": rows, "missing": []}
    text = good(mock, "tables")
    assert len(text.splitlines()) == 20001
    assert text.splitlines()[-1].split() == ["19999", "t19999", "19999", "19999", "-", "19.5", "MB"]


def test_what_the_gateway_refuses_is_said(mock):
    mock.answers["/api/status"] = refuse(503, "shard 1 \x1b[31m did not answer")
    done = ctl(mock)
    assert done.returncode == RUNTIME and done.stdout == ""
    assert done.stderr == "tgg ctl: shard 1 \\x1b[31m did not answer\n"


def test_a_missing_shard_is_told(mock):
    mock.answers["/api/workers"] = {"workers": [worker("w")], "missing": [2, 3]}
    done = ctl(mock, "workers")
    assert done.returncode == OK and "no answer of shard 2, 3" in done.stderr
    assert len(table(done.stdout, "worker")) == 1


# -- requests

FILTERS = ["--address", "10.0.0.0/8", "--uid", "u&1 ü", "--group", "g", "--worker", "127.0.0.1:w", "--listener", "web", "--shard", "1", "--age-min", "1m",
           "--age-max", "2h", "--idle-min", "5", "--queue-min", "64k", "--client", "12"]
FILTERED = {"address": "10.0.0.0/8", "uid": "u&1 ü", "group": "g", "worker": "127.0.0.1:w", "listener": "web", "shard": "1", "age_min": "60",
            "age_max": "7200", "idle_min": "5", "queue_min": "65536", "client": "12"}


@pytest.mark.parametrize(
    "args, method, path, parameters",
    [
        (["clients", *FILTERS], "GET", "/api/clients", {**FILTERED, "limit": "100"}),
        (["clients", "--limit", "7"], "GET", "/api/clients", {"limit": "7"}),
        (["client", "a/b c"], "GET", "/api/clients/a/b c", {}),
        (["uids", "x"], "GET", "/api/uids", {"name": "x"}),
        (["groups", "--prefix", "room:"], "GET", "/api/groups", {"prefix": "room:", "limit": "100"}),
        (["top"], "GET", "/api/top", {"by": "messages_in"}),
        (["top", "queue", "--for", "3", "--limit", "5"], "GET", "/api/top", {"by": "queue", "seconds": "3", "limit": "5"}),
        (["counters", "--shard", "2"], "GET", "/api/counters", {"shard": "2"}),
        (["trace", "--uid", "u", "--for", "2m"], "GET", "/api/trace", {"uid": "u", "seconds": "120"}),
        (["close", *FILTERS, "--code", "4000", "--reason", "off you go", "--over", "0", "--jitter", "50"], "POST", "/api/close",
         {**FILTERED, "code": "4000", "reason": "off you go", "seconds": "0", "jitter": "50"}),
        (["close", "--all"], "POST", "/api/close", {"all": "yes"}),
        (["kick", "u", "--code", "4001"], "POST", "/api/kick", {"uid": "u", "code": "4001"}),
        (["kick", "--", "-u"], "POST", "/api/kick", {"uid": "-u"}),
        (["ban", "2001:db8::/32", "--for", "1d"], "POST", "/api/ban", {"address": "2001:db8::/32", "seconds": "86400"}),
        (["unban", "10.0.0.1"], "POST", "/api/unban", {"address": "10.0.0.1"}),
        (["drain", "node", "--over", "5m"], "POST", "/api/drain", {"node": "yes", "seconds": "300"}),
        (["drain", "shard", "1", "--code", "1012", "--reason", "r", "--jitter", "0"], "POST", "/api/drain",
         {"shard": "1", "code": "1012", "reason": "r", "jitter": "0"}),
        (["drain", "worker", "127.0.0.1:w"], "POST", "/api/drain", {"worker": "127.0.0.1:w"}),
        (["undrain", "shard", "0"], "POST", "/api/undrain", {"shard": "0"}),
        (["evacuate", "1"], "POST", "/api/evacuate", {"shard": "1"}),
        (["evacuate", "0", "--back"], "POST", "/api/evacuate", {"shard": "0", "back": "yes"}),
        (["rebalance", "--over", "3"], "POST", "/api/rebalance", {"seconds": "3"}),
        (["log-level", "debug"], "POST", "/api/log", {"level": "debug"}),
        (["reload"], "POST", "/api/reload", {}),
        (["inject", "1", "crash"], "POST", "/api/inject", {"shard": "1", "name": "crash"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_what_is_asked(mock, args, method, path, parameters):
    answer = {"ok": True, "clients": [], "uids": [], "groups": [], "counters": {}, "by": "queue", "seconds": 1, "top": [], "closed": 0, "changed": []}
    mock.answers[path] = "" if args[0] == "trace" else answer
    ctl(mock, *args)
    assert mock.asked() == [(method, path, parameters)]


@pytest.mark.parametrize(
    "args, said",
    [
        (["nonsense"], "not a command"),
        (["--nonsense"], "--nonsense"),
        (["status", "surplus"], "too many words"),
        (["status", "--uid", "x"], "no option --uid"),
        (["client"], "missing"),
        (["kick"], "missing"),
        (["inject", "1"], "missing"),
        (["close"], "which clients? Give a filter, or --all"),
        (["close", "--code", "4000"], "which clients?"),
        (["close", "--all", "--uid", "u"], "do not go together"),
        (["clients", "--all", "--limit", "5"], "--all goes neither"),
        (["groups", "g", "--all"], "a NAME goes with none"),
        (["clients", "--address", "10.0.0.1/8"], "expected 10.0.0.0/8"),
        (["clients", "--age-min", "soon"], "--age-min soon: expected a number of s, m, h or d"),
        (["clients", "--queue-min", "1x"], "--queue-min 1x: expected a number of bytes"),
        (["clients", "--limit", "-1"], "--limit -1: expected a whole number"),
        (["--watch=x"], "--watch x: expected 0.1 to 3600"),
        (["--watch=0"], "0.1 to 3600"),
        (["close", "--all", "--watch"], "no option --watch"),
        (["trace"], "whom?"),
        (["trace", "--uid", "u", "--client", "1"], "whom?"),
        (["top", "noise"], "messages_in, bytes_in"),
        (["ban", "here"], "here"),
        (["drain", "all"], "node, shard N or worker KEY"),
        (["drain", "shard"], "shard N"),
        (["drain", "shard", "x"], "number of a shard"),
        (["drain", "node", "1"], "nothing behind node"),
        (["evacuate"], "something is missing"),
        (["evacuate", "all"], "number of a shard"),
        (["drain", "shard", "1", "--back"], "no option --back"),
        (["log-level", "loud"], "error, warn, notice, info or debug"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_usage_is_2_asks_nothing_and_says_why(mock, args, said):
    done = ctl(mock, *args)
    assert done.returncode == USAGE and said in done.stderr and "usage: tgg ctl" in done.stderr and done.stdout == ""
    assert mock.requests == []


# -- tables


def test_status_is_the_whole_node(mock):
    mock.answers["/api/status"] = status()
    text = good(mock)
    assert text.startswith("tgg 0.1.0, running, up 2h05m, ready\n12 clients, 2 workers, log level notice")
    assert table(text, "shard") == [
        {"shard": "0", "state": "running", "phase": "poll", "drained": "-", "pid": "12", "cpu": "-", "edge": "yes", "link": "yes", "up": "2h05m",
         "restarts": "0", "clients": "12", "links": "3", "workers": "2", "cpu_time": "1.5 s", "turns": "1000", "longest_turn": "2.5 ms", "memory": "48.0 MB"}
    ]
    assert [row["process"] for row in table(text, "process")] == ["supervisor", "shard"]
    assert table(text, "listener")[0]["address"] == "0.0.0.0"
    assert table(text, "register") == [{"register": "127.0.0.1:1238", "connected": "yes", "since": "1m30s"}]
    traffic = {row["traffic"]: row for row in table(text, "traffic")}
    assert traffic["messages to clients"] == {"traffic": "messages to clients", "number": "3000", "size": "1.2 MB"}
    assert good(mock, "status") == text
    assert good(mock, "shards") in text and good(mock, "processes") in text


def test_a_node_that_is_not_ready_says_why(mock):
    mock.answers["/api/status"] = status(ready=False, not_ready=["no worker", "draining"])
    assert "not ready: no worker, draining\n" in good(mock)


def test_workers_are_sorted_and_have_units(mock):
    mock.answers["/api/workers"] = {"workers": [worker("b", health="stuck", queue_bytes=3000000, queue_age_ms=12345), worker("a")], "missing": []}
    rows = table(good(mock, "workers"), "worker")
    assert [row["worker"] for row in rows] == ["a", "b"]
    assert rows[1]["health"] == "stuck" and rows[1]["queue"] == "2.9 MB" and rows[1]["queue_age"] == "12.3 s"
    assert rows[0]["out_size"] == "20.0 KB" and rows[0]["wait_p99"] == "1.0 ms" and rows[0]["up"] == "1m00s"


def test_foreign_text_is_harmless_and_whole_without_a_terminal(mock):
    uid = "u\x1b]0;title\x07\u202e" + "x" * 300
    mock.answers["/api/clients"] = {"clients": [client(1, uid=uid), client(2, uid="用户")], "cursor": None, "missing": []}
    text = good(mock, "clients")
    assert "u\\x1b]0;title\\x07\\u202e" + "x" * 300 in text
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert table(text, "id")[1]["uid"] == "用户"


def test_a_terminal_gets_no_more_than_its_width(mock):
    mock.answers["/api/clients"] = {"clients": [client(i, uid="用户%d" % i + "x" * 100) for i in range(5)], "cursor": None, "missing": []}
    terminal = Terminal("--socket", mock.path, "clients", width=140)
    assert terminal.end() == (OK, "")
    lines = terminal.text.splitlines()
    assert len(lines) == 6 and all(line.endswith(">") for line in lines)
    assert all(sum(2 if c > "\u2e80" else 1 for c in line) in (139, 140) for line in lines)
    assert ".." in lines[1]


def test_counters_have_their_meaning(mock):
    mock.answers["/api/counters"] = {"counters": {"client_accepted": 5, "client_refused": 0, "of_a_later_version": 1}, "shards": [], "missing": []}
    rows = good(mock, "counters").splitlines()
    assert rows[0].split() == ["counter", "value", "meaning"] and len(rows) == 4
    assert "client connections accepted" in rows[1]
    assert [line.split()[0] for line in good(mock, "counters", "--nonzero").splitlines()] == ["counter", "client_accepted", "of_a_later_version"]


def test_closes_have_the_most_first(mock):
    mock.answers["/api/closes"] = {
        "closes": [{"reason": "peer", "help": "it went", "count": 2}, {"reason": "reset", "help": "broke", "count": 30}],
        "drops": [{"reason": "no_worker", "help": "none there", "count": 1}],
    }
    text = good(mock, "closes")
    assert [(row["closed"], row["reason"]) for row in table(text, "closed")] == [("30", "reset"), ("2", "peer")]
    assert table(text, "dropped")[0]["meaning"] == "none there"
    mock.answers["/api/closes"]["closes"].append({"reason": "rate", "help": "too fast", "count": 0})
    assert len(table(good(mock, "closes"), "closed")) == 3 and len(table(good(mock, "closes", "--nonzero"), "closed")) == 2
    mock.answers["/api/closes"]["drops"] = []
    assert "no message was dropped" in good(mock, "closes", "--nonzero")


def test_histograms_have_the_unit_of_each(mock):
    mock.answers["/api/histograms"] = {
        "histograms": {
            "turn": {"unit": "seconds", "count": 4, "sum": 0.002, "p50": 0.000262144, "p90": 0.001, "p99": 0.001, "max_bound": 0.0012, "buckets": []},
            "message_in": {"unit": "bytes", "count": 2, "sum": 4096, "p50": 2048, "p90": 2048, "p99": 2048, "max_bound": 4096, "buckets": []},
            "handshake": {"unit": "seconds", "count": 0, "sum": 0, "p50": None, "p90": None, "p99": None, "max_bound": None, "buckets": []},
        }
    }
    rows = {row["histogram"]: row for row in table(good(mock, "histograms"), "histogram")}
    assert rows["turn"]["mean"] == "500 us" and rows["turn"]["p50_below"] == "262 us" and rows["turn"]["max_below"] == "1.2 ms"
    assert rows["message_in"]["mean"] == "2.0 KB" and rows["handshake"]["p99_below"] == "-"


def test_top_clients_and_names(mock):
    mock.answers["/api/top"] = lambda request: (
        {"by": "groups", "seconds": 1, "top": [{"name": "room", "clients": 9}]}
        if request.parameters.get("by") == "groups"
        else {"by": "bytes_in", "seconds": 1, "top": [{**client(7, uid="u"), "value": 2048}]}
    )
    assert table(good(mock, "top", "groups"), "clients") == [{"clients": "9", "name": "room"}]
    text = good(mock, "top", "bytes_in")
    row = table(text, "value")[0]
    assert text.startswith("bytes_in a second, over 1 s\n") and row["value"] == "2.0 KB" and row["id"] == "7" and row["uid"] == "u"


def test_one_client_in_full(mock):
    mock.answers["/api/clients/7"] = {**client(7), "groups": ["a", "b"], "tls_info": {"version": "TLSv1.3", "resumed": True}, "worker_info": None}
    lines = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in good(mock, "client", "7").splitlines())
    assert lines["age_s"] == "3m20s" and lines["groups"] == "a, b" and lines["tls_info.version"] == "TLSv1.3" and lines["worker_info"] == "-"
    done = ctl(mock, "client", "8")
    assert done.returncode == RUNTIME and "no such thing" in done.stderr


def test_bans_say_how_long(mock):
    mock.answers["/api/bans"] = {"bans": [{"address": "10.0.0.0/8", "until_unix_s": int(time.time()) + 7230}, {"address": "::1", "until_unix_s": int(time.time()) + 60}]}
    rows = table(good(mock, "bans"), "address")
    assert [row["address"] for row in rows] == ["::1", "10.0.0.0/8"] and rows[1]["left"] == "2h00m"


def test_metrics_are_text_as_it_is(mock):
    text = '# HELP tgg_clients x\ntgg_clients{shard="0"} 1\n'
    mock.answers["/metrics"] = text
    assert good(mock, "metrics") == text


@pytest.mark.parametrize(
    "answer, expected",
    [
        ({"ok": True, "shards": [{"shard": 0, "looked_at": 50, "problems": []}], "missing": []}, OK),
        ({"ok": False, "shards": [{"shard": 0, "looked_at": 50, "problems": ["uid x: 2, but 1 is bound"]}], "missing": []}, RUNTIME),
        ({"ok": True, "shards": [], "missing": [0]}, RUNTIME),
    ],
)
def test_check_has_its_exit_status(mock, answer, expected):
    mock.answers["/api/check"] = answer
    for args in (["check"], ["check", "--json"]):
        done = ctl(mock, *args)
        assert done.returncode == expected
    for shard in answer["shards"]:
        for problem in shard["problems"]:
            assert problem in ctl(mock, "check").stdout
    assert json.loads(done.stdout) == answer


# -- orders


def test_orders_say_what_was_done(mock):
    mock.answers.update({
        "/api/close": {"ok": True, "closed": 12}, "/api/kick": {"ok": True, "closed": 1}, "/api/ban": {"ok": True}, "/api/unban": {"ok": True},
        "/api/drain": {"ok": True}, "/api/undrain": {"ok": True}, "/api/rebalance": {"ok": True, "moved": 3}, "/api/log": {"ok": True},
        "/api/inject": {"ok": True}, "/api/evacuate": {"ok": True, "shard": 1, "clients": 7, "links": 1, "pause_ms": 3},
    })
    assert good(mock, "close", "--all", "--yes") == "closed 12 clients\n"
    assert good(mock, "kick", "u") == "closed 1 client\n"
    assert good(mock, "ban", "10.0.0.0/8", "--for", "2h") == "10.0.0.0/8 is banned for 2h00m\n"
    assert good(mock, "unban", "10.0.0.0/8") == "10.0.0.0/8 is not banned any more\n"
    assert good(mock, "drain", "shard", "1") == "shard 1 drains: no new clients, those that are there are closed within 30s\n"
    assert "closed at once" in good(mock, "drain", "shard", "1", "--over", "0")
    assert "worker k drains" in good(mock, "drain", "worker", "k") and "bound to others" in good(mock, "drain", "worker", "k")
    assert good(mock, "undrain", "node") == "node takes clients again\n"
    assert good(mock, "evacuate", "1") == "off shard 1: 7 clients and 1 internal connection have moved, pause 3 ms\n"
    assert good(mock, "evacuate", "1", "--back").startswith("back to shard 1: 7 clients")
    assert good(mock, "rebalance") == "3 clients are going to be bound to another worker\n"
    assert good(mock, "log-level", "debug").startswith("log level debug")
    assert good(mock, "inject", "0", "crash") == "shard 0 was told: crash\n"
    assert json.loads(good(mock, "close", "--all", "--json")) == {"ok": True, "closed": 12}


def test_reload_shows_what_changed_and_what_is_wrong(mock):
    mock.answers["/api/reload"] = {"ok": True, "changed": [{"section": "log", "key": "level", "live": True}, {"section": "gateway", "key": "shards", "live": False}]}
    done = ctl(mock, "reload")
    assert done.returncode == OK and "next start" in done.stderr
    assert [(row["key"], row["live"]) for row in table(done.stdout, "section")] == [("level", "yes"), ("shards", "no")]
    mock.answers["/api/reload"] = {"ok": True, "changed": []}
    assert good(mock, "reload") == "no key has changed\n"
    mock.answers["/api/reload"] = refuse(409, "the configuration is wrong, nothing has changed", problems=["x.ini:3: [log] level: no", "x.ini:4: y"])
    done = ctl(mock, "reload")
    assert done.returncode == RUNTIME
    assert done.stderr == "tgg ctl: the configuration is wrong, nothing has changed\n  x.ini:3: [log] level: no\n  x.ini:4: y\n"


@pytest.mark.parametrize("args", [["close", "--all"], ["drain", "node"], ["evacuate", "1"]])
@pytest.mark.parametrize("typed, done", [("y\n", True), ("yes\n", True), ("n\n", False), ("\n", False), ("\x04", False)])
def test_dangerous_orders_ask_a_person(mock, args, typed, done):
    mock.answers["/api/" + args[0]] = {"ok": True, "closed": 2}
    terminal = Terminal("--socket", mock.path, *args, stdin=True)
    assert select.select([terminal.popen.stderr], [], [], PATIENCE)[0]
    assert mock.requests == []
    terminal.type(typed)
    _, err = terminal.popen.communicate(timeout=PATIENCE)
    os.close(terminal.side)
    assert b"[y/N]" in err and terminal.popen.returncode == (OK if done else RUNTIME)
    assert (b"nothing was done" in err) == (not done) and len(mock.requests) == done


def test_yes_is_not_asked_and_other_orders_neither(mock):
    mock.answers["/api/close"] = {"ok": True, "closed": 2}
    for args in (["close", "--all", "--yes"], ["close", "--uid", "u"]):
        terminal = Terminal("--socket", mock.path, *args, stdin=True)
        out, err = terminal.popen.communicate(timeout=PATIENCE)
        os.close(terminal.side)
        assert (out, err, terminal.popen.returncode) == (b"closed 2 clients\n", b"", OK)


def test_an_order_that_takes_its_time_is_waited_for(mock):
    """Past the 10 s that an answer may take otherwise."""
    def slowly(request):
        time.sleep(11)
        return {"ok": True, "closed": 1}

    mock.answers["/api/close"] = slowly
    mock.answers["/api/kick"] = slowly
    kick = threading.Thread(target=lambda: late.append(ctl(mock, "kick", "u", timeout=60)))
    late = []
    kick.start()
    done = ctl(mock, "close", "--uid", "u", "--over", "5", timeout=60)
    kick.join()
    assert done.returncode == OK and done.stdout == "closed 1 client\n"
    assert late[0].returncode == RUNTIME and "no answer in time" in late[0].stderr


# -- JSON and pages


def test_json_is_the_answer_of_the_gateway(mock):
    mock.answers["/api/status"] = status(config="a\u009bb")
    done = ctl(mock, "--json")
    assert json.loads(done.stdout) == status(config="a\u009bb") and "\u009b" not in done.stdout


@pytest.mark.parametrize("length", [True, False])
def test_all_pages_and_each_client_once(tmp_path, length):
    rows = [client(i, idle_s=0.5) for i in range(1, 1001)]
    twice = rows[:300] + rows[250:]  # what a table that moves may look like
    with Mock(tmp_path, {"/api/clients": pages("clients", twice)}, length=length) as mock:
        text = good(mock, "clients", "--all")
        assert [int(line.split()[0]) for line in text.splitlines()[1:]] == list(range(1, 1001))
        assert json.loads(good(mock, "clients", "--all", "--json")) == rows
        assert [r.parameters.get("cursor") for r in mock.requests][:3] == [None, "0:200", "0:400"]


def test_limit_goes_over_pages_and_no_further(mock):
    mock.answers["/api/clients"] = pages("clients", [client(i) for i in range(1, 1001)])
    done = ctl(mock, "clients", "--limit", "450")
    assert len(done.stdout.splitlines()) == 451 and "there are more: --limit N, or --all" in done.stderr
    assert [r.parameters["limit"] for r in mock.requests] == ["200", "200", "50"]
    answer = json.loads(ctl(mock, "clients", "--limit", "450", "--json").stdout)
    assert [row["connection_id"] for row in answer["clients"]] == list(range(1, 451)) and answer["cursor"] == "0:450"
    done = ctl(mock, "clients")
    assert len(done.stdout.splitlines()) == 101 and "there are more" in done.stderr


def test_empty_lists(mock):
    for name in ("clients", "uids", "groups"):
        mock.answers["/api/" + name] = {name: [], "cursor": None, "missing": []}
    assert good(mock, "clients") == "no such client is there\n" and good(mock, "clients", "--all") == "no such client is there\n"
    assert json.loads(good(mock, "clients", "--all", "--json")) == []
    assert good(mock, "uids", "nobody") == "no such uid is bound\n" and good(mock, "groups") == "there is no such group\n"


def test_empty_pages_are_passed(mock):
    """A filter that finds nobody on the first pages."""
    mock.answers["/api/clients"] = lambda request: (
        {"clients": [client(5)], "cursor": None, "missing": []} if "cursor" in request.parameters else {"clients": [], "cursor": "0:9", "missing": []}
    )
    assert [row["id"] for row in table(good(mock, "clients", "--uid", "u"), "id")] == ["5"]


def test_largest_names_come_first_when_all_are_there(mock):
    rows = [{"name": "small", "clients": 1, "shard": 0}, {"name": "large", "clients": 5, "shard": 1}]
    mock.answers["/api/groups"] = {"groups": rows, "cursor": None, "missing": []}
    assert [row["name"] for row in table(good(mock, "groups"), "clients")] == ["large", "small"]
    mock.answers["/api/uids"] = pages("uids", [{"name": "u%d" % (i // 2), "clients": 1, "shard": i % 2} for i in range(500)])
    assert len(good(mock, "uids", "--all").splitlines()) == 501


# -- watching and tracing


def watched(mock, *args, seconds="0.1"):
    return subprocess.Popen([TGG, "ctl", "--socket", mock.path, "--watch=" + seconds, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=sanitizer_env())


def stop(popen, number=signal.SIGINT):
    popen.send_signal(number)
    out, err = popen.communicate(timeout=PATIENCE)
    return popen.returncode, out.decode(), err.decode()


def test_watch_shows_changes_per_second_until_it_is_stopped(mock):
    began = time.monotonic()
    mock.answers["/api/workers"] = lambda request: {"workers": [worker("w", messages_in=int(1000 * (time.monotonic() - began)))], "missing": []}
    popen = watched(mock, "workers", seconds="0.4")
    wait_for(lambda: len(mock.requests) >= 4)
    code, out, err = stop(popen)
    assert code == OK and err == ""
    frames = out.split("tgg ctl workers, every 0.4 s, ")[1:]
    assert len(frames) >= 3
    rows = [table(frame, "worker")[0] for frame in frames]
    assert rows[0]["in/s"] == "-" and "in" not in rows[0]
    assert all(300 < float(row["in/s"]) < 3000 for row in rows[1:]), rows


@pytest.mark.parametrize("command, title", [("status", "number/s"), ("counters", "per_s"), ("top", "change/s"), ("clients", None), ("groups", "change/s")])
def test_what_can_be_watched_has_its_rates(mock, command, title):
    n = []
    mock.answers["/api/status"] = lambda request: n.append(1) or status(counters={"client_messages_in": 1000000 * len(n), "event_message": 5})
    mock.answers["/api/counters"] = lambda request: n.append(1) or {"counters": {"a": 1000000 * len(n)}, "shards": []}
    mock.answers["/api/top"] = lambda request: n.append(1) or {"by": "uids", "seconds": 1, "top": [{"name": "u", "clients": 1000000 * len(n)}]}
    mock.answers["/api/clients"] = lambda request: n.append(1) or {"clients": [client(1)], "cursor": None}
    mock.answers["/api/groups"] = lambda request: n.append(1) or {"groups": [{"name": "g", "shard": 0, "clients": 1000000 * len(n)}], "cursor": None}
    popen = watched(mock, command)
    wait_for(lambda: len(n) >= 4)
    code, out, err = stop(popen, signal.SIGTERM)
    frames = out.split("tgg ctl " + command)[1:]
    assert code == OK and err == "" and len(frames) >= 3
    if title:
        assert title in frames[2]
        assert any(float(number) > 100000 for number in re.findall(r"(?<=\s)\d{6,}", frames[2])), frames[2]


def test_watch_goes_on_while_the_gateway_is_away(mock):
    mock.answers["/api/bans"] = {"bans": []}
    popen = watched(mock, "bans")
    wait_for(lambda: len(mock.requests) >= 2)
    mock.answers["/api/bans"] = refuse(503, "not now")
    n = len(mock.requests)
    wait_for(lambda: len(mock.requests) >= n + 2)
    mock.answers["/api/bans"] = {"bans": [{"address": "::1", "until_unix_s": 4102444800}]}
    n = len(mock.requests)
    wait_for(lambda: len(mock.requests) >= n + 3)
    code, out, err = stop(popen)
    assert code == OK and err == "" and out.index("none") < out.index("tgg ctl: not now") < out.index("::1")


def test_watch_ends_when_the_first_answer_is_not_there(tmp_path):
    done = run_tgg("ctl", "--socket", tmp_path / "none", "--watch")
    assert done.returncode == RUNTIME and "no admin socket" in done.stderr and done.stdout == ""


def test_watch_on_a_terminal_stays_within_it(mock):
    rows = [{"shard": 0, "name": "t%d" % i, "used": 1, "peak": 1, "capacity": 1, "bytes": 1} for i in range(50)]
    mock.answers["/api/tables"] = {"tables": rows}
    terminal = Terminal("--socket", mock.path, "--watch=0.1", "tables", width=60, height=10)
    terminal.read_until(lambda text: text.count("\x1b[H") >= 3)
    terminal.popen.send_signal(signal.SIGINT)
    assert terminal.end() == (OK, "")
    frames = terminal.text.split("\x1b[H")[1:]
    assert all(frame.count("\n") == 9 for frame in frames[:2]) and frames[0].endswith("\x1b[J")


def test_watched_json_is_an_answer_a_line(mock):
    mock.answers["/api/bans"] = {"bans": []}
    popen = watched(mock, "bans", "--json")
    wait_for(lambda: len(mock.requests) >= 3)
    code, out, err = stop(popen)
    assert code == OK and err == "" and len(out.splitlines()) >= 2 and all(json.loads(line) == {"bans": []} for line in out.splitlines())


TRACE = [
    {"at_unix_ms": 1700000000123, "since_ms": None, "shard": 0, "connection_id": 7, "event": "trace_begin"},
    {"at_unix_ms": 1700000000223, "since_ms": 100, "shard": 0, "connection_id": 7, "event": "in", "size": 5, "opcode": 1, "bytes": "he\u001bllo"},
]


def test_a_trace_is_written_as_it_comes(mock):
    lines = [json.dumps(event).encode() + b"\n" for event in TRACE]
    mock.answers["/api/trace"] = Raw(b"HTTP/1.1 200 OK\r\n\r\n", lines[0], lines[1][:20], lines[1][20:], hold=True)
    popen = subprocess.Popen([TGG, "ctl", "--socket", mock.path, "trace", "--client", "7"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=sanitizer_env())
    first, second = popen.stdout.readline().decode(), popen.stdout.readline().decode()
    assert re.match(r"\d\d:\d\d:\d\d\.123 +shard 0 +7  trace_begin", first)
    assert re.match(r"\d\d:\d\d:\d\d\.223 +100 ms  shard 0 +7  in +size=5 opcode=1 bytes=\"he\\x1bllo\"\n", second), second
    assert stop(popen) == (OK, "", "")


def test_a_trace_as_json_ends_with_its_answer(mock):
    text = "".join(json.dumps(event) + "\n" for event in TRACE)
    mock.answers["/api/trace"] = text
    assert good(mock, "trace", "--uid", "u", "--json") == text
    assert len(good(mock, "trace", "--uid", "u").splitlines()) == 2
    mock.answers["/api/trace"] = refuse(409, "too many traces")
    done = ctl(mock, "trace", "--uid", "u")
    assert done.returncode == RUNTIME and done.stderr == "tgg ctl: too many traces\n" and done.stdout == ""


# -- help and documents


def commands():
    """Names in `tgg ctl --help`."""
    done = run_tgg("ctl", "--help")
    assert done.returncode == OK and done.stderr == ""
    return re.findall(r"^  ([a-z][a-z-]*)(?= |$)", done.stdout, re.M)


def test_help_lists_every_command_and_each_has_its_own():
    names = commands()
    assert len(names) == len(set(names)) == 30 and names[0] == "status"
    for name in names:
        done = run_tgg("ctl", name, "--help")
        assert done.returncode == OK and done.stdout.startswith("usage: tgg ctl " + name)
        assert "--json" in done.stdout


def documented(path):
    with open(os.path.join(ROOT, path)) as f:
        text = f.read()
    if path.endswith(".md"):
        return text, re.findall(r"^### `tgg ctl ([a-z-]+)", text, re.M)
    section = text.split(".Sh CONTROL\n")[1].split("\n.Sh ")[0]
    return section, re.findall(r"^\.It Cm ([a-z-]+)", section, re.M)


@pytest.mark.parametrize("path", ["docs/CTL.md", "man/tgg.8"])
def test_the_documents_have_the_commands_and_options_of_the_help(path):
    text, names = documented(path)
    assert names == commands()
    options = {option for name in commands() for option in re.findall(r"^  (?:-\w, )?--([a-z-]+)", run_tgg("ctl", name, "--help").stdout, re.M)}
    for option in options - {"help"}:
        assert re.search(r"(--|Fl -|, -)%s\b" % option, text), option


def test_the_guide_has_an_example_of_each_command():
    text, names = documented("docs/CTL.md")
    for name, part in zip(names, re.split(r"^### ", text, flags=re.M)[1:]):
        assert re.search(r"^    (\$ )?tgg ctl( --?[a-z=0-9]+)* %s\b" % name, part, re.M) or name == "status", name
