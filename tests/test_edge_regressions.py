# SPDX-License-Identifier: MIT
"""Faults of the edge that were found by review, one test for each."""

import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time

import pytest

import certs
from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE, PATIENCE
from node import Site
from proc import Gateway, free_port, run_tgg, wait_for
from proxyproto import v1
from tlsclient import TLS_CLIENTS
from wsclient import TEXT, frame

pytestmark = [pytest.mark.tgg_only, pytest.mark.shards(1)]


@pytest.fixture(scope="module")
def pki():
    ca = certs.make_ca()
    return ca, certs.make_cert(ca, ["localhost"], type="rsa")


def with_tls(pki):
    return {"tls_certificate": pki[1].chain, "tls_key": pki[1].key}


def client_hello(pki):
    tls = certs.client_context(pki[0]).wrap_bio(ssl.MemoryBIO(), out := ssl.MemoryBIO(), server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


def connect(gateway, listener):
    return socket.create_connection(gateway.client_address(listener), timeout=PATIENCE)


# ---- TLS handshakes that avoid the queue


def longest_turn(gateway, hellos):
    """All of them written while the shard stands still, so that it finds them in one turn."""
    pid = gateway.shard_pid()
    os.kill(pid, signal.SIGSTOP)
    for sock, data in hellos:
        sock.sendall(data)
    os.kill(pid, signal.SIGCONT)
    for sock, _ in hellos:
        assert sock.recv(5)[0] == 22
    time.sleep(0.5)  # the turn is told of at its end
    return gateway.status()["shards"][0]["turn_longest_ns"] / 1e6


def in_pieces(hello, how):
    """What comes first, alone; and the rest."""
    body = hello[5:]
    if how == "whole":
        return b"", hello
    if how == "byte":
        return hello[:1], hello[1:]
    record = lambda data: struct.pack(">BHH", 22, 0x0301, len(data)) + data
    return record(body[:1]), record(body[1:])


@pytest.mark.parametrize("how", ["byte", "record"])
def test_a_hello_in_pieces_waits_in_the_queue_too(gateway_factory, pki, how):
    """tls_handshake_time bounds what handshakes cost a turn, in however many pieces their first flight comes."""
    # A turn may be long because somebody else had the CPU: not three times in a row.
    assert any(turns[how] < 4 * turns["whole"] for turns in (longest_turns(gateway_factory, pki, how) for _ in range(3)))


def longest_turns(gateway_factory, pki, how):
    found = {}
    for mode in ("whole", how):
        gateway = gateway_factory(listen={"text": {"protocol": "text", **with_tls(pki)}}, gateway={"tls_handshake_time": 10})
        first, rest = in_pieces(client_hello(pki), mode)
        socks = [connect(gateway, "text") for _ in range(150)]
        for sock in socks:
            sock.sendall(first)
        time.sleep(1)
        found[mode] = longest_turn(gateway, [(sock, rest) for sock in socks])
        for sock in socks:
            sock.close()
        gateway.stop()
    print("longest turn in ms: %s" % found)
    return found


# ---- a listener that stops being a TLS listener


def test_reload_without_certificate_while_a_client_is_silent(gateway_factory, pki):
    gateway = gateway_factory(listen={"text": {"protocol": "text", **with_tls(pki)}})
    with connect(gateway, "text") as sock:
        wait_for(lambda: gateway.counters()["tls_clients"] == 1, what="the client accepted")
        gateway.sections["listen text"].update(tls_certificate=None, tls_key=None)
        gateway.write_config()
        os.kill(gateway.process.pid, signal.SIGHUP)
        wait_for(lambda: gateway.counters()["reloads"] >= 1 or "reload_not_done" in gateway.log(), what="the reload")
        sock.sendall(client_hello(pki))
        time.sleep(1)
    gateway.check()  # no shard died
    gateway.stop()


# ---- a full house behind a proxy


@pytest.mark.parametrize("how", ["proxy", "forwarded"])
def test_max_connections_behind_a_proxy(gateway_factory, how):
    """As many as directly."""
    keys = {"proxy": {"proxy_protocol": "required"}, "forwarded": {"forwarded": "x_forwarded_for"}}[how]
    gateway = gateway_factory(listen={"websocket": {"trusted_proxies": "127.0.0.1", **keys}}, gateway={"max_connections": 3})
    site = Site(gateway).with_worker()
    socks = []
    for i in range(3):
        sock = connect(gateway, "websocket")
        socks.append(sock)
        if how == "proxy":
            sock.sendall(v1(("203.0.113.9", 4711)))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
        assert sock.recv(4096).split(b" ")[1] == b"101", i + 1
    for sock in socks:
        sock.close()
    site.close()
    gateway.stop()


# ---- counters


def test_strangers_add_up(gateway_factory):
    """accepted = closed + open, also where somebody comes who is no proxy of ours."""
    gateway = gateway_factory(listen={"websocket": {"trusted_proxies": "192.0.2.1", "proxy_protocol": "required"}})
    with pytest.raises(ConnectionResetError):
        with connect(gateway, "websocket") as sock:
            sock.recv(1)
    counters = gateway.counters()
    closed = sum(value for name, value in counters.items() if name.startswith("client_closed_"))
    assert counters["client_accepted"] == closed + counters["clients"]
    gateway.stop()


# ---- parts of TLS records


def test_a_part_of_a_record_has_a_deadline_and_is_counted(gateway_factory, pki):
    """16 KB for each client, for good, that neither message_timeout nor client_input_total_bytes see."""
    gateway = gateway_factory(listen={"text": {"protocol": "text", "message_timeout": 1, **with_tls(pki)}})
    site = Site(gateway).with_worker()
    with certs.client_context(pki[0]).wrap_socket(connect(gateway, "text"), server_hostname="localhost") as tls:
        wait_for(lambda: gateway.counters()["tls_handshakes"] == 1)
        with socket.socket(fileno=os.dup(tls.fileno())) as sock:
            sock.sendall(struct.pack(">BHH", 23, 0x0303, 16400) + bytes(16390))
        time.sleep(0.3)
        assert gateway.counters()["client_input_bytes"] >= 16384
        wait_for(lambda: gateway.counters()["client_closed_message_timeout"] == 1, 5, "closed at message_timeout")
    site.close()
    gateway.stop()


# ---- a message that is whole does not make the next one late


def test_message_timeout_is_of_one_message(gateway_factory):
    """A client that is always in the middle of some message, each of them whole in time."""
    gateway = gateway_factory(listen={"text": {"protocol": "text", "message_timeout": 2}, "websocket": {"message_timeout": 2}})
    site = Site(gateway).with_worker()
    client = site.client("text")
    client.send_bytes(b"begin")
    for _ in range(12):
        time.sleep(0.4)
        client.send_bytes(b" end\nbegin")
    assert gateway.counters()["client_closed_message_timeout"] == 0
    site.close()
    gateway.stop()


# ---- handshakes that are begun and left alone


def test_stalled_handshakes_do_not_lock_others_out(gateway_factory, pki):
    """Whoever sends tls_handshakes_begun_max hellos every tls_handshake_timeout, and no more, keeps everybody else out."""
    gateway = gateway_factory(listen={"text": {"protocol": "text", "tls_handshake_timeout": 5, **with_tls(pki)}}, gateway={"tls_handshakes_begun_max": 5})
    site = Site(gateway).with_worker()
    hello = client_hello(pki)

    def stall():
        sock = connect(gateway, "text")
        sock.sendall(hello)
        return sock

    stalled = [stall() for _ in range(10)]
    time.sleep(0.5)
    begin = time.monotonic()
    sock = connect(gateway, "text")
    sock.settimeout(10)
    try:
        certs.client_context(pki[0]).wrap_socket(sock, server_hostname="localhost").close()
        took = time.monotonic() - begin
    except OSError as error:
        took = repr(error)
    assert isinstance(took, float) and took < 2.5, took
    for sock in stalled:
        sock.close()
    site.close()
    gateway.stop()


# ---- a pause within what one read of TLS gives


@pytest.mark.parametrize("protocol", ["websocket", "tcp"])
def test_messages_over_tls_keep_their_order_when_the_turn_is_over(gateway_factory, pki, protocol):
    """A read of 256 KB is decrypted in pieces of 32 KB; a turn that is over in one of them holds for the next ones, too."""
    count, size = 60000, 6
    keys = {"protocol": protocol, **with_tls(pki)}
    if protocol == "tcp":
        keys["package_size_max"] = size
    gateway = gateway_factory(listen={"l": keys}, gateway={"turn_max": 1, "drain_timeout": 0})
    site = Site(gateway).with_worker()
    client = TLS_CLIENTS[protocol](gateway.client_address("l"), certs.client_context(pki[0]))
    site.worker.wait(ON_CONNECT)
    bodies = [b"%06d" % i for i in range(count)]
    data = b"".join(frame(TEXT, body) for body in bodies) if protocol == "websocket" else b"".join(bodies)
    pid = gateway.shard_pid()
    client.sock.settimeout(PATIENCE)
    at = 0
    while at < len(data):  # as much as the kernel takes, for one read
        os.kill(pid, signal.SIGSTOP)
        at += client.sock.send(data[at : at + 16000 * 14])
        os.kill(pid, signal.SIGCONT)
    got = b""
    while len(got) < count * size:
        event = site.worker.wait(timeout=3)
        if event.cmd == ON_MESSAGE:
            got += event.body
            assert b"".join(bodies).startswith(got), "out of order behind %r: %r" % (got[-2 * len(event.body):-len(event.body)], event.body)
        elif event.cmd == ON_CLOSE:
            raise AssertionError("closed after %d bytes: %s" % (len(got), {n: v for n, v in gateway.counters().items() if v and "closed" in n}))
    client.close()
    site.close()
    gateway.stop()


# ---- configurations that do not do what they seem to


@pytest.mark.parametrize("what", ["client_ca", "same_path", "reserve", "ignored_forwarded"])
def test_keys_that_do_nothing_are_refused(gateway_factory, tmp_path, pki, what):
    port = free_port()
    ws = lambda path, **more: {"port": port, "protocol": "websocket", "path": path, **more}
    keys = {
        "client_ca": {"listen": {"text": {"protocol": "text", "tls_client_ca": pki[0].cert, **with_tls(pki)}}},  # nobody is asked for a certificate
        "same_path": {"listen": {"websocket": ws("/a"), "b": ws("/a")}},  # b is never reached
        "reserve": {"gateway": {"max_connections": 10, "connection_reserve": 10}},  # nobody gets in
        "ignored_forwarded": {"listen": {"websocket": ws("/a"), "b": ws("/b", forwarded="x_real_ip", trusted_proxies="127.0.0.1")}},  # the first one's counts
    }[what]
    gateway = Gateway(tmp_path, start=False, **keys)
    assert run_tgg("gateway", "-t", "-c", gateway.config_path).returncode == 78


def test_lifetime_of_tickets(gateway_factory, pki):
    """Two rotations, as the key's description says."""
    gateway = gateway_factory(listen={"text": {"protocol": "text", **with_tls(pki)}}, gateway={"tls_ticket_rotation": 86400})
    done = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % gateway.ports["text"], "-tls1_2"], input=b"", capture_output=True, timeout=PATIENCE)
    assert b"ticket lifetime hint: 172800 " in done.stdout, [line for line in done.stdout.split(b"\n") if b"hint" in line]
    gateway.stop()


# ---- what one shard can do to other processes of its user


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_processes_of_the_user_cannot_be_written_to(gateway_factory, pki):
    """The announcer has no seccomp filter: whoever writes to its code is out of the sandbox. open() and pwrite() are all that takes."""
    gateway = gateway_factory(listen={"text": {"protocol": "text", **with_tls(pki)}}, gateway={"user": "nobody"})
    with open("/proc/%d/task/%d/children" % (gateway.process.pid, gateway.process.pid)) as f:
        pids = list(map(int, f.read().split()))
    script = "import os,sys\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\nopen('/proc/%s/mem' % sys.argv[1], 'r+b')"
    for pid in pids:
        done = subprocess.run([sys.executable, "-c", script, str(pid)], capture_output=True, text=True)
        assert "PermissionError" in done.stderr, pid
    gateway.stop()
