# SPDX-License-Identifier: MIT
"""The opening handshake (RFC 6455 section 4, RFC 9112): what is taken and what is refused, with which status; and what a
listener adds to it: paths, origins, sub-protocols, headers, health checks, limits of the head. Over plain TCP and TLS."""

import base64
import os
import subprocess

import pytest

from gwproto import PATIENCE
from proc import wait_for
from wsclient import CLOSE, CONTINUATION, KEY, PING, TEXT, HttpResponse, accept_of, close_payload, frame, request
from wslab import Case, Lab, by_name, converse, part_politely, refused, run_npm_ws, run_python_websockets, send_chopped

pytestmark = pytest.mark.tgg_only

HEAD_MAX, COUNT_MAX, LINE_MAX = 2048, 20, 100
FRAGMENTS_MAX, CONTROL_RATE = 10, 5

LISTENERS = {
    "echo": {},
    "path": {"path": "/chat, /api/"},
    "origins": {"origins": "https://example.com, https://*.example.org, http://localhost:8080, none"},
    "strict": {"origins": "https://example.com:8443"},
    "subprotocols": {"subprotocols": "chat.v2, chat.v1, mqtt"},
    "headers": {"response_headers": "Server: chat | X-Region: eu|X-Empty:", "subprotocols": "chat"},
    "health": {"health_path": "/health", "path": "/chat"},
    "limits": {"header_size_max": HEAD_MAX, "header_count_max": COUNT_MAX, "url_length_max": LINE_MAX},
    "fragments": {"fragments_max": FRAGMENTS_MAX},
    "control": {"control_rate": CONTROL_RATE},
}


@pytest.fixture(scope="module", params=["plain", "tls"])
def lab(request, gateway_factory):
    lab_ = Lab(gateway_factory, request.param, LISTENERS)
    yield lab_
    lab_.close()


def answered(lab, data, listener="echo", chop=None, key=KEY):
    """The 101 that answers this head, looked at in full; the client is left open, and echoes."""
    client = lab.connect(listener, open=False)
    send_chopped(client, data, chop)
    head = client.read_response_head()
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), head
    lines = head.split(b"\r\n")[1:]
    assert all(b"\n" not in line and b"\r" not in line and b": " in line + b" " for line in lines), head
    names = [line.partition(b":")[0].lower() for line in lines]
    assert len(set(names)) == len(names), head
    client.response = HttpResponse(head, b"")
    assert client.response.headers["upgrade"].lower() == b"websocket"
    assert client.response.headers["connection"].lower() == b"upgrade"
    assert client.response.headers["sec-websocket-accept"] == accept_of(key)
    return client


def check_echo(client):
    client.send_text("hello")
    assert client.read_message() == b"hello"
    part_politely(client)


def head_of(*lines, first=b"GET / HTTP/1.1", end=b"\r\n"):
    return end.join([first, *lines]) + 2 * end


HOST, UPGRADE, CONNECTION = b"Host: localhost", b"Upgrade: websocket", b"Connection: Upgrade"
SENT_KEY, VERSION = b"Sec-WebSocket-Key: " + KEY, b"Sec-WebSocket-Version: 13"
PLAIN = (HOST, UPGRADE, CONNECTION, SENT_KEY, VERSION)


def without(line, *more):
    return head_of(*[other for other in PLAIN if other is not line], *more)


# ---- heads that are taken

GOOD_HEADS = {
    "the plainest": head_of(*PLAIN),
    "in another order": head_of(*reversed(PLAIN)),
    "names in lower case": head_of(*[line.partition(b":")[0].lower() + b":" + line.partition(b":")[2] for line in PLAIN]),
    "names in upper case": head_of(*[line.partition(b":")[0].upper() + b":" + line.partition(b":")[2] for line in PLAIN]),
    "no space behind colons": head_of(*[line.replace(b": ", b":") for line in PLAIN]),
    "tabs and spaces": head_of(*[line.replace(b": ", b": \t  ") + b" \t" for line in PLAIN]),
    "lines end in LF": head_of(*PLAIN, end=b"\n"),
    "an empty line first": b"\r\n" + head_of(*PLAIN),
    "an empty line first, LF": b"\n" + head_of(*PLAIN),
    "keep-alive, Upgrade": without(CONNECTION, b"Connection: keep-alive, Upgrade"),
    "UPGRADE": without(CONNECTION, b"Connection: UPGRADE"),
    "Connection in two lines": without(CONNECTION, b"Connection: keep-alive", b"Connection: upgrade"),
    "Connection with empty elements": without(CONNECTION, b"Connection: ,, upgrade ,"),
    "WebSocket": without(UPGRADE, b"Upgrade: WebSocket"),
    "Upgrade of several": without(UPGRADE, b"Upgrade: h2c, websocket"),
    "Upgrade in two lines": without(UPGRADE, b"Upgrade: h2c", b"Upgrade: websocket"),
    "folded": without(UPGRADE, b"Upgrade:", b" websocket", b"X-A: 1", b"\t2", b"  3"),
    "Host with a port": without(HOST, b"Host: localhost:8080"),
    "Host is IPv4": without(HOST, b"Host: 127.0.0.1:80"),
    "Host is IPv6": without(HOST, b"Host: [::1]:8080"),
    "Host is empty": without(HOST, b"Host:"),
    "absolute ws target": head_of(*PLAIN, first=b"GET ws://localhost/x?y=1 HTTP/1.1"),
    "absolute wss target": head_of(*PLAIN, first=b"GET wss://localhost:443/ HTTP/1.1"),
    "absolute http target": head_of(*PLAIN, first=b"GET http://example.com HTTP/1.1"),
    "a query": head_of(*PLAIN, first=b"GET /a/b?c=d&e=%20 HTTP/1.1"),
    "only a query": head_of(*PLAIN, first=b"GET /? HTTP/1.1"),
    "a target with high bytes": head_of(*PLAIN, first="GET /\u00e9?\u00e9 HTTP/1.1".encode()),
    "a long target": head_of(*PLAIN, first=b"GET /" + b"x" * 4000 + b" HTTP/1.1"),
    "Content-Length: 0": head_of(*PLAIN, b"Content-Length: 0"),
    "an empty header": head_of(*PLAIN, b"X-Empty:"),
    "high bytes in a header": head_of(*PLAIN, b"X-High: \xff\xfe\x80"),
    "odd names": head_of(*PLAIN, b"!#$%&'*+-.^_`|~09azAZ: 1"),
    "ninety more headers": head_of(*PLAIN, *[b"X-%d: %d" % (i, i) for i in range(90)]),
    "a large cookie": head_of(*PLAIN, b"Cookie: c=" + b"x" * 8000),
    "an extension of which nobody knows": head_of(*PLAIN, b"Sec-WebSocket-Extensions: x-foo; bar=1, permessage-bzip2"),
    "sub-protocols": head_of(*PLAIN, b"Sec-WebSocket-Protocol: a, b"),
    "Origin": head_of(*PLAIN, b"Origin: null"),
    "Authorization": head_of(*PLAIN, b"Authorization: Basic dTpw"),
}


@pytest.mark.parametrize("name", GOOD_HEADS)
def test_a_head_that_is_taken(lab, name):
    data = GOOD_HEADS[name]
    for chop in (None, 1) if len(data) < 2000 else (None, 1447):
        client = answered(lab, data, chop=chop)
        assert "sec-websocket-extensions" not in client.response.headers
        assert "sec-websocket-protocol" not in client.response.headers
        check_echo(client)


def test_keys_of_all_kinds(lab):
    for raw in (bytes(16), b"\xff" * 16, bytes(range(16)), b"\xfb\xff\xbf" * 5 + b"\xfb", os.urandom(16)):
        key = base64.b64encode(raw)
        check_echo(answered(lab, request(key=key), key=key))


def test_frames_right_behind_the_head(lab):
    client = lab.connect(open=False)
    client.send_bytes(request() + frame(TEXT, b"one") + frame(PING, b"p") + frame(TEXT, b"two")[:5])
    client.finish_handshake()
    got = {client.read_frame().payload for _ in range(2)}
    assert got == {b"one", b"p"}
    client.send_bytes(frame(TEXT, b"two")[5:])
    assert client.read_message() == b"two"
    part_politely(client)


def test_a_broken_frame_right_behind_the_head(lab):
    client = lab.connect(open=False)
    client.send_bytes(request() + frame(TEXT, b"x", mask=None))
    client.finish_handshake()
    client.expect_close(1002)


# ---- heads that are refused

BAD_VERSIONS = [b"", b"0", b"7", b"8", b"12", b"14", b"25", b"255", b"013", b"+13", b"13.0", b"1 3", b"thirteen", b"8, 12"]
BAD_KEYS = [b"", b"x", b"c2hvcnQ=", b"A" * 22, b"A" * 24, b"A" * 22 + b"=", b"A" * 26 + b"==", b"!" * 22 + b"==", b"-_" * 11 + b"==",
            b"AAAAAAAAAAA AAAAAAAAAA==",
            b"\x80" * 22 + b"==", b"AAAAAAAAAAAAAAAAAAAAAA==, AAAAAAAAAAAAAAAAAAAAAA=="]
BAD_HEADS = {
    "no Host": (without(HOST), {400}),
    "two Hosts": (head_of(*PLAIN, HOST), {400}),
    "Host with a space": (without(HOST, b"Host: a b"), {400}),
    "Host with a slash": (without(HOST, b"Host: a/b"), {400}),
    "Host with a bad port": (without(HOST, b"Host: a:b"), {400}),
    "Host with an open bracket": (without(HOST, b"Host: [::1"), {400}),
    "no Upgrade": (without(UPGRADE), {400, 426}),
    "Upgrade: h2c": (without(UPGRADE, b"Upgrade: h2c"), {400, 426}),
    "Upgrade: websockets": (without(UPGRADE, b"Upgrade: websockets"), {400, 426}),
    "Upgrade is empty": (without(UPGRADE, b"Upgrade:"), {400, 426}),
    "no Connection": (without(CONNECTION), {400, 426}),
    "Connection: close": (without(CONNECTION, b"Connection: close"), {400, 426}),
    "Connection: upgraded": (without(CONNECTION, b"Connection: upgraded"), {400, 426}),
    "no key": (without(SENT_KEY), {400}),
    "the same key twice": (head_of(*PLAIN, SENT_KEY), {400}),
    "no version": (without(VERSION), {400, 426}),
    "two versions": (head_of(*PLAIN, b"Sec-WebSocket-Version: 8"), {400, 426}),
    "only GET /": (b"GET / HTTP/1.1\r\n\r\n", {400}),
    "a browser": (b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: y\r\nAccept: */*\r\n\r\n", {426}),
    "HTTP/0.9": (b"GET /\r\n\r\n", {400}),
    "HTTP/1": (request(http=b"HTTP/1"), {400}),
    "HTTP/11": (request(http=b"HTTP/11"), {400}),
    "HTTP/1.1.1": (request(http=b"HTTP/1.1.1"), {400}),
    "http/1.1": (request(http=b"http/1.1"), {400}),
    "two spaces": (head_of(*PLAIN, first=b"GET  / HTTP/1.1"), {400}),
    "two spaces before HTTP": (head_of(*PLAIN, first=b"GET /  HTTP/1.1"), {400}),
    "a tab in the request line": (head_of(*PLAIN, first=b"GET\t/ HTTP/1.1"), {400, 405}),
    "a space behind HTTP/1.1": (head_of(*PLAIN, first=b"GET / HTTP/1.1 "), {400}),
    "a space first": (b" " + head_of(*PLAIN), {400}),
    "a target without a slash": (head_of(*PLAIN, first=b"GET x HTTP/1.1"), {400}),
    "the target *": (head_of(*PLAIN, first=b"GET * HTTP/1.1"), {400}),
    "an authority as target": (head_of(*PLAIN, first=b"GET localhost:80 HTTP/1.1"), {400}),
    "a fragment": (head_of(*PLAIN, first=b"GET /#x HTTP/1.1"), {400}),
    "an ftp target": (head_of(*PLAIN, first=b"GET ftp://x/ HTTP/1.1"), {400}),
    "NUL in the target": (head_of(*PLAIN, first=b"GET /\0 HTTP/1.1"), {400}),
    "space before a colon": (head_of(*PLAIN, b"X : 1"), {400}),
    "tab before a colon": (head_of(*PLAIN, b"X\t: 1"), {400}),
    "no colon": (head_of(*PLAIN, b"X"), {400}),
    "no name": (head_of(*PLAIN, b": 1"), {400}),
    "a name with high bytes": (head_of(*PLAIN, b"\xc3\xa9: 1"), {400}),
    "a name with parentheses": (head_of(*PLAIN, b"X(1): 1"), {400}),
    "white space before the first header": (head_of(b" X: 1", *PLAIN), {400}),
    "NUL in a value": (head_of(*PLAIN, b"X: a\0b"), {400}),
    "a bare CR in a value": (head_of(*PLAIN, b"X: a\rb"), {400}),
    "an escape in a value": (head_of(*PLAIN, b"X: \x1b[2J"), {400}),
    "DEL in a value": (head_of(*PLAIN, b"X: \x7f"), {400}),
    "a body": (head_of(*PLAIN, b"Content-Length: 5") + b"12345", {400}),
    "a length that is none": (head_of(*PLAIN, b"Content-Length: x"), {400}),
    "chunked": (head_of(*PLAIN, b"Transfer-Encoding: chunked") + b"0\r\n\r\n", {400}),
    "chunked, identity": (head_of(*PLAIN, b"Transfer-Encoding: identity"), {400}),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 405, 505}),
    "a frame": (frame(TEXT, b"hello"), {400}),
    "NULs": (b"\0" * 100, {400}),
    "a line of text": (b"hello\r\n", {400}),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", {400}),
    "SOCKS 5": (b"\x05\x01\x00", {400}),
    "a word that does not end": (b"A" * 100, {400}),
    "a URL that does not end": (b"GET /" + b"x" * 20_000, {414}),
    "a header that does not end": (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, {431}),
    "headers that do not end": (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 5_000, {431}),
    "a target over the default limit": (head_of(*PLAIN, first=b"GET /" + b"x" * 8300 + b" HTTP/1.1"), {414}),
    "headers over the default limit": (head_of(*PLAIN, *[b"X: 1"] * 100), {431}),
    "a head over the default limit": (head_of(*PLAIN, b"X: " + b"x" * 16384), {431}),
}
for _method in (b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"PATCH", b"GETS", b"GE", b"get"):
    BAD_HEADS["method %s" % _method.decode()] = (head_of(*PLAIN, first=_method + b" / HTTP/1.1"), {405})
for _version in (b"0.9", b"1.0", b"1.2", b"2.0", b"3.0"):
    BAD_HEADS["HTTP/%s" % _version.decode()] = (head_of(*PLAIN, first=b"GET / HTTP/" + _version), {505})
for _version in BAD_VERSIONS:
    BAD_HEADS["version %r" % _version.decode()] = (without(VERSION, b"Sec-WebSocket-Version: " + _version), {426})
for _i, _key in enumerate(BAD_KEYS):
    BAD_HEADS["bad key %d" % _i] = (without(SENT_KEY, b"Sec-WebSocket-Key: " + _key), {400})


def check_refusal(response, statuses):
    assert response.status in statuses, response.status_line
    assert int(response.headers["content-length"]) == len(response.body) > 0
    assert b"close" in response.headers["connection"].lower()
    if response.status == 426:
        assert response.headers["sec-websocket-version"] == b"13"
        assert response.headers["upgrade"].lower() == b"websocket"
    if response.status == 405:
        assert response.headers["allow"] == b"GET"


@pytest.mark.parametrize("name", BAD_HEADS)
def test_a_head_that_is_refused(lab, name):
    data, statuses = BAD_HEADS[name]
    for chop in (None, 1) if len(data) < 2000 else (None, 1447):
        check_refusal(refused(lab, "echo", data, chop), statuses)


# ---- limits of the head


def sized_head(size):
    bare = len(head_of(*PLAIN, b"X: "))
    return head_of(*PLAIN, b"X: " + b"x" * (size - bare))


def with_line_of(size):
    bare = len(b"GET / HTTP/1.1")
    return head_of(*PLAIN, first=b"GET /" + b"x" * (size - bare) + b" HTTP/1.1")


@pytest.mark.parametrize("chop", [None, 1], ids=["whole", "byte by byte"])
def test_the_limits_of_a_head_exactly_and_one_more(lab, chop):
    check_echo(answered(lab, sized_head(HEAD_MAX), "limits", chop))
    check_refusal(refused(lab, "limits", sized_head(HEAD_MAX + 1), chop), {431})
    check_echo(answered(lab, head_of(*PLAIN, *[b"X: 1"] * (COUNT_MAX - len(PLAIN))), "limits", chop))
    check_refusal(refused(lab, "limits", head_of(*PLAIN, *[b"X: 1"] * (COUNT_MAX - len(PLAIN) + 1)), chop), {431})
    check_echo(answered(lab, with_line_of(LINE_MAX), "limits", chop))
    check_refusal(refused(lab, "limits", with_line_of(LINE_MAX + 1), chop), {414})


@pytest.mark.parametrize("data, status", [(b"GET /" + b"x" * 120, 414), (b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_MAX, 431),
                                          (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * (HEAD_MAX // 6 + 1), 431), (b"\r\n" + b"GET /" + b"x" * 120, 414)],
                         ids=["line", "header", "headers", "line after an empty one"])
def test_limits_are_seen_before_the_head_is_whole(lab, data, status):
    check_refusal(refused(lab, "limits", data), {status})


# ---- paths

PATHS = {
    b"/chat": 101, b"/chat?x=1": 101, b"/chat?": 101, b"/api/": 101, b"/api/x": 101, b"/api/x/y?z": 101, b"ws://localhost/chat": 101,
    b"/": 404, b"/chat/": 404, b"/chat/x": 404, b"/chatter": 404, b"/cha": 404, b"/api": 404, b"/API/x": 404, b"/Chat": 404, b"//chat": 404,
    b"/x/chat": 404, b"/x/api/": 404, b"/?/chat": 404, b"/%63hat": 404,
}


@pytest.mark.parametrize("path", PATHS, ids=bytes.decode)
def test_paths(lab, path):
    if PATHS[path] == 101:
        check_echo(answered(lab, request(path=path), "path"))
    else:
        check_refusal(refused(lab, "path", request(path=path)), {PATHS[path]})


# ---- origins

ORIGINS = {
    b"https://example.com": True, b"HTTPS://EXAMPLE.COM": True, b"https://example.com:443": True, b"https://a.example.org": True,
    b"https://a.b.example.org": True, b"https://a.example.org:443": True, b"http://localhost:8080": True, None: True,
    b"http://example.com": False, b"https://example.com:444": False, b"https://example.com:80": False, b"https://www.example.com": False,
    b"https://example.com.evil.net": False, b"https://evilexample.com": False, b"https://example.org": False, b"https://.example.org": False,
    b"https://evil-example.org": False, b"https://a.example.org.evil.net": False, b"http://a.example.org": False, b"http://localhost": False,
    b"http://localhost:80": False, b"http://localhost:80800": False, b"null": False, b"": False, b"example.com": False, b"https://": False,
    b"https://example.com/": False, b"https://example.com/path": False, b"https://example.com https://evil.net": False, b"none": False, b"*": False,
    b"https://evil.net#.example.org": False, b"https://evil.net/.example.org": False, b"https://evil.net\\.example.org": False,
    b"https://user@a.example.org": False,
}


def with_origin(origin):
    return request(extra=[] if origin is None else [b"Origin: " + origin])


@pytest.mark.parametrize("origin", ORIGINS, ids=lambda origin: "none at all" if origin is None else origin.decode() or "empty")
def test_origins(lab, origin):
    if ORIGINS[origin]:
        check_echo(answered(lab, with_origin(origin), "origins"))
    else:
        check_refusal(refused(lab, "origins", with_origin(origin)), {403})


@pytest.mark.parametrize("origin, is_good", [(b"https://example.com:8443", True), (b"https://example.com", False),
                                             (b"https://example.com:443", False),
                                             (b"http://example.com:8443", False), (None, False)])
def test_origins_without_none(lab, origin, is_good):
    if is_good:
        check_echo(answered(lab, with_origin(origin), "strict"))
    else:
        check_refusal(refused(lab, "strict", with_origin(origin)), {403})


def test_two_origins_are_refused(lab):
    data = request(extra=[b"Origin: https://example.com", b"Origin: https://evil.net"])
    check_refusal(refused(lab, "origins", data), {400, 403})
    data = request(extra=[b"Origin: https://evil.net", b"Origin: https://example.com"])
    check_refusal(refused(lab, "origins", data), {400, 403})


# ---- sub-protocols

SUBPROTOCOLS = [
    ([b"chat.v1"], b"chat.v1"), ([b"chat.v2"], b"chat.v2"), ([b"chat.v1, chat.v2"], b"chat.v2"), ([b"chat.v2,chat.v1"], b"chat.v2"),
    ([b"mqtt,chat.v1"], b"chat.v1"), ([b"x, y , mqtt , z"], b"mqtt"), ([b"x", b"mqtt"], b"mqtt"), ([b"mqtt", b"chat.v2"], b"chat.v2"),
    ([b",, mqtt ,"], b"mqtt"), ([b"\tmqtt"], b"mqtt"), ([b"mqtt, mqtt"], b"mqtt"),
    ([b"x"], None), ([b"chat"], None), ([b"chat.v"], None), ([b"chat.v22"], None), ([b"MQTT"], None), ([b"Chat.v1"], None), ([b"chat.v1;q=1"], None),
    ([b"chat.v1 chat.v2"], None), ([b'"mqtt"'], None), ([b""], None), ([], None),
]


@pytest.mark.parametrize("offers, chosen", SUBPROTOCOLS,
                         ids=lambda value: "-" if value is None else (b" + ".join(value) if isinstance(value, list) else value).decode())
def test_subprotocols(lab, offers, chosen):
    client = answered(lab, request(extra=[b"Sec-WebSocket-Protocol: " + offer for offer in offers]), "subprotocols")
    assert client.response.headers.get("sec-websocket-protocol") == chosen
    check_echo(client)


# ---- headers of ours


def test_response_headers(lab):
    client = answered(lab, request(extra=[b"Sec-WebSocket-Protocol: chat"]), "headers")
    headers = client.response.headers
    assert (headers["server"], headers["x-region"], headers["x-empty"]) == (b"chat", b"eu", b"")
    assert headers["sec-websocket-protocol"] == b"chat"
    check_echo(client)


# ---- health checks


def plain_get(path, *more):
    return head_of(HOST, *more, first=b"GET " + path + b" HTTP/1.1")


def test_a_health_check_is_answered(lab):
    before = lab.site.counter("health_checks")
    for data in (plain_get(b"/health"), plain_get(b"/health?x=1"), plain_get(b"/health", b"User-Agent: probe", b"Connection: keep-alive"),
                 plain_get(b"/health", b"Connection: close")):
        response = refused(lab, "health", data)
        assert response.status == 200
        assert int(response.headers["content-length"]) == len(response.body)
        assert b"close" in response.headers["connection"].lower()
    lab.site.wait_counter("health_checks", before + 4)


@pytest.mark.parametrize("path, statuses", [(b"/", {404, 426}), (b"/healthy", {404, 426}), (b"/health/", {404, 426}), (b"/chat", {426}),
                                            (b"/Health", {404, 426})],
                         ids=["root", "healthy", "slash", "chat", "case"])
def test_what_is_no_health_check(lab, path, statuses):
    check_refusal(refused(lab, "health", plain_get(path)), statuses)
    if path != b"/chat":
        check_refusal(refused(lab, "health", request(path=path)), {404})


def test_a_health_path_serves_no_websockets(lab):
    client = lab.connect("health", open=False)
    client.send_bytes(request(path="/health"))
    assert not client.read_response_head().startswith(b"HTTP/1.1 101")
    client.close()
    check_echo(answered(lab, request(path="/chat"), "health"))


@pytest.mark.parametrize("transport", ["plain", "tls"])
def test_a_health_check_without_a_worker_is_503(gateway_factory, transport):
    lab_ = Lab(gateway_factory, transport, {"health": {"health_path": "/health"}}, worker=False)
    try:
        response = refused(lab_, "health", plain_get(b"/health"))
        assert response.status == 503
        lab_.site.echo_worker(lab_.heard)
        lab_.site.wait_gauge("workers", 1)
        assert refused(lab_, "health", plain_get(b"/health")).status == 200
    finally:
        lab_.close()


def curl(lab, *args):
    trust = ["--cacert", lab.ca.cert] if lab.is_tls else []
    return ["curl", "-sS", "--http1.1", "--max-time", str(PATIENCE), *trust, *args]


def http_uri(lab, listener, path):
    return lab.uri(listener, path).replace("ws", "http", 1)


def test_curl_checks_the_health(lab):
    done = subprocess.run(curl(lab, "-w", "%{http_code}", http_uri(lab, "health", "/health")), capture_output=True, text=True, timeout=2 * PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("200") and len(done.stdout) > 3
    done = subprocess.run(curl(lab, "-o", os.devnull, "-w", "%{http_code}", http_uri(lab, "health", "/chat")), capture_output=True, text=True,
                          timeout=2 * PATIENCE)
    assert (done.returncode, done.stdout) == (0, "426"), done.stderr


def test_curl_upgrades_by_headers(lab):
    headers = [arg for line in (UPGRADE, CONNECTION, SENT_KEY, VERSION) for arg in ("-H", line.decode())]
    before = set(lab.heard.by_id)
    process = subprocess.Popen(curl(lab, "-i", *headers, http_uri(lab, "echo", "/")), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        new = lambda: set(lab.heard.by_id) - before
        wait_for(new, what="curl to be connected")
        lab.site.g.destroy(new().pop())  # curl waits for an end of what it takes for a body
        output = process.communicate(timeout=2 * PATIENCE)[0]
    finally:
        process.kill()
        process.wait()
    assert output.startswith(b"HTTP/1.1 101 ")
    assert b"sec-websocket-accept: " + accept_of(KEY).lower() in output.lower()


# ---- limits on frames that are set here


def limit_cases():
    parts = lambda n: frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", fin=False) * (n - 2) + frame(CONTINUATION, b"c")
    yield Case("fragments exactly", parts(FRAGMENTS_MAX), [b"a" + b"b" * (FRAGMENTS_MAX - 2) + b"c"])
    yield Case("fragments exactly, twice", parts(FRAGMENTS_MAX) * 2, [b"a" + b"b" * (FRAGMENTS_MAX - 2) + b"c"] * 2)
    yield Case("fragments exactly, pings within", frame(TEXT, b"a", fin=False) + frame(PING, b"p")
               + frame(CONTINUATION, b"b", fin=False) * (FRAGMENTS_MAX - 2) + frame(CONTINUATION, b"c"),
               [b"a" + b"b" * (FRAGMENTS_MAX - 2) + b"c"], [b"p"])
    yield Case("fragments, one more", parts(FRAGMENTS_MAX + 1), close=1008)
    yield Case("fragments that are empty", frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * FRAGMENTS_MAX, close=1008)
    yield Case("fragments without end", frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"x", fin=False) * 1000, close=1008)


@by_name(limit_cases())
def test_the_limit_of_fragments(lab, case):
    converse(lab, case, listener="fragments")
    converse(lab, case, chop=1, listener="fragments")


def test_the_limit_of_control_frames(lab):
    pings = [frame(PING, b"%d" % i) for i in range(200)]
    converse(lab, Case("", b"".join(pings[: CONTROL_RATE - 1]), pongs=[b"%d" % i for i in range(CONTROL_RATE - 1)]), listener="control")
    client = lab.connect("control")
    send_chopped(client, b"".join(pings))
    pongs = 0
    while True:
        got = client.read_frame()
        if got.opcode == CLOSE:
            break
        assert got.payload == b"%d" % pongs
        pongs += 1
    assert got.code == 1008 and CONTROL_RATE <= pongs <= 2 * CONTROL_RATE
    send_chopped(client, frame(CLOSE, close_payload(1008)))
    client.expect_end()
    lab.heard.take(client.key)


# ---- clients of other makes

ODD_SIZES = [0, 1, 125, 126, 65535, 65536, 300_000]


def test_python_websockets(lab):
    async def talk(ws):
        assert ws.subprotocol == "chat.v2"
        for size in ODD_SIZES:
            text = ("\u00e9" * size)[:size]
            await ws.send(text)
            assert await ws.recv() == text
            data = b"\xff" * size
            await ws.send(data)
            assert await ws.recv() == (data or "")
        await ws.send(["frag", "", "men", "ted"])
        assert await ws.recv() == "fragmented"
        await (await ws.ping(b"are you there"))

    run_python_websockets(lab, "subprotocols", talk, compression=None, subprotocols=["x", "chat.v1", "chat.v2"], origin="https://example.com")


def test_npm_ws(lab):
    seen = run_npm_ws(lab, "subprotocols", messages=["a", "\u00e9\U0001f600", {"hex": "ff00"}], sizes=ODD_SIZES, clients=4, protocols=["mqtt", "x"])
    assert len(seen) == 4
    for client in seen:
        assert (client["protocol"], client["extensions"], client["code"], client["pongs"]) == ("mqtt", "", 4000, 1)
        assert client["echoed"] == 3 + 2 * len(ODD_SIZES)


def test_npm_ws_is_refused(lab):
    assert run_npm_ws(lab, "path", path="/nowhere") == [{"status": 404}]
    assert run_npm_ws(lab, "strict", origin="https://evil.net") == [{"status": 403}]
