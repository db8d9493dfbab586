# SPDX-License-Identifier: MIT
"""RFC 6455, frame by frame, in the manner of the Autobahn test suite: each case is a table entry that says what a client
sends and all that comes of it: what the worker gets, what is echoed, pongs, the close frame and how the stream ends.

Every case runs over plain TCP and over TLS, in one segment and byte by byte; those that must fail also with nothing sent
behind the byte at which they fail, because an error is to be seen there and not later.
"""

import itertools
import random
import struct
import zlib

import pytest

from wsclient import BINARY, CLOSE, CONTINUATION, MASK, PING, PONG, RSV1, RSV2, RSV3, TEXT, close_payload, frame, mask_bytes
from wslab import (NO_CODE, Case, Lab, by_name, check_close_frame, converse, expect_clean_end, opcode_of, part_politely, read_conversation,
                   send_chopped)

pytestmark = pytest.mark.tgg_only

SMALL = 1000  # package_size_max of a listener
LIMIT = 10485760  # the default


@pytest.fixture(scope="module", params=["plain", "tls"])
def lab(request, gateway_factory):
    lab_ = Lab(gateway_factory, request.param, {"echo": {}, "small": {"package_size_max": SMALL}}, gateway={"worker_packet_size_max": 2 * LIMIT})
    yield lab_
    lab_.close()


BY_BYTE_MAX = 400  # bytes; longer cases go in one segment and in a few large pieces


def converse_every_way(lab, case, listener="echo"):
    """Whole and in pieces, all of it and no more than is needed; over TLS only two of these four, as its handshakes take time."""
    chop = 1 if len(case.data) <= BY_BYTE_MAX else len(case.data) // 7 + 1
    ways = [(None, case.data), (chop, case.data)]
    if case.fails_at is not None:
        assert case.fails_at <= len(case.data)
        ways += [(None, case.data[: case.fails_at]), (chop, case.data[: case.fails_at])]
    if lab.is_tls:
        ways = ways[zlib.crc32(case.name.encode()) % 2 :: 2]
    for chop, data in ways:
        converse(lab, case, chop, data, listener)


# Something good before the case, so that the connection is one that was in use.
BEFORE = b"before"
PREFIX = frame(TEXT, BEFORE)
NAMES = {CONTINUATION: "continuation", TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong"}
DATA_OPCODES, CONTROL_OPCODES = (TEXT, BINARY), (CLOSE, PING, PONG)
ALL_OPCODES = (CONTINUATION, *DATA_OPCODES, *CONTROL_OPCODES)
UNKNOWN_OPCODES = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)


def name_of(opcode):
    return NAMES.get(opcode, "opcode %d" % opcode)


def payload_for(opcode, size):
    """Text for text, and bytes that are no text for the rest, so that the echo shows the opcode."""
    if opcode == TEXT:
        return bytes(97 + i % 26 for i in range(size))
    return bytes((200 + i * 7) % 256 for i in range(size))


def unfinished(opcode):
    """What makes this opcode the right one to come next."""
    return frame(TEXT, b"in ", fin=False) if opcode == CONTINUATION else b""


def within(opcode):
    return b"in " if opcode == CONTINUATION else b""


# ---- 1: messages of every size, in pieces of every size

SIZES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 17, 124, 125, 126, 127, 128, 129, 255, 256, 257, 1023, 1024, 4093, 4096, 16383, 16384, 16385,
         65532, 65535, 65536, 65537, 131072, 1 << 20]
CHOPS = [None, 1, 2, 3, 5, 7, 13, 64, 127, 536, 997, 1448, 4096, 16384, 65536]
SENDS_MAX = 1100


@pytest.mark.parametrize("opcode", DATA_OPCODES, ids=name_of)
def test_echo_of_every_size_in_pieces_of_every_size(lab, opcode):
    client = lab.connect()
    expected = []
    for size in SIZES:
        payload = payload_for(opcode, size)
        data = frame(opcode, payload)
        for chop in CHOPS:
            if chop is not None and (len(data) / chop > SENDS_MAX or chop > len(data)):
                continue
            if size > 100_000 and chop not in (None, 997, 16384):
                continue
            assert send_chopped(client, data, chop)
            got = client.read_frame()
            assert (got.opcode, got.payload) == (opcode_of(payload), payload), (size, chop)
            expected.append(payload)
    part_politely(client)
    assert lab.heard.take(client.key) == expected


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 1 << 20])
@pytest.mark.parametrize("opcode", DATA_OPCODES, ids=name_of)
def test_echo(lab, opcode, size):
    payload = payload_for(opcode, size)
    converse(lab, Case("", frame(opcode, payload), [payload]))


@pytest.mark.parametrize("fragment", [1, 64, 125, 126, 1000, 1024, 65535, 65536, 262144])
@pytest.mark.parametrize("opcode", DATA_OPCODES, ids=name_of)
def test_echo_of_messages_in_fragments_of_every_size(lab, opcode, fragment):
    client = lab.connect()
    for size in (1, 2, 127, 1000, 65536, 1 << 20):
        if not 1 <= size / fragment <= 4096:
            continue
        payload = payload_for(opcode, size)
        parts = [payload[at : at + fragment] for at in range(0, size, fragment)]
        client.send_bytes(b"".join(frame(opcode if i == 0 else CONTINUATION, part, fin=i == len(parts) - 1) for i, part in enumerate(parts)))
        got = client.read_frame()
        assert (got.opcode, got.payload) == (opcode_of(payload), payload)
    part_politely(client)


def test_echo_of_pieces_at_random(lab):
    """Messages, fragments and pings cut wherever chance has it. The seed is fixed."""
    chance = random.Random(6455)
    client = lab.connect()
    data, messages, pongs = b"", [], []
    for _ in range(90):
        opcode = chance.choice(DATA_OPCODES)
        payload = payload_for(opcode, chance.choice([0, 1, 125, 126, 300, 2000]))
        cuts = sorted(chance.randrange(len(payload) + 1) for _ in range(chance.choice([0, 0, 1, 2, 5])))
        parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)])]
        for i, part in enumerate(parts):
            data += frame(opcode if i == 0 else CONTINUATION, part, fin=i == len(parts) - 1, mask=chance.randbytes(4))
            if chance.random() < 0.3 and len(pongs) < 60:
                pongs.append(chance.randbytes(chance.choice([0, 1, 125])))
                data += frame(PING, pongs[-1])
        messages.append(payload)
    at = 0
    while at < len(data):
        piece = chance.choice([1, 2, 3, 10, 500, 5000])
        client.send_bytes(data[at : at + piece])
        at += piece
    got_messages, got_pongs, _ = read_conversation(client, len(messages), len(pongs), False)
    assert got_messages == messages and got_pongs == pongs
    part_politely(client)


@pytest.mark.parametrize("mask", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04", b"\x80\0\0\0", b"\0\0\0\x80"], ids=bytes.hex)
def test_every_kind_of_mask_at_every_alignment(lab, mask):
    client = lab.connect()
    for size in [*range(0, 40), 255, 256, 257, 8191, 8192, 8193, 70_001]:
        payload = b"\xff" + payload_for(BINARY, size)
        client.send_frame(BINARY, payload, mask=mask)
        got = client.read_frame()
        assert (got.opcode, got.payload) == (BINARY, payload)
    part_politely(client)


# ---- 2: pings and pongs


def ping_cases():
    for size in (0, 1, 2, 63, 124, 125):
        payload = payload_for(BINARY, size)
        yield Case("ping of %d" % size, frame(PING, payload), pongs=[payload])
        yield Case("pong of %d, unasked" % size, frame(PONG, payload) + frame(TEXT, b"x"), [b"x"])
        yield Case("pong of %d and ping" % size, frame(PONG, payload) + frame(PING, b"p"), pongs=[b"p"])
    text = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
    yield Case("ping that is not text", frame(PING, text), pongs=[text])
    yield Case("ten pings", b"".join(frame(PING, b"payload-%d" % i) for i in range(10)), pongs=[b"payload-%d" % i for i in range(10)])
    yield Case("pings between messages", b"".join(frame(TEXT, b"m%d" % i) + frame(PING, b"p%d" % i) for i in range(10)),
               [b"m%d" % i for i in range(10)], [b"p%d" % i for i in range(10)])
    yield Case("ping and close", frame(PING, b"p") + frame(CLOSE, close_payload(1000)), pongs=[b"p"], close=1000)
    yield Case("close and ping", frame(CLOSE, close_payload(1000)) + frame(PING, b"p"), close=1000)
    for opcode in CONTROL_OPCODES:
        for size, form in ((126, None), (127, None), (1000, None), (65535, None), (65536, None), (125, 16), (0, 16), (125, 64), (0, 64)):
            payload = close_payload(1000, b"r" * (size - 2)) if opcode == CLOSE and size > 1 else payload_for(BINARY, size)
            yield Case("%s of %d%s" % (name_of(opcode), size, " in %d bits" % form if form else ""),
                       PREFIX + frame(opcode, payload, length_form=form), [BEFORE], close=1002, fails_at=len(PREFIX) + 2)
        yield Case("%s in fragments" % name_of(opcode), PREFIX + frame(opcode, b"", fin=False), [BEFORE], close=1002, fails_at=len(PREFIX) + 1)
        yield Case("%s in fragments within a message" % name_of(opcode), frame(TEXT, b"a", fin=False) + frame(opcode, b"", fin=False), close=1002,
                   fails_at=len(frame(TEXT, b"a")) + 1)


@by_name(ping_cases())
def test_control_frames(lab, case):
    converse_every_way(lab, case)


def test_a_ping_is_answered_while_a_frame_is_on_its_way(lab):
    """A message between whose fragments the client waits for an answer."""
    client = lab.connect()
    client.send_bytes(frame(TEXT, b"a", fin=False) + frame(PING, b"1"))
    assert client.read_frame().payload == b"1"
    client.send_bytes(frame(CONTINUATION, b"b", fin=False) + frame(PING, b"2")[:5])
    client.send_bytes(frame(PING, b"2")[5:] + frame(CONTINUATION, b"c")[:3])
    assert client.read_frame().payload == b"2"
    client.send_bytes(frame(CONTINUATION, b"c")[3:])
    assert client.read_message() == b"abc"
    part_politely(client)


# ---- 3: reserved bits


def reserved_cases():
    bits = [a | b | c for a, b, c in itertools.product((0, RSV1), (0, RSV2), (0, RSV3)) if a | b | c]
    for rsv, opcode in itertools.product(bits, ALL_OPCODES):
        head = PREFIX + unfinished(opcode)
        name = "RSV %d%d%d on %s" % (rsv >> 6 & 1, rsv >> 5 & 1, rsv >> 4 & 1, name_of(opcode))
        for size in (0, 5):
            payload = close_payload(1000, b"bye") if opcode == CLOSE and size else payload_for(opcode, size)
            yield Case("%s of %d" % (name, size), head + frame(opcode, payload, rsv=rsv) + frame(PING), [BEFORE], close=1002, fails_at=len(head) + 1)
        if opcode not in CONTROL_OPCODES:
            yield Case("%s, not the last" % name, head + frame(opcode, b"x", rsv=rsv, fin=False), [BEFORE], close=1002, fails_at=len(head) + 1)


@by_name(reserved_cases())
def test_reserved_bits(lab, case):
    converse_every_way(lab, case)


# ---- 4: opcodes that nobody knows


def opcode_cases():
    for opcode, fin, in_message, size in itertools.product(UNKNOWN_OPCODES, (True, False), (False, True), (0, 1, 126)):
        head = PREFIX + (frame(TEXT, b"x", fin=False) if in_message else b"")
        name = "opcode %d of %d%s%s" % (opcode, size, "" if fin else ", not the last", ", within a message" if in_message else "")
        yield Case(name, head + frame(opcode, b"z" * size, fin=fin), [BEFORE], close=1002, fails_at=len(head) + 1)


@by_name(opcode_cases())
def test_unknown_opcodes(lab, case):
    converse_every_way(lab, case)


# ---- masks and lengths


def mask_cases():
    for opcode, size in itertools.product(ALL_OPCODES, (0, 1, 125)):
        head = PREFIX + unfinished(opcode)
        payload = close_payload(1000, b"r" * (size - 2)) if opcode == CLOSE and size > 1 else payload_for(opcode, size)
        yield Case("%s of %d, not masked" % (name_of(opcode), size), head + frame(opcode, payload, mask=None), [BEFORE], close=1002,
                   fails_at=len(head) + 2)
    for opcode, size in itertools.product((CONTINUATION, TEXT, BINARY), (126, 65535, 65536)):
        head = PREFIX + unfinished(opcode)
        yield Case("%s of %d, not masked" % (name_of(opcode), size), head + frame(opcode, payload_for(opcode, size), mask=None), [BEFORE], close=1002,
                   fails_at=len(head) + 2)


@by_name(mask_cases())
def test_frames_that_are_not_masked(lab, case):
    converse_every_way(lab, case)


def length_head(opcode, form, value):
    return bytes([0x80 | opcode, 0x80 | (126 if form == 16 else 127)]) + struct.pack(">H" if form == 16 else ">Q", value) + MASK


def length_cases():
    for opcode in (CONTINUATION, TEXT, BINARY):
        head = PREFIX + unfinished(opcode)
        for value in (0, 1, 124, 125):
            yield Case("%s, %d in 16 bits" % (name_of(opcode), value), head + length_head(opcode, 16, value), [BEFORE], close=1002,
                       fails_at=len(head) + 4)
        for value in (0, 1, 125, 126, 127, 65534, 65535):
            yield Case("%s, %d in 64 bits" % (name_of(opcode), value), head + length_head(opcode, 64, value), [BEFORE], close=1002,
                       fails_at=len(head) + 10)
        for value in (1 << 63, (1 << 63) + 1, (1 << 63) + 5, (1 << 64) - 1):
            yield Case("%s, 0x%x" % (name_of(opcode), value), head + length_head(opcode, 64, value), [BEFORE], close=1002, fails_at=len(head) + 3)
        for value in (LIMIT + 1, 1 << 24, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, (1 << 63) - 1):
            yield Case("%s, 0x%x" % (name_of(opcode), value), head + length_head(opcode, 64, value), [BEFORE], close=1009, fails_at=len(head) + 10)


@by_name(length_cases())
def test_lengths_that_may_not_be(lab, case):
    converse_every_way(lab, case)


@pytest.mark.parametrize("size", [126, 127, 128, 65534, 65535])
def test_the_shortest_16_bit_lengths(lab, size):
    converse(lab, Case("", frame(BINARY, b"\xff" * size, length_form=16), [b"\xff" * size]))


@pytest.mark.parametrize("size", [65536, 65537])
def test_the_shortest_64_bit_lengths(lab, size):
    converse(lab, Case("", frame(BINARY, b"\xff" * size, length_form=64), [b"\xff" * size]))


# ---- 5: fragments


def fragment_cases():
    def first(payload, opcode=TEXT):
        return frame(opcode, payload, fin=False)

    def middle(payload):
        return frame(CONTINUATION, payload, fin=False)

    def last(payload):
        return frame(CONTINUATION, payload)

    for opcode in DATA_OPCODES:
        tag = b"" if opcode == TEXT else b"\xff"
        n = name_of(opcode)
        yield Case("%s in two" % n, first(b"ab" + tag, opcode) + last(b"cd"), [b"ab" + tag + b"cd"])
        yield Case("%s in five" % n, first(b"a", opcode) + middle(b"b") + middle(b"c") + middle(tag) + last(b"e"), [b"abc" + tag + b"e"])
        yield Case("%s, empty parts" % n, first(b"", opcode) + middle(b"") + last(b""), [b""])
        yield Case("%s, empty first" % n, first(b"", opcode) + last(b"x" + tag), [b"x" + tag])
        yield Case("%s, empty middle" % n, first(b"x", opcode) + middle(b"") + last(b"y" + tag), [b"xy" + tag])
        yield Case("%s, empty last" % n, first(b"x" + tag, opcode) + last(b""), [b"x" + tag])
        yield Case("%s, a hundred empty parts" % n, first(b"x" + tag, opcode) + middle(b"") * 100 + last(b"y"), [b"x" + tag + b"y"])
        yield Case("%s with a ping within" % n, first(b"1", opcode) + frame(PING, b"p") + last(b"2" + tag), [b"12" + tag], [b"p"])
        yield Case("%s with an empty ping within" % n, first(b"1", opcode) + frame(PING) + last(b"2" + tag), [b"12" + tag], [b""])
        yield Case("%s with a pong within" % n, first(b"1", opcode) + frame(PONG, b"p" * 125) + last(b"2" + tag), [b"12" + tag])
        yield Case("%s with pings everywhere" % n, b"".join(first(b"%d" % i, opcode) + frame(PING, b"a%d" % i) + middle(b"") + frame(PING, b"b%d" % i)
                                                        + last(tag) for i in range(5)),
                   [b"%d" % i + tag for i in range(5)], [b"%s%d" % (x, i) for i in range(5) for x in (b"a", b"b")])
        yield Case("%s, two messages in parts" % n, first(b"a", opcode) + last(b"b" + tag) + first(b"c", opcode) + last(b"d" + tag),
                   [b"ab" + tag, b"cd" + tag])
        yield Case("close within %s" % n, PREFIX + first(b"a", opcode) + frame(CLOSE, close_payload(1000)) + last(b"b"), [BEFORE], close=1000,
                   fails_at=len(PREFIX + first(b"a", opcode) + frame(CLOSE, close_payload(1000))))
        for inner, how, parts in itertools.product(DATA_OPCODES, ("whole", "part"), (1, 3)):
            begun = PREFIX + first(b"a", opcode) + middle(b"b") * (parts - 1)
            yield Case("%s (%s) within %s of %d" % (name_of(inner), how, n, parts), begun + frame(inner, b"x", fin=how == "whole") + last(b"y"),
                       [BEFORE],
                       close=1002, fails_at=len(begun) + 1)
        for rest in ("whole", "part"):
            done = PREFIX + first(b"a", opcode) + last(b"b" + tag)
            yield Case("continuation (%s) behind %s" % (rest, n), done + frame(CONTINUATION, b"c", fin=rest == "whole"), [BEFORE, b"ab" + tag],
                       close=1002,
                       fails_at=len(done) + 1)
    for rest, size in itertools.product(("whole", "part"), (0, 1, 126)):
        alone = frame(CONTINUATION, b"c" * size, fin=rest == "whole")
        yield Case("continuation (%s) of %d, first of all" % (rest, size), alone, close=1002, fails_at=1)
        yield Case("continuation (%s) of %d, after a message" % (rest, size), PREFIX + alone, [BEFORE], close=1002, fails_at=len(PREFIX) + 1)
        yield Case("continuation (%s) of %d, after a ping" % (rest, size), frame(PING, b"p") + alone, pongs=[b"p"], close=1002,
                   fails_at=len(frame(PING, b"p")) + 1)


@by_name(fragment_cases())
def test_fragments(lab, case):
    converse_every_way(lab, case)


# ---- 6: UTF-8

GREEK = "κόσμε".encode()
SMILE = "\U0001f600".encode()

GOOD_TEXTS = [
    b"", b"Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!", GREEK, SMILE, b"\0", b"a\0b", b"\x7f",
    *(chr(c).encode() for c in (0x80, 0x7FF, 0x800, 0xFFF, 0x1000, 0xCFFF, 0xD000, 0xD7FF, 0xE000, 0xFDD0, 0xFFFD, 0xFFFE, 0xFFFF, 0x10000, 0x1FFFE,
                                0x1FFFF, 0x3FFFF, 0x40000, 0xFFFFF, 0x100000, 0x10FFFE, 0x10FFFF, 0xFEFF)),
]


@pytest.mark.parametrize("pad", [0, 1, 15, 16, 17, 63, 255, 8190])
def test_good_text_in_every_surrounding(lab, pad):
    client = lab.connect()
    for text in GOOD_TEXTS:
        body = b"a" * pad + text + b"z" * (pad % 7)
        client.send_text(body)
        got = client.read_frame()
        assert (got.opcode, got.payload) == (TEXT, body)
    part_politely(client)


def test_every_code_point(lab):
    """All of them that there are, in messages of 4096."""
    client = lab.connect()
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for at in range(0, len(points), 16384):
        text = "".join(points[at : at + 16384]).encode()
        client.send_text(text)
        assert client.read_message() == text
    part_politely(client)


@pytest.mark.parametrize("text", [GREEK, SMILE, "\u00e9\u20ac\U0010ffff".encode()], ids=["greek", "smile", "2+3+4"])
def test_good_text_split_everywhere(lab, text):
    """Into two and three fragments at every place, with a ping within; and in segments of one byte, within one frame."""
    client = lab.connect()
    n = 0
    for a in range(len(text) + 1):
        client.send_bytes(frame(TEXT, text[:a], fin=False) + frame(CONTINUATION, text[a:]))
        n += 1
        for b in range(a, len(text) + 1):
            client.send_bytes(frame(TEXT, text[:a], fin=False) + frame(CONTINUATION, text[a:b], fin=False) + frame(CONTINUATION, text[b:]))
            n += 1
    client.send_bytes(frame(TEXT, b"", fin=False) + b"".join(frame(CONTINUATION, text[i : i + 1], fin=False) + frame(PONG) for i in range(len(text)))
                      + frame(CONTINUATION, b""))
    assert send_chopped(client, frame(TEXT, text), 1)
    for _ in range(n + 2):
        got = client.read_frame()
        assert (got.opcode, got.payload) == (TEXT, text)
    part_politely(client)


def first_bad(data):
    """How many bytes show that this is no UTF-8, None: it is the start of some; by Python's decoder."""
    for n in range(1, len(data) + 1):
        try:
            data[:n].decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                return n
    return None


def is_whole(data):
    return first_bad(data) is None and bool(data.decode(errors="ignore"))


EDGES = (0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xF0, 0xFF)


def bad_sequences(lead):
    """Those that begin with this byte and are bad at their last one, with each boundary of what may follow it. Further
    on only the first and the last of those that are good so far are followed: the others differ in nothing."""
    found, level = [], [bytes([lead])]
    while level:
        good = [start for start in level if first_bad(start) is None and not is_whole(start)]
        found += [start for start in level if first_bad(start) is not None]
        edges = EDGES if len(good) == 1 and len(good[0]) == 1 else (0x7F, 0x80, 0xBF, 0xC0)
        level = [start + bytes([x]) for start in {*good[:1], *good[-1:]} for x in edges]
    return sorted(found)


BAD = {lead: bad_sequences(lead) for lead in range(0x80, 0x100)}


@pytest.mark.parametrize("lead", BAD, ids=lambda b: "%02x" % b)
def test_bad_text_fails_at_its_first_bad_byte(lab, lead):
    for start in BAD[lead][:: 4 if lab.is_tls else 1]:
        assert first_bad(start) == len(start)
        whole = frame(TEXT, b"abc" + start + b"zzzz" * 5)
        case = Case("", whole, close=1007)
        converse(lab, case, data=whole[: 6 + 3 + len(start)])
    if BAD[lead]:
        converse(lab, case)
        converse(lab, Case("", PREFIX + frame(TEXT, start, fin=False), [BEFORE], close=1007))


OVERLONG = [b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x80\x80\x80\xaf", b"\xfc\x80\x80\x80\x80\xaf", b"\xc1\xbf",
            b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf",
            b"\xf8\x87\xbf\xbf\xbf", b"\xfc\x83\xbf\xbf\xbf\xbf", b"\xc0\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf8\x80\x80\x80\x80",
            b"\xfc\x80\x80\x80\x80\x80"]
SURROGATES = [b"\xed\xa0\x80", b"\xed\xad\xbf", b"\xed\xae\x80", b"\xed\xaf\xbf", b"\xed\xb0\x80", b"\xed\xbe\x80", b"\xed\xbf\xbf",
              b"\xed\xa0\x80\xed\xb0\x80",
              b"\xed\xaf\xbf\xed\xbf\xbf"]
TOO_LARGE = [b"\xf4\x90\x80\x80", b"\xf7\xbf\xbf\xbf", b"\xf8\x88\x80\x80\x80", b"\xfb\xbf\xbf\xbf\xbf", b"\xfc\x84\x80\x80\x80\x80",
             b"\xfd\xbf\xbf\xbf\xbf\xbf"]
LONELY = [b"\x80", b"\xbf", b"\x80\xbf", b"\x80\xbf\x80", bytes(range(0x80, 0xC0)), b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"]
CUT = [b"\xc2", b"\xdf", b"\xe0\xa0", b"\xe2", b"\xe2\x82", b"\xef\xbf", b"\xf0", b"\xf0\x9f", b"\xf0\x9f\x98", b"\xf4\x8f\xbf"]


def bad_text_cases():
    for bad in OVERLONG + SURROGATES + TOO_LARGE + LONELY:
        at = first_bad(bad)
        yield Case("%s" % bad.hex(), PREFIX + frame(TEXT, b"a" + bad + b"z"), [BEFORE], close=1007, fails_at=len(PREFIX) + 7 + at)
        yield Case("%s after good text" % bad.hex(), frame(TEXT, GREEK + bad + b"edited"), close=1007, fails_at=6 + len(GREEK) + at)
        yield Case("%s in a later fragment" % bad.hex(), frame(TEXT, GREEK, fin=False) + frame(CONTINUATION, bad, fin=False)
                   + frame(CONTINUATION, b"z"),
                   close=1007, fails_at=6 + len(GREEK) + 6 + at)
        if at > 1:
            yield Case("%s split over fragments" % bad.hex(), frame(TEXT, bad[: at - 1], fin=False) + frame(PONG)
                       + frame(CONTINUATION, bad[at - 1 :]),
                       close=1007, fails_at=6 + at - 1 + 6 + 7)
        yield Case("%s far behind" % bad.hex(), frame(TEXT, b"a" * 70_000 + bad), close=1007)
    for cut in CUT:
        yield Case("%s and no more" % cut.hex(), PREFIX + frame(TEXT, b"a" + cut), [BEFORE], close=1007)
        yield Case("%s and no more, in fragments" % cut.hex(), frame(TEXT, cut, fin=False) + frame(CONTINUATION, b""), close=1007)
        yield Case("%s and no more, far behind" % cut.hex(), frame(TEXT, b"a" * 300 + cut), close=1007)
        yield Case("%s and something else" % cut.hex(), frame(TEXT, cut, fin=False) + frame(CONTINUATION, b"a", fin=False), close=1007,
                   fails_at=6 + len(cut) + 7)
        yield Case("%s in a message, the rest in the next" % cut.hex(), frame(TEXT, cut) + frame(TEXT, b"\x80" * 3), close=1007,
                   fails_at=6 + len(cut))


@by_name(bad_text_cases())
def test_bad_text(lab, case):
    converse_every_way(lab, case)


@pytest.mark.parametrize("kind", ["overlong", "surrogates", "too_large", "lonely", "cut"])
def test_binary_may_be_anything(lab, kind):
    client = lab.connect()
    for bad in {"overlong": OVERLONG, "surrogates": SURROGATES, "too_large": TOO_LARGE, "lonely": LONELY, "cut": CUT}[kind]:
        client.send_binary(bad)
        client.send_bytes(frame(BINARY, bad[:1], fin=False) + frame(CONTINUATION, bad[1:]))
        for _ in range(2):
            got = client.read_frame()
            assert (got.opcode, got.payload) == (BINARY, bad)
    client.send_bytes(frame(PING, b"".join(SURROGATES)[:125]))
    assert client.read_frame().payload == b"".join(SURROGATES)[:125]
    part_politely(client)


# ---- 7: close frames

# Section 7.4, with 1012 to 1014 of IANA's registry.
GOOD_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3001, 3999, 4000, 4001, 4999]
BAD_CODES = [0, 1, 125, 126, 999, 1004, 1005, 1006, 1015, 1016, 1017, 1099, 1100, 1999, 2000, 2001, 2999, 5000, 5001, 9999, 32768, 65534, 65535]


def close_cases():
    text = "Grund \u00e9\U0001f600".encode()
    for code in GOOD_CODES:
        for name, reason in (("", b""), (" and a reason", text), (" and the longest reason", b"r" * 123),
                             (" and the longest reason of all lengths", GREEK * 11)):
            yield Case("%d%s" % (code, name), PREFIX + frame(CLOSE, close_payload(code, reason)), [BEFORE], close=code)
        yield Case("%d and a reason too long" % code, frame(CLOSE, close_payload(code, b"r" * 124)), close=1002, fails_at=2)
    for code in BAD_CODES:
        for name, reason in (("", b""), (" and a reason", text)):
            yield Case("%d%s" % (code, name), PREFIX + frame(CLOSE, close_payload(code, reason)), [BEFORE], close=1002)
    yield Case("without a code", PREFIX + frame(CLOSE), [BEFORE], close=NO_CODE)
    yield Case("of one byte", PREFIX + frame(CLOSE, b"\x03"), [BEFORE], close=1002)
    yield Case("of one byte 0", frame(CLOSE, b"\0"), close=1002)
    for bad in OVERLONG[:3] + SURROGATES[:2] + TOO_LARGE[:1] + LONELY[:3] + CUT:
        yield Case("reason %s" % bad.hex(), PREFIX + frame(CLOSE, close_payload(1000, b"why " + bad)), [BEFORE], close=1007)
    yield Case("reason of zeros", frame(CLOSE, close_payload(1000, b"\0" * 123)), close=1000)
    yield Case("twice", frame(CLOSE, close_payload(1000)) + frame(CLOSE, close_payload(1001)), close=1000)
    yield Case("and a message", frame(CLOSE, close_payload(1000)) + frame(TEXT, b"after"), close=1000)
    yield Case("and a megabyte", frame(CLOSE, close_payload(1000)) + frame(BINARY, b"\xff" * (1 << 20)), close=1000)
    yield Case("and what breaks the protocol", frame(CLOSE, close_payload(1000)) + b"\xff" * 100, close=1000)
    yield Case("with a bad code and reason", frame(CLOSE, close_payload(999, b"\xff")), close=1002)


@by_name(close_cases())
def test_close(lab, case):
    converse_every_way(lab, case)


def test_every_close_code_there_is(lab):
    """In steps of a prime, so that each run of them is met; the rule is that of sections 7.4.1 and 7.4.2."""
    codes = [*range(990, 1020), *range(1020, 66000, 997), *range(2995, 3003), *range(3997, 4003), *range(4997, 5003)]
    for code in codes[:: 4 if lab.is_tls else 1]:
        is_good = code in GOOD_CODES or 3000 <= code <= 4999
        if code < 65536:
            converse(lab, Case("", frame(CLOSE, close_payload(code)), close=code if is_good else 1002))


def test_an_end_without_a_close_frame(lab):
    for data in (b"", PREFIX, frame(TEXT, b"half", fin=False), frame(TEXT, b"x" * 100)[:50], frame(CLOSE, close_payload(1000))[:3]):
        client = lab.connect()
        client.send_bytes(data)
        client.close()
        assert lab.heard.take(client.key) == ([BEFORE] if data is PREFIX else [])


def test_a_half_closed_connection_still_gets_its_echo(lab):
    """The client says close and ends its side at once (TLS: without close_notify)."""
    client = lab.connect()
    client.send_bytes(PREFIX)
    assert client.read_message() == BEFORE
    client.send_bytes(frame(CLOSE, close_payload(4000)))
    _, _, close = read_conversation(client, 0, 0, True)
    check_close_frame(close, 4000)
    expect_clean_end(client)


@pytest.mark.parametrize("code", [1000, 3000, 4999])
def test_closed_by_the_worker_and_answered_in_every_way(lab, code):
    """KICK closes with 1000; the client's answer may carry any code, none, or be no answer at all but an end."""
    for answer in (close_payload(code), b"", close_payload(code, GREEK), None):
        client = lab.connect()
        client.send_bytes(PREFIX)
        assert client.read_message() == BEFORE
        lab.site.g.kick(lab.heard.connection_id(client.key), b"good bye")
        assert client.read_message() == b"good bye"
        got = client.read_frame()
        assert got.opcode == CLOSE and got.code in (None, 1000)
        if answer is None:
            client.close()
        else:
            client.send_frame(CLOSE, answer)
            expect_clean_end(client)
        assert lab.heard.take(client.key) == [BEFORE]


def test_data_behind_our_close_frame_is_dropped(lab):
    client = lab.connect()
    client.send_bytes(PREFIX)
    assert client.read_message() == BEFORE
    lab.site.g.kick(lab.heard.connection_id(client.key), b"good bye")
    assert client.read_message() == b"good bye"
    assert client.read_frame().opcode == CLOSE
    client.send_bytes(frame(TEXT, b"late") + frame(PING, b"late") + frame(TEXT, b"very", fin=False) + frame(CONTINUATION, b" late")
                      + frame(CLOSE, close_payload(1000)))
    expect_clean_end(client)
    assert lab.heard.take(client.key) == [BEFORE]


# ---- 9: limits


def limit_cases():
    full = b"x" * SMALL
    yield Case("exactly", frame(TEXT, full), [full])
    yield Case("exactly, binary", frame(BINARY, b"\xff" * SMALL), [b"\xff" * SMALL])
    yield Case("exactly, in two", frame(TEXT, full[:600], fin=False) + frame(CONTINUATION, full[600:]), [full])
    yield Case("exactly, and an empty last", frame(TEXT, full, fin=False) + frame(CONTINUATION), [full])
    yield Case("exactly, twice", frame(TEXT, full) * 2, [full] * 2)
    yield Case("exactly, with a ping within", frame(TEXT, full[1:], fin=False) + frame(PING, b"p" * 125) + frame(CONTINUATION, b"x"), [full],
               [b"p" * 125])
    yield Case("one more", frame(TEXT, full + b"x"), close=1009, fails_at=4)
    yield Case("one more, binary, behind one that is right", frame(BINARY, b"\xff" * SMALL) + frame(BINARY, full + b"x"), [b"\xff" * SMALL],
               close=1009,
               fails_at=len(frame(BINARY, full)) + 4)
    yield Case("one more, in two", frame(TEXT, full[:600], fin=False) + frame(CONTINUATION, full[600:] + b"x"), close=1009,
               fails_at=len(frame(TEXT, full[:600])) + 4)
    yield Case("one more, not the last", frame(TEXT, full, fin=False) + frame(CONTINUATION, b"x", fin=False), close=1009,
               fails_at=len(frame(TEXT, full)) + 2)
    yield Case("one more, byte by byte", frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", fin=False) * SMALL, close=1009)
    yield Case("far more", frame(TEXT, b"x" * 65536), close=1009, fails_at=10)
    yield Case("far more, in two", frame(TEXT, b"x" * 10, fin=False) + frame(CONTINUATION, b"x" * 65536), close=1009, fails_at=16 + 10)
    for size in (1 << 32, (1 << 63) - 1):
        yield Case("0x%x" % size, length_head(TEXT, 64, size) + b"x", close=1009, fails_at=10)
        begun = frame(TEXT, b"x" * 10, fin=False)
        yield Case("0x%x behind a part" % size, begun + length_head(CONTINUATION, 64, size) + b"x", close=1009, fails_at=len(begun) + 10)


@by_name(limit_cases())
def test_the_limit_of_a_message(lab, case):
    converse_every_way(lab, case, listener="small")


def test_the_default_limit_exactly(lab):
    """In one frame and in two."""
    client = lab.connect()
    payload = b"\xff" * LIMIT
    mask = b"\x00\x00\x00\x00"
    lab.heard.is_silent = True
    try:
        client.send_bytes(frame(BINARY, payload, mask=mask))
        client.send_bytes(frame(BINARY, payload[1:], fin=False, mask=mask) + frame(CONTINUATION, b"\xff"))
        client.send_frame(PING, b"there?")
        assert client.read_frame().payload == b"there?"
        part_politely(client)
        bodies = lab.heard.take(client.key)
    finally:
        lab.heard.is_silent = False
    assert len(bodies) == 2 and all(len(body) == LIMIT for body in bodies)


def test_masks_are_undone_across_segments(lab):
    """A payload that is all zeros once masked, and one that is its own mask."""
    for payload in (MASK * 1000, bytes(4000), mask_bytes(b"\xff" * 4000, MASK)):
        converse(lab, Case("", frame(BINARY, payload), [payload]), chop=97)
