# SPDX-License-Identifier: MIT
"""WebSocket clients: the handshake, every kind of frame, right and wrong (RFC 6455), limits, and what the worker hears.

Tests without the mark tgg_only hold for PHP's gateway too, with the same bytes at the worker's end.
"""

import asyncio
import struct
import time

import pytest
import websockets

from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE, ON_WEBSOCKET_CONNECT, PATIENCE
from node import Site
from wsclient import BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, RSV1, RSV2, RSV3, TEXT, accept_of, close_payload, frame, request


@pytest.fixture(scope="module")
def odd_gateway(gateway_factory):
    """A gateway whose WebSocket listeners each have something set."""
    gateway = gateway_factory(listen={
        "binary": {"protocol": "websocket", "send_type": "binary"},
        "auto": {"protocol": "websocket", "send_type": "auto"},
        "small": {"protocol": "websocket", "package_size_max": 1000},
        "header": {"protocol": "websocket", "header_size_max": 1024},
    })
    yield gateway
    gateway.stop()


@pytest.fixture
def odd(odd_gateway):
    site_ = Site(odd_gateway).with_worker()
    yield site_
    site_.close()


# ---- the handshake that succeeds


def test_accept_key_of_the_rfc():
    assert accept_of(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_handshake(site):
    client = site.client()
    client.send_text("hi")
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"hi"


def test_events_of_a_connect(site):
    client = site.client()
    event = client.event
    assert (event.ext, event.body, event.flag) == (b"", b"", 1)
    assert event.client_ip == 0x7F000001 and event.client_port == client.port
    assert event.gateway_port == site.gateway.client_address("websocket")[1]
    assert event.local_ip == 0x7F000001 and event.local_port == site.internal[1]
    assert client.connect_event.flag == 0
    assert client.connect_event.ext == b""
    assert client.connect_event.client_port == client.port


def server_of(site, client, **changes):
    """`server` of a client with the default request: what PHP's gateway gives."""
    server = {
        b"QUERY_STRING": b"", b"REQUEST_METHOD": b"GET", b"REQUEST_URI": b"/", b"SERVER_PROTOCOL": b"HTTP/1.1", b"SERVER_NAME": b"localhost",
        b"CONTENT_TYPE": None, b"REMOTE_ADDR": b"127.0.0.1", b"REMOTE_PORT": client.port,
        b"SERVER_PORT": site.gateway.client_address("websocket")[1], b"HTTP_HOST": b"localhost", b"HTTP_UPGRADE": b"websocket",
        b"HTTP_CONNECTION": b"Upgrade", b"HTTP_SEC_WEBSOCKET_KEY": KEY, b"HTTP_SEC_WEBSOCKET_VERSION": b"13",
    }
    server.update({k.encode(): v for k, v in changes.items()})
    return server


def test_websocket_connect_of_the_plainest_request(site):
    client = site.client()
    assert client.connect_event.value == {b"get": {}, b"server": server_of(site, client), b"cookie": {}}


def test_websocket_connect_of_a_full_request(site):
    path = b"/chat?a=1&b[]=2&b[]=3&c[k]=v&d.e=5&f%20g=h+i"
    client = site.client(path=path, host=b"example.com:80", extra=[
        b"Cookie: a=1; b=%20x;7=8;noval", b"X-Two: 1", b"X-Two: 2", b"x-LONG-name:   sp  ", b"Content-Type: text/x; y=z", b"Empty:", b"9: nine",
        b"X_a-b.c: 1", b"X-Bin: \xff\xfe"])
    assert client.connect_event.value == {
        b"get": {b"a": b"1", b"b": {0: b"2", 1: b"3"}, b"c": {b"k": b"v"}, b"d_e": b"5", b"f_g": b"h i"},
        b"server": server_of(
            site, client, QUERY_STRING=path.partition(b"?")[2], REQUEST_URI=path, SERVER_NAME=b"example.com:80", HTTP_HOST=b"example.com:80",
            CONTENT_TYPE=b"text/x; y=z", HTTP_COOKIE=b"a=1; b=%20x;7=8;noval", HTTP_X_TWO=b"1,2", HTTP_X_LONG_NAME=b"sp",
            HTTP_CONTENT_TYPE=b"text/x; y=z", HTTP_EMPTY=b"", HTTP_9=b"nine", HTTP_X_BIN=b"\xff\xfe", **{"HTTP_X_A_B.C": b"1"}),
        b"cookie": {b"a": b"1", b"b": b"%20x", 7: b"8"},
    }


def test_server_has_the_order_of_php(site):
    server = site.client(extra=[b"X-Last: 1"]).connect_event.value[b"server"]
    assert list(server)[:9] == [b"QUERY_STRING", b"REQUEST_METHOD", b"REQUEST_URI", b"SERVER_PROTOCOL", b"SERVER_NAME", b"CONTENT_TYPE",
                                b"REMOTE_ADDR", b"REMOTE_PORT", b"SERVER_PORT"]
    assert list(server)[-1] == b"HTTP_X_LAST"


@pytest.mark.parametrize("path, get", [
    (b"/?", {}),
    (b"/?a", {b"a": b""}),
    (b"/a/b?x=%41&x=2", {b"x": b"2"}),
    (b"/p?a=1?b=2", {b"a": b"1?b=2"}),
    (b"/?k=\xc3\xa9", {b"k": b"\xc3\xa9"}),
    (b"//double?x=1", {b"x": b"1"}),
    (b"/?a=1;b=2&c[d][]=1&c[d][]=2&e[=3&f]=4&g[h=5",
     {b"a": b"1;b=2", b"c": {b"d": {0: b"1", 1: b"2"}}, b"e_": b"3", b"f]": b"4", b"g_h": b"5"}),
    (b"/?12=a&012=b&-3=c", {12: b"a", b"012": b"b", -3: b"c"}),
    (b"/?j.k[l.m]=7&=8&n=%zz&&x=%00", {b"j_k": {b"l.m": b"7"}, b"n": b"%zz", b"x": b"\0"}),
])
def test_get_follows_parse_str(site, path, get):
    value = site.client(path=path).connect_event.value
    assert value[b"get"] == get
    assert value[b"server"][b"QUERY_STRING"] == path.partition(b"?")[2]


@pytest.mark.parametrize("cookie, value", [
    (b"a=1;b=2", {b"a": b"1", b"b": b"2"}),
    (b"a = 1 ; b= 2", {b"a": b" 1 ", b"b": b" 2"}),
    (b"a", {}),
    (b"=x", {b"": b"x"}),
    (b"a=1; a=2", {b"a": b"2"}),
    (b"x=a=b=c", {b"x": b"a=b=c"}),
    (b"7=z; 07=y", {7: b"z", b"07": b"y"}),
    (b'q="v"', {b"q": b'"v"'}),
    (b"a=%41+b", {b"a": b"%41+b"}),
    (b";;a=1;", {b"a": b"1"}),
    (b"a=1, b=2", {b"a": b"1, b=2"}),
    (b"a.b=1; c[d]=2", {b"a.b": b"1", b"c[d]": b"2"}),
])
def test_cookies(site, cookie, value):
    assert site.client(extra=[b"Cookie: " + cookie]).connect_event.value[b"cookie"] == value


def test_two_cookie_headers_are_joined_by_a_comma(site):
    client = site.client(extra=[b"Cookie: a=1", b"Cookie: b=2"])
    assert client.connect_event.value[b"cookie"] == {b"a": b"1,b=2"}
    assert client.connect_event.value[b"server"][b"HTTP_COOKIE"] == b"a=1,b=2"


def test_header_names_in_any_case(site):
    client = site.connect(open=False)
    client.send_bytes(b"GET / HTTP/1.1\r\nhOST: localhost\r\nUPGRADE: WebSocket\r\nconnection: keep-alive, UPGRADE\r\n"
                      b"sec-websocket-KEY: " + KEY + b"\r\nSEC-websocket-version: 13\r\n\r\n")
    client.finish_handshake()
    value = site.worker.wait(ON_WEBSOCKET_CONNECT).value
    assert value[b"server"][b"HTTP_SEC_WEBSOCKET_KEY"] == KEY
    assert value[b"server"][b"HTTP_CONNECTION"] == b"keep-alive, UPGRADE"


@pytest.mark.tgg_only  # PHP drops the folded part
def test_folded_headers_are_unfolded(site):
    client = site.connect(open=False)
    client.send_bytes(b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade:\r\n websocket\r\nConnection: keep-alive,\r\n\tUpgrade\r\n"
                      b"Sec-WebSocket-Key:\r\n " + KEY + b"\r\nSec-WebSocket-Version: 13\r\nX-Fold: a\r\n  b\r\n\r\n")
    client.finish_handshake()
    server = site.worker.wait(ON_WEBSOCKET_CONNECT).value[b"server"]
    assert server[b"HTTP_X_FOLD"].split() == [b"a", b"b"]
    assert server[b"HTTP_SEC_WEBSOCKET_KEY"] == KEY


def test_offered_extensions_and_subprotocols_are_not_taken(site):
    client = site.connect(open=False)
    client.send_bytes(request(extra=[b"Sec-WebSocket-Extensions: permessage-deflate", b"Sec-WebSocket-Protocol: chat, superchat"]))
    head = client.read_response_head().lower()
    assert head.startswith(b"http/1.1 101 ")
    assert b"extensions" not in head and b"sec-websocket-protocol" not in head


def test_handshake_byte_by_byte_then_frames_byte_by_byte(site):
    client = site.connect(open=False)
    for byte in request():
        client.send_bytes(bytes([byte]))
    client.finish_handshake()
    for byte in frame(TEXT, b"x" * 130) + frame(TEXT, b"last"):
        client.send_bytes(bytes([byte]))
    assert site.worker.wait(ON_MESSAGE).body == b"x" * 130
    assert site.worker.wait(ON_MESSAGE).body == b"last"


def test_handshake_and_frames_in_one_segment(site):
    client = site.connect(open=False)
    client.send_bytes(request() + frame(TEXT, b"one") + frame(BINARY, b"two") + frame(PING, b"p") + frame(TEXT, b"three"))
    client.finish_handshake()
    assert [e.cmd for e in site.worker.collect(5)] == [ON_CONNECT, ON_WEBSOCKET_CONNECT, ON_MESSAGE, ON_MESSAGE, ON_MESSAGE]
    pong = client.read_frame()
    assert (pong.opcode, pong.payload) == (PONG, b"p")


def test_what_a_worker_sends_before_the_handshake_waits_for_it(site):
    client = site.client(open=False)
    for i in range(10):
        site.g.send_to_one(client.id, b"early %d" % i)
    site.g.join_group(client.id, b"g")
    site.g.send_to_group([b"g"], b"early to the group")
    site.g.sync()
    client.handshake()
    for i in range(10):
        assert client.read_message() == b"early %d" % i
    assert client.read_message() == b"early to the group"
    site.g.send_to_one(client.id, b"late")
    assert client.read_message() == b"late"


def test_kick_before_the_handshake_closes(site):
    client = site.client(open=False)
    site.g.kick(client.id, b"no")
    assert client.is_ended(within=PATIENCE)
    site.worker.wait(ON_CLOSE, client.id)
    assert not client.buffer.startswith(b"HTTP/1.1 101")


def test_a_bare_tcp_client_is_announced_and_closed(site):
    client = site.client(open=False)
    client.close()
    site.worker.wait(ON_CLOSE, client.id)


# ---- the handshake that is refused

WRONG_REQUESTS = {
    "no key": (request(key=None), {400}),
    "empty key": (request(key=b""), {400}),
    "key too short": (request(key=b"c2hvcnQ="), {400}),
    "key not base64": (request(key=b"!!!!!!!!!!!!!!!!!!!!!!=="), {400}),
    "no host": (request(host=None), {400}),
    "no upgrade": (request(upgrade=None), {400, 426}),
    "other upgrade": (request(upgrade=b"h2c"), {400, 426}),
    "no connection": (request(connection=None), {400, 426}),
    "other connection": (request(connection=b"keep-alive"), {400, 426}),
    "no version": (request(version=None), {400, 426}),
    "version 8": (request(version=b"8"), {426}),
    "version 12": (request(version=b"12"), {426}),
    "version 013": (request(version=b"013"), {400, 426}),
    "POST": (request(method=b"POST"), {405}),
    "HEAD": (request(method=b"HEAD"), {405}),
    "OPTIONS": (request(method=b"OPTIONS"), {405}),
    "get": (request(method=b"get"), {405, 400}),
    "HTTP/1.0": (request(http=b"HTTP/1.0"), {400, 505}),
    "HTTP/2.0": (request(http=b"HTTP/2.0"), {400, 505}),
    "no HTTP version": (b"GET /\r\n\r\n", {400}),
    "two keys": (request(extra=[b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]), {400}),
    "two hosts": (request(extra=[b"Host: other"]), {400}),
    "space before the colon": (request(extra=[b"X : 1"]), {400}),
    "header without a colon": (request(extra=[b"nonsense"]), {400}),
    "empty header name": (request(extra=[b": x"]), {400}),
    "NUL in a header": (request(extra=[b"X: a\0b"]), {400}),
    "CR in a header": (request(extra=[b"X: a\rb"]), {400}),
    "a body": (request(extra=[b"Content-Length: 5"]), {400}),
    "a TLS client": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}),
    "garbage": (b"\x00\x01\x02\x03\x04\x05\x06\x07\x08", {400}),
    "a line of text": (b"hello world\r\n", {400, 405}),
    "a fragment in the target": (request(path=b"/x?a=1#frag"), {400}),
    "an empty target": (b"GET  HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
}


@pytest.mark.tgg_only  # PHP lets most of it through
@pytest.mark.parametrize("name", WRONG_REQUESTS)
def test_a_wrong_handshake_gets_an_http_error(site, name):
    data, statuses = WRONG_REQUESTS[name]
    client = site.client(open=False)
    client.send_bytes(data)
    response = client.refused()
    assert response.status in statuses, response.status_line
    if response.status == 426:
        assert response.headers["sec-websocket-version"] == b"13"
        assert response.headers["upgrade"].lower() == b"websocket"
    if response.status == 405:
        assert b"GET" in response.headers["allow"]
    assert response.headers["connection"].lower() in (b"close", b"upgrade", b"close, upgrade", b"upgrade, close")
    assert int(response.headers.get("content-length", len(response.body))) == len(response.body)
    site.worker.wait(ON_CLOSE, client.id)
    assert site.worker.quiet() == []
    site.wait_counter("client_handshakes_refused", 1)
    site.wait_counter("client_closed_bad_handshake", 1)
    assert site.counter("event_connect") == site.counter("event_close") == 1


@pytest.mark.tgg_only
@pytest.mark.parametrize("data", [request(extra=[b"X: " + b"x" * 1100]), b"GET / HTTP/1.1\r\nX: " + b"x" * 1100,
                                  request(extra=[b"X-%d: 1" % i for i in range(200)])], ids=["whole", "endless", "many"])
def test_a_head_over_the_limit_gets_431(odd, data):
    client = odd.client("header", open=False)
    client.send_bytes(data)
    assert client.refused().status == 431
    odd.worker.wait(ON_CLOSE, client.id)


@pytest.mark.tgg_only
def test_a_head_at_the_limit_is_taken(odd):
    bare = len(request(extra=[b"X: "]))
    client = odd.client("header", extra=[b"X: " + b"x" * (1024 - bare)])
    assert client.connect_event.value[b"server"][b"HTTP_X"] == b"x" * (1024 - bare)
    client = odd.client("header", open=False)
    client.send_bytes(request(extra=[b"X: " + b"x" * (1025 - bare)]))
    assert client.refused().status == 431


def test_a_large_head_within_the_limit(site):
    value = site.client(extra=[b"X-%d: %s" % (i, b"v" * 200) for i in range(60)]).connect_event.value
    assert value[b"server"][b"HTTP_X_59"] == b"v" * 200


# ---- data frames


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 124, 125, 126, 127, 128, 1000, 65535, 65536, 65537, 300_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_messages_of_every_length_form(site, size, opcode):
    client = site.client()
    payload = bytes(i * 7 % 26 + 65 for i in range(size)) if opcode == TEXT else bytes(i * 131 % 256 for i in range(size))
    client.send_frame(opcode, payload)
    event = site.worker.wait(ON_MESSAGE, client.id)
    assert event.body == payload and event.flag == 1


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04", b"\x80\0\0\x01"])
def test_every_mask(site, mask):
    client = site.client()
    payload = bytes(range(256)) * 3 + b"tail"
    client.send_frame(BINARY, payload, mask=mask)
    assert site.worker.wait(ON_MESSAGE, client.id).body == payload


def test_a_frame_at_every_split(site):
    client = site.client()
    data = frame(TEXT, b"y" * 126)
    for cut in range(1, len(data)):
        client.send_bytes(data[:cut])
        client.send_bytes(data[cut:])
    for _ in range(1, len(data)):
        assert site.worker.wait(ON_MESSAGE, client.id).body == b"y" * 126


def test_many_frames_in_one_segment(site):
    client = site.client()
    client.send_bytes(b"".join(frame(TEXT, b"%d" % i) for i in range(3000)))
    for i in range(3000):
        assert site.worker.wait(ON_MESSAGE, client.id).body == b"%d" % i


@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_fragments_make_one_message(site, opcode):
    client = site.client()
    client.send_bytes(frame(opcode, b"one ", fin=False) + frame(CONTINUATION, b"two ", fin=False) + frame(CONTINUATION, b"three"))
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"one two three"
    client.send_text("whole")
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"whole"


def test_fragments_byte_by_byte(site):
    client = site.client()
    for byte in frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"ab", fin=False) + frame(CONTINUATION, b"", fin=False) + frame(CONTINUATION, b"c"):
        client.send_bytes(bytes([byte]))
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"abc"


def test_empty_fragments(site):
    client = site.client()
    client.send_bytes(frame(TEXT, b"", fin=False) + frame(CONTINUATION, b""))
    assert site.worker.wait(ON_MESSAGE, client.id).body == b""


@pytest.mark.tgg_only
def test_a_thousand_fragments(site):
    client = site.client()
    client.send_bytes(frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", fin=False) * 998 + frame(CONTINUATION, b"c"))
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"a" + b"b" * 998 + b"c"


@pytest.mark.tgg_only
def test_control_frames_between_fragments(site):
    client = site.client()
    client.send_bytes(frame(TEXT, b"one ", fin=False) + frame(PING, b"p1") + frame(CONTINUATION, b"two ", fin=False) + frame(PONG, b"unasked")
                      + frame(PING, b"p2") + frame(CONTINUATION, b"three"))
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"one two three"
    assert [(f.opcode, f.payload) for f in (client.read_frame(), client.read_frame())] == [(PONG, b"p1"), (PONG, b"p2")]
    site.wait_counter("client_pings_in", 2)
    site.wait_counter("client_pongs_in", 1)


@pytest.mark.tgg_only
def test_a_code_point_split_over_fragments_and_a_ping(site):
    client = site.client()
    text = "\u00e9\u20ac\U0001f600".encode()
    data = b""
    for i in range(len(text)):
        data += frame(TEXT if i == 0 else CONTINUATION, text[i : i + 1], fin=i == len(text) - 1) + frame(PING, b"%d" % i)
    for byte in data:
        client.send_bytes(bytes([byte]))
    assert site.worker.wait(ON_MESSAGE, client.id).body == text


# ---- what workers send


def test_text_is_the_default_type(site):
    client = site.client()
    site.g.send_to_one(client.id, b"plain")
    got = client.read_frame()
    assert (got.opcode, got.fin, got.rsv, got.payload) == (TEXT, True, 0, b"plain")


@pytest.mark.tgg_only
def test_send_type_binary(odd):
    client = odd.client("binary")
    for body in (b"plain", b"\xff\xfe", b""):
        odd.g.send_to_one(client.id, body)
        got = client.read_frame()
        assert (got.opcode, got.payload) == (BINARY, body)


@pytest.mark.tgg_only
def test_send_type_auto(odd):
    clients = [odd.client("auto") for _ in range(2)]
    cases = [(b"plain", TEXT), (b"", TEXT), ("\u00e9\U0001f600".encode(), TEXT), (b"\xff\xfe", BINARY), (b"ok\xc3", BINARY), (b"\xed\xa0\x80", BINARY),
             (b"a" * 70_000, TEXT), (b"a" * 70_000 + b"\x80", BINARY)]
    for body, _ in cases:
        odd.g.send_to_all(body)
    for client in clients:
        for body, opcode in cases:
            got = client.read_frame()
            assert (got.opcode, got.payload) == (opcode, body)


@pytest.mark.tgg_only
def test_one_fan_out_over_every_kind_of_listener(odd):
    listeners = ["websocket", "binary", "auto", "text", "frame", "tcp"]
    clients = {name: odd.client(name) for name in listeners}
    odd.g.send_to_all(b"\xf0 not text")
    for name in ("websocket", "binary", "auto"):
        got = clients[name].read_frame()
        assert (got.opcode, got.payload) == (TEXT if name == "websocket" else BINARY, b"\xf0 not text")
    for name in ("text", "frame"):
        assert clients[name].read_message() == b"\xf0 not text"
    assert clients["tcp"].read_exactly(10, time.monotonic() + PATIENCE) == b"\xf0 not text"


def test_large_messages_both_ways(site):
    client = site.client()
    up = b"0123456789abcdef" * (5 * 1024 * 1024 // 16)
    client.send_frame(TEXT, up)
    assert site.worker.wait(ON_MESSAGE, client.id).body == up
    down = b"fedcba9876543210" * (900_000 // 16)
    site.worker.send_to_one(client.id, down)
    assert client.read_message() == down


def test_one_message_larger_than_the_buffer_limit_goes_to_a_client_that_reads(site):
    """As in PHP: send_to_client_buffer_size is for what waits already, not for the size of one message."""
    client = site.client()
    down = b"fedcba9876543210" * (5 * 1024 * 1024 // 16)
    site.worker.send_to_one(client.id, down)
    assert client.read_message() == down


def test_a_large_message_in_small_pieces(site):
    client = site.client()
    data = frame(BINARY, bytes(range(256)) * 800)
    for at in range(0, len(data), 1499):
        client.send_bytes(data[at : at + 1499])
    assert site.worker.wait(ON_MESSAGE, client.id).body == bytes(range(256)) * 800


# ---- control frames


@pytest.mark.parametrize("size", [0, 1, 124, 125])
def test_ping_is_answered_with_its_payload(site, size):
    client = site.client()
    client.send_frame(PING, b"p" * size)
    got = client.read_frame()
    assert (got.opcode, got.fin, got.rsv, got.payload) == (PONG, True, 0, b"p" * size)


def test_pings_in_one_segment_are_answered_in_order(site):
    client = site.client()
    client.send_bytes(b"".join(frame(PING, b"%d" % i) for i in range(50)))
    assert [client.read_frame().payload for _ in range(50)] == [b"%d" % i for i in range(50)]


def test_unasked_pongs_are_ignored(site):
    client = site.client()
    client.send_bytes(frame(PONG) + frame(PONG, b"x" * 125) + frame(TEXT, b"after"))
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"after"


VALID_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
INVALID_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


@pytest.mark.tgg_only  # PHP answers 1000 whatever came
@pytest.mark.parametrize("code", VALID_CODES)
def test_a_close_is_answered_with_its_code(site, code):
    client = site.client()
    client.send_close(code, "Grund \u00e9".encode())
    client.expect_close(code)
    site.worker.wait(ON_CLOSE, client.id)
    site.wait_counter("client_closed_peer_close_frame", 1)


@pytest.mark.tgg_only
def test_a_close_without_a_code_is_answered(site):
    client = site.client()
    client.send_frame(CLOSE)
    got = client.read_frame()
    assert got.opcode == CLOSE and got.code in (None, 1000)
    client.expect_end()
    site.worker.wait(ON_CLOSE, client.id)


def test_close_is_answered_and_the_connection_ends(site):
    client = site.client()
    assert client.leave() == 1000
    site.worker.wait(ON_CLOSE, client.id)


def test_frames_before_the_close_count_frames_after_it_do_not(site):
    client = site.client()
    client.send_bytes(frame(TEXT, b"before") + frame(CLOSE, close_payload(1000)) + frame(TEXT, b"after") + b"garbage")
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"before"
    site.worker.wait(ON_CLOSE, client.id)
    assert site.worker.quiet() == []


@pytest.mark.tgg_only
def test_what_was_queued_goes_out_before_the_answer_to_a_close(site):
    client = site.client()
    site.g.send_to_one(client.id, b"queued")
    site.g.sync()
    client.send_close(1000)
    assert client.read_message() == b"queued"
    client.expect_close(1000)


# ---- frames that break the protocol

BROKEN = {
    "not masked": (frame(TEXT, b"x", mask=None), 1002),
    "not masked, empty": (frame(TEXT, b"", mask=None), 1002),
    "a ping not masked": (frame(PING, b"x", mask=None), 1002),
    "a close not masked": (frame(CLOSE, close_payload(1000), mask=None), 1002),
    "RSV1": (frame(TEXT, b"x", rsv=RSV1), 1002),
    "RSV2": (frame(TEXT, b"x", rsv=RSV2), 1002),
    "RSV3": (frame(BINARY, b"x", rsv=RSV3), 1002),
    "all RSV on a ping": (frame(PING, b"x", rsv=RSV1 | RSV2 | RSV3), 1002),
    "RSV1 on a continuation": (frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"y", rsv=RSV1), 1002),
    "continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "continuation after a whole message": (frame(CONTINUATION, b"x", fin=False), 1002),
    "text within a message": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "binary within a message": (frame(TEXT, b"x", fin=False) + frame(BINARY, b"y", fin=False), 1002),
    "a ping in fragments": (frame(PING, b"x", fin=False), 1002),
    "a pong in fragments": (frame(PONG, b"x", fin=False), 1002),
    "a close in fragments": (frame(CLOSE, close_payload(1000), fin=False), 1002),
    "a ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "a pong of 65536 bytes": (frame(PONG, b"x" * 65536), 1002),
    "a close of 126 bytes": (frame(CLOSE, close_payload(1000, b"x" * 124)), 1002),
    "a close of 1 byte": (frame(CLOSE, b"\x03"), 1002),
    "16-bit length of 125": (frame(TEXT, b"x" * 125, length_form=16), 1002),
    "16-bit length of 0": (frame(TEXT, b"", length_form=16), 1002),
    "64-bit length of 65535": (frame(TEXT, b"x" * 65535, length_form=64), 1002),
    "64-bit length of 5": (frame(TEXT, b"x" * 5, length_form=64), 1002),
    "64-bit length with its top bit": (b"\x81\xff" + struct.pack(">Q", 1 << 63) + b"mask", 1002),
    "64-bit length of all ones": (b"\x82\xff" + b"\xff" * 8 + b"mask", 1002),
    "a message over the limit": (b"\x82\xff" + struct.pack(">Q", 10485761) + b"mask", 1009),
    "a message far over the limit": (b"\x82\xff" + struct.pack(">Q", 1 << 62) + b"mask", 1009),
    "text that is not UTF-8": (frame(TEXT, b"abc\xff"), 1007),
    "text cut in a character": (frame(TEXT, b"abc\xe2\x82"), 1007),
    "fragments that are not UTF-8": (frame(TEXT, b"abc\xe2\x82", fin=False) + frame(CONTINUATION, b"x"), 1007),
    "fragments cut in a character": (frame(TEXT, b"abc\xe2", fin=False) + frame(CONTINUATION, b"\x82"), 1007),
    "a bad first fragment, the last never comes": (frame(TEXT, b"abc\xff", fin=False), 1007),
    "a bad byte in a frame that is not whole": (frame(TEXT, b"\xff" * 1000 + b"x" * 60000)[:5000], 1007),
    "a close reason that is not UTF-8": (frame(CLOSE, close_payload(1000, b"\xff")), 1007),
}
for _opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
    BROKEN["opcode %d" % _opcode] = (frame(_opcode, b"x"), 1002)
for _code in INVALID_CODES:
    BROKEN["close code %d" % _code] = (frame(CLOSE, close_payload(_code)), 1002)

REASONS = {1002: "client_closed_protocol_error", 1007: "client_closed_bad_utf8", 1009: "client_closed_too_big"}


@pytest.mark.tgg_only
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_frame_closes_with_the_right_code(site, name):
    data, code = BROKEN[name]
    client = site.client()
    client.send_bytes(frame(TEXT, b"fine") + data)
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"fine"
    client.expect_close(code)
    site.worker.wait(ON_CLOSE, client.id)
    assert site.worker.quiet(0.02) == []
    site.wait_counter(REASONS[code], 1)


@pytest.mark.tgg_only
@pytest.mark.parametrize("name", ["not masked", "opcode 3", "text cut in a character", "a close of 1 byte", "16-bit length of 0"])
def test_a_broken_frame_byte_by_byte(site, name):
    data, code = BROKEN[name]
    client = site.client()
    for byte in data:
        try:
            client.send_bytes(bytes([byte]))
        except OSError:
            break
    client.expect_close(code)


UTF8_GOOD = ["\0", "\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", "\ufeff", "\ufffd"]
UTF8_BAD = [b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xc2\x7f", b"\xc2\xc0", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf",
            b"\xef\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe", b"\xff",
            b"\xe2\x28\xa1", b"\xf0\x90\x28\xbc"]


def test_utf8_boundaries_that_are_fine(site):
    client = site.client()
    for text in UTF8_GOOD:
        for pad in (0, 1, 7, 15, 16, 31, 63, 64):
            body = b"a" * pad + text.encode() + b"b" * pad
            client.send_frame(TEXT, body)
            assert site.worker.wait(ON_MESSAGE, client.id).body == body


@pytest.mark.tgg_only
@pytest.mark.parametrize("bad", UTF8_BAD, ids=lambda b: b.hex())
@pytest.mark.parametrize("pad", [0, 30, 1000])
def test_utf8_boundaries_that_are_not(site, bad, pad):
    client = site.client()
    client.send_frame(TEXT, b"a" * pad + bad + b"b" * pad)
    client.expect_close(1007)


def test_binary_may_be_anything(site):
    client = site.client()
    for bad in UTF8_BAD:
        client.send_binary(bad)
        assert site.worker.wait(ON_MESSAGE, client.id).body == bad


# ---- limits


@pytest.mark.tgg_only
def test_a_message_at_the_limit_is_taken(odd):
    client = odd.client("small")
    client.send_text("x" * 1000)
    assert len(odd.worker.wait(ON_MESSAGE, client.id).body) == 1000
    client.send_bytes(frame(TEXT, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 400))
    assert len(odd.worker.wait(ON_MESSAGE, client.id).body) == 1000


@pytest.mark.tgg_only
@pytest.mark.parametrize("data", [
    frame(TEXT, b"x" * 1001),
    frame(TEXT, b"x" * 1001)[:8],
    frame(TEXT, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 401),
    frame(BINARY, b"x" * 1000, fin=False) + frame(CONTINUATION, b"x", fin=False),
], ids=["whole", "only its head", "fragments", "the last byte"])
def test_a_message_over_the_limit_gets_1009(odd, data):
    client = odd.client("small")
    client.send_bytes(data)
    client.expect_close(1009)
    odd.worker.wait(ON_CLOSE, client.id)
    odd.wait_counter("client_closed_too_big", 1)


# ---- well-behaved clients of another make


def echo(link, event):
    if event.cmd == ON_MESSAGE:
        link.send_to_one(event.connection_id, event.body)


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_python_websockets(site, compression):
    """python3-websockets checks what we send as strictly as it is checked here."""
    site.worker.close()
    site.echo_worker(echo)
    site.g.sync()
    uri = "ws://127.0.0.1:%d/echo?x=1" % site.gateway.client_address("websocket")[1]

    async def one(number):
        async with websockets.connect(uri, compression=compression, max_size=None, open_timeout=PATIENCE, close_timeout=PATIENCE) as ws:
            assert ws.extensions == []
            for size in (0, 1, 125, 126, 65535, 65536, 200_000):
                text = ("%d-" % number + "\u00e9" * size)[:size]
                await ws.send(text)
                assert await asyncio.wait_for(ws.recv(), PATIENCE) == text
            await ws.send(["frag", "men", "ted"])
            assert await asyncio.wait_for(ws.recv(), PATIENCE) == "fragmented"
            await asyncio.wait_for(await ws.ping(b"are you there"), PATIENCE)
        assert ws.close_code == 1000

    async def all_of_them():
        await asyncio.gather(*(one(i) for i in range(8)))

    asyncio.run(all_of_them())


def test_messages_of_a_client_keep_their_order_among_many_clients(site):
    clients = [site.client() for _ in range(10)]
    for i in range(200):
        for client in clients:
            client.send_text("%d" % i)
    seen = {client.id: 0 for client in clients}
    for _ in range(2000):
        event = site.worker.wait(ON_MESSAGE)
        assert event.body == b"%d" % seen[event.connection_id]
        seen[event.connection_id] += 1


def test_the_session_goes_with_every_event(site):
    client = site.client(open=False)
    site.g.set_session(client.id, {"early": 1})
    site.g.sync()
    client.handshake()
    session = b'a:1:{s:5:"early";i:1;}'
    assert site.worker.wait(ON_WEBSOCKET_CONNECT, client.id).ext == session
    client.send_text("x")
    assert site.worker.wait(ON_MESSAGE, client.id).ext == session
    client.close()
    assert site.worker.wait(ON_CLOSE, client.id).ext == session


