# SPDX-License-Identifier: MIT
"""What a connection is made of survives an upgrade: half-received frames, unsent bytes, what waits for workers, questions,
timers, compression, TLS, real addresses. Each test sets something up, upgrades, and goes on where it was."""

import ssl
import subprocess
import threading
import time
import zlib

import pytest

import certs
from gwproto import IS_ONLINE, ON_CLOSE, ON_CONNECT, ON_MESSAGE, ON_WEBSOCKET_CONNECT, PATIENCE, packet
from load import Crowd
from node import check_echo
from proc import slow, wait_for
from proxyproto import v1, v2
from tlsclient import TlsTextClient, WssClient
from upgrade import reaper, upgrade, upgrade_unseen  # noqa: F401 (a fixture)
from wsclient import (BINARY, CONTINUATION, PING, PONG, TEXT, TextClient, WsClient, frame, read_until_end, request, server_frame)

pytestmark = [pytest.mark.tgg_only, pytest.mark.usefixtures("reaper"), pytest.mark.timeout(120)]

DEFLATE = {"protocol": "websocket", "send_type": "auto", "deflate": True, "deflate_takeover": True, "deflate_size_min": 16}


def tls_listener(cert, protocol="websocket", **keys):
    return {"protocol": protocol, "send_type": "auto", "tls_certificate": cert.chain, "tls_key": cert.key, **keys}


# ---- half received


class Halves:
    """Clients that have said the first `cut` bytes of something, and will say the rest."""

    def __init__(self, site):
        self.site = site
        self.clients = []  # client, rest, what the worker is to hear, what the client is to hear

    def add(self, client, whole, cut, said, heard=b""):
        if cut:
            client.send_bytes(whole[:cut])
        self.clients.append((client, whole[cut:], said, heard))

    def check(self):
        for client, rest, said, heard in self.clients:
            client.send_bytes(rest)
        by_id = {client.id: said for client, _, said, _ in self.clients}
        for _ in self.clients:
            event = self.site.worker.wait(ON_MESSAGE)
            assert event.body == by_id.pop(event.connection_id)
        for client, _, _, heard in self.clients:
            assert client.read_exactly(len(heard), time.monotonic() + PATIENCE) == heard


def test_half_received_messages_go_on_where_they_were(start):
    site = start(shards=2)
    halves = Halves(site)
    text = "naïve €".encode()
    several = frame(TEXT, text[:3], fin=False) + frame(PING, b"ping") + frame(CONTINUATION, text[3:])
    for cut in range(1, len(several)):
        halves.add(site.client("websocket"), several, cut, text, server_frame(PONG, b"ping"))
    large = frame(BINARY, b"\xfe" * 70_000)
    for cut in (1, 2, 5, 9, 10, 12, 14, 15, 1000, 69_999):
        halves.add(site.client("websocket"), large, cut, b"\xfe" * 70_000)
    for cut in range(1, 6):
        halves.add(site.client("text"), b"hello\n", cut, b"hello")
        halves.add(site.client("frame"), b"\0\0\0\x09hello", cut, b"hello")
    upgrade_unseen(site)
    halves.check()
    for client in (site.client("text"), site.client("websocket")):
        check_echo(site, client)


def test_half_a_handshake_and_half_a_proxy_header(start):
    trusted = {"trusted_proxies": "127.0.0.1", "proxy_protocol": "required"}
    site = start(shards=2, listen={"proxied": {"protocol": "text", **trusted}})
    worker = site.worker
    asked = request(path="/chat?token=1")
    openers = []
    for cut in (0, 1, 30, len(asked) - 2, len(asked) - 1):
        client = site.client("websocket", open=False)
        client.send_bytes(asked[:cut])
        openers.append((client, asked[cut:]))
    proxied = []
    for header in (v1(("203.0.113.9", 4711)), v2(("203.0.113.9", 4712))):
        for cut in (0, 1, 12, len(header) - 1, len(header)):
            client = site.connect("proxied")
            client.send_bytes(header[:cut])
            proxied.append((client, header[cut:] + b"hello\n"))
    wait_for(lambda: site.gauge("clients") >= len(openers) + len(proxied), what="all accepted")
    for _ in range(2):  # those whose header is whole
        assert worker.wait(ON_CONNECT).client_ip == 0xCB007109
    upgrade_unseen(site)
    for client, rest in openers:
        client.send_bytes(rest)
        client.finish_handshake()
        worker.wait(ON_WEBSOCKET_CONNECT, client.id)
        check_echo(site, client)
    for client, rest in proxied:
        client.send_bytes(rest)
        event = worker.wait(ON_MESSAGE)
        assert event.body == b"hello" and event.client_ip == 0xCB007109 and event.client_port in (4711, 4712)


# ---- not sent yet


def large(number):
    return b"%06d" % number + b"." * 7994


@pytest.mark.parametrize("listener", ["websocket", "text", "tls", "deflate"])
def test_what_a_slow_reader_has_not_taken_comes_in_order(start, listener):
    ca = certs.make_ca()
    site = start(shards=2, gateway={"send_to_client_buffer_size": 20_000_000},
                 listen={"tls": tls_listener(certs.make_cert(ca, ["localhost"])), "deflate": {**DEFLATE, "deflate_size_min": 1_000_000}})
    worker = site.worker
    if listener == "tls":
        client = WssClient(site.gateway.client_address("tls"), tls=certs.client_context(ca), rcvbuf=4096)
        site.clients.append(client)
        client.id = worker.wait(ON_WEBSOCKET_CONNECT).connection_id
    else:
        how = {"extra": [b"Sec-WebSocket-Extensions: permessage-deflate"]} if listener == "deflate" else {}
        client = site.client(listener, rcvbuf=4096, **how)
    count = 1200
    for number in range(count):
        site.g.send_to_one(client.id, large(number))
    site.g.sync()
    wait_for(lambda: site.gauge("client_queue_bytes") > 1_000_000, what="bytes that wait")
    for _ in range(2):
        upgrade_unseen(site)
        assert site.gauge("client_queue_bytes") > 1_000_000
        for number in range(count, count + 10):
            site.g.send_to_one(client.id, large(number))
        count += 10
    site.g.sync()
    for number in range(count):
        assert client.read_message() == large(number)
    site.wait_gauge("client_queue_bytes", 0)
    check_echo(site, client)


def test_what_a_worker_has_not_read_comes_in_order(start):
    site = start(shards=2, gateway={"send_to_worker_buffer_size": 1_000_000})
    worker = site.worker_link("slow", rcvbuf=4096)
    clients = [site.client("text", worker=worker) for _ in range(6)]
    says = 4000
    pad = b"." * 500

    def talk():
        for number in range(says):
            for client in clients:
                client.send_message(b"%d " % number + pad)

    talker = threading.Thread(target=talk)
    talker.start()
    wait_for(lambda: site.counter("worker_paused") > 0, what="a worker that holds its clients back")
    for _ in range(2):
        upgrade_unseen(site)
    heard = {client.id: 0 for client in clients}
    for _ in range(says * len(clients)):
        event = worker.wait(ON_MESSAGE)
        assert event.body == b"%d " % heard[event.connection_id] + pad
        heard[event.connection_id] += 1
    talker.join()
    assert set(heard.values()) == {says}


def test_a_fan_out_under_way_reaches_everybody_once_in_order(start):
    site = start(shards=3, gateway={"send_to_client_buffer_size": 50_000_000, "turn_max": 1})
    site.worker
    crowd = Crowd(site)
    count, rounds = 400, 60
    crowd.connect(count)
    ids = [site.worker.wait(ON_CONNECT).connection_id for _ in range(count)]
    odd = len([id_ for id_ in ids if id_ % 2])
    for id_ in ids:
        if id_ % 2:
            site.worker.join_group(id_, b"odd")
    site.worker.sync()
    pad = b"." * 4000
    sender = threading.Thread(target=lambda: [site.g.send_to_all(b"all%d" % i + pad) for i in range(rounds)])
    sender.start()
    wait_for(lambda: site.counter("client_messages_out") > 100)
    upgrade_unseen(site)
    sender.join()
    for i in range(rounds):
        site.g.send_to_group([b"odd"], b"odd%d" % i)
    site.g.send_to_all(b"last")
    assert crowd.take(rounds, 60) == {tuple("all%d" % i + pad.decode() for i in range(rounds)): count}
    assert crowd.take(1) == {("odd0",): odd, ("last",): count - odd}


# ---- questions


def test_questions_that_are_pending_are_answered_in_order(start):
    site = start(shards=3, gateway={"query_timeout": 20_000, "turn_max": 1})
    clients = [site.client("text") for _ in range(60)]
    for i, client in enumerate(clients):
        site.worker.set_session(client.id, b"session %d " % i + b"." * 2000)
        site.worker.join_group(client.id, b"room")
    site.worker.sync()
    link = site.client_link()
    count = 1500

    def ask():
        for i in range(count):
            link.send_bytes((packet(IS_ONLINE, clients[i % 60].id) if i % 50 else packet(10)).encode())

    asker = threading.Thread(target=ask)
    asker.start()
    for i in range(count // 2):
        check_reply(link, i)
    upgrade_unseen(site)
    for i in range(count // 2, count):
        check_reply(link, i)
    asker.join()


def check_reply(link, number):
    reply = link.read_reply()
    if number % 50:
        assert reply == b"i:1;"
    else:
        assert reply.count(b"session ") == 60, len(reply)


# ---- no worker


def test_what_waits_for_a_worker_goes_on_waiting(start):
    site = start(shards=2, gateway={"no_worker_wait": 60})
    before = site.worker_link()
    gone = site.client("text", worker=before)
    before.close()
    site.wait_gauge("workers", 0)
    text, socket_ = site.connect("text"), site.connect("websocket")
    for number in range(3):
        text.send_message(b"%d" % number)
        socket_.send_text(b"%d" % number)
    gone.send_message(b"bye")
    wait_for(lambda: site.gauge("parked_clients") == 3, what="clients that wait")
    gone.close()
    site.wait_gauge("clients", 2)
    upgrade_unseen(site)
    text.send_message(b"3")
    socket_.send_text(b"3")
    upgrade_unseen(site)
    worker = site.worker_link(sync=False)
    told = {}
    for _ in range(5 + 6 + 2):
        event = worker.next()
        told.setdefault(event.client_port, []).append((event.cmd, event.body if event.cmd == ON_MESSAGE else None))
    said = [(ON_MESSAGE, b"%d" % number) for number in range(4)]
    assert told.pop(text.port) == [(ON_CONNECT, None)] + said
    assert told.pop(socket_.port) == [(ON_CONNECT, None), (ON_WEBSOCKET_CONNECT, None)] + said
    assert told.pop(gone.port) == [(ON_MESSAGE, b"bye"), (ON_CLOSE, None)]
    site.wait_gauge("parked_bytes", 0)


# ---- timers


def test_timers_go_on_where_they_were(start):
    """Three upgrades put off no deadline."""
    site = start(shards=2, gateway={"ping_interval": 2, "ping_not_response_limit": 3, "ping_data": "hb"},
                 listen={"hasty": {"protocol": "websocket", "handshake_timeout": 4, "message_timeout": 4, "close_timeout": 1},
                         "idle": {"protocol": "text", "idle_timeout": 4}})
    site.worker
    began = time.monotonic()
    ends = {}

    def watch(name, client):
        def run():
            read_until_end(client, 60)
            ends[name] = time.monotonic() - began
        thread = threading.Thread(target=run)
        thread.start()
        return thread

    silent = site.client("text")
    no_handshake = site.connect("hasty", open=False)
    half_message = site.connect("hasty")
    half_message.send_bytes(frame(TEXT, b"hello")[:-1])
    idle = site.connect("idle")
    threads = [watch(name, client) for name, client in
               (("silent", silent), ("no_handshake", no_handshake), ("half_message", half_message), ("idle", idle))]
    for _ in range(3):
        time.sleep(0.3)
        upgrade(site.gateway)
    upgraded = time.monotonic() - began
    for thread in threads:
        thread.join()
    if upgraded < 3:  # else the machine is too slow to tell
        for name in ("no_handshake", "half_message", "idle"):
            assert 3.5 < ends[name] < 5.2 + slow(), (name, ends)
        assert 7 < ends["silent"] < 8.5 + slow(), ends


# ---- compression


class Deflater(WsClient):
    """A client that compresses by hand, with context take-over both ways."""

    def agree(self, offer=b"permessage-deflate"):
        self.handshake(extra=[b"Sec-WebSocket-Extensions: " + offer])
        self.out, self.in_ = zlib.compressobj(wbits=-15), zlib.decompressobj(wbits=-15)

    def compressed(self, data):
        return frame(TEXT, (self.out.compress(data) + self.out.flush(zlib.Z_SYNC_FLUSH))[:-4], rsv=0x40)

    def read_compressed(self):
        got = self.read_frame()
        assert got.opcode in (TEXT, BINARY) and got.fin
        return self.in_.decompress(got.payload + b"\0\0\xff\xff") if got.rsv else got.payload


def test_compressed_connections_refer_to_what_was_before(start):
    site = start(shards=2, listen={"deflate": DEFLATE})
    clients, worker = [], site.worker
    for _ in range(6):
        client = Deflater(site.gateway.client_address("deflate"), open=False)
        site.clients.append(client)
        client.id = worker.wait(ON_CONNECT).connection_id
        client.agree()
        worker.wait(ON_WEBSOCKET_CONNECT, client.id)
        clients.append(client)
    words = b" ".join(b"word%d" % (i * 7919 % 10007) for i in range(900))
    for round_ in range(4):
        whole = [client.compressed(b"%d " % round_ + words) for client in clients]
        assert round_ == 0 or len(whole[0]) < 200, "the second refers to the first"
        for i, client in enumerate(clients):
            client.send_bytes(whole[i][: i * len(whole[i]) // 6])
            site.g.send_to_one(client.id, b"you %d " % round_ + words)
        site.g.sync()
        if round_:
            upgrade_unseen(site)
        for i, client in enumerate(clients):
            client.send_bytes(whole[i][i * len(whole[i]) // 6 :])
            assert site.worker.wait(ON_MESSAGE, client.id).body == b"%d " % round_ + words
            assert client.read_compressed() == b"you %d " % round_ + words


# ---- TLS


class ChoppedTls:
    """A TLS client over memory, so that half a record can be sent."""

    def __init__(self, site, listener, context):
        self.tcp = TextClient(site.gateway.client_address(listener))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.pump(self.tls.do_handshake)
        self.flush()

    def pump(self, act):
        while True:
            try:
                return act()
            except ssl.SSLWantReadError:
                self.flush()
                if not self.tcp.buffer:
                    self.tcp.fill(time.monotonic() + PATIENCE)
                self.incoming.write(bytes(self.tcp.buffer))
                self.tcp.buffer.clear()

    def flush(self):
        data = self.outgoing.read()
        if data:
            self.tcp.send_bytes(data)

    def records(self, data):
        self.tls.write(data)
        return self.outgoing.read()

    def read_line(self):
        line = b""
        while not line.endswith(b"\n"):
            line += self.pump(lambda: self.tls.read(1000))
        return line[:-1]

    def close(self):
        self.tcp.close()


VERSIONS = [("1.3", "TLS_AES_128_GCM_SHA256"), ("1.3", "TLS_AES_256_GCM_SHA384"), ("1.3", "TLS_CHACHA20_POLY1305_SHA256"),
            ("1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"), ("1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"), ("1.2", "ECDHE-ECDSA-CHACHA20-POLY1305")]


def test_tls_connections_go_on(start):
    """Every cipher of ours, with half a record sent before; then an orderly end from either side."""
    ca = certs.make_ca()
    cert = certs.make_cert(ca, ["localhost"])
    listen = {"lines%d" % i: tls_listener(cert, "text", **{"tls_ciphersuites" if version == "1.3" else "tls_ciphers": name})
              for i, (version, name) in enumerate(VERSIONS)}
    site = start(shards=2, listen=listen).with_worker()
    clients = []
    for i, (version, name) in enumerate(VERSIONS):
        context = certs.client_context(ca, ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3)
        for cut in (0, 3, 5, 20, -1):
            client = ChoppedTls(site, "lines%d" % i, context)
            assert client.tls.cipher()[0] == name
            client.cut = cut
            client.id = site.worker.wait(ON_CONNECT).connection_id
            site.clients.append(client)
            clients.append(client)
    for round_ in range(3):
        whole = [client.records(b"%d from a client\n" % round_) for client in clients]
        for client, records in zip(clients, whole):
            client.tcp.send_bytes(records[: client.cut] if client.cut else b"")
        upgrade_unseen(site)
        for client, records in zip(clients, whole):
            client.tcp.send_bytes(records[client.cut :] if client.cut else records)
            assert site.worker.wait(ON_MESSAGE, client.id).body == b"%d from a client" % round_
            site.worker.send_to_one(client.id, b"%d to you" % round_)
            assert client.read_line() == b"%d to you" % round_
    for client in clients[::2]:
        site.worker.kick(client.id, b"bye")
        assert client.read_line() == b"bye"
        assert client.pump(lambda: client.tls.read(10)) == b"", "close_notify"
        site.worker.wait(ON_CLOSE, client.id)
    for client in clients[1::2]:
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()
        client.flush()
        site.worker.wait(ON_CLOSE, client.id)


def test_tls_tickets_and_key_updates(start):
    ca = certs.make_ca()
    cert = certs.make_cert(ca, ["localhost"])
    site = start(shards=2, listen={"lines": tls_listener(cert, "text")})
    site.worker
    port = site.gateway.ports["lines"]
    argv = ["openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-CAfile", ca.cert, "-tls1_3"]
    openssl = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        id_ = site.worker.wait(ON_CONNECT).connection_id
        session_context = certs.client_context(ca)
        first = TlsTextClient(("127.0.0.1", port), tls=session_context)
        first.id = site.worker.wait(ON_CONNECT).connection_id
        site.clients.append(first)
        check_echo(site, first)
        session = first.sock.session
        said = 0
        for keys in (b"K\n", b"k\n", b"", b"K\n"):
            # K: new keys of both sides; k: of the client's only. A line of its own, read by s_client alone.
            if keys:
                openssl.stdin.write(keys)
                openssl.stdin.flush()
                time.sleep(0.2)
            openssl.stdin.write(b"line %d\n" % said)
            openssl.stdin.flush()
            assert site.worker.wait(ON_MESSAGE, id_).body == b"line %d" % said
            site.worker.send_to_one(id_, b"answer %d" % said)
            read_past(openssl.stdout, b"answer %d\n" % said)
            said += 1
            upgrade_unseen(site)
        resumed = TlsTextClient(("127.0.0.1", port), tls=session_context, session=session)
        resumed.id = site.worker.wait(ON_CONNECT).connection_id
        site.clients.append(resumed)
        assert resumed.sock.session_reused
        check_echo(site, resumed)
        check_echo(site, first)
    finally:
        openssl.kill()
        openssl.wait()


def read_past(file, wanted):
    got = b""
    while wanted not in got:
        more = file.read1(65536)
        assert more, got[-300:]
        got += more


# ---- who is counted


def test_limits_know_who_was_there_before(start):
    site = start(shards=2, gateway={"connections_per_address": 3}, listen={"proxied": {"protocol": "text", "trusted_proxies": "127.0.0.1",
                                                                                     "proxy_protocol": "required"}}).with_worker()

    def come():
        client = site.connect("proxied")
        client.send_bytes(v1(("203.0.113.9", 4711)))
        return client

    clients = [come() for _ in range(3)]
    for client in clients:
        site.worker.wait(ON_CONNECT)
    upgrade_unseen(site)
    assert come().is_ended(within=PATIENCE), "a fourth"
    clients[0].close()
    site.worker.wait(ON_CLOSE)
    come()
    site.worker.wait(ON_CONNECT)


def test_uids_of_one_connection_each_are_still_unique(start):
    site = start(shards=2, gateway={"one_connection_per_uid": True})
    old = site.client("text")
    site.worker.bind_uid(old.id, b"somebody")
    site.worker.sync()
    upgrade_unseen(site)
    new = site.client("text")
    site.worker.bind_uid(new.id, b"somebody")
    assert old.is_ended(within=PATIENCE)
    assert site.worker.wait(ON_CLOSE).connection_id == old.id
    check_echo(site, new)


def test_ids_are_not_given_again(start):
    site = start(shards=2)
    seen = set()
    for _ in range(3):
        for _ in range(30):
            client = site.client("text")
            assert client.id not in seen
            seen.add(client.id)
            client.close()
            site.worker.wait(ON_CLOSE, client.id)
        upgrade_unseen(site)
