# SPDX-License-Identifier: MIT
"""permessage-deflate (RFC 7692): what is agreed to for every offer, messages in every form of DEFLATE, what is refused,
and fan-outs to clients that agreed on different things. Over plain TCP and TLS.

Each client here decodes with a zlib state of its own that follows what was agreed, so that a server that remembers what
it must not, or refers farther back than it may, is found out; inflate.py measures how far.
"""

import functools
import itertools
import os
import random
import re
import zlib

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from inflate import Inflater
from proc import wait_for
from wsclient import BINARY, CLOSE, CONTINUATION, PING, PONG, RSV1, RSV2, RSV3, TEXT, HttpResponse, accept_of, KEY, close_payload, frame, request
from wslab import Lab, check_close_frame, expect_clean_end, opcode_of, run_npm_ws, run_python_websockets, send_chopped

pytestmark = pytest.mark.tgg_only

TAIL = b"\x00\x00\xff\xff"
SIZE_MIN, BOMB_MAX, FREE = 256, 100_000, 1 << 20  # FREE: what a message may become whatever its ratio

DEFLATE = {"deflate": "yes", "deflate_size_min": 0}
LISTENERS = {
    "on": DEFLATE,  # only clients remember
    "both": {**DEFLATE, "deflate_takeover": "yes"},
    "none": {**DEFLATE, "deflate_client_takeover": "no"},
    "narrow": {**DEFLATE, "deflate_takeover": "yes", "deflate_window_bits": 10, "deflate_client_window_bits": 11, "deflate_level": 9},
    "min": {"deflate": "yes", "deflate_size_min": SIZE_MIN},
    "bomb": {**DEFLATE, "deflate_ratio_max": 0, "package_size_max": BOMB_MAX},
    "off": {},
}
SERVER_REMEMBERS, CLIENT_REMEMBERS = {"both", "narrow"}, {"on", "both", "narrow", "min", "bomb"}
SERVER_BITS, CLIENT_BITS = {"narrow": 10}, {"narrow": 11}


@pytest.fixture(scope="module", params=["plain", "tls"])
def lab(request, gateway_factory):
    lab_ = Lab(gateway_factory, request.param, LISTENERS)
    yield lab_
    try:
        for client in lab_.site.clients:
            client.close()
        wait_for(lambda: lab_.site.gauge("clients") == 0, what="every client gone")
        wait_for(lambda: lab_.site.gauge("deflate_bytes") == 0, what="all memory of compression given back")
    finally:
        lab_.close()


# ---- a client of our own


class Agreed:
    """What the answer to a handshake says."""

    def __init__(self, header):
        self.header = header
        self.params = {}
        if header is None:
            return
        name, *params = [part.strip() for part in header.decode().split(";")]
        assert name == "permessage-deflate" and "," not in header.decode(), header
        for param in params:
            key, equals, value = param.partition("=")
            assert key not in self.params, header
            if key in ("server_no_context_takeover", "client_no_context_takeover"):
                assert not equals, header
                self.params[key] = True
            else:
                assert key in ("server_max_window_bits", "client_max_window_bits") and re.fullmatch(r"8|9|1[0-5]", value), header
                self.params[key] = int(value)

    def __bool__(self):
        return self.header is not None

    @property
    def server_forgets(self):
        return "server_no_context_takeover" in self.params

    @property
    def client_forgets(self):
        return "client_no_context_takeover" in self.params

    @property
    def server_bits(self):
        return self.params.get("server_max_window_bits", 15)

    @property
    def client_bits(self):
        return self.params.get("client_max_window_bits", 15)


def compressor(bits, level=6, strategy=zlib.Z_DEFAULT_STRATEGY):
    """zlib has no raw window of 256 bytes: then without references at all."""
    if bits == 8:
        bits, strategy = 9, zlib.Z_HUFFMAN_ONLY
    return zlib.compressobj(level, zlib.DEFLATED, -bits, 8, strategy)


def deflated(data, z=None, level=6, strategy=zlib.Z_DEFAULT_STRATEGY):
    """A message's payload, section 7.2.1."""
    z = z or compressor(15, level, strategy)
    out = z.compress(data) + z.flush(zlib.Z_SYNC_FLUSH)
    if not data and not out:  # zlib has nothing to flush when it has just flushed
        return b"\x00"
    assert out.endswith(TAIL)
    return out[: -len(TAIL)]


class DeflateClient:
    """Follows what was agreed. measures: inflate.py looks at each message, too (slow)."""

    def __init__(self, lab, listener, *offers, measures=False, rcvbuf=None):
        self.lab = lab
        self.client = lab.connect(listener, open=False, rcvbuf=rcvbuf)
        self.client.send_bytes(request(extra=[b"Sec-WebSocket-Extensions: "
                                              + (offer.encode() if isinstance(offer, str) else offer) for offer in offers]))
        response = HttpResponse(self.client.read_response_head(), b"")
        assert response.status == 101, response.status_line
        assert response.headers["sec-websocket-accept"] == accept_of(KEY)
        self.agreed = Agreed(response.headers.get("sec-websocket-extensions"))
        self.key = self.client.key
        self.z_in = self.z_out = None
        self.measure = Inflater() if measures else None
        self.last_size = self.last_rsv = None

    # -- to the server

    def compress(self, data, **how):
        if self.z_out is None or self.agreed.client_forgets:
            self.z_out = compressor(self.agreed.client_bits, **how)
        return deflated(data, self.z_out)

    def send(self, data, compressed=None, cuts=(), chop=None, mask=b"\x37\xfa\x21\x3d"):
        """A message, in fragments that are cut there. Compressed if that was agreed on."""
        if compressed is None:
            compressed = bool(self.agreed)
        payload = self.compress(data) if compressed else data
        places = [0, *cuts, len(payload)]
        frames = b""
        for i in range(len(places) - 1):
            opcode = opcode_of(data) if i == 0 else CONTINUATION
            frames += frame(opcode, payload[places[i] : places[i + 1]], fin=i == len(places) - 2, rsv=RSV1 if compressed and i == 0 else 0, mask=mask)
        return send_chopped(self.client, frames, chop)

    # -- from the server

    def inflate(self, payload):
        if self.z_in is None or self.agreed.server_forgets:
            self.z_in = zlib.decompressobj(-self.agreed.server_bits)
            if self.measure:
                self.measure.forget()
        data, rest = b"", payload + TAIL
        while True:  # in small pieces: only what is in the window can be referred to, not what is in this call's output
            piece = self.z_in.decompress(rest, 256)
            data += piece
            rest = self.z_in.unconsumed_tail
            if not rest and len(piece) < 256:
                break
        assert not self.z_in.unused_data
        if self.measure:
            assert self.measure.feed(payload + TAIL) == data
        return data

    def read(self):
        """The next message."""
        got = self.client.read_frame()
        assert got.opcode in (TEXT, BINARY) and got.fin and got.rsv in ((0, RSV1) if self.agreed else (0,)), got
        self.last_size, self.last_rsv = len(got.payload), got.rsv
        data = self.inflate(got.payload) if got.rsv else got.payload
        assert got.opcode == opcode_of(data), got
        return data

    def echo(self, data, **how):
        self.send(data, **how)
        assert self.read() == data

    # -- the end

    def leave(self):
        self.client.send_bytes(frame(PING, b"the end") + frame(CLOSE, close_payload(1000)))
        got = self.client.read_frame()
        assert (got.opcode, got.payload) == (PONG, b"the end")
        assert self.client.read_frame().code == 1000
        expect_clean_end(self.client)
        return self.lab.heard.take(self.key)

    def fails(self, *codes):
        """The next thing is a close frame with one of these codes. The code."""
        got = self.client.read_frame()
        while got.opcode in (TEXT, BINARY, PONG):  # what was sent before it
            got = self.client.read_frame()
        assert got.opcode == CLOSE and got.code in codes, got
        check_close_frame(got, got.code)
        send_chopped(self.client, frame(CLOSE, got.payload[:2]))
        expect_clean_end(self.client)
        return got.code


# ---- what is agreed to


def offer_of(server_bits=None, client_bits=None, server_forgets=False, client_forgets=False):
    """client_bits 0: without a value."""
    parts = ["permessage-deflate"]
    if server_forgets:
        parts.append("server_no_context_takeover")
    if client_forgets:
        parts.append("client_no_context_takeover")
    if server_bits is not None:
        parts.append("server_max_window_bits=%d" % server_bits)
    if client_bits is not None:
        parts.append("client_max_window_bits" + ("=%d" % client_bits if client_bits else ""))
    return "; ".join(parts)


def check_answer(agreed, listener, server_bits=None, client_bits=None, server_forgets=False, client_forgets=False):
    """Section 7.1, and what the listener says."""
    params = agreed.params
    assert agreed
    if server_forgets or listener not in SERVER_REMEMBERS:
        assert agreed.server_forgets
    if listener not in CLIENT_REMEMBERS:
        assert agreed.client_forgets
    if server_bits is not None:
        assert params["server_max_window_bits"] <= min(server_bits, SERVER_BITS.get(listener, 15))
    if client_bits is None:
        assert "client_max_window_bits" not in params
    elif client_bits:
        assert params.get("client_max_window_bits", client_bits) <= client_bits
    if client_bits is not None and listener in CLIENT_BITS:
        assert params["client_max_window_bits"] <= CLIENT_BITS[listener]


SAMPLE = b"".join(b"%d green bottles, hanging on the wall; " % i for i in range(40))


@pytest.mark.parametrize("server_bits", [None, *range(8, 16)])
@pytest.mark.parametrize("listener", ["on", "both", "none", "narrow"])
def test_every_combination_of_parameters(lab, listener, server_bits):
    """Each with messages both ways, twice, so that what is remembered is used. We do not agree to a window of 256 bytes for
    our side: zlib has none."""
    combinations = list(itertools.product([None, 0, *range(8, 16)], (False, True), (False, True)))
    for client_bits, server_forgets, client_forgets in combinations[:: 3 if lab.is_tls else 1]:
        how = {"server_bits": server_bits, "client_bits": client_bits, "server_forgets": server_forgets, "client_forgets": client_forgets}
        client = DeflateClient(lab, listener, offer_of(**how))
        if server_bits == 8:
            assert not client.agreed
            client.echo(SAMPLE, compressed=False)
        else:
            check_answer(client.agreed, listener, **how)
            client.echo(SAMPLE)
            client.echo(SAMPLE)
            client.echo(b"short")
        client.client.close()


def test_the_combinations_are_counted(lab):
    before = {name: lab.site.counter(name) for name in ("deflate_negotiated", "deflate_messages_in", "deflate_messages_out",
                                                        "deflate_inflated_bytes")}
    client = DeflateClient(lab, "on", "permessage-deflate")
    client.echo(SAMPLE)
    client.echo(SAMPLE, compressed=False)
    assert client.leave() == [SAMPLE] * 2
    now = {name: lab.site.counter(name) - before[name] for name in before}
    assert now == {"deflate_negotiated": 1, "deflate_messages_in": 1, "deflate_messages_out": 2, "deflate_inflated_bytes": len(SAMPLE)}


NUMBERS = ["", "0", "7", "16", "08", "015", "+9", "-9", "9.0", "0x9", "1e1", "nine", "9a", "99", "100", "1000000000000000000000", "9 10", '"16"',
           '""', '" 9"',
           '"9', "9=9"]
BAD_PARAMS = ["unknown", "unknown=1", "server_no_context_takeover=1", "server_no_context_takeover=true", 'client_no_context_takeover="1"',
              "client_no_context_takeover=false", "server_no_context_takeover; server_no_context_takeover",
              "client_no_context_takeover; client_no_context_takeover",
              "server_max_window_bits", "server_max_window_bits=9; server_max_window_bits=9", "server_max_window_bits=9; server_max_window_bits=10",
              "client_max_window_bits; client_max_window_bits", "client_max_window_bits=9; client_max_window_bits",
              "Server_No_Context_Takeover=1", "mem_level=9",
              *["server_max_window_bits=" + n for n in NUMBERS], *["client_max_window_bits=" + n for n in NUMBERS]]


@pytest.mark.parametrize("params", BAD_PARAMS)
def test_bad_parameters_are_declined(lab, params):
    """The connection goes uncompressed; behind them an offer that is right is taken. Where the header is no list of
    extensions at all, the handshake may also be refused (RFC 6455 section 9.1)."""
    is_broken = params.endswith("=") or params.count('"') == 1 or params.endswith(('""', '" 9"')) or " 10" in params or "=9=9" in params
    bad = "permessage-deflate; " + params
    for offers, agrees in (([bad], False), ([bad, "permessage-deflate"], True), ([bad + ", permessage-deflate; server_max_window_bits=11"], True)):
        try:
            client = DeflateClient(lab, "both", *offers)
        except AssertionError as error:
            assert is_broken and b" 400 " in error.args[0], (error, offers)
            continue
        if not is_broken:
            assert bool(client.agreed) == agrees, client.agreed.header
        if not agrees:
            assert not client.agreed
            client.echo(SAMPLE, compressed=False)
        elif client.agreed:
            client.echo(SAMPLE)
        client.client.close()


# Offers, and server_max_window_bits in the answer (None: not there; "no": not agreed to).
OFFERS = [
    (["permessage-deflate"], None),
    (['permessage-deflate; server_max_window_bits="10"'], 10),
    (['permessage-deflate; server_max_window_bits="1\\0"'], 10),
    (["permessage-deflate;server_max_window_bits=10"], 10),
    (["permessage-deflate ;  server_max_window_bits=10\t; client_max_window_bits"], 10),
    (["permessage-deflate; server_max_window_bits=10, permessage-deflate"], 10),
    (["permessage-deflate, permessage-deflate; server_max_window_bits=10"], None),
    (["permessage-deflate; server_max_window_bits=12", "permessage-deflate; server_max_window_bits=10"], 12),
    (["permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=9"], 9),
    (["permessage-deflate; server_max_window_bits=8", "permessage-deflate"], None),
    (["x-unknown, permessage-deflate; server_max_window_bits=10"], 10),
    (["x-unknown; a=1; b, x-other; c=\"d\"", "permessage-deflate; server_max_window_bits=10"], 10),
    (['x-unknown; a="permessage-deflate"', "permessage-deflate; server_max_window_bits=10"], 10),
    (['x-unknown; a="b\\"", permessage-deflate; server_max_window_bits=10'], 10),
    ([", ,permessage-deflate; server_max_window_bits=10, ,"], 10),
    (["", "permessage-deflate; server_max_window_bits=10"], 10),
    (["permessage-deflate; unknown", "permessage-deflate; server_max_window_bits=9; unknown, permessage-deflate; server_max_window_bits=13"], 13),
    (["x-unknown"], "no"), (["x-webkit-deflate-frame"], "no"), (["permessage-bzip2"], "no"), (["permessage-deflate2"], "no"),
    (["xpermessage-deflate"], "no"),
    (["permessage"], "no"), (["deflate"], "no"), ([""], "no"), ([], "no"), ([";permessage-deflate"], "no"), (["=permessage-deflate"], "no"),
    (["x-unknown; permessage-deflate"], "no"), (["permessage-deflate=1"], "no"), (['"permessage-deflate"'], "no"),
]


@pytest.mark.parametrize("offers, bits", OFFERS, ids=lambda value: " + ".join(value) if isinstance(value, list) else str(value))
def test_several_offers(lab, offers, bits):
    client = DeflateClient(lab, "both", *offers)
    if bits == "no":
        assert not client.agreed, client.agreed.header
        client.echo(SAMPLE, compressed=False)
    else:
        assert client.agreed.params.get("server_max_window_bits") == bits
        client.echo(SAMPLE)
        client.echo(SAMPLE)
    client.leave()


def test_a_hundred_offers(lab):
    client = DeflateClient(lab, "both", ", ".join(["permessage-deflate; server_max_window_bits=8"] * 60),
                           *["permessage-deflate; x=%d" % i for i in range(40)],
                           "permessage-deflate; server_max_window_bits=14")
    assert client.agreed.params["server_max_window_bits"] == 14
    client.echo(SAMPLE)
    client.leave()


def test_a_listener_without_compression_agrees_to_nothing(lab):
    client = DeflateClient(lab, "off", "permessage-deflate", "permessage-deflate; client_max_window_bits")
    assert not client.agreed
    client.echo(SAMPLE, compressed=False)
    client.client.send_bytes(frame(TEXT, deflated(b"hello"), rsv=RSV1))
    client.fails(1002)


def test_a_client_that_offers_nothing_gets_nothing_compressed(lab):
    client = DeflateClient(lab, "both")
    assert not client.agreed
    client.echo(SAMPLE * 100, compressed=False)
    client.client.send_bytes(frame(TEXT, deflated(b"hello"), rsv=RSV1))
    client.fails(1002)


# ---- messages from clients

HELLO = b"Hello"
# Section 7.2.3, and what else makes "Hello".
HELLOS = {
    "one block": "f248cdc9c90700",
    "no compression": "000500faff48656c6c6f00",
    "a final block": "f348cdc9c9070000",
    "two blocks": "f24805000000ffffcac9c90700",
    "a final block, nothing behind it": "f348cdc9c90700",
    "a stored final block": "010500faff48656c6c6f00",
    "five stored blocks": "000100feff48" + "000100feff65" + "000100feff6c" + "000100feff6c" + "000100feff6f" + "00",
    "empty stored blocks all around": "000000ffff" * 3 + "f248cdc9c907000000ffff" + "000000ffff" + "00",
}


@pytest.mark.parametrize("name", HELLOS)
@pytest.mark.parametrize("listener", ["on", "none"])
def test_hello_in_every_form(lab, listener, name):
    payload = bytes.fromhex(HELLOS[name])
    client = DeflateClient(lab, listener, "permessage-deflate")
    for _ in range(2):
        client.client.send_bytes(frame(TEXT, payload, rsv=RSV1))
        assert client.read() == HELLO
    for cut in range(len(payload) + 1):
        client.client.send_bytes(frame(TEXT, payload[:cut], fin=False, rsv=RSV1) + frame(PONG) + frame(CONTINUATION, payload[cut:]))
        assert client.read() == HELLO
    client.client.send_bytes(frame(TEXT, b"", fin=False, rsv=RSV1)
                             + b"".join(frame(CONTINUATION, payload[i : i + 1], fin=False) for i in range(len(payload)))
                             + frame(CONTINUATION))
    assert client.read() == HELLO
    send_chopped(client.client, frame(TEXT, payload, rsv=RSV1), 1)
    assert client.read() == HELLO
    assert client.leave() == [HELLO] * (len(payload) + 5)


def test_hello_that_refers_to_the_one_before(lab):
    """Section 7.2.3.2."""
    client = DeflateClient(lab, "on", "permessage-deflate")
    assert not client.agreed.client_forgets
    for payload in ("f248cdc9c90700", "f2001100" + "00", "f2001100" + "00"):
        client.client.send_bytes(frame(TEXT, bytes.fromhex(payload), rsv=RSV1))
        assert client.read() == HELLO
    client.leave()


@pytest.mark.parametrize("payload", ["00", "0200", "030000", "000000ffff00", "010000ffff00"])
@pytest.mark.parametrize("opcode", [TEXT, BINARY], ids=["text", "binary"])
def test_empty_messages(lab, opcode, payload):
    data = bytes.fromhex(payload)
    assert zlib.decompressobj(-15).decompress(data + TAIL) == b""
    client = DeflateClient(lab, "both", "permessage-deflate")
    for frames in (frame(opcode, data, rsv=RSV1), frame(opcode, data[:1], fin=False, rsv=RSV1) + frame(CONTINUATION, data[1:]),
                   frame(opcode, b"", fin=False, rsv=RSV1) + frame(CONTINUATION, data)):
        client.client.send_bytes(frames)
        assert client.read() == b""
    client.echo(SAMPLE)
    assert client.leave() == [b""] * 3 + [SAMPLE]


def test_a_compressed_message_without_a_byte(lab):
    """Not what section 7.2.3.6 says an empty message is; taken for one, or refused, but nothing else."""
    client = DeflateClient(lab, "both", "permessage-deflate")
    client.client.send_bytes(frame(TEXT, b"", rsv=RSV1) + frame(CLOSE, close_payload(1000)))
    messages = client.fails(1000, 1007) == 1000
    assert lab.heard.take(client.key) == [b""] * messages


@functools.cache
def long_text():
    """More than a megabyte that compresses like text does."""
    chance = random.Random(15)
    words = ["alpha", "beta", "gr\u00fcn", "delta", "tin", " ", "\n"]
    return "".join(chance.choice(words) + "%d" % chance.randrange(100) for _ in range(300_000))


def bodies(chance, kind, size):
    """A message of so many bytes: some of the long text, or noise that is no text."""
    if kind == "text":
        text = long_text()
        at = chance.randrange(max(len(text) - size, 1))
        return text[at : at + size].encode()[:size].decode(errors="ignore").encode().ljust(size, b".")
    return b"\xff" + chance.randbytes(size - 1) if size else b""


SIZES = [0, 1, 2, 3, 125, 126, 127, 128, 1000, 4096, 65535, 65536, 65537, 300_000, 1 << 20]


@pytest.mark.parametrize("kind", ["text", "random"])
@pytest.mark.parametrize("listener", ["on", "both", "none", "narrow"])
def test_echo_of_every_size(lab, listener, kind):
    chance = random.Random(kind)
    client = DeflateClient(lab, listener, "permessage-deflate; client_max_window_bits")
    expected = []
    for size in SIZES:
        data = bodies(chance, kind, size)
        client.echo(data)
        client.echo(data[::-1] if kind == "random" and size else data, mask=chance.randbytes(4))
        expected += [data, data[::-1] if kind == "random" and size else data]
    assert client.leave() == expected


@pytest.mark.parametrize("chop", [1, 2, 7, 125, 997, 16384])
def test_echo_in_pieces(lab, chop):
    chance = random.Random(chop)
    client = DeflateClient(lab, "both", "permessage-deflate")
    for size in (0, 1, 126, 1000, 65536, 300_000):
        if size / chop > 1500:
            continue
        data = bodies(chance, "text", size)
        client.echo(data, chop=chop)
        cuts = sorted(chance.randrange(len(data) // 4 + 1) for _ in range(4))
        client.echo(data, cuts=cuts, chop=chop)
    client.leave()


STRATEGIES = {"default": zlib.Z_DEFAULT_STRATEGY, "filtered": zlib.Z_FILTERED, "huffman": zlib.Z_HUFFMAN_ONLY, "rle": zlib.Z_RLE,
              "fixed": zlib.Z_FIXED}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_level_and_strategy_and_flush(lab, strategy):
    """Also several flushes within a message, and full ones."""
    data = bodies(random.Random(1), "text", 5000)
    for level in range(10):
        client = DeflateClient(lab, "on", "permessage-deflate")
        z = compressor(15, level, STRATEGIES[strategy])
        for flushes in ((), (zlib.Z_SYNC_FLUSH,), (zlib.Z_FULL_FLUSH, zlib.Z_SYNC_FLUSH), (zlib.Z_BLOCK,), (zlib.Z_PARTIAL_FLUSH, zlib.Z_FULL_FLUSH)):
            payload = b"".join(z.compress(data[i * 100 : (i + 1) * 100]) + z.flush(kind) for i, kind in enumerate(flushes))
            payload += deflated(data[len(flushes) * 100 :], z)
            client.client.send_bytes(frame(TEXT, payload, rsv=RSV1))
            assert client.read() == data
        client.client.close()


def test_messages_that_are_not_compressed_are_not_remembered(lab):
    """Section 7.2.1: they do not go into the window; control frames neither. With references to what is before them."""
    chance = random.Random(2)
    client = DeflateClient(lab, "both", "permessage-deflate")
    first = bodies(chance, "text", 900)
    expected = []
    for i in range(30):
        data = first if i % 3 == 0 else bodies(chance, "text", 50) + first[: 100 * (i % 9)]
        compressed = chance.random() < 0.6
        client.client.send_bytes(frame(PING, b"%d" % i))
        assert client.client.read_frame().payload == b"%d" % i
        client.echo(data, compressed=compressed, cuts=[3] if i % 4 == 0 else ())
        expected.append(data)
    assert client.leave() == expected


def test_control_frames_within_a_compressed_message(lab):
    client = DeflateClient(lab, "both", "permessage-deflate")
    payload = client.compress(SAMPLE)
    client.client.send_bytes(frame(TEXT, payload[:50], fin=False, rsv=RSV1) + frame(PING, b"1") + frame(CONTINUATION, payload[50:80], fin=False)
                             + frame(PING, b"2")
                             + frame(PONG, b"x") + frame(CONTINUATION, payload[80:]))
    got = [client.client.read_frame() for _ in range(2)]
    assert [(f.opcode, f.rsv, f.payload) for f in got] == [(PONG, 0, b"1"), (PONG, 0, b"2")]
    assert client.read() == SAMPLE
    client.leave()


@pytest.mark.parametrize("bits", range(8, 16))
def test_every_window_of_the_client_is_used_in_full(lab, bits):
    """References as far back as was agreed, over the border of messages."""
    client = DeflateClient(lab, "both", "permessage-deflate; client_max_window_bits=%d" % bits)
    chance = random.Random(bits)
    noise = b"\xff" + chance.randbytes(max((1 << bits) - 300, 100))
    for _ in range(3):
        client.echo(noise)
        client.echo(noise[:200])
    client.leave()


def test_a_client_that_agreed_to_forget_and_does_not(lab):
    """What it refers to is not there."""
    client = DeflateClient(lab, "none", "permessage-deflate")
    assert client.agreed.client_forgets
    client.client.send_bytes(frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=RSV1))
    assert client.read() == HELLO
    client.client.send_bytes(frame(TEXT, bytes.fromhex("f200110000"), rsv=RSV1))
    client.fails(1007)
    assert lab.heard.take(client.key) == [HELLO]


# ---- RSV1 where it may not be

MISUSE = {
    "RSV1 on a ping": frame(PING, b"x", rsv=RSV1),
    "RSV1 on a pong": frame(PONG, b"x", rsv=RSV1),
    "RSV1 on a close": frame(CLOSE, close_payload(1000), rsv=RSV1),
    "RSV1 on an empty ping": frame(PING, rsv=RSV1),
    "RSV1 on a continuation of a compressed message":
        frame(TEXT, b"\xf2", fin=False, rsv=RSV1) + frame(CONTINUATION, b"\x48\xcd\xc9\xc9\x07\x00", rsv=RSV1),
    "RSV1 on a middle part": frame(TEXT, b"\xf2", fin=False, rsv=RSV1) + frame(CONTINUATION, b"\x48\xcd", fin=False, rsv=RSV1),
    "RSV1 on a continuation only": frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", rsv=RSV1),
    "RSV1 on a ping within a message": frame(TEXT, b"\xf2", fin=False, rsv=RSV1) + frame(PING, b"x", rsv=RSV1),
    "RSV1 on a continuation of nothing": frame(CONTINUATION, b"\x00", rsv=RSV1),
    "a compressed message within another": frame(TEXT, b"\xf2", fin=False, rsv=RSV1) + frame(TEXT, b"\x00", rsv=RSV1),
    "a compressed message, not masked": frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=RSV1, mask=None),
    "a compressed ping in fragments": frame(PING, b"\x00", rsv=RSV1, fin=False),
}
for _opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
    MISUSE["RSV1 on opcode %d" % _opcode] = frame(_opcode, b"\x00", rsv=RSV1)
for _rsv, _opcode in itertools.product((RSV2, RSV3, RSV2 | RSV3, RSV1 | RSV2, RSV1 | RSV3, RSV1 | RSV2 | RSV3), (TEXT, BINARY, PING, PONG, CLOSE)):
    MISUSE["RSV %d%d%d on %d" % (_rsv >> 6 & 1, _rsv >> 5 & 1, _rsv >> 4 & 1, _opcode)] = frame(
        _opcode, close_payload(1000) if _opcode == CLOSE else b"\x00", rsv=_rsv)


@pytest.mark.parametrize("name", MISUSE)
def test_misuse_of_reserved_bits(lab, name):
    for chop in (None, 1):
        client = DeflateClient(lab, "both", "permessage-deflate")
        client.echo(SAMPLE)
        send_chopped(client.client, MISUSE[name], chop)
        client.fails(1002)
        assert lab.heard.take(client.key) == [SAMPLE]


# ---- what is no DEFLATE, or no text

GARBAGE = {
    "a reserved kind of block": "06",
    "a reserved kind of block, final": "07",
    "all ones": "ff" * 20,
    "a stored block whose length does not fit": "00050000004865",
    "a stored block without its bytes": "000a00f5ff48",
    "a reference to before the beginning": "f200110000",
    "too many codes": "fcffffff" * 4,
    "a length code that is none": "1b" + "ff" * 8,
    "text that is not compressed": b"Hello, world; this is not compressed at all".hex(),
    "gzip": "1f8b0800000000000003",
    "zlib": "789cf348cdc9c90700058c01f5",
    "good, then bad": "f248cdc9c9070000ffff" + "06",
    "a final block, then bad": "f348cdc9c90700" + "0706",
}


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.parametrize("listener", ["on", "none"])
def test_garbage(lab, listener, name):
    payload = bytes.fromhex(GARBAGE[name])
    for opcode, cut in itertools.product((TEXT, BINARY), (0, len(payload) // 2)):
        client = DeflateClient(lab, listener, "permessage-deflate")
        if cut:
            client.client.send_bytes(frame(opcode, payload[:cut], fin=False, rsv=RSV1) + frame(CONTINUATION, payload[cut:]))
        else:
            client.client.send_bytes(frame(opcode, payload, rsv=RSV1))
        client.fails(1007)
        assert lab.heard.take(client.key) == []


def test_garbage_at_random(lab):
    """Whatever it is: a message, or 1007 (1009 where it happens to be a bomb); and the next client is served."""
    chance = random.Random(7692)
    for _ in range(60):
        client = DeflateClient(lab, "on", "permessage-deflate")
        payload = bytearray(deflated(SAMPLE))
        for _ in range(chance.choice([1, 2, 8])):
            payload[chance.randrange(len(payload))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.3:
            del payload[chance.randrange(len(payload)) :]
        client.client.send_bytes(frame(BINARY, bytes(payload), rsv=RSV1) + frame(CLOSE, close_payload(1000)))
        client.fails(1000, 1007, 1009)
    client = DeflateClient(lab, "on", "permessage-deflate")
    client.echo(SAMPLE)
    client.leave()


NOT_TEXT = [b"\xff", b"abc\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a" * 5000 + b"\xfe", b"abc\xe2\x82", b"\xf0\x9f\x98",
            b"\xc3" + b"z" * 1000]


@pytest.mark.parametrize("text", NOT_TEXT, ids=lambda text: text[:4].hex() + "-%d" % len(text))
def test_text_that_is_not_utf8(lab, text):
    payload = deflated(text)
    for cut in (0, 1, len(payload) // 2):
        client = DeflateClient(lab, "both", "permessage-deflate")
        client.client.send_bytes(frame(TEXT, payload[:cut], fin=False, rsv=RSV1) + frame(CONTINUATION, payload[cut:]))
        client.fails(1007)
        assert lab.heard.take(client.key) == []
    client = DeflateClient(lab, "both", "permessage-deflate")
    client.client.send_bytes(frame(BINARY, payload, rsv=RSV1))
    assert client.read() == text
    assert client.leave() == [text]


def test_text_is_checked_after_inflation_only(lab):
    """Compressed bytes are rarely UTF-8, cut anywhere; what comes out is."""
    text = "\u00e9\u20ac\U0001f600".encode() * 50
    payload = deflated(text)
    assert opcode_of(payload) == BINARY
    client = DeflateClient(lab, "on", "permessage-deflate; client_no_context_takeover")
    for cut in range(0, len(payload), 3):
        client.client.send_bytes(frame(TEXT, payload[:cut], fin=False, rsv=RSV1) + frame(CONTINUATION, payload[cut:]))
        assert client.read() == text
    client.leave()


# ---- bombs


def test_the_limit_of_a_message_holds_after_inflation(lab):
    exact = DeflateClient(lab, "bomb", "permessage-deflate")
    for data in (bytes(BOMB_MAX), b"a" * BOMB_MAX, bodies(random.Random(3), "text", BOMB_MAX)):
        exact.echo(data)
        exact.echo(data, cuts=[10, 20])
    exact.leave()
    for data in (bytes(BOMB_MAX + 1), b"a" * (BOMB_MAX + 1), bytes(10 * BOMB_MAX), bytes(200 * BOMB_MAX)):
        for cuts in ((), (1, 5)):
            client = DeflateClient(lab, "bomb", "permessage-deflate")
            client.send(data, cuts=cuts)
            client.fails(1009)
            assert lab.heard.take(client.key) == []


def test_bombs_by_their_ratio(lab):
    """zlib's best is about 1030 to 1; 200 to 1 is allowed, and 1 MB in any case."""
    client = DeflateClient(lab, "on", "permessage-deflate")
    client.echo(bytes(FREE))
    client.echo(bodies(random.Random(4), "text", 1 << 20))
    client.leave()
    for size in (3 << 20, 5 << 20):
        client = DeflateClient(lab, "on", "permessage-deflate")
        client.send(bytes(size))
        client.fails(1009)
        assert lab.heard.take(client.key) == []
    before = lab.site.counter("client_closed_bad_deflate")
    client = DeflateClient(lab, "none", "permessage-deflate")
    client.send(bytes(3 << 20), cuts=[100, 500])
    client.fails(1009)
    lab.site.wait_counter("client_closed_bad_deflate", before + 1)


def test_a_bomb_of_empty_blocks(lab):
    """Much in, nothing out: allowed, but bounded by package_size_max as it comes."""
    client = DeflateClient(lab, "bomb", "permessage-deflate")
    client.client.send_bytes(frame(TEXT, b"\x00\x00\x00\xff\xff" * 1000 + b"\x00", rsv=RSV1))
    assert client.read() == b""
    client.client.send_bytes(frame(TEXT, b"\x00\x00\x00\xff\xff" * (BOMB_MAX // 5) + b"\x00", rsv=RSV1))
    client.fails(1009)


# ---- messages to clients


@pytest.mark.parametrize("size", [0, 1, SIZE_MIN - 1, SIZE_MIN, SIZE_MIN + 1, 10 * SIZE_MIN])
def test_the_smallest_size_that_is_compressed(lab, size):
    client = DeflateClient(lab, "min", "permessage-deflate")
    client.echo(b"a" * size)
    assert client.last_rsv == (RSV1 if size >= SIZE_MIN else 0)
    assert client.last_size <= size
    client.echo(b"a" * size, compressed=False)
    assert client.last_rsv == (RSV1 if size >= SIZE_MIN else 0)
    client.leave()


def test_what_does_not_shrink_grows_by_little(lab):
    client = DeflateClient(lab, "both", "permessage-deflate")
    chance = random.Random(5)
    for size in (1, 10, 1000, 100_000):
        client.echo(b"\xff" + chance.randbytes(size))
        assert client.last_size <= size + 1 + 16 + size // 1000
        client.echo(SAMPLE)
    client.leave()


def test_take_over_makes_the_second_of_two_smaller_and_no_take_over_does_not(lab):
    text = bodies(random.Random(6), "text", 3000)
    for listener, offer, remembers in (("both", "permessage-deflate", True), ("both", "permessage-deflate; server_no_context_takeover", False),
                                       ("on", "permessage-deflate", False), ("none", "permessage-deflate", False)):
        client = DeflateClient(lab, listener, offer, measures=True)
        sizes = []
        for _ in range(3):
            client.echo(text)
            sizes.append(client.last_size)
        assert (sizes[1] < sizes[0] / 4) == (sizes[2] < sizes[0] / 4) == remembers, sizes
        client.leave()


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("listener", ["on", "both", "narrow"])
def test_the_server_never_refers_farther_back_than_agreed(lab, listener, bits):
    """Text that repeats itself at every distance up to twice the window; inflate.py measures."""
    client = DeflateClient(lab, listener, "permessage-deflate; server_max_window_bits=%d" % bits, measures=True)
    assert client.agreed.server_bits == min(bits, SERVER_BITS.get(listener, 15))
    window = 1 << client.agreed.server_bits
    chance = random.Random(bits)
    block = ("".join(chance.choice("abcdefghijklmnop") for _ in range(64))).encode()
    gap = lambda n: "".join(chance.choice("qrstuvwxyz0123456789") for _ in range(n)).encode()
    for share in (0.4, 0.9, 1.1, 2):
        distance = min(int(window * share), 9000)
        client.echo(block + gap(distance) + block)
        client.echo(block)
    assert 0 < client.measure.farthest <= window
    client.leave()


def test_a_narrow_listener_keeps_to_its_window_unasked(lab):
    client = DeflateClient(lab, "narrow", "permessage-deflate", measures=True)
    text = bodies(random.Random(8), "text", 6000)
    for _ in range(3):
        client.echo(text)
    assert client.measure.farthest <= 1 << 10
    client.leave()


# ---- fan-outs

SETS = [("on", "permessage-deflate"), ("on", "permessage-deflate; server_max_window_bits=9"),
        ("on", "permessage-deflate; client_no_context_takeover"),
        ("both", "permessage-deflate"), ("both", "permessage-deflate; server_no_context_takeover"),
        ("both", "permessage-deflate; server_max_window_bits=9"),
        ("both", "permessage-deflate; server_max_window_bits=12; client_max_window_bits=9"), ("none", "permessage-deflate"),
        ("narrow", "permessage-deflate"),
        ("min", "permessage-deflate"), ("bomb", "permessage-deflate; server_max_window_bits=15"), ("off", None), ("on", None), ("both", None)]


def clients_of_every_set(lab, times=1):
    return [DeflateClient(lab, listener, *([offer] if offer else [])) for listener, offer in SETS * times]


def test_fan_outs_to_clients_that_agreed_on_different_things(lab):
    """Each message as text and as bytes that are none, of all sizes, twice; single messages between them, which take what was
    before into account with those that remember."""
    chance = random.Random(9)
    clients = clients_of_every_set(lab, 2)
    ids = [lab.heard.connection_id(client.key) for client in clients]
    g = lab.site.g
    same = bodies(chance, "text", 2000)
    expected = [[] for _ in clients]
    for round_ in range(40):
        kind = chance.choice(["text", "random"])
        size = chance.choice([0, 1, 100, SIZE_MIN, 1000, 5000, 70_000])
        data = same if round_ % 4 == 0 else bodies(chance, kind, size) + same[: 100 * (round_ % 7)]
        data = data if opcode_of(data) == TEXT or kind == "random" else same
        if round_ % 3 == 2:
            for i in chance.sample(range(len(clients)), 9):
                single = same[chance.randrange(500) :] + b"%d" % i
                single = single if opcode_of(single) == TEXT else same
                g.send_to_one(ids[i], single)
                expected[i].append(single)
        else:
            g.send_to_all(data)
            for queue in expected:
                queue.append(data)
    for client, queue in zip(clients, expected):
        for data in queue:
            assert client.read() == data
    for client in clients:
        client.echo(same)
        client.echo(same)
        client.leave()


def test_a_fan_out_is_compressed_once_for_each_set(lab):
    """On each shard that has such clients; window sizes and listeners tell sets apart."""
    clients = [DeflateClient(lab, listener, "permessage-deflate") for listener in ("on", "both") for _ in range(20)]
    clients += [DeflateClient(lab, "on", "permessage-deflate; server_max_window_bits=9") for _ in range(10)]
    for client in clients:
        lab.site.g.join_group(lab.heard.connection_id(client.key), b"g")
    lab.site.g.sync()
    for send in (lab.site.g.send_to_all, lambda body: lab.site.g.send_to_group([b"g"], body)):
        before = {name: lab.site.counter(name) for name in ("deflate_compressions", "deflate_messages_out")}
        send(SAMPLE)
        for client in clients:
            assert client.read() == SAMPLE and client.last_rsv == RSV1
        assert lab.site.counter("deflate_messages_out") - before["deflate_messages_out"] == len(clients)
        assert 1 <= lab.site.counter("deflate_compressions") - before["deflate_compressions"] <= 3 * lab.site.shards
    for client in clients:
        client.leave()


def test_a_slow_reader_loses_whole_messages_and_nothing_else(lab, gateway_factory):
    """drop_oldest and drop_newest, with take-over: what is dropped must not be referred to by what is not."""
    for policy in ("drop_oldest", "drop_newest"):
        other = Lab(gateway_factory, "tls" if lab.is_tls else "plain", {"both": {**DEFLATE, "deflate_takeover": "yes"}},
                    gateway={"slow_reader_policy": policy, "send_to_client_buffer_size": 65536})
        try:
            client = DeflateClient(other, "both", "permessage-deflate", rcvbuf=4096)
            connection_id = other.heard.connection_id(client.key)
            chance = random.Random(10)
            common = bodies(chance, "text", 3000)
            for i in range(1500):
                other.site.g.send_to_one(connection_id, b"%06d" % i + chance.randbytes(8000).hex().encode() + common)
                if i % 50 == 7:
                    other.site.g.send_to_all(b"%06d" % i + common)
            other.site.g.sync()
            # What a client's own compressor made cannot be taken out again: with take-over the newest goes, whatever the policy.
            assert other.site.counter("dropped_slow_reader_newest") > 10
            numbers = []
            client.client.send_bytes(frame(PING, b"end"))
            while True:
                got = client.client.read_frame()
                if got.opcode == PONG:
                    break
                data = client.inflate(got.payload) if got.rsv else got.payload
                assert data.endswith(common)
                numbers.append(int(data[:6]))
            assert numbers == sorted(numbers) and 10 < len(numbers) < 1530
            client.echo(common)
            client.leave()
        finally:
            other.close()


def test_over_the_budget_new_clients_go_uncompressed(lab, gateway_factory):
    other = Lab(gateway_factory, "tls" if lab.is_tls else "plain", {"both": {**DEFLATE, "deflate_takeover": "yes"}},
                gateway={"deflate_memory": 1_000_000}, shards=1)
    try:
        clients = [DeflateClient(other, "both", "permessage-deflate") for _ in range(40)]
        agreed = sum(bool(client.agreed) for client in clients)
        assert 1 <= agreed < 40
        assert [bool(client.agreed) for client in clients] == [True] * agreed + [False] * (40 - agreed)
        assert other.site.counter("deflate_declined_memory") == 40 - agreed
        assert 0 < other.site.gauge("deflate_bytes") <= 1_000_000
        for client in clients:
            client.echo(SAMPLE)
        other.site.g.send_to_all(SAMPLE)
        for client in clients:
            assert client.read() == SAMPLE
            client.leave()
        other.site.wait_gauge("clients", 0)
        wait_for(lambda: other.site.gauge("deflate_bytes") == 0, what="all memory of compression given back")
        again = DeflateClient(other, "both", "permessage-deflate")
        assert again.agreed
        again.leave()
    finally:
        other.close()


# ---- clients of other makes

ODD_SIZES = [0, 1, 125, 126, 1000, 65535, 65536, 300_000]


@pytest.mark.parametrize("listener", ["on", "both", "none", "narrow", "min"])
@pytest.mark.parametrize("wish", [{}, {"client_max_window_bits": True}, {"server_no_context_takeover": True, "client_no_context_takeover": True},
                                  {"server_max_window_bits": 9, "client_max_window_bits": 9},
                                  {"server_max_window_bits": 12, "client_max_window_bits": 15}],
                         ids=["plainest", "client bits", "no take-over", "9", "12 and 15"])
def test_python_websockets(lab, listener, wish):
    async def talk(ws):
        assert [extension.name for extension in ws.extensions] == ["permessage-deflate"]
        for size in ODD_SIZES + ODD_SIZES[:-1]:
            text = long_text()[:size]
            await ws.send(text)
            assert await ws.recv() == text
            data = os.urandom(size // 2).ljust(size, b"\xff")
            await ws.send(data)
            assert await ws.recv() == (data or "")
        await ws.send(["frag", "", "men", "ted"])
        assert await ws.recv() == "fragmented"
        await (await ws.ping(b"are you there"))

    run_python_websockets(lab, listener, talk, compression=None, extensions=[ClientPerMessageDeflateFactory(**wish)])


@pytest.mark.parametrize("listener, wish", [
    ("on", {}), ("both", {}), ("none", {}), ("narrow", {}), ("both", {"serverNoContextTakeover": True, "clientNoContextTakeover": True}),
    ("both", {"serverMaxWindowBits": 9, "clientMaxWindowBits": 10}), ("min", {"clientMaxWindowBits": True}),
], ids=lambda value: value if isinstance(value, str) else "+".join(value) or "plainest")
def test_npm_ws(lab, listener, wish):
    seen = run_npm_ws(lab, listener, deflate={"threshold": 0, **wish}, messages=["a", "\u00e9\U0001f600" * 100, {"hex": "ff00" * 50}],
                      sizes=ODD_SIZES * 2, clients=2)
    for client in seen:
        assert client["extensions"] == "permessage-deflate"
        assert (client["echoed"], client["code"], client["pongs"]) == (3 + 4 * len(ODD_SIZES), 4000, 1)
