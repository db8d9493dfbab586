# SPDX-License-Identifier: MIT
"""Those who say nothing, or little, or for ever: the deadline of every phase, and what bounds the memory that each kind of
attack takes. The figures of docs/SECURITY.md are these (TGG_FIGURES=1 prints them)."""

import os
import re
import signal
import socket
import ssl
import struct
import time

import pytest

import certs
import proxyproto
from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE
from node import CLIENTS, raise_file_limit
from proc import SANITIZED, slow, wait_for
from tlsclient import WssClient
from wsclient import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, WsClient, close_payload, frame, read_until_end, request

pytestmark = pytest.mark.tgg_only


# ---- the deadline of every phase
#
# All stubborn clients at once, at one gateway whose deadlines are all one second but those that would come in between.

AT_ONCE = 1  # s
CLOSE_TIMEOUT = 1
FAR = 60
SLACK = 1.0  # times slow(): how late it may be


class Stubborn:
    """Says `first` and then, if there is any, a byte of `drip` ten times a second. How it ended: after how long, with what."""

    def __init__(self, listener, first=b"", drip=b"", answer=b"", counter=None, handshake=False, then=None):
        self.listener, self.first, self.drip, self.answer, self.counter = listener, first, drip, answer, counter
        self.handshake, self.then = handshake, then


def answer_is_408(data):
    return data.startswith(b"HTTP/1.1 408 ") and data.count(b"HTTP/1.1") == 1


def answer_is_close(code):
    def check(data):
        return data[:1] == b"\x88" and struct.unpack(">H", data[2:4])[0] == code

    return check


HALF_HEAD = request()[:-2]
LATE_HANDSHAKE = {"answer": answer_is_408, "counter": "client_closed_handshake_timeout"}
LATE_MESSAGE = {"answer": answer_is_close(1008), "counter": "client_closed_message_timeout", "handshake": True}
LATE_LINE = {"counter": "client_closed_message_timeout"}

STUBBORN = {
    "silent": Stubborn("handshake", **LATE_HANDSHAKE),
    "silent, lines": Stubborn("first_lines", counter="client_closed_first_byte_timeout"),
    "silent, tcp": Stubborn("first_tcp", counter="client_closed_first_byte_timeout"),
    "silent, with a deadline for the first byte": Stubborn("first", answer=answer_is_408, counter="client_closed_first_byte_timeout"),
    "one byte": Stubborn("handshake", b"G", **LATE_HANDSHAKE),
    "half a handshake": Stubborn("handshake", HALF_HEAD, **LATE_HANDSHAKE),
    "a handshake byte by byte": Stubborn("handshake", b"", HALF_HEAD, **LATE_HANDSHAKE),
    "headers without end": Stubborn("handshake", HALF_HEAD, b"X: 1\r\n" * 100, **LATE_HANDSHAKE),
    "empty lines": Stubborn("handshake", b"", b"\r\n" * 100, answer=lambda data: data.startswith(b"HTTP/1.1 400 "),
                            counter="client_closed_bad_handshake"),
    "half a frame's head": Stubborn("message", frame(TEXT, b"x" * 200)[:3], **LATE_MESSAGE),
    "half a frame": Stubborn("message", frame(TEXT, b"x" * 200)[:100], **LATE_MESSAGE),
    "a frame byte by byte": Stubborn("message", b"", frame(TEXT, b"x" * 200), **LATE_MESSAGE),
    "the first fragment": Stubborn("message", frame(TEXT, b"x", fin=False), **LATE_MESSAGE),
    "empty fragments": Stubborn("message", frame(TEXT, b"", fin=False), frame(CONTINUATION, b"", fin=False) * 50, **LATE_MESSAGE),
    "a fragment, then pongs": Stubborn("message", frame(TEXT, b"x", fin=False), frame(PONG) * 50, **LATE_MESSAGE),
    "half a ping": Stubborn("message", frame(PING, b"x" * 100)[:50], **LATE_MESSAGE),
    "half a close": Stubborn("message", frame(CLOSE, close_payload(1000, b"x" * 100))[:50], **LATE_MESSAGE),
    "half a line": Stubborn("message_lines", b"half", **LATE_LINE),
    "a line byte by byte": Stubborn("message_lines", b"", b"x" * 100, **LATE_LINE),
    "half a packet": Stubborn("message_frames", b"\0\0\1\0half", **LATE_LINE),
    "half the length of a packet": Stubborn("message_frames", b"\0\0", **LATE_LINE),
    "idle": Stubborn("idle", handshake=True, answer=answer_is_close(1000), counter="client_closed_idle_timeout"),
    "idle lines": Stubborn("idle_lines", b"x\n", counter="client_closed_idle_timeout"),
    "silent, TLS": Stubborn("tls", counter="client_closed_tls_timeout"),
    "one byte, TLS": Stubborn("tls", b"\x16", counter="client_closed_tls_timeout"),
    "half a ClientHello": Stubborn("tls", "half", counter="client_closed_tls_timeout"),
    "a ClientHello byte by byte": Stubborn("tls", b"", "hello", counter="client_closed_tls_timeout"),
    "a ClientHello and no more": Stubborn("tls", "hello", answer=lambda data: data[:1] == b"\x16", counter="client_closed_tls_timeout"),
    "silent, PROXY": Stubborn("proxy", counter="client_closed_bad_proxy_header"),
    "half a PROXY header": Stubborn("proxy", proxyproto.v1(("203.0.113.9", 1))[:-1], counter="client_closed_bad_proxy_header"),
    "a PROXY header byte by byte": Stubborn("proxy", b"", proxyproto.v2(("203.0.113.9", 1)), counter="client_closed_bad_proxy_header"),
    "does not leave after a refusal": Stubborn("handshake", request(key=None), answer=lambda data: data.startswith(b"HTTP/1.1 400 "),
                                               counter="client_closed_bad_handshake"),
    "talks on after a refusal": Stubborn("handshake", request(key=None), b"x" * 100, answer=lambda data: data.startswith(b"HTTP/1.1 400 "),
                                         counter="client_closed_bad_handshake"),
}
# What was said for good is sent at once; a FIN of ours comes then, and the end of the connection a close_timeout later.
ENDS_AT_ONCE = {"empty lines", "does not leave after a refusal", "talks on after a refusal"}

LISTEN = {
    "handshake": {"protocol": "websocket", "handshake_timeout": AT_ONCE},
    "first": {"protocol": "websocket", "first_byte_timeout": AT_ONCE, "handshake_timeout": FAR},
    "first_lines": {"protocol": "text", "first_byte_timeout": AT_ONCE},
    "first_tcp": {"protocol": "tcp", "first_byte_timeout": AT_ONCE},
    "message": {"protocol": "websocket", "message_timeout": AT_ONCE},
    "message_lines": {"protocol": "text", "message_timeout": AT_ONCE},
    "message_frames": {"protocol": "frame", "message_timeout": AT_ONCE},
    "idle": {"protocol": "websocket", "idle_timeout": AT_ONCE},
    "idle_lines": {"protocol": "text", "idle_timeout": AT_ONCE},
    "tls": {"protocol": "websocket", "tls_handshake_timeout": AT_ONCE},
    "proxy": {"protocol": "websocket", "proxy_protocol": "required", "trusted_proxies": "127.0.0.1", "tls_handshake_timeout": AT_ONCE},
}


@pytest.fixture(scope="module")
def pki():
    class Pki:
        ca = certs.make_ca()

    Pki.cert = certs.make_cert(Pki.ca, ["localhost"])
    Pki.tls = certs.client_context(Pki.ca)
    return Pki


def a_hello(pki):
    """The first flight of a client."""
    out = ssl.MemoryBIO()
    session = pki.tls.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return out.read()


def bytes_of(what, hello):
    return {"hello": hello, "half": hello[: len(hello) // 2]}.get(what, what) if isinstance(what, str) else what


@pytest.fixture(scope="module")
def ends(gateway_factory, pki):
    """How each of STUBBORN ended: (seconds, what came). Beside them a client that behaves lives on all listeners."""
    listen = {name: {**keys, "close_timeout": CLOSE_TIMEOUT} for name, keys in LISTEN.items()}
    listen["tls"].update(tls_certificate=pki.cert.chain, tls_key=pki.cert.key)
    gateway = gateway_factory(listen=listen, gateway={"max_connections": 1000})
    hello = a_hello(pki)
    clients, ended = {}, {}
    for name, how in STUBBORN.items():
        kind = CLIENTS[LISTEN[how.listener]["protocol"]]
        client = clients[name] = kind(gateway.client_address(how.listener), **({"open": how.handshake} if kind is WsClient else {}))
        client.began = time.monotonic()
        client.send_bytes(bytes_of(how.first, hello))
    drips = {name: list(bytes_of(how.drip, hello)) for name, how in STUBBORN.items()}
    give_up = time.monotonic() + AT_ONCE + 5 * SLACK * slow()
    while len(ended) < len(clients) and time.monotonic() < give_up:
        time.sleep(0.1)
        for name, client in clients.items():
            if name in ended:
                continue
            if drips[name]:
                try:
                    client.sock.send(bytes([drips[name].pop(0)]))
                except OSError:
                    pass
            if client.is_ended():
                ended[name] = (time.monotonic() - client.began, bytes(client.buffer))
    wait_for(lambda: gateway.counters()["clients"] == 0, what="all to be gone, though they keep their end open")
    counters = gateway.counters()
    for client in clients.values():
        client.close()
    gateway.stop()
    return ended, counters


@pytest.mark.parametrize("name", STUBBORN)
def test_it_is_closed_at_its_deadline(ends, name):
    ended, _ = ends
    how = STUBBORN[name]
    assert name in ended, "never"
    seconds, data = ended[name]
    # Who has had a handshake gets close_timeout to answer the close frame, which none of these does.
    due = 0 if name in ENDS_AT_ONCE else AT_ONCE + CLOSE_TIMEOUT if how.handshake else AT_ONCE
    assert due - 0.05 <= seconds < max(due, AT_ONCE) + SLACK * slow(), seconds
    assert how.answer(data) if how.answer else data == b"", data


def test_each_deadline_has_its_counter(ends):
    _, counters = ends
    wanted = {}
    for how in STUBBORN.values():
        wanted[how.counter] = wanted.get(how.counter, 0) + 1
    assert {name: counters[name] for name in wanted} == wanted
    assert sum(counters[name] for name in counters if name.startswith("client_closed_")) == len(STUBBORN)


def test_who_is_busy_is_not_late(start):
    """Deadlines of a message are each message's own: bytes that never end on a boundary, for longer than message_timeout."""
    site = start(listen={name: {"message_timeout": 1} for name in ("websocket", "text", "frame")})
    encode = {
        "websocket": lambda text: frame(TEXT, text),
        "text": lambda text: text + b"\n",
        "frame": lambda text: struct.pack(">I", len(text) + 4) + text,
    }
    fragments = lambda text: frame(TEXT, text[:2], fin=False) + frame(CONTINUATION, text[2:])
    clients = [(site.client(name), make) for name, make in encode.items()] + [(site.client("websocket"), fragments)]
    pings = site.client("websocket")
    rest = {client: b"" for client, _ in clients}
    rest_of_ping = b""
    for number in range(18):
        for client, make in clients:
            data = rest[client] + make(b"%06d" % number)
            cut = len(data) - 5
            client.send_bytes(data[:cut])
            rest[client] = data[cut:]
        data = rest_of_ping + frame(PING, b"%d" % number)
        pings.send_bytes(data[:-2])
        rest_of_ping = data[-2:]
        time.sleep(0.15)
    for client, _ in clients:
        client.send_bytes(rest[client])
        for number in range(18):
            assert site.worker.wait(ON_MESSAGE, client.id).body == b"%06d" % number
    pings.send_bytes(rest_of_ping)
    assert [pings.read_frame().payload for _ in range(18)] == [b"%d" % number for number in range(18)]


def test_who_does_not_answer_a_close_is_gone_all_the_same(start):
    """Kicked, and the close frame not answered; with a worker's last message not read; and with the sending side kept busy."""
    site = start(listen={"websocket": {"close_timeout": 1}, "text": {"close_timeout": 1}})
    clients = [site.client(), site.client(rcvbuf=4096), site.client("text"), site.client()]
    for client in clients:
        site.g.kick(client.id, bytes(900_000) if client is clients[1] else b"bye")
    began = time.monotonic()
    while site.gauge("clients") > 0 and time.monotonic() < began + 5 * slow():
        try:
            clients[3].send_text("still here")
        except OSError:
            pass
        time.sleep(0.05)
    assert 0.9 < time.monotonic() - began < 1 + SLACK * slow()


def test_deadlines_that_a_reload_shortens_hold_for_those_who_are_there(start):
    site = start(listen={"websocket": {"handshake_timeout": FAR}, "text": {"idle_timeout": FAR}})
    silent, idle = site.client(open=False), site.client("text")
    site.gateway.sections["listen websocket"]["handshake_timeout"] = 1
    site.gateway.sections["listen text"]["idle_timeout"] = 1
    site.gateway.write_config()
    began = time.monotonic()
    site.gateway.process.send_signal(signal.SIGHUP)
    assert answer_is_408(read_until_end(silent))
    idle.expect_end()
    assert time.monotonic() - began < 1 + SLACK * slow()
    site.worker.wait(ON_CLOSE, silent.id)
    site.worker.wait(ON_CLOSE, idle.id)


# ---- limits of what a single client may do

HEAD_MAX, COUNT_MAX, LINE_MAX, FRAGMENTS_MAX, CONTROL_RATE = 2000, 20, 300, 100, 50


@pytest.fixture(scope="module")
def strict_gateway(gateway_factory, pki):
    keys = {"protocol": "websocket", "header_size_max": HEAD_MAX, "header_count_max": COUNT_MAX, "url_length_max": LINE_MAX,
            "fragments_max": FRAGMENTS_MAX, "control_rate": CONTROL_RATE, "package_size_max": 10_000}
    gateway = gateway_factory(listen={"strict": keys, "strict_tls": {**keys, "tls_certificate": pki.cert.chain, "tls_key": pki.cert.key}})
    yield gateway
    gateway.stop()


@pytest.fixture(params=["plain", "tls"])
def strict(request, strict_gateway, pki):
    """connect(open): a client of the strict listener; .site."""
    from node import Site

    site_ = Site(strict_gateway).with_worker()

    def connect(open=True):
        name = "strict_tls" if request.param == "tls" else "strict"
        address = strict_gateway.client_address(name)
        client = WssClient(address, pki.tls, open=open) if request.param == "tls" else WsClient(address, open=open)
        site_.clients.append(client)
        client.id = site_.worker.wait(ON_CONNECT, client_port=client.local_port).connection_id
        return client

    connect.site = site_
    yield connect
    site_.close()


def send_as_far_as_it_goes(client, data):
    try:
        client.send_bytes(data)
    except OSError:
        pass


@pytest.mark.parametrize("data, status", [
    (request(extra=[b"X: " + b"x" * HEAD_MAX]), 431),
    (b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000, 431),
    (request(extra=[b"X-%d: 1" % i for i in range(COUNT_MAX)]), 431),
    (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 400, 431),
    (request(path="/" + "x" * LINE_MAX), 414),
    (b"GET /" + b"x" * 200_000, 414),
], ids=["large head", "endless header", "many headers", "headers without end", "long URL", "endless URL"])
def test_heads_over_a_limit(strict, data, status):
    client = strict(open=False)
    send_as_far_as_it_goes(client, data)
    assert client.refused().status == status
    strict.site.worker.wait(ON_CLOSE, client.id)
    strict.site.wait_counter("client_closed_bad_handshake", 1)


@pytest.mark.parametrize("piece", [b"", b"x"], ids=["empty", "tiny"])
def test_fragments_up_to_fragments_max(strict, piece):
    client = strict()
    whole = frame(TEXT, piece, fin=False) + frame(CONTINUATION, piece, fin=False) * (FRAGMENTS_MAX - 2)
    client.send_bytes((whole + frame(CONTINUATION, piece)) * 2)
    for _ in range(2):
        assert strict.site.worker.wait(ON_MESSAGE, client.id).body == piece * FRAGMENTS_MAX
    send_as_far_as_it_goes(client, whole + frame(CONTINUATION, piece, fin=False) * 1000)
    client.expect_close(1008)
    strict.site.worker.wait(ON_CLOSE, client.id)
    strict.site.wait_counter("client_closed_too_many_fragments", 1)


@pytest.mark.parametrize("opcode", [PING, PONG], ids=["pings", "pongs"])
def test_control_frames_a_second(strict, opcode):
    client = strict()
    for _ in range(3):  # as many as may be, second by second: bursts of one second's worth pass
        client.send_bytes(frame(opcode, b"x") * (CONTROL_RATE // 2))
        time.sleep(0.55)
    assert not client.is_ended()
    client.buffer.clear()
    send_as_far_as_it_goes(client, frame(opcode, b"x") * (3 * CONTROL_RATE))
    answers = read_until_end(client)
    assert answers.count(frame(PONG, b"x", mask=None)) <= (2 * CONTROL_RATE if opcode == PING else 0)
    assert answers[-40:].find(b"\x88") >= 0 and struct.pack(">H", 1008) in answers[-40:]
    strict.site.worker.wait(ON_CLOSE, client.id)
    strict.site.wait_counter("client_closed_rate", 1)
    assert strict.site.counter("client_%ss_in" % ("ping" if opcode == PING else "pong")) <= 5 * CONTROL_RATE


# ---- floods: what each attacker costs


def rss_of(gateway):
    """Bytes of memory of all shards, shared memory that they have touched included; but not the pages of the program and
    its libraries, which come when they are first used."""
    total = 0
    for pid in gateway.shard_pids():
        with open("/proc/%d/status" % pid) as f:
            total += sum(int(kilobytes) * 1024 for kilobytes in re.findall(r"(?:RssAnon|RssShmem):\s+(\d+) kB", f.read()))
    return total


def report(site, name, connections, grown, bound):
    """Each further shard has pools of its own, which begin with a few hundred kilobytes."""
    grown = max(0, grown - (site.shards - 1) * 700_000)
    if os.environ.get("TGG_FIGURES"):
        print("\nfigure: %-40s %6d connections %10d bytes %8.0f each (bound %d)" % (name, connections, grown, grown / connections, bound))
    if not SANITIZED:
        assert grown / connections <= bound, "%s: %d bytes each" % (name, grown / connections)


ATTACKERS = 1000

# How many bytes a connection may cost the shard, the kernel's part not counted.
FLOODS = {  # listener, what is said, whether after a handshake (None: without, but announced), bytes
    "silent": ("websocket", b"", False, 1024),
    "silent, and a worker was told": ("websocket", b"", None, 1024),
    "silent lines": ("text", b"", False, 1024),
    "silent, TLS": ("tls", b"", False, 1024),
    "one byte": ("websocket", b"G", False, 1400),
    "half a head of 200 bytes": ("websocket", HALF_HEAD + b"X: " + b"x" * 50, False, 1600),
    "half a head of 16,000 bytes": ("websocket", HALF_HEAD + b"X: " + b"x" * 15_800, False, 20_000),
    "half a ClientHello": ("tls", "half", False, 2000),
    "16,000 bytes of a ClientHello": ("tls", b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03" + bytes(16_000), False, 50_000),
    "a ClientHello and no more": ("tls", "hello", False, 50_000),
    "half a frame of 10,000 bytes": ("websocket", frame(BINARY, bytes(10_000))[:5000], True, 12_000),
    "half a frame's head": ("websocket", frame(BINARY, bytes(10_000))[:2], True, 2000),
    "the largest frame announced": ("websocket", b"\x82\xff" + struct.pack(">Q", 10_000_000) + b"mask", True, 2000),
    "empty fragments": ("websocket", frame(BINARY, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 100, True, 2000),
    "tiny fragments": ("websocket", frame(BINARY, b"x", fin=False) + frame(CONTINUATION, b"x", fin=False) * 100, True, 2000),
    "pings, the pongs not read": ("websocket", frame(PING, b"x" * 125) * 90, True, 2500),
}


@pytest.mark.shards(1)  # rings between shards take memory when they are first used, however few bytes a client costs
@pytest.mark.parametrize("name", FLOODS)
def test_memory_of_a_flood(start, pki, name):
    listener, data, handshake, bound = FLOODS[name]
    raise_file_limit()
    site = start(listen={"tls": {"protocol": "websocket", "tls_certificate": pki.cert.chain, "tls_key": pki.cert.key}},
                 gateway={"on_connect": "handshake" if handshake is False else "accept"})
    site.echo_worker(lambda link, event: None)
    stays = WsClient(site.gateway.client_address("websocket"))
    site.clients.append(stays)
    data = bytes_of(data, a_hello(pki))
    before = rss_of(site.gateway)
    kind = CLIENTS["text" if listener == "text" else "tcp"]
    crowd = []
    for _ in range(ATTACKERS):
        client = kind(site.gateway.client_address(listener))
        crowd.append(client)
        client.send_bytes((request() if handshake else b"") + data)
    wait_for(lambda: site.gauge("clients") == ATTACKERS + 1, what="all to be there")
    if listener == "tls" and data:
        wait_for(lambda: site.counter("tls_record_bytes_in") >= ATTACKERS * len(data), what="all bytes to be taken")
    if handshake:
        wait_for(lambda: site.counter("client_handshakes") == ATTACKERS + 1, what="all handshakes")
    time.sleep(0.05)
    grown = rss_of(site.gateway) - before
    report(site, name, ATTACKERS, grown, bound)
    # Who behaves is served meanwhile.
    stays.send_frame(PING, b"there?")
    assert stays.read_frame().payload == b"there?"
    site.wait_counter("client_pings_in", 1 + (90 * ATTACKERS if "pings" in name else 0))
    for client in crowd:
        client.reset()
    site.wait_gauge("clients", 1)
    assert site.gauge("client_input_bytes") == 0 and site.gauge("client_queue_bytes") == 0


@pytest.mark.shards(1)  # client_input_total_bytes is of each shard
def test_memory_of_unfinished_messages_is_bounded_over_all(start):
    """client_input_total_bytes: whoever sends the byte too many is closed (1013), the others are not."""
    limit = 2_000_000
    site = start(gateway={"client_input_total_bytes": limit})
    site.worker
    before = rss_of(site.gateway)
    crowd = [site.connect() for _ in range(60)]
    most = 0
    for client in crowd:
        send_as_far_as_it_goes(client, frame(BINARY, bytes(200_000))[:100_000])
        most = max(most, site.gauge("client_input_bytes"))
    wait_for(lambda: site.counter("client_closed_input_limit") > 0, what="the limit")
    time.sleep(0.2)
    assert max(most, site.gauge("client_input_bytes")) <= limit + 300_000
    closed = site.counter("client_closed_input_limit")
    assert 30 <= closed < 55
    report(site, "half messages of 100,000 bytes, 2 MB in all", len(crowd), rss_of(site.gateway) - before, (limit + 3_000_000) / len(crowd))
    assert sum(client.is_ended(within=0.02) for client in crowd) >= closed - 1


def test_pings_of_one_who_does_not_read(start):
    """Without control_rate the pongs that wait are bounded still: send_to_client_buffer_size, and then it is closed."""
    site = start(gateway={"send_to_client_buffer_size": 100_000, "slow_reader_policy": "drop_newest"},
                 listen={"websocket": {"control_rate": 0, "close_timeout": 1}})
    client = site.client(rcvbuf=4096)
    most = 0
    data = frame(PING, b"x" * 125) * 1000
    client.sock.settimeout(1)
    for _ in range(400):
        try:
            client.sock.sendall(data)
        except OSError:
            break
        most = max(most, site.gauge("client_queue_bytes"))
    site.wait_counter("client_closed_slow_reader", 1)
    assert most <= 100_000 + 65_536 + 2000 * 127
    site.wait_gauge("clients", 0)


def test_refused_connections_cost_nothing_for_long(start):
    """5,000 that a limit refuses: memory stays where it was, and who is there is served."""
    site = start(gateway={"connections_per_address": 5}, listen={"websocket": {"close_timeout": 1}})
    client = site.client("text")
    site.worker
    before = rss_of(site.gateway)
    sockets = []
    for number in range(2500):
        for listener in ("text", "websocket"):
            s = socket.socket()
            s.setblocking(False)
            s.bind(("127.0.0.9" if number else "127.0.0.8", 0))
            s.connect_ex(site.gateway.client_address(listener))
            sockets.append(s)
        if number % 250 == 0:
            client.send_message(b"%d" % number)
            assert site.worker.wait(ON_MESSAGE, client.id).body == b"%d" % number
            while len(sockets) > 500:
                sockets.pop(0).close()
    wait_for(lambda: site.counter("client_refused") + site.gauge("clients") - site.gauge("refusals") >= 5000 - 500, what="all to be seen")
    report(site, "refused", 5000, max(0, rss_of(site.gateway) - before), 200)
    for s in sockets:
        s.close()
    assert site.counter("refused_per_address") == site.counter("client_refused") > 4000


def test_lines_without_end(start):
    """package_size_max bounds a line, a packet and a message, wherever it is noticed."""
    site = start(listen={name: {"package_size_max": 50_000} for name in ("websocket", "text", "frame")})
    site.worker
    before = rss_of(site.gateway)
    for client, data in ((site.client("text"), b"x" * 1_000_000), (site.client("frame"), b"\x7f\xff\xff\xff" + b"x" * 1_000_000),
                         (site.client(), frame(BINARY, bytes(20_000), fin=False) + frame(CONTINUATION, bytes(20_000), fin=False) * 50)):
        send_as_far_as_it_goes(client, data)
        read_until_end(client)
        site.worker.wait(ON_CLOSE, client.id)
    assert site.counter("client_closed_too_big") == 3
    if not SANITIZED:
        assert rss_of(site.gateway) - before < 1_000_000


def test_malformed_handshakes_by_the_thousand(start):
    """Each gets its answer; nothing remains of them."""
    site = start(gateway={"on_connect": "handshake"}, listen={"websocket": {"close_timeout": 1}})
    client = site.client("text")
    wrong = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /\r\n\r\n", request(key=None), request(version=b"8"), b"\0" * 100, request(path="/\xff" * 10)]
    before = rss_of(site.gateway)
    statuses = set()
    for number in range(1500):
        with WsClient(site.gateway.client_address("websocket"), open=False) as attacker:
            attacker.send_bytes(wrong[number % len(wrong)])
            statuses.add(int(attacker.read_response_head().split()[1]))
    assert statuses <= {101, 400, 405, 426, 505} and len(statuses) >= 2
    site.wait_gauge("clients", 1)
    client.send_message(b"here")
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"here"
    report(site, "malformed handshakes", 1500, max(0, rss_of(site.gateway) - before), 300)
