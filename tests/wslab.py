# SPDX-License-Identifier: MIT
"""Where conformance of the WebSocket layer is looked at: a gateway of one's own with an echo worker, over plain TCP or
TLS, and a conversation that is compared, to the byte, with what must come of it.

    case = Case("ping", frame(PING, b"x"), pongs=[b"x"])
    converse(lab, case)
"""

import asyncio
import collections
import json
import os
import subprocess
import threading
import time

import pytest
import websockets

import certs
from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE, PATIENCE, LinkClosed
from node import Site
from tlsclient import WssClient
from wsclient import BINARY, CLOSE, PING, PONG, TEXT, WsClient, close_payload, frame

Case = collections.namedtuple("Case", "name data messages pongs close fails_at")
Case.__new__.__defaults__ = ((), (), None, None)
Case.__doc__ = """What a client sends after the handshake, and what comes of it.

messages: bodies that the worker gets, each echoed. pongs: payloads of the pongs that come. close: None, or the code of
the close frame that ends it (0: a close frame without one). fails_at: so many bytes are enough for that."""

NO_CODE = 0


def by_name(cases):
    cases = list(cases)
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), sorted(name for name in set(names) if names.count(name) > 1)
    return pytest.mark.parametrize("case", cases, ids=names)


class Record:
    """What the worker heard of one client."""

    def __init__(self):
        self.bodies = []
        self.is_closed = False


class EchoAndRecord:
    """Events of all clients, by the ports of both ends of their connection (the same port may go to several listeners)."""

    def __init__(self):
        self.changed = threading.Condition()
        self.by_key = {}
        self.by_id = {}
        self.is_silent = False

    def __call__(self, link, event):
        with self.changed:
            self._note(event)
        if event.cmd == ON_MESSAGE and not self.is_silent:
            link.send_to_one(event.connection_id, event.body)

    def _note(self, event):
        if event.cmd == ON_CONNECT:
            self.by_key[event.client_port, event.gateway_port] = self.by_id[event.connection_id] = Record()
        elif event.cmd == ON_MESSAGE:
            self.by_id[event.connection_id].bodies.append(event.body)
        elif event.cmd == ON_CLOSE:
            self.by_id.pop(event.connection_id).is_closed = True
        self.changed.notify_all()

    def take(self, key):
        """All messages of a client (client.key) that has gone or is going."""
        with self.changed:
            done = lambda: key in self.by_key and self.by_key[key].is_closed
            assert self.changed.wait_for(done, PATIENCE), "the worker did not hear that the client left"
            return self.by_key.pop(key).bodies

    def connection_id(self, key):
        with self.changed:
            found = lambda: [i for i, record in self.by_id.items() if self.by_key.get(key) is record]
            assert self.changed.wait_for(found, PATIENCE), "the worker did not hear of the client"
            return found()[0]


class Lab:
    """transport: "plain" or "tls". listen: websocket listeners of the gateway and their keys. worker: whether there is one."""

    def __init__(self, gateway_factory, transport, listen, worker=True, **config):
        self.is_tls = transport == "tls"
        sections = {"websocket": None, "text": None, "frame": None, "tcp": None}
        if self.is_tls:
            self.ca = certs.make_ca()
            self.cert = certs.make_cert(self.ca, ["localhost", "127.0.0.1"])
            self.tls = certs.client_context(self.ca)
        for name, keys in listen.items():
            tls = {"tls_certificate": self.cert.chain, "tls_key": self.cert.key} if self.is_tls else {}
            sections[name] = {"protocol": "websocket", "send_type": "auto", **tls, **keys}
        self.gateway = gateway_factory(listen=sections, **config)
        self.site = Site(self.gateway)
        self.heard = EchoAndRecord()
        if worker:
            self.site.echo_worker(self.heard)
            self.site.wait_gauge("workers", 1)

    def connect(self, listener="echo", **how):
        """A client; open=False: only the transport's handshake is done."""
        address = self.gateway.client_address(listener)
        with self.heard.changed:  # nothing is heard of it before an earlier client of these ports is forgotten
            client = WssClient(address, self.tls, **how) if self.is_tls else WsClient(address, **how)
            client.key = (client.local_port, address[1])
            self.heard.by_key.pop(client.key, None)
        self.site.clients.append(client)
        return client

    def uri(self, listener="echo", path="/"):
        return "%s://localhost:%d%s" % ("wss" if self.is_tls else "ws", self.gateway.client_address(listener)[1], path)

    def close(self):
        self.site.close()
        self.gateway.stop()


def opcode_of(body):
    """What send_type auto makes of it."""
    try:
        body.decode()
        return TEXT
    except UnicodeDecodeError:
        return BINARY


def send_chopped(client, data, chop=None):
    """In pieces of so many bytes, each in a segment (a record) of its own. The other side may have had enough."""
    try:
        if chop is None:
            client.send_bytes(data)
        else:
            for at in range(0, len(data), chop):
                client.send_bytes(data[at : at + chop])
        return True
    except OSError:
        return False


def read_conversation(client, n_messages, n_pongs, until_close):
    """(messages, pongs, close frame or None), until there are so many or a close frame has come."""
    messages, pongs = [], []
    while until_close or len(messages) < n_messages or len(pongs) < n_pongs:
        got = client.read_frame()
        assert got.fin and not got.rsv, got
        if got.opcode == CLOSE:
            return messages, pongs, got
        if got.opcode == PONG:
            pongs.append(got.payload)
        else:
            assert got.opcode == opcode_of(got.payload), got
            messages.append(got.payload)
    return messages, pongs, None


def expect_clean_end(client):
    """The end of the stream, with a close_notify before it where there is TLS."""
    client.expect_end()
    assert getattr(client, "clean_end", True), "the end came without close_notify"
    client.close()


def part_politely(client):
    """Nothing more has come, and the connection is in order: ping, pong, close, close."""
    client.send_bytes(frame(PING, b"the end") + frame(CLOSE, close_payload(1000)))
    messages, pongs, close = read_conversation(client, 0, 0, True)
    assert (messages, pongs, close.code) == ([], [b"the end"], 1000)
    expect_clean_end(client)


def check_close_frame(close, code):
    if code == NO_CODE:
        assert close.payload == b"", close
        return
    assert close.code == code, close
    close.payload[2:].decode()
    assert len(close.payload) <= 125


def converse(lab, case, chop=None, data=None, listener="echo"):
    """One connection for one case. data: instead of all that the case has to say."""
    client = lab.connect(listener)
    send_chopped(client, case.data if data is None else data, chop)
    messages, pongs, close = read_conversation(client, len(case.messages), len(case.pongs), case.close is not None)
    if case.close is None:
        assert close is None, close
        assert messages == list(case.messages)
        part_politely(client)
    else:
        check_close_frame(close, case.close)
        assert messages == list(case.messages[: len(messages)])  # echoes race with the end
        send_chopped(client, frame(CLOSE, close.payload[:2]))
        expect_clean_end(client)
    assert pongs == list(case.pongs)
    assert lab.heard.take(client.key) == list(case.messages)


def refused(lab, listener, data, chop=None, timeout=PATIENCE):
    """The HTTP answer to bytes that are no good handshake, after which the connection has ended."""
    client = lab.connect(listener, open=False)
    send_chopped(client, data, chop)
    response = client.refused(timeout)
    client.close()
    return response


def drain(client, timeout=PATIENCE):
    """Whatever comes up to the end of the stream."""
    try:
        while True:
            client.fill(time.monotonic() + timeout)
    except LinkClosed:
        return bytes(client.buffer)


NPM_WS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "npm_ws.js")


def run_npm_ws(lab, listener, path="/", **wish):
    """What clients of the npm package ws saw (npm_ws.js)."""
    wish["url"] = lab.uri(listener, path).replace("localhost", "127.0.0.1")
    if lab.is_tls:
        wish["ca"] = lab.ca.cert
    env = {**os.environ, "NODE_PATH": os.pathsep.join(filter(None, [os.environ.get("NODE_PATH"), "/usr/share/nodejs"]))}
    done = subprocess.run(["node", NPM_WS, json.dumps(wish)], capture_output=True, text=True, timeout=3 * PATIENCE, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run_python_websockets(lab, listener, talk, path="/", **how):
    """talk(ws), a coroutine, with a client of Debian's python3-websockets, which checks what we send as strictly as wsclient."""

    async def run():
        tls = {"ssl": lab.tls} if lab.is_tls else {}
        uri = lab.uri(listener, path).replace("localhost", "127.0.0.1")
        async with websockets.connect(uri, max_size=None, open_timeout=PATIENCE, close_timeout=PATIENCE, **tls, **how) as ws:
            result = await asyncio.wait_for(talk(ws), 3 * PATIENCE)
        assert ws.close_code == 1000
        return result

    return asyncio.run(run())
