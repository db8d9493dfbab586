# SPDX-License-Identifier: MIT
"""Who is there: clients behind proxies (PROXY protocol, X-Forwarded-For, X-Real-IP, Forwarded), IPv6 and Unix-socket
listeners. The address so found is what workers, lists, limits and logs see.

Proxies that are trusted come from 127.0.0.1 (and ::1, and 10.0.0.0/8 in lists); clients of real proxies, and those who are
not trusted, from 127.0.0.5.
"""

import ipaddress
import os
import socket
import ssl
import stat
import time

import pytest

from certs import client_context, make_ca, make_cert
from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE, ON_WEBSOCKET_CONNECT, PATIENCE
from node import Site
from proc import free_port, slow, wait_for
from proxyproto import (DGRAM, INET, LOCAL, PP2_ALPN, PP2_CRC32C, PP2_NOOP, PROXY, SIGNATURE, STREAM, Haproxy, Nginx, v1, v2, v2_header,
                        v2_local, v2_unix)
from tlsclient import OverTls
from wsclient import KEY, TEXT, FrameClient, TcpClient, TextClient, WsClient, frame, request

pytestmark = pytest.mark.tgg_only

TRUSTED = {"trusted_proxies": "127.0.0.1, ::1, 10.0.0.0/8"}
STRANGER = "127.0.0.5"
CLIENTS = {"websocket": WsClient, "text": TextClient, "frame": FrameClient, "tcp": TcpClient}
V4, V6 = ("203.0.113.9", 4711), ("2001:db8::1:2", 4712)


def listener(protocol="websocket", **keys):
    return {"protocol": protocol, **TRUSTED, **keys}


LISTEN = {
    "websocket": None,
    "text": None,
    "frame": None,
    "tcp": None,
    "off": listener(),
    "lines_off": listener("text"),
    "optional": listener(proxy_protocol="optional"),
    "lines_optional": listener("text", proxy_protocol="optional"),
    "required": listener(proxy_protocol="required", tls_handshake_timeout=2),
    "lines_required": listener("text", proxy_protocol="required", tls_handshake_timeout=2),
    "frames_required": listener("frame", proxy_protocol="required"),
    "tcp_required": listener("tcp", proxy_protocol="required"),
    "x_forwarded_for": listener(forwarded="x_forwarded_for"),
    "x_real_ip": listener(forwarded="x_real_ip"),
    "forwarded": listener(forwarded="forwarded"),
    "both": listener(proxy_protocol="required", forwarded="x_forwarded_for"),
    "ipv6": listener(address="::1"),
    "lines_ipv6": listener("text", address="::1", proxy_protocol="optional"),
    "all_ipv6": listener(address="::"),
}


@pytest.fixture(scope="module")
def sockets(tmp_path_factory):
    """Paths of the Unix sockets of the module's gateway. They are kept short: a path has at most 107 bytes."""
    return str(tmp_path_factory.mktemp("s"))


@pytest.fixture(scope="module")
def gateway(gateway_factory, sockets):
    at = lambda name: "unix:%s/%s" % (sockets, name)
    listen = {
        **LISTEN,
        "unix": {"protocol": "websocket", "address": at("ws")},
        "lines_unix": {"protocol": "text", "address": at("lines"), "socket_mode": "0600"},
        "unix_required": {"protocol": "websocket", "address": at("proxy"), "proxy_protocol": "required"},
        "unix_forwarded": {"protocol": "websocket", "address": at("xff"), "forwarded": "x_forwarded_for"},
    }
    gateway_ = gateway_factory(gateway={"deny_list": "203.0.113.66"}, listen=listen, log={"closes": "all"})
    yield gateway_
    gateway_.stop()


@pytest.fixture
def site(gateway):
    site_ = Site(gateway).with_worker()
    yield site_
    site_.close()


# ---- how a test calls


def address_of(site, name):
    """Where that listener is."""
    keys = site.gateway.sections["listen " + name]
    if keys["address"].startswith("unix:"):
        return keys["address"][len("unix:") :]
    return ({"::": "::1", "0.0.0.0": "127.0.0.1"}.get(keys["address"], keys["address"]), int(keys["port"]))


def dial(site, name, *pieces, source=None, address=None):
    """A connection to that listener (or, for a proxy, to `address`) that says so far only these pieces, each sent alone."""
    kind = CLIENTS[site.gateway.sections["listen " + name]["protocol"]]
    how = {"open": False} if kind is WsClient else {}
    client = kind(address or address_of(site, name), source=source, **how)
    site.clients.append(client)
    for piece in pieces:
        client.send_bytes(piece)
    return client


class Seen:
    """What the worker was told of a client."""

    def __init__(self, event, server=None):
        self.id = event.connection_id
        self.gateway_port = event.gateway_port
        self.ip = str(ipaddress.ip_address(event.client_ip))  # of 32 bits
        self.port = event.client_port
        self.server = server

    @property
    def remote(self):
        """What ON_WEBSOCKET_CONNECT says."""
        return (self.server[b"REMOTE_ADDR"].decode(), self.server[b"REMOTE_PORT"])


def arrives(site, client, **handshake):
    """Opens it, if it is a WebSocket; what its worker hears of it."""
    if isinstance(client, WsClient):
        client.handshake(**handshake)
    event = site.worker.wait(ON_CONNECT)
    server = None
    if isinstance(client, WsClient):
        server = site.worker.wait(ON_WEBSOCKET_CONNECT, event.connection_id).value[b"server"]
    return Seen(event, server)


def talks(site, client, seen):
    """It is a client like any other."""
    if isinstance(client, WsClient):
        client.send_text("hello")
    else:
        client.send_message(b"hello")
    body = b""
    while len(body) < 5:
        body += site.worker.wait(ON_MESSAGE, seen.id).body
    assert body == b"hello"
    site.worker.send_to_one(seen.id, b"good day")
    assert client.read_message() == b"good day"


def closed_as_bad(site, client, times=1):
    """It ends without a word, is counted, and no worker has heard of it."""
    client.expect_end()
    site.wait_counter("client_closed_bad_proxy_header", times)
    assert site.worker.quiet() == []


def assert_seen(seen, client_address):
    """In the 32 bits (IPv6: 0), and in full."""
    ip, port = client_address
    assert (seen.ip, seen.port) == (ip if ":" not in ip else "0.0.0.0", port)
    if seen.server is not None:
        assert seen.remote == (ip, port)


def own_address(client):
    return client.sock.getsockname()[:2]


# ---- PROXY protocol

HEADERS = {
    "v1_ipv4": (v1(V4), V4),
    "v1_ipv6": (v1(V6), V6),
    "v2_ipv4": (v2(V4), V4),
    "v2_ipv6": (v2(V6), V6),
    "v2_datagram": (v2(V4, transport=DGRAM), V4),
    "v2_tlvs": (v2(V4, tlvs=[(PP2_ALPN, b"h2"), (PP2_NOOP, bytes(300)), (0xE0, b"ours")]), V4),
    "v2_longest": (v2(V4, tlvs=[(PP2_NOOP, bytes(4096 - 12 - 3))]), V4),
    "v1_mapped": (v1(("::ffff:203.0.113.9", 4711), ("::ffff:198.51.100.1", 443)), V4),
    "v2_mapped": (v2(("::ffff:203.0.113.9", 4711)), V4),
    "v1_port_0": (v1(("203.0.113.9", 0)), ("203.0.113.9", 0)),
}
NO_ADDRESS = {
    "v1_unknown": b"PROXY UNKNOWN\r\n",
    "v1_unknown_long": b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
    "v2_local": v2_local(),
    "v2_local_with_tlv": v2_local([(PP2_CRC32C, b"\1\2\3\4")]),
    "v2_local_with_addresses": v2_header(LOCAL, INET, STREAM, b"\xcb\x00\x71\x09" * 2 + b"\1\2\3\4"),
    "v2_unspecified": v2_header(PROXY, 0, 0, b"whatever"),
    "v2_unix": v2_unix(),
}
BAD = {
    "lf": b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\n",
    "leading_zero": b"PROXY TCP4 203.0.113.09 198.51.100.1 4711 443\r\n",
    "port_too_large": b"PROXY TCP4 203.0.113.9 198.51.100.1 65536 443\r\n",
    "family_of_the_other": b"PROXY TCP6 203.0.113.9 198.51.100.1 4711 443\r\n",
    "unknown_family": b"PROXY UDP4 203.0.113.9 198.51.100.1 4711 443\r\n",
    "two_spaces": b"PROXY TCP4  203.0.113.9 198.51.100.1 4711 443\r\n",
    "too_long": b"PROXY UNKNOWN " + b"x" * 107,
    "v2_version": v2_header(PROXY, INET, STREAM, bytes(12), version=3),
    "v2_command": v2_header(2, INET, STREAM, bytes(12)),
    "v2_family": v2_header(PROXY, 4, STREAM, bytes(12)),
    "v2_transport": v2_header(PROXY, INET, 3, bytes(12)),
    "v2_too_short": v2_header(PROXY, INET, STREAM, bytes(11)),
    "v2_too_long": v2(V4, tlvs=[(PP2_NOOP, bytes(4096 - 12 - 2))]),
}
NONE = {"http": request(), "garbage": b"\0\1\2\3", "almost_v1": b"PROXYTCP4 ", "almost_v2": SIGNATURE[:-1] + b"\r"}


def by_name(cases):
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


@pytest.mark.parametrize("name", ["required", "optional", "lines_required", "lines_optional", "frames_required", "tcp_required"])
@by_name(HEADERS)
def test_the_address_of_the_header(site, name, case):
    header, address = case
    client = dial(site, name, header)
    seen = arrives(site, client)
    assert_seen(seen, address)
    assert seen.gateway_port == int(site.gateway.sections["listen " + name]["port"])
    talks(site, client, seen)
    assert site.counter("proxy_headers") == 1
    client.close()
    assert site.worker.wait(ON_CLOSE, seen.id).client_port == address[1]


@pytest.mark.parametrize("name", ["required", "lines_required", "lines_optional"])
@by_name(NO_ADDRESS)
def test_headers_without_an_address(site, name, case):
    """Health checks of proxies: the connection's own address stands."""
    client = dial(site, name, case)
    seen = arrives(site, client)
    assert_seen(seen, own_address(client))
    talks(site, client, seen)
    assert site.counter("proxy_headers") == 1


@pytest.mark.parametrize("name", ["required", "lines_optional"])
@pytest.mark.parametrize("case", ["v1_ipv6", "v2_ipv4", "v2_tlvs"])
def test_a_header_byte_by_byte(site, name, case):
    header, address = HEADERS[case]
    pieces = [header[i : i + 1] for i in range(min(len(header), 120))] + [header[120:]]
    client = dial(site, name)
    for piece in pieces:
        client.send_bytes(piece)
        time.sleep(0.001)  # so that most come alone
    seen = arrives(site, client)
    assert_seen(seen, address)
    talks(site, client, seen)


@pytest.mark.parametrize("version", [v1, v2], ids=["v1", "v2"])
def test_everything_in_one_piece(site, version):
    """Header, request and first message in one write."""
    client = dial(site, "required", version(V4) + request() + frame(TEXT, b"early"))
    client.finish_handshake()
    event = site.worker.wait(ON_CONNECT)
    assert_seen(Seen(event, site.worker.wait(ON_WEBSOCKET_CONNECT, event.connection_id).value[b"server"]), V4)
    assert site.worker.wait(ON_MESSAGE, event.connection_id).body == b"early"
    line = dial(site, "lines_required", version(V6) + b"one\ntwo\nthr")
    seen = arrives(site, line)
    assert_seen(seen, V6)
    line.send_bytes(b"ee\n")
    assert [site.worker.wait(ON_MESSAGE, seen.id).body for _ in range(3)] == [b"one", b"two", b"three"]


@pytest.mark.parametrize("name", ["required", "lines_required", "optional", "lines_optional"])
@by_name(BAD)
def test_a_malformed_header_ends_the_connection(site, name, case):
    closed_as_bad(site, dial(site, name, case))


@pytest.mark.parametrize("name", ["required", "lines_required"])
@by_name(NONE)
def test_required_and_not_there(site, name, case):
    closed_as_bad(site, dial(site, name, case))
    assert site.counter("proxy_headers") == 0


@pytest.mark.parametrize("name", ["required", "lines_required"])
def test_required_and_from_a_stranger(site, name):
    try:
        dial(site, name, v1(V4), source=STRANGER).expect_end()
    except ConnectionError:
        pass  # so early is it reset
    site.wait_counter("client_closed_bad_proxy_header", 1)
    assert site.worker.quiet() == []


def test_optional_and_not_there(site):
    for name in ("optional", "lines_optional"):
        client = dial(site, name)
        if name == "lines_optional":
            client.send_bytes(b"PROX\n")  # almost
        seen = arrives(site, client)
        assert_seen(seen, own_address(client))
        if name == "lines_optional":
            assert site.worker.wait(ON_MESSAGE, seen.id).body == b"PROX"
        talks(site, client, seen)
    assert site.counter("proxy_headers") == 0


def refused_with(client, status):
    response = client.refused()
    assert response.status == status, response.status_line
    return response


BELIEVED_NOWHERE = pytest.mark.parametrize("name, source", [("off", None), ("off", STRANGER), ("optional", STRANGER)])


@BELIEVED_NOWHERE
def test_where_it_is_not_believed_a_header_is_a_bad_request(site, name, source):
    refused_with(dial(site, name, v1(V4), source=source), 405)
    assert site.counter("proxy_headers") == 0


@BELIEVED_NOWHERE
def test_where_it_is_not_believed_a_header_is_a_message(site, name, source):
    line = dial(site, "lines_" + name, v1(V4), source=source)
    seen = arrives(site, line)
    assert_seen(seen, own_address(line))
    assert site.worker.wait(ON_MESSAGE, seen.id).body == v1(V4).rstrip()
    assert site.counter("proxy_headers") == 0


@pytest.mark.parametrize("name", ["required", "lines_required"])
@pytest.mark.parametrize("said", [b"", b"PROXY TCP4 203.0.113.9 ", SIGNATURE + b"\x21\x11\x0f\xff" + bytes(100)],
                         ids=["nothing", "half_v1", "half_v2"])
def test_a_header_that_does_not_come_in_time(site, name, said):
    began = time.monotonic()
    client = dial(site, name, said)
    client.expect_end()
    assert 1.9 < time.monotonic() - began < 2 + 2 * slow(), "tls_handshake_timeout"
    site.wait_counter("client_closed_bad_proxy_header", 1)
    assert site.worker.quiet() == []


def test_a_second_header_is_a_bad_request(site):
    refused_with(dial(site, "required", v1(V4) + v1(V6)), 405)


def test_a_second_header_is_a_message(site):
    client = dial(site, "lines_required", v1(V4) + v1(V6))
    seen = arrives(site, client)
    assert_seen(seen, V4)
    assert site.worker.wait(ON_MESSAGE, seen.id).body == v1(V6).rstrip()


class SecureWsClient(OverTls, WsClient):
    pass


def test_tls_begins_behind_the_header(start):
    ca = make_ca()
    cert = make_cert(ca, ["localhost"])
    listen = {"websocket": {**TRUSTED, "proxy_protocol": "required", "tls_certificate": cert.chain, "tls_key": cert.key}}
    site = start(listen=listen)
    site.worker
    for header, address in ((v1(V4), V4), (v2(V6), V6)):
        client = SecureWsClient(site.gateway.client_address("websocket"), open=False)
        site.clients.append(client)
        client.send_bytes(header)
        client.secure(client_context(ca))
        seen = arrives(site, client)
        assert_seen(seen, address)
        talks(site, client, seen)
    late = SecureWsClient(site.gateway.client_address("websocket"), open=False)
    site.clients.append(late)
    with pytest.raises((ssl.SSLError, OSError)):
        late.secure(client_context(ca))  # without the header
    site.wait_counter("client_closed_bad_proxy_header", 1)


# ---- headers of the request


def opened(site, name, *extra, source=None):
    """A WebSocket with these header lines, and what the worker hears."""
    client = dial(site, name, source=source)
    return client, arrives(site, client, extra=[line.encode() for line in extra])


@pytest.mark.parametrize("name, lines, address", [
    ("x_forwarded_for", ["X-Forwarded-For: 203.0.113.9"], ("203.0.113.9", 0)),
    ("x_forwarded_for", ["x-forwarded-for: 2001:db8::1:2"], ("2001:db8::1:2", 0)),
    ("x_forwarded_for", ["X-Forwarded-For: 6.6.6.6, 203.0.113.9:4711, 10.0.0.7"], V4),
    ("x_forwarded_for", ["X-Forwarded-For: 10.6.6.6, nonsense, 203.0.113.9", "X-Forwarded-For: 10.0.0.7,10.0.0.8"], ("203.0.113.9", 0)),
    ("x_forwarded_for", ["X-Forwarded-For: 10.0.0.7, 10.0.0.8"], ("10.0.0.7", 0)),
    ("x_forwarded_for", ["X-Forwarded-For: ::ffff:203.0.113.9"], ("203.0.113.9", 0)),
    ("x_real_ip", ["X-Real-IP: 203.0.113.9"], ("203.0.113.9", 0)),
    ("x_real_ip", ["X-Real-IP: 6.6.6.6", "X-Real-IP: [2001:db8::1:2]:4712"], V6),
    ("forwarded", ["Forwarded: for=203.0.113.9;proto=https;by=10.0.0.7"], ("203.0.113.9", 0)),
    ("forwarded", ['Forwarded: For="[2001:db8::1:2]:4712"'], V6),
    ("forwarded", ['Forwarded: for=6.6.6.6, for="203.0.113.9:4711";host="a, b", for=10.0.0.7'], V4),
    ("forwarded", ['Forwarded: for="6.6.6.6', 'Forwarded: for=203.0.113.9'], ("203.0.113.9", 0)),
])
def test_the_address_that_a_header_names(site, name, lines, address):
    client, seen = opened(site, name, *lines)
    assert_seen(seen, address)
    talks(site, client, seen)
    assert site.counter("forwarded_addresses") == 1


@pytest.mark.parametrize("name", ["x_forwarded_for", "x_real_ip", "forwarded"])
def test_only_the_header_that_is_configured_counts(site, name):
    lines = {"x_forwarded_for": "X-Forwarded-For: 6.6.6.6", "x_real_ip": "X-Real-IP: 6.6.6.6", "forwarded": "Forwarded: for=6.6.6.6"}
    client, seen = opened(site, name, *[line for other, line in lines.items() if other != name])
    assert_seen(seen, own_address(client))
    assert site.counter("forwarded_addresses") == 0


@pytest.mark.parametrize("name, source", [("x_forwarded_for", STRANGER), ("forwarded", STRANGER), ("off", None)])
def test_headers_of_strangers_are_not_believed(site, name, source):
    client, seen = opened(site, name, "X-Forwarded-For: 6.6.6.6", "Forwarded: for=6.6.6.6", source=source)
    assert_seen(seen, own_address(client))
    assert seen.server[b"HTTP_X_FORWARDED_FOR"] == b"6.6.6.6", "workers may look for themselves"
    assert site.counter("forwarded_addresses") == 0


@pytest.mark.parametrize("name, line", [
    ("x_forwarded_for", "X-Forwarded-For: 203.0.113.9, unknown"),
    ("x_forwarded_for", "X-Forwarded-For: 203.0.113.9, nonsense, 10.0.0.7"),
    ("x_real_ip", "X-Real-IP: 203.0.113.9, 203.0.113.10"),
    ("forwarded", "Forwarded: for=_hidden"),
    ("forwarded", 'Forwarded: for="203.0.113.9'),
])
def test_a_header_that_names_nobody_is_refused(site, name, line):
    client = dial(site, name, request(extra=[line.encode()]))
    refused_with(client, 400)
    assert site.worker.quiet() == []


def test_a_worker_hears_of_a_client_once_its_address_is_known(site):
    """ON_CONNECT waits for the handshake even though on_connect is accept."""
    client = dial(site, "x_forwarded_for")
    stranger = dial(site, "x_forwarded_for", source=STRANGER)
    assert site.worker.wait(ON_CONNECT).client_port == own_address(stranger)[1], "of him all is known"
    assert site.worker.quiet() == []
    assert_seen(arrives(site, client, extra=[b"X-Forwarded-For: 203.0.113.9"]), ("203.0.113.9", 0))


def test_a_proxy_behind_the_proxy(site):
    """PROXY names the next proxy, which is trusted too; its header names the client. A client that is none is not believed."""
    client = dial(site, "both", v1(("10.0.0.7", 9)))
    assert_seen(arrives(site, client, extra=[b"X-Forwarded-For: 203.0.113.9"]), ("203.0.113.9", 0))
    liar = dial(site, "both", v1(V4))
    assert_seen(arrives(site, liar, extra=[b"X-Forwarded-For: 6.6.6.6"]), V4)
    silent = dial(site, "both", v1(("10.0.0.7", 9)))
    assert_seen(arrives(site, silent), ("10.0.0.7", 9))


# ---- what else looks at the address


def test_lists_look_at_the_address_that_was_found(site):
    """203.0.113.66 is on deny_list; the proxy that it comes through is not."""
    refused_with(dial(site, "required", v1(("203.0.113.66", 1)) + request()), 403)
    refused_with(dial(site, "x_forwarded_for", request(extra=[b"X-Forwarded-For: 203.0.113.66"])), 403)
    dial(site, "lines_required", v2(("203.0.113.66", 1))).expect_end()
    assert site.counter("refused_deny") == 3
    assert site.worker.quiet() == []
    client = dial(site, "lines_required", v2(("203.0.113.67", 1)))
    talks(site, client, arrives(site, client))


def test_limits_count_the_address_that_was_found(start):
    """Many clients behind one proxy are many addresses."""
    listen = {"websocket": {**TRUSTED, "proxy_protocol": "optional"}, "text": listener("text", proxy_protocol="required")}
    site = start(gateway={"connections_per_address": 2}, listen=listen)
    site.worker
    for i in range(10):
        arrives(site, dial(site, "websocket", v1(("203.0.113.%d" % i, 1000 + i))))
    arrives(site, dial(site, "text", v1(("203.0.113.1", 5))))
    refused_with(dial(site, "websocket", v1(("203.0.113.1", 6)) + request()), 429)
    dial(site, "text", v2(("203.0.113.1", 7))).expect_end()
    assert site.counter("refused_per_address") == 2
    assert site.worker.quiet() == []
    client = dial(site, "text", v2(("203.0.113.2", 8)))
    talks(site, client, arrives(site, client))


def test_the_log_names_the_address_that_was_found(site):
    for client, text in (
        (dial(site, "lines_required", v1(("203.0.113.99", 4799))), "203.0.113.99:4799"),
        (dial(site, "lines_required", v2(("2001:db8::99", 4798))), "[2001:db8::99]:4798"),
    ):
        arrives(site, client)
        client.close()
        site.gateway.wait_log(text)


# ---- IPv6 and Unix sockets


@pytest.mark.parametrize("name", ["ipv6", "all_ipv6"])
def test_an_ipv6_listener(site, name):
    client = dial(site, name)
    seen = arrives(site, client)
    assert_seen(seen, ("::1", client.sock.getsockname()[1]))
    assert seen.gateway_port == int(site.gateway.sections["listen " + name]["port"])
    talks(site, client, seen)


def test_an_ipv6_listener_takes_ipv6_only(site):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(site.gateway.sections["listen all_ipv6"]["port"])), timeout=PATIENCE)


def test_an_ipv6_proxy(site):
    client = dial(site, "lines_ipv6", v1(V4))
    assert_seen(arrives(site, client), V4)


@pytest.mark.parametrize("name", ["unix", "lines_unix"])
def test_a_unix_socket_listener(site, name):
    client = dial(site, name)
    seen = arrives(site, client)
    assert (seen.ip, seen.port) == ("0.0.0.0", 0)
    assert seen.gateway_port == int(site.gateway.sections["listen " + name]["port"])
    if seen.server:
        assert seen.remote == ("unix:", 0)
    talks(site, client, seen)


def test_permissions_of_unix_sockets(site):
    assert stat.S_IMODE(os.stat(address_of(site, "unix")).st_mode) == 0o660
    assert stat.S_IMODE(os.stat(address_of(site, "lines_unix")).st_mode) == 0o600


def test_proxies_on_unix_sockets_are_trusted(site):
    client = dial(site, "unix_required", v2(V6))
    assert_seen(arrives(site, client), V6)
    client = dial(site, "unix_forwarded")
    assert_seen(arrives(site, client, extra=[b"X-Forwarded-For: 6.6.6.6, 203.0.113.9"]), ("203.0.113.9", 0))
    closed_as_bad(site, dial(site, "unix_required", request()))


# ---- real proxies


def through(site, name, port, **handshake):
    """A client through the proxy on `port`, from an address of its own."""
    client = dial(site, name, source=STRANGER, address=("127.0.0.1", port))
    return client, arrives(site, client, **handshake)


def target(site, name):
    """As haproxy and nginx write it."""
    address = address_of(site, name)
    if isinstance(address, str):
        return "unix@%s" % address
    return ("[%s]:%d" if ":" in address[0] else "%s:%d") % address


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
@pytest.mark.parametrize("name", ["required", "optional", "lines_required", "lines_ipv6", "unix_required"])
def test_behind_haproxy_with_the_proxy_protocol(site, tmp_path, name, option):
    port = free_port()
    text = ("listen l\n mode tcp\n bind 127.0.0.1:%d\n unique-id-format %%{+X}o\\ %%ci:%%cp\n server s %s %s\n"
            % (port, target(site, name), option))
    with Haproxy(tmp_path, text, port):
        client, seen = through(site, name, port)
        assert_seen(seen, own_address(client))
        talks(site, client, seen)


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
def test_haproxy_says_ipv6(site, tmp_path, option):
    port = free_port()
    text = "listen l\n mode tcp\n bind [::1]:%d\n server s %s %s\n" % (port, target(site, "required"), option)
    with Haproxy(tmp_path, text, port):
        client = dial(site, "required", address=("::1", port))
        seen = arrives(site, client)
        assert_seen(seen, ("::1", client.sock.getsockname()[1]))
        talks(site, client, seen)


def test_behind_haproxy_with_forwardfor(site, tmp_path):
    port = free_port()
    text = ("listen l\n mode http\n bind 127.0.0.1:%d\n option forwardfor\n server s %s\n" % (port, target(site, "x_forwarded_for")))
    with Haproxy(tmp_path, text, port):
        client, seen = through(site, "x_forwarded_for", port, extra=[b"X-Forwarded-For: 6.6.6.6"])
        assert_seen(seen, (STRANGER, 0))
        talks(site, client, seen)


@pytest.mark.parametrize("options", ["send-proxy check-send-proxy", "send-proxy-v2 check-send-proxy"])
def test_health_checks_of_haproxy_keep_the_server_up(start, tmp_path, options):
    """haproxy says UNKNOWN or LOCAL with its checks; its server stays up and clients get through."""
    listen = {"websocket": {**TRUSTED, "proxy_protocol": "required", "health_path": "/health"}}
    site = start(gateway={"on_connect": "handshake"}, listen=listen)
    site.worker
    port = free_port()
    text = ("listen l\n mode http\n bind 127.0.0.1:%d\n option httpchk\n"
            " http-check send meth GET uri /health ver HTTP/1.1 hdr Host tgg\n http-check expect status 200\n"
            " server s %s check inter 50ms fall 2 %s\n" % (port, target(site, "websocket"), options))
    with Haproxy(tmp_path, text, port):
        wait_for(lambda: site.counter("health_checks") >= 5, what="health checks")
        client, seen = through(site, "websocket", port)
        assert_seen(seen, own_address(client))
        talks(site, client, seen)
        assert site.counter("client_closed_bad_proxy_header") == 0


NGINX_HTTP = """
http {
    server {
        listen 127.0.0.1:%(port)d;
        location / {
            proxy_pass http://%(target)s;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header Host $host;
            proxy_set_header %(header)s;
            proxy_read_timeout 60s;
        }
    }
}
"""


@pytest.mark.parametrize("name, header, said", [
    ("x_forwarded_for", "X-Forwarded-For $proxy_add_x_forwarded_for", b"X-Forwarded-For: 6.6.6.6"),
    ("x_real_ip", "X-Real-IP $remote_addr", b"X-Real-IP: 6.6.6.6"),
    ("forwarded", 'Forwarded "$http_forwarded, for=\\"$remote_addr:$remote_port\\";proto=$scheme"', b'Forwarded: for="6.6.6.6'),
    ("unix_forwarded", "X-Forwarded-For $proxy_add_x_forwarded_for", b"X-Forwarded-For: 6.6.6.6"),
])
def test_behind_nginx_with_headers(site, tmp_path, name, header, said):
    """Whatever the client says of itself, nginx's word is last."""
    port = free_port()
    address = address_of(site, name)
    where = "unix:%s:" % address if isinstance(address, str) else "%s:%d" % address
    with Nginx(tmp_path, NGINX_HTTP % {"port": port, "target": where, "header": header}, port):
        client, seen = through(site, name, port, extra=[said])
        assert_seen(seen, (STRANGER, own_address(client)[1] if name == "forwarded" else 0))
        talks(site, client, seen)


@pytest.mark.parametrize("name", ["required", "lines_required", "lines_ipv6"])
def test_behind_nginx_with_the_proxy_protocol(site, tmp_path, name):
    port = free_port()
    text = "stream {\n server { listen 127.0.0.1:%d; proxy_pass %s; proxy_protocol on; }\n}\n" % (port, target(site, name))
    with Nginx(tmp_path, text, port):
        client, seen = through(site, name, port)
        assert_seen(seen, own_address(client))
        talks(site, client, seen)
