# SPDX-License-Identifier: MIT
"""An admin process without a gateway: answers docs/ADMIN-API.md on a Unix socket, as a test wants it to."""

import json
import os
import socket
import threading
import urllib.parse


class Request:
    def __init__(self, line, head):
        self.method, target, self.version = line.split(" ")
        self.path, _, query = target.partition("?")
        self.path = urllib.parse.unquote(self.path)
        self.parameters = dict(urllib.parse.parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        self.head = head


class Raw:
    """An answer as bytes, in pieces: each goes out by itself. hold: then the connection stays open and silent."""

    def __init__(self, *pieces, hold=False):
        self.pieces = pieces
        self.hold = hold


def refuse(status, error, **more):
    body = json.dumps({"error": error, **more}).encode()
    return Raw(b"HTTP/1.1 %d No\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)


class Mock:
    """answers: {path: what to answer, or a function of the Request}. What is answered: a dict (JSON), a str (text), or a
    Raw. `requests` are those that came, in their order."""

    def __init__(self, folder, answers=None, length=True):
        self.path = os.path.join(str(folder), "admin.sock")
        self.answers = dict(answers or {})
        self.length = length  # whether answers have a Content-Length
        self.requests = []
        self._ended = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(16)
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if os.path.exists(self.path):
            os.unlink(self.path)

    def asked(self, path=None):
        """(method, path, parameters) of what was asked."""
        return [(r.method, r.path, r.parameters) for r in self.requests if path in (None, r.path)]

    def _serve(self):
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                piece = connection.recv(65536)
                if not piece:
                    return
                data += piece
            line, _, head = data.decode().partition("\r\n")
            request = Request(line, head)
            self.requests.append(request)
            try:
                self._answer(connection, request)
            except OSError:
                pass  # the asker has gone

    def _answer(self, connection, request):
        answer = self.answers.get(request.path, refuse(404, "%s: no such thing" % request.path))
        if callable(answer):
            answer = answer(request)
        if not isinstance(answer, Raw):
            body = (answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)).encode()
            length = "Content-Length: %d\r\n" % len(body) if self.length else ""
            answer = Raw(("HTTP/1.1 200 OK\r\n%s\r\n" % length).encode(), body)
        for piece in answer.pieces:
            connection.sendall(piece)
        if answer.hold:
            self._ended.wait(60)


# -- answers as a gateway gives them


def client(connection_id, **more):
    row = {
        "shard": 0,
        "connection_id": connection_id,
        "client_id": "7f0000010b54%08x" % connection_id,
        "state": "open",
        "listener": "web",
        "address": "10.0.0.%d:4000" % (connection_id % 250 + 1),
        "uid": None,
        "groups_n": 0,
        "worker": "127.0.0.1:w1",
        "age_s": 200,
        "idle_s": 3,
        "queue_bytes": 0,
        "session_bytes": 0,
        "tls": False,
        "deflate": False,
        "paused": False,
    }
    row.update(more)
    return row


def pages(member, rows, page_max=200, key=None):
    """A function that answers pages of them; the cursor is "0:POSITION"."""

    def answer(request):
        at = int(request.parameters.get("cursor", "0:0").split(":")[1])
        n = min(int(request.parameters.get("limit", 100)), page_max)
        end = at + n
        return {member: rows[at:end], "cursor": "0:%d" % end if end < len(rows) else None, "missing": []}

    return answer


def status(**more):
    answer = {
        "version": "0.1.0",
        "running": True,
        "ready": True,
        "not_ready": [],
        "state": "running",
        "uptime_s": 7500,
        "config": "/etc/tgg_gw/tgg_conf.ini",
        "supervisor_pid": 10,
        "shards": [
            {
                "shard": 0, "state": "running", "phase": "poll", "pid": 12, "cpu": -1, "edge": True, "link": True, "uptime_s": 7500,
                "restarts": 0, "drained": False, "clients": 12, "links": 3, "workers": 2, "cpu_ns": 1500000000, "turns": 1000,
                "turn_longest_ns": 2500000, "rss_bytes": 50331648, "stacks": 0,
            }
        ],
        "processes": [
            {"kind": "supervisor", "number": 0, "pid": 10, "state": "alive", "uptime_s": 7500, "restarts": 0, "deaths_young": 0,
             "cpu_ns": 1000, "rss_bytes": 4096},
            {"kind": "shard", "number": 0, "pid": 12, "state": "alive", "uptime_s": 7500, "restarts": 0, "deaths_young": 0,
             "cpu_ns": 1500000000, "rss_bytes": 50331648},
        ],
        "listeners": [{"name": "web", "address": "0.0.0.0", "port": 8080, "protocol": "websocket", "tls": False, "clients": 12, "shards": {"0": 12}}],
        "registers": [{"address": "127.0.0.1:1238", "connected": True, "since_s": 90}],
        "workers_n": 2,
        "clients_n": 12,
        "counters": {
            "client_accepted": 50, "client_refused": 1, "client_messages_in": 1000, "client_message_bytes_in": 2048,
            "client_messages_out": 3000, "client_message_bytes_out": 1258291, "link_packets_in": 7, "link_bytes_in": 8,
            "event_message": 1000, "link_bytes_out": 9,
        },
        "log_level": "notice",
        "missing": [],
    }
    answer.update(more)
    return answer


def worker(key, **more):
    row = {
        "key": key, "number": 1, "shard": 0, "address": "127.0.0.1:5000", "connected_s": 60, "clients": 6, "clients_of": [6],
        "paused_clients": 0, "draining": False, "health": "ok", "queue_bytes": 0, "queue_age_ms": 0, "messages_in": 100,
        "bytes_in": 1000, "messages_out": 200, "bytes_out": 20480, "idle_s": 1,
        "queue_time": {"count": 5, "p50_ns": 16384, "p99_ns": 1048576, "sum_ns": 99999, "buckets": [0] * 24},
    }
    row.update(more)
    return row
