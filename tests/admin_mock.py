# SPDX-License-Identifier: MIT
"""A gateway's admin port that is none: serves web/admin and plausible answers of every endpoint of docs/ADMIN-API.md.

For test_admin_page.py, and to look at the page without a gateway: python3 tests/admin_mock.py [PORT]."""

import http.server
import json
import math
import os
import re
import sys
import threading
import time
import urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGE = os.path.join(ROOT, "web", "admin")
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
CSP = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
WORKER_KEY = "10.0.0.%d:BusinessWorker-%d"


def definitions(name):
    """[(kind, name, the other arguments as text)] of a table in src/common."""
    with open(os.path.join(ROOT, "src", "common", name)) as f:
        return re.findall(r"^([A-Z_]+)\((\w+), (.*)\)$", f.read(), re.M)


def counter_names():
    prefix = {"CLOSE_REASON": "client_closed_", "DROP_REASON": "dropped_"}
    rows = []
    for kind, name, rest in definitions("counters.def"):
        rows.append({"name": prefix.get(kind, "") + name, "help": rest.strip('"'), "kind": "gauge" if kind == "GAUGE" else "counter"})
    return rows


def reasons(kind):
    return [(name, rest.strip('"')) for kind_, name, rest in definitions("counters.def") if kind_ == kind]


def histogram_names():
    rows = []
    for _, name, rest in definitions("histograms.def"):
        unit, shift, help_ = re.match(r'(\w+), (\d+), "(.*)"', rest).groups()
        rows.append({"name": name, "unit": unit, "shift": int(shift), "help": help_})
    return rows


class ApiError(Exception):
    def __init__(self, status, message, **more):
        super().__init__(message)
        self.status = status
        self.body = {"error": message, **more}


class Model:
    """What the gateway is supposed to be. Everything moves with the clock, so that charts have something to show."""

    def __init__(self):
        self.started = time.time()
        self.shards = 4
        self.missing = []
        self.not_ready = []
        self.dead = []  # shards
        self.drained = set()
        self.evacuated = set()
        self.draining_workers = set()
        self.bans = {"203.0.113.0/24": time.time() + 5400}
        self.log_level = "notice"
        self.reload_problems = []
        self.check_problems = []
        self.fail = {}  # path: ApiError
        self.names = counter_names()
        self.histograms_ = histogram_names()
        self.clients_ = [self.client(i) for i in range(250)]
        self.closed = 0

    def age(self):
        return time.time() - self.started + 3600

    def growing(self, rate, period=60, swing=0.5):
        """What has come together at a rate that goes up and down."""
        t = self.age()
        w = 2 * math.pi / period
        return int(rate * (t + swing * (1 - math.cos(w * t)) / w))

    def client(self, i):
        shard = i % self.shards
        connection_id = (shard << 26) + 1000 + i
        return {
            "shard": shard,
            "connection_id": connection_id,
            "client_id": "7f000001%04x%08x" % (4000 + shard, connection_id),
            "state": "open",
            "listener": ("web", "secure", "text")[i % 3],
            "address": "192.0.2.%d:%d" % (i % 250 + 1, 40000 + i) if i % 5 else "[2001:db8::%x]:%d" % (i, 40000 + i),
            "uid": HOSTILE if i == 7 else ("user%d" % (i // 2) if i % 4 else None),
            "groups_n": i % 5,
            "worker": WORKER_KEY % (1 + i % 2, i % 3),
            "age_s": 7 * i + 3,
            "idle_s": i % 40,
            "queue_bytes": 150000 if i == 9 else (i % 7) * 20,
            "session_bytes": 64 + i,
            "tls": i % 3 == 1,
            "deflate": i % 2 == 0,
            "paused": i == 9,
        }

    def find(self, ident):
        for client in self.clients_:
            if ident in (str(client["connection_id"]), client["client_id"]):
                return client
        raise ApiError(404, "no client %s" % ident)

    def groups_of(self, client):
        return ["room%d" % (client["connection_id"] % 7 + i) for i in range(client["groups_n"])]

    def full(self, ident):
        client = self.find(ident)
        return {
            **client,
            "gateway_port": 4000 + client["shard"],
            "groups": self.groups_of(client),
            "uid_clients": sum(c["uid"] == client["uid"] for c in self.clients_) if client["uid"] else 0,
            "input_bytes": 12,
            "unanswered_heartbeats": 0,
            "rate_paused": False,
            "write_blocked": client["paused"],
            "traced": False,
            "tls_info": {"version": "TLSv1.3", "cipher": "TLS_AES_128_GCM_SHA256", "server_name": "chat.example", "client_subject": None, "resumed": True} if client["tls"] else None,
            "deflate_info": {"client_bits": 15, "server_bits": 12, "client_takeover": True, "server_takeover": False, "bytes": 40960} if client["deflate"] else None,
            "parked_events": 0,
            "parked_bytes": 0,
            "worker_info": {"queue_bytes": 1234, "full": False},
        }

    def matching(self, q):
        def match(c):
            if "client" in q and q["client"] not in (str(c["connection_id"]), c["client_id"]):
                return False
            if "uid" in q and q["uid"] != c["uid"] or "group" in q and q["group"] not in self.groups_of(c):
                return False
            if "address" in q and not c["address"].lstrip("[").startswith(re.sub(r"(\.0)?/\d+$", "", q["address"])):
                return False
            if any(name in q and q[name] != str(c[name]) for name in ("worker", "listener", "shard")):
                return False
            at_least = {"age_min": "age_s", "idle_min": "idle_s", "queue_min": "queue_bytes"}
            if any(name in q and c[key] < int(q[name]) for name, key in at_least.items()):
                return False
            return "age_max" not in q or c["age_s"] <= int(q["age_max"])

        return [c for c in self.clients_ if match(c) and c["shard"] not in self.missing]

    def page(self, name, rows, q):
        limit, begin = min(int(q.get("limit", 100)), 200), int(q.get("cursor", "0:0").split(":")[1])
        end = begin + limit
        return {name: rows[begin:end], "cursor": "0:%d" % end if end < len(rows) else None, "missing": self.missing}

    def counters(self):
        values = {row["name"]: 0 for row in self.names}
        values.update(
            client_accepted=self.growing(12),
            client_refused=self.growing(0.4, 45, 1),
            client_messages_in=self.growing(4200, 80),
            client_message_bytes_in=self.growing(4200 * 180, 80),
            client_messages_out=self.growing(61000, 70, 0.7),
            client_message_bytes_out=self.growing(61000 * 210, 70, 0.7),
            link_packets_in=self.growing(3900, 75),
            event_message=self.growing(4200, 80),
            dropped_slow_reader_newest=self.growing(1.3, 30, 1),
            dropped_client_gone=self.growing(0.2, 20, 1),
            client_closed_peer=self.growing(7, 50),
            client_closed_heartbeat=self.growing(2, 90),
            client_closed_slow_reader=self.growing(0.1, 30, 1),
            client_closed_ordered=self.closed,
        )
        t = self.age()
        wave = lambda period, size: int(size * (1.1 + math.sin(2 * math.pi * t / period)))
        values.update(
            clients=len(self.clients_),
            links=9,
            workers=6,
            uids=124,
            groups=11,
            client_queue_bytes=wave(40, 600000),
            links_queue_bytes=wave(25, 90000),
            mesh_backlog_bytes=wave(15, 9000),
            parked_bytes=0,
        )
        return values

    # -- GET

    def status(self, q):
        t = self.age()
        shards = []
        for i in range(self.shards):
            dead = i in self.dead
            shards.append(
                {
                    "shard": i,
                    "state": "dead" if dead else "running",
                    "phase": "down" if dead else "up",
                    "pid": 0 if dead else 4100 + i,
                    "cpu": i if i < 2 else -1,
                    "edge": True,
                    "link": i < 2,
                    "uptime_s": int(t),
                    "restarts": 1 if i == 2 else 0,
                    "drained": i in self.drained,
                    "evacuated": i in self.evacuated,
                    "clients": sum(c["shard"] == i for c in self.clients_),
                    "links": 5 if i == 0 else 4,
                    "workers": 3 if i < 2 else 0,
                    "cpu_ns": self.growing((0.2 + 0.15 * i) * 1e9, 40 + 10 * i, 0.4),
                    "turns": self.growing(2000),
                    "turn_longest_ns": 3200000 + 100000 * i,
                    "rss_bytes": (80 + i) * 1048576,
                    "stacks": 0,
                }
            )
        processes = [{"kind": "supervisor", "number": 0, "pid": 4090}, {"kind": "announcer", "number": 0, "pid": 4091}, {"kind": "admin", "number": 0, "pid": 4092}]
        processes += [{"kind": "shard", "number": s["shard"], "pid": s["pid"]} for s in shards]
        for process in processes:
            dead = process["pid"] == 0
            process.update(state="dead" if dead else "alive", uptime_s=int(t), restarts=0, deaths_young=0, cpu_ns=int(t * 1e8), rss_bytes=9 << 20)
        return {
            "version": "0.5.0",
            "running": True,
            "ready": not self.not_ready,
            "not_ready": self.not_ready,
            "state": "running",
            "uptime_s": int(t),
            "config": "/etc/tgg_gw/tgg_conf.ini",
            "supervisor_pid": 4090,
            "shards": shards,
            "processes": processes,
            "listeners": self.listeners(q)["listeners"],
            "registers": self.registers(q)["registers"],
            "workers_n": 6,
            "clients_n": len(self.clients_),
            "counters": self.counters(),
            "log_level": self.log_level,
            "missing": self.missing,
        }

    def counters_(self, q):
        each = {name: n // self.shards for name, n in self.counters().items()}
        return {"counters": self.counters(), "shards": [{"shard": i, "counters": each} for i in range(self.shards)], "missing": self.missing}

    def names_(self, q):
        return {
            "counters": self.names,
            "histograms": [{k: h[k] for k in ("name", "help", "unit")} for h in self.histograms_],
            "keys": [{"section": "log", "name": "level", "live": True, "text": "error, warn, notice, info or debug."}],
        }

    def histograms(self, q):
        out = {}
        for n, h in enumerate(self.histograms_):
            scale = 1e-9 if h["unit"] == "seconds" else 1
            counts = [self.growing(300 * math.exp(-((i - 5 - n) ** 2) / 5)) for i in range(24)]
            bounds = [2 ** (h["shift"] + i) * scale for i in range(23)] + [None]
            buckets = [[bound, count] for bound, count in zip(bounds, counts) if count]
            out[h["name"]] = {
                "unit": h["unit"],
                "count": sum(counts),
                "sum": sum(counts) * bounds[5],
                "p50": bounds[5 + n],
                "p90": bounds[7 + n],
                "p99": bounds[8 + n],
                "max_bound": buckets[-1][0],
                "buckets": buckets,
            }
        return {"histograms": out, "missing": self.missing}

    def listeners(self, q):
        rows = []
        for i, (name, port, protocol) in enumerate((("web", 8282, "websocket"), ("secure", 8283, "websocket"), ("text", 8284, "text"))):
            mine = [c for c in self.clients_ if c["listener"] == name]
            per_shard = {str(s): sum(c["shard"] == s for c in mine) for s in range(self.shards)}
            rows.append({"name": name, "address": "0.0.0.0", "port": port, "protocol": protocol, "tls": i == 1, "clients": len(mine), "shards": per_shard})
        return {"listeners": rows}

    def registers(self, q):
        return {"registers": [{"address": "10.0.0.1:1236", "connected": True, "since_s": 3000}, {"address": "10.0.0.2:1236", "connected": False, "since_s": 12}]}

    def workers(self, q):
        rows = []
        for i in range(6):
            key = WORKER_KEY % (1 + i % 2, i % 3)
            health = {3: "slow", 4: "full", 5: "stuck"}.get(i, "ok")
            of = [sum(c["worker"] == key and c["shard"] == s for c in self.clients_) for s in range(self.shards)]
            buckets = [int(200 * math.exp(-((b - 4 - i) ** 2) / 4)) for b in range(24)]
            rows.append(
                {
                    "key": key,
                    "number": i,
                    "shard": i % 2,
                    "address": "10.0.0.%d:%d" % (1 + i % 2, 50000 + i),
                    "connected_s": int(self.age()),
                    "clients": sum(of),
                    "clients_of": of,
                    "paused_clients": sum(of) if health == "full" else 0,
                    "draining": key in self.draining_workers,
                    "health": health,
                    "queue_bytes": {"ok": 200, "slow": 90000, "full": 10 << 20, "stuck": 4 << 20}[health],
                    "queue_age_ms": {"ok": 0, "slow": 1800, "full": 2400, "stuck": 31000}[health],
                    "messages_in": self.growing(650),
                    "bytes_in": self.growing(650 * 300),
                    "messages_out": self.growing(700),
                    "bytes_out": self.growing(700 * 200),
                    "idle_s": 31 if health == "stuck" else 0,
                    "queue_time": {"count": sum(buckets), "p50_ns": 2 ** (17 + i), "p99_ns": 2 ** (20 + i), "sum_ns": sum(buckets) * 2 ** (17 + i), "buckets": buckets},
                }
            )
        return {"workers": [row for row in rows if row["shard"] not in self.missing], "missing": self.missing}

    def clients(self, q):
        return self.page("clients", self.matching(q), q)

    def named(self, kind, q):
        sums = {}
        for c in self.clients_:
            for name in self.groups_of(c) if kind == "groups" else [c["uid"]] if c["uid"] else []:
                sums[name, c["shard"]] = sums.get((name, c["shard"]), 0) + 1
        if "name" in q:
            n = sum(count for (name, _), count in sums.items() if name == q["name"])
            return {kind: [{"name": q["name"], "clients": n}] if n else [], "cursor": None, "missing": self.missing}
        rows = [{"name": name, "clients": n, "shard": shard} for (name, shard), n in sorted(sums.items()) if name.startswith(q.get("prefix", ""))]
        return self.page(kind, rows, q)

    def top(self, q):
        by, seconds, limit = q["by"], int(q.get("seconds", 1)), int(q.get("limit", 20))
        if by in ("groups", "uids"):
            sums = {}
            for row in self.named(by, {"limit": 200})[by]:
                sums[row["name"]] = sums.get(row["name"], 0) + row["clients"]
            rows = [{"name": name, "clients": n} for name, n in sorted(sums.items(), key=lambda one: -one[1])]
        elif by == "queue":
            rows = [{**c, "value": c["queue_bytes"]} for c in sorted(self.clients_, key=lambda c: -c["queue_bytes"])]
        else:
            rows = [{**c, "value": 900 / (i + 1)} for i, c in enumerate(self.clients_)]
        return {"by": by, "seconds": seconds, "top": rows[:limit], "missing": self.missing}

    def tables(self, q):
        rows = []
        for shard in range(self.shards):
            rows += [
                {"shard": shard, "name": "clients", "used": len(self.clients_) // self.shards, "peak": 90, "capacity": 100000, "bytes": 8 << 20},
                {"shard": shard, "name": "uids", "used": 30, "peak": 44, "capacity": 64, "bytes": 4096},
                {"shard": shard, "name": "groups", "used": 11, "peak": 12, "capacity": 64, "bytes": 4096},
                {"shard": shard, "name": "buffers", "used": None, "peak": None, "capacity": None, "bytes": 1 << 20},
            ]
        return {"tables": rows, "missing": self.missing}

    def closes(self, q):
        counters = self.counters()
        return {
            "closes": [{"reason": name, "help": help_, "count": counters["client_closed_" + name]} for name, help_ in reasons("CLOSE_REASON")],
            "drops": [{"reason": name, "help": help_, "count": counters["dropped_" + name]} for name, help_ in reasons("DROP_REASON")],
            "missing": self.missing,
        }

    def check(self, q):
        shards = [{"shard": i, "looked_at": 1234, "problems": self.check_problems if i == 0 else []} for i in range(self.shards) if i not in self.missing]
        return {"ok": not self.check_problems, "shards": shards, "missing": self.missing}

    def bans_(self, q):
        return {"bans": [{"address": address, "until_unix_s": int(until)} for address, until in self.bans.items()]}

    # -- POST

    def close(self, q):
        filters = {k: v for k, v in q.items() if k not in ("code", "reason", "seconds", "jitter", "all")}
        if not filters and q.get("all") != "yes":
            raise ApiError(400, "no filter: give one, or all=yes")
        gone = self.matching(filters)
        self.clients_ = [c for c in self.clients_ if c not in gone]
        self.closed += len(gone)
        return {"ok": True, "closed": len(gone), "missing": self.missing}

    def kick(self, q):
        return self.close({"uid": q["uid"]})

    def ban(self, q):
        self.bans[q["address"]] = time.time() + int(q.get("seconds", 3600))
        return {"ok": True}

    def unban(self, q):
        if self.bans.pop(q["address"], None) is None:
            raise ApiError(404, "%s is not banned" % q["address"])
        return {"ok": True}

    def drain(self, q, on=True):
        shards = range(self.shards) if "node" in q else [int(q["shard"])] if "shard" in q else []
        change = set.update if on else set.difference_update
        change(self.drained, shards)
        change(self.draining_workers, [q["worker"]] if "worker" in q else [])
        return {"ok": True}

    def undrain(self, q):
        return self.drain(q, False)

    def evacuate(self, q):
        shard = int(q["shard"])
        (self.evacuated.discard if q.get("back") == "yes" else self.evacuated.add)(shard)
        return {"ok": True, "shard": shard, "clients": 62, "links": 4, "pause_ms": 3}

    def rebalance(self, q):
        return {"ok": True, "moved": 17}

    def log(self, q):
        self.log_level = q["level"]
        return {"ok": True}

    def reload(self, q):
        if self.reload_problems:
            raise ApiError(409, "the configuration is wrong, nothing has changed", problems=self.reload_problems)
        return {"ok": True, "changed": [{"section": "gateway", "key": "ping_interval", "live": True}, {"section": "gateway", "key": "shards", "live": False}]}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.handle_any("GET")

    def do_POST(self):
        self.handle_any("POST")

    def handle_any(self, method):
        mock, model = self.server.mock, self.server.mock.model
        if mock.stopping.is_set():
            self.close_connection = True
            return None
        url = urllib.parse.urlsplit(self.path)
        q = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        mock.requests.append((method, self.path))
        if not url.path.startswith("/api/"):
            return self.send_page(url.path)
        if mock.token and self.headers.get("Authorization") != "Bearer " + mock.token:
            return self.send_json(401, {"error": "a token is needed: Authorization: Bearer TOKEN"})
        if method == "POST":
            mock.posts.append(self.path)
        try:
            if url.path in model.fail:
                raise model.fail[url.path]
            if url.path == "/api/trace":
                return self.send_trace(q)
            self.send_json(200, self.answer(method, url.path[5:], q))
        except ApiError as error:
            self.send_json(error.status, error.body)

    def answer(self, method, path, q):
        model = self.server.mock.model
        posts = ("close", "kick", "ban", "unban", "drain", "undrain", "evacuate", "rebalance", "log", "reload")
        gets = {
            "counters": model.counters_,
            "names": model.names_,
            "bans": model.bans_,
            "uids": lambda q: model.named("uids", q),
            "groups": lambda q: model.named("groups", q),
        }
        for name in ("status", "histograms", "listeners", "registers", "workers", "clients", "top", "tables", "closes", "check"):
            gets[name] = getattr(model, name)
        if path.startswith("clients/"):
            return model.full(urllib.parse.unquote(path[8:]))
        if path not in posts and path not in gets:
            raise ApiError(404, "no such path")
        if (path in posts) != (method == "POST"):
            raise ApiError(405, "not with this method")
        return getattr(model, path)(q) if path in posts else gets[path](q)

    def send_head(self, status, kind, length=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", CSP)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        if length is None:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def send_json(self, status, body):
        data = json.dumps(body).encode()
        self.send_head(status, "application/json", len(data))
        self.wfile.write(data)

    def send_page(self, path):
        name = path.lstrip("/") or "index.html"
        if not re.fullmatch(r"[a-z]+\.(html|js|css|svg)", name) or not os.path.exists(os.path.join(PAGE, name)):
            return self.send_json(404, {"error": "no such file"})
        with open(os.path.join(PAGE, name), "rb") as f:
            data = f.read()
        self.send_head(200, TYPES[os.path.splitext(name)[1]], len(data))
        self.wfile.write(data)

    def send_trace(self, q):
        mock = self.server.mock
        if not any(q.get(name) for name in ("client", "uid", "address")):
            raise ApiError(400, "one of client, uid, address")
        self.send_head(200, "application/x-ndjson")
        end = time.monotonic() + int(q.get("seconds", 60))
        cycle = [
            {"event": "in", "size": 118, "opcode": 1, "bytes": '{"type":"say","text":"%s"}' % HOSTILE},
            {"event": "command", "command": "SEND_TO_GROUP", "sender": WORKER_KEY % (1, 0), "group": "room1", "count": 40},
            {"event": "out", "size": 96, "opcode": 1},
        ]
        head = {"shard": 0, "connection_id": 1000}
        events, i = [{"event": "trace_begin"}], 0
        mock.traces += 1
        try:
            while time.monotonic() < end and not mock.stopping.is_set():
                for event in events:
                    self.wfile.write((json.dumps({"at_unix_ms": int(time.time() * 1000), "since_ms": 50.4, **head, **event}) + "\n").encode())
                self.wfile.flush()
                events = [{**cycle[(i + k) % 3], "number": i + k} for k in range(mock.trace_burst)]
                i += mock.trace_burst
                time.sleep(0.05)
            self.wfile.write(json.dumps({"at_unix_ms": int(time.time() * 1000), **head, "event": "trace_end"}).encode() + b"\n")
        except OSError:
            pass
        finally:
            mock.traces -= 1

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request, address):
        pass  # browsers cut connections as they like


class MockAdmin:
    """start(), stop(), start() again on the same port. model: what it answers; posts: paths of POSTs as they came."""

    def __init__(self, port=0, token=None):
        self.port = port
        self.server = None
        self.reset(token)

    def reset(self, token=None):
        self.model = Model()
        self.token = token
        self.requests = []
        self.posts = []
        self.trace_burst = 1
        self.traces = 0  # under way
        self.stopping = threading.Event()

    @property
    def url(self):
        return "http://127.0.0.1:%d/" % self.port

    def start(self):
        self.stopping.clear()
        self.server = Server(("127.0.0.1", self.port), Handler)
        self.server.mock = self
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self):
        """Nobody listens any more; connections that are there are refused their next request by being cut."""
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()
        self.server = None


if __name__ == "__main__":
    mock = MockAdmin(int(sys.argv[1]) if len(sys.argv) > 1 else 8099, os.environ.get("TOKEN")).start()
    print(mock.url, flush=True)
    threading.Event().wait()
