# SPDX-License-Identifier: MIT
"""Several applications behind one port, told apart by path; origins, sub-protocols, headers of ours and health checks as
each of them has it. Over plain TCP and TLS, with curl beside our own clients."""

import signal
import subprocess
import time

import pytest

import certs
from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE, ON_WEBSOCKET_CONNECT, PATIENCE
from node import Site
from proc import can_connect, free_port, run_tgg, wait_for
from tlsclient import WssClient
from wsclient import BINARY, CONTINUATION, PING, TEXT, HttpResponse, WsClient, accept_of, frame, read_until_end, request

pytestmark = pytest.mark.tgg_only

# The first one has what concerns the connection: TLS, the health check, limits of the head.
LISTENERS = {
    "chat": {"path": "/chat, /c/", "send_type": "text", "package_size_max": 1000, "health_path": "/health", "header_size_max": 4096,
             "response_headers": "X-Application: chat | Server: one"},
    "game": {"path": "/game/", "send_type": "binary", "package_size_max": 5000, "fragments_max": 4, "control_rate": 10,
             "origins": "https://game.example, none", "subprotocols": "v2, v1", "response_headers": "X-Application: game"},
    "boss": {"path": "/game/boss/, /game/boss", "send_type": "auto", "response_headers": "X-Application: boss"},
    "feed": {"path": "/feed", "origins": "https://*.example", "message_timeout": 1, "idle_timeout": 0},
}
ROUTES = {
    b"/chat": "chat", b"/chat?room=1": "chat", b"/c/": "chat", b"/c/1/2?x=/game/": "chat", b"/game/": "game", b"/game/1": "game", b"/game/bos": "game",
    b"/game/bosses": "game", b"/game/boss": "boss", b"/game/boss/": "boss", b"/game/boss/fight?now": "boss", b"/feed": "feed",
    b"/": None, b"/game": None, b"/feed/": None, b"/chat/": None, b"/c": None, b"/CHAT": None, b"/health": None, b"/chat/../game/": None, b"//game/": None,
}


class Transport:
    def __init__(self, gateway, tls):
        self.gateway, self.tls = gateway, tls

    def dial(self, site, source=None):
        address = self.gateway.client_address("chat")
        client = WssClient(address, self.tls, open=False, source=source) if self.tls else WsClient(address, open=False, source=source)
        site.clients.append(client)
        return client

    def answer(self, site, **how):
        """A client that asked; .head is the answer."""
        client = self.dial(site)
        client.send_bytes(request(**how))
        client.head = HttpResponse(client.read_response_head(), b"")
        return client

    def refused(self, site, data):
        client = self.dial(site)
        client.send_bytes(data)
        response = client.refused()
        client.close()
        return response

    def curl(self, path, *args):
        where = "%s://127.0.0.1:%d%s" % ("https" if self.tls else "http", self.gateway.client_address("chat")[1], path)
        trust = ["--cacert", self.ca.cert] if self.tls else []
        done = subprocess.run(["curl", "-sS", "--http1.1", "--max-time", str(PATIENCE), *trust, *args, where],
                              capture_output=True, text=True, timeout=2 * PATIENCE)
        assert done.returncode == 0, done.stderr
        return done.stdout


def shared_listeners(port, first):
    made = {name: {"protocol": "websocket", "port": port, **keys} for name, keys in LISTENERS.items()}
    made["chat"].update(first)
    return made


@pytest.fixture(scope="module", params=["plain", "tls"])
def transport(request, gateway_factory):
    ca = certs.make_ca()
    cert = certs.make_cert(ca, ["localhost", "127.0.0.1"])
    is_tls = request.param == "tls"
    first = {"tls_certificate": cert.chain, "tls_key": cert.key} if is_tls else {}
    gateway = gateway_factory(listen=shared_listeners(free_port(), first))
    made = Transport(gateway, certs.client_context(ca) if is_tls else None)
    made.ca = ca
    yield made
    gateway.stop()


@pytest.fixture
def site(transport):
    site_ = Site(transport.gateway).with_worker()
    yield site_
    site_.close()


def joined(transport, site, path, **how):
    client = transport.answer(site, path=path, **how)
    assert client.head.status == 101, client.head.status_line
    event = site.worker.wait(ON_WEBSOCKET_CONNECT)
    client.id, client.server = event.connection_id, event.value[b"server"]
    return client


# ---- which application


@pytest.mark.parametrize("path", ROUTES, ids=bytes.decode)
def test_the_longest_path_decides(transport, site, path):
    name = ROUTES[path]
    if name is None:
        assert transport.refused(site, request(path=path)).status == 404
        site.wait_counter("client_closed_bad_handshake", 1)
        return
    client = joined(transport, site, path, extra=[b"Origin: https://game.example"] if name != "feed" else [b"Origin: https://a.example"])
    assert client.head.headers.get("x-application") == {"chat": b"chat", "game": b"game", "boss": b"boss"}.get(name)
    assert client.server[b"REQUEST_URI"] == path
    site.g.send_to_one(client.id, b"\xff" if name in ("game", "boss") else b"text")
    assert client.read_frame().opcode == (BINARY if name in ("game", "boss") else TEXT)
    site.g.send_to_one(client.id, b"text")
    assert client.read_frame().opcode == (BINARY if name == "game" else TEXT)


def test_each_has_limits_of_its_own(transport, site):
    chat, game, boss = [joined(transport, site, path) for path in (b"/chat", b"/game/", b"/game/boss/")]
    chat.send_text("x" * 1000)
    game.send_text("x" * 5000)
    boss.send_text("x" * 50_000)
    for client, size in ((chat, 1000), (game, 5000), (boss, 50_000)):
        assert len(site.worker.wait(ON_MESSAGE, client.id).body) == size
    chat.send_text("x" * 1001)
    chat.expect_close(1009)
    game.send_text("x" * 5001)
    game.expect_close(1009)
    pieces = frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", fin=False) * 3 + frame(CONTINUATION, b"x")
    boss.send_bytes(pieces)
    assert site.worker.wait(ON_MESSAGE, boss.id).body == b"xxxxx"
    game = joined(transport, site, b"/game/x")
    game.send_bytes(pieces)
    game.expect_close(1008)
    game = joined(transport, site, b"/game/x")
    boss.send_bytes(frame(PING, b"x") * 40)
    game.send_bytes(frame(PING, b"x") * 40)
    assert [boss.read_frame().payload for _ in range(40)] == [b"x"] * 40
    assert b"too many control frames" in read_until_end(game)


def test_one_fan_out_over_all_of_them(transport, site):
    clients = {path: joined(transport, site, path, extra=[b"Origin: https://game.example"]) for path in (b"/chat", b"/game/", b"/game/boss")}
    for body, types in ((b"text", (TEXT, BINARY, TEXT)), (b"\xfe\xff", (TEXT, BINARY, BINARY))):
        site.g.send_to_all(body)
        for client, opcode in zip(clients.values(), types):
            got = client.read_frame()
            assert (got.opcode, got.payload) == (opcode, body)


def test_all_have_the_same_port(transport, site):
    for path in (b"/chat", b"/game/"):
        client = transport.answer(site, path=path)
        event = site.worker.wait(ON_CONNECT)
        assert event.gateway_port == transport.gateway.client_address("chat")[1] and event.client_port == client.local_port


def test_deadlines_of_the_application_that_was_chosen(transport, site):
    feed, chat = joined(transport, site, b"/feed", extra=[b"Origin: https://a.example"]), joined(transport, site, b"/chat")
    began = time.monotonic()
    for client in (feed, chat):
        client.send_bytes(frame(TEXT, b"half")[:-1])
    feed.expect_close(1008)
    assert time.monotonic() - began > 0.9
    chat.send_bytes(frame(TEXT, b"half")[-1:])
    assert site.worker.wait(ON_MESSAGE, chat.id).body == b"half"


def test_the_request_and_frames_in_one_piece(transport, site):
    client = transport.dial(site)
    client.send_bytes(request(path="/game/") + frame(TEXT, b"one") + frame(TEXT, b"x" * 5001))
    assert HttpResponse(client.read_response_head(), b"").status == 101
    assert site.worker.wait(ON_MESSAGE).body == b"one"
    client.expect_close(1009)


def test_a_request_byte_by_byte(transport, site):
    client = transport.dial(site)
    for byte in request(path="/game/boss"):
        client.send_bytes(bytes([byte]))
    assert HttpResponse(client.read_response_head(), b"").headers["x-application"] == b"boss"


# ---- origins and sub-protocols of each


@pytest.mark.parametrize("path, origin, status", [
    (b"/chat", None, 101), (b"/chat", b"https://evil.example.net", 101), (b"/game/", b"https://game.example", 101), (b"/game/", None, 101),
    (b"/game/", b"https://evil.net", 403), (b"/game/", b"https://a.game.example", 403), (b"/game/boss", b"https://evil.net", 101),
    (b"/feed", b"https://a.example", 101), (b"/feed", b"https://a.b.example", 101), (b"/feed", None, 403), (b"/feed", b"https://example", 403),
    (b"/feed", b"null", 403), (b"/nowhere", b"https://a.example", 404),
])
def test_origins(transport, site, path, origin, status):
    data = request(path=path, extra=[] if origin is None else [b"Origin: " + origin])
    if status == 101:
        client = transport.dial(site)
        client.send_bytes(data)
        client.finish_handshake()
        site.worker.wait(ON_WEBSOCKET_CONNECT)
        return
    response = transport.refused(site, data)
    assert response.status == status
    assert "access-control-allow-origin" not in response.headers
    site.wait_counter("client_handshakes_refused", 1)
    assert {event.cmd for event in site.worker.collect(2)} == {ON_CONNECT, ON_CLOSE}


def test_subprotocols(transport, site):
    offer = [b"Sec-WebSocket-Protocol: v1, v2, v3"]
    assert joined(transport, site, b"/game/", extra=offer).head.headers["sec-websocket-protocol"] == b"v2"
    assert "sec-websocket-protocol" not in joined(transport, site, b"/game/", extra=[b"Sec-WebSocket-Protocol: v3"]).head.headers
    client = joined(transport, site, b"/chat", extra=offer)
    assert "sec-websocket-protocol" not in client.head.headers
    assert client.server[b"HTTP_SEC_WEBSOCKET_PROTOCOL"] == b"v1, v2, v3"


def test_response_headers(transport, site):
    headers = joined(transport, site, b"/chat").head.headers
    assert (headers["x-application"], headers["server"]) == (b"chat", b"one")
    assert headers["sec-websocket-accept"] == accept_of(b"dGhlIHNhbXBsZSBub25jZQ==")
    headers = joined(transport, site, b"/game/boss").head.headers
    assert headers["x-application"] == b"boss" and "server" not in headers


# ---- health checks


def test_a_health_check_beside_the_applications(transport, site):
    answer = transport.curl("/health", "-i")
    assert answer.startswith("HTTP/1.1 200 ") and answer.split("\n\n", 1)[1].strip() == "ok"
    assert transport.curl("/health?from=lb", "-o", "/dev/null", "-w", "%{http_code}") == "200"
    assert transport.curl("/chat", "-o", "/dev/null", "-w", "%{http_code}") == "426"
    assert transport.curl("/nowhere", "-o", "/dev/null", "-w", "%{http_code}") == "404"
    assert transport.curl("/health", "-X", "POST", "-d", "", "-o", "/dev/null", "-w", "%{http_code}") in ("400", "404", "405")
    assert site.counter("health_checks") == site.counter("client_closed_health_check") == 2


def test_a_health_check_is_503_without_a_worker(transport):
    site_ = Site(transport.gateway)
    site_.wait_gauge("workers", 0)
    response = transport.refused(site_, b"GET /health HTTP/1.1\r\nHost: lb\r\n\r\n")
    assert response.status == 503 and int(response.headers["retry-after"]) >= 10
    site_.with_worker()
    assert transport.refused(site_, b"GET /health HTTP/1.1\r\nHost: lb\r\n\r\n").status == 200
    assert site_.counter("health_checks") == 2
    site_.close()


@pytest.mark.shards(1, 3)
def test_health_while_the_gateway_drains(start):
    """Nobody new comes in; who is asked already says 503, and the load balancer's next connection is refused."""
    site = start(gateway={"drain_timeout": 5}, listen={"websocket": {"health_path": "/health", "close_timeout": 3}})
    address = site.gateway.client_address("websocket")
    probes = [site.client("websocket", open=False) for _ in range(3)]
    probes[0].send_bytes(b"GET /health HTTP/1.1\r\n")
    stays = site.client("websocket")
    site.gateway.process.expected_end = True
    site.gateway.process.send_signal(signal.SIGTERM)
    assert stays.read_frame().code == 1001
    for probe in probes:
        response = probe.refused()
        assert response.status == 503 and int(response.headers["retry-after"]) > 0
        probe.close()
    wait_for(lambda: not can_connect(address), what="the listener to be gone")
    stays.close()
    for link in site.links:
        link.close()
    assert site.gateway.process.wait() == 0


# ---- changes at a reload


def test_paths_change_at_a_reload(start):
    port = free_port()
    site = start(listen={"websocket": None, **shared_listeners(port, {})})
    there = Transport(site.gateway, None)
    site.worker
    old = joined(there, site, b"/chat")
    sections = site.gateway.sections
    sections["listen chat"]["path"] = "/talk"
    sections["listen game"].update(path="/play/", send_type="text", subprotocols="v9", response_headers="X-Application: play")
    sections["listen chat"]["health_path"] = "/up"
    site.gateway.write_config()
    site.gateway.process.send_signal(signal.SIGHUP)
    site.wait_counter("reloads", site.shards)
    assert there.refused(site, request(path=b"/chat")).status == 404
    assert there.refused(site, b"GET /health HTTP/1.1\r\nHost: lb\r\n\r\n").status in (404, 426)
    assert there.refused(site, b"GET /up HTTP/1.1\r\nHost: lb\r\n\r\n").status == 200
    joined(there, site, b"/talk")
    client = joined(there, site, b"/play/1", extra=[b"Sec-WebSocket-Protocol: v2, v9"])
    assert (client.head.headers["x-application"], client.head.headers["sec-websocket-protocol"]) == (b"play", b"v9")
    site.g.send_to_one(client.id, b"x")
    assert client.read_frame().opcode == TEXT
    old.send_text("still here")
    assert site.worker.wait(ON_MESSAGE, old.id).body == b"still here"


@pytest.mark.parametrize("change, why", [
    ({"listen game": {"path": ""}}, "port"),
    ({"listen game": {"tls_certificate": "/x.pem"}}, "tls_certificate"),
    ({"listen text": {"path": "/x"}}, "path"),
    ({"listen text": {"origins": "https://x"}}, "origins"),
])
def test_what_cannot_be_is_said(start, change, why):
    site = start(listen={"websocket": None, **shared_listeners(free_port(), {})})
    for section, keys in change.items():
        site.gateway.sections[section].update(keys)
    site.gateway.write_config()
    done = run_tgg("gateway", "-t", "-c", site.gateway.config_path)
    assert done.returncode != 0 and why in done.stderr, done.stderr
    site.gateway.process.send_signal(signal.SIGHUP)
    site.gateway.wait_log(why)
    joined(Transport(site.gateway, None), site.with_worker(), b"/game/")
