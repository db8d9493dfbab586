# SPDX-License-Identifier: MIT
"""GatewayWorker's internal protocol and the register's, from the outside: an independent second implementation.

Written from docs/PROTOCOL-gatewayworker.md and from what PHP's gateway does, with nothing of ours in it, so that an
error of the C codecs cannot hide behind the same error here.

    worker = WorkerLink(("127.0.0.1", 2000), "worker-1")
    client = ClientLink(("127.0.0.1", 2000))
    event = worker.wait(ON_CONNECT)
    client.join_group(event.connection_id, b"room")
    assert client.group_count(b"room") == 1
"""

import collections
import itertools
import json
import os
import socket
import struct
import threading
import time

from phpvalue import serialize, unserialize

ON_CONNECT = 1
ON_MESSAGE = 3
ON_CLOSE = 4
SEND_TO_ONE = 5
SEND_TO_ALL = 6
KICK = 7
DESTROY = 8
UPDATE_SESSION = 9
GET_ALL_CLIENT_SESSIONS = 10
IS_ONLINE = 11
BIND_UID = 12
UNBIND_UID = 13
SEND_TO_UID = 14
GET_CLIENT_ID_BY_UID = 15
BATCH_GET_CLIENT_ID_BY_UID = 16
JOIN_GROUP = 20
LEAVE_GROUP = 21
SEND_TO_GROUP = 22
GET_CLIENT_SESSIONS_BY_GROUP = 23
GET_CLIENT_COUNT_BY_GROUP = 24
SELECT = 25
GET_GROUP_ID_LIST = 26
UNGROUP = 27
BATCH_GET_CLIENT_COUNT_BY_GROUP = 28
WORKER_CONNECT = 200
PING = 201
GATEWAY_CLIENT_CONNECT = 202
GET_SESSION_BY_CLIENT_ID = 203
SET_SESSION = 204
ON_WEBSOCKET_CONNECT = 205

FLAG_SCALAR = 0x01
FLAG_RAW = 0x02

HEAD = struct.Struct(">IBIHIHIBHI")
assert HEAD.size == 28

# How long anything may take before a test gives up: generous, the same suite runs under sanitizers.
PATIENCE = float(os.environ.get("TGG_PATIENCE", "20"))


class LinkClosed(Exception):
    """The other side ended the connection."""


class Packet:
    """One packet. body is what stands in it: bytes, not unserialized (see value)."""

    __slots__ = ("cmd", "local_ip", "local_port", "client_ip", "client_port", "connection_id", "flag", "gateway_port", "ext", "body")

    def __init__(self, cmd, connection_id=0, ext=b"", body=b"", flag=FLAG_SCALAR, local_ip=0, local_port=0, client_ip=0,
                 client_port=0, gateway_port=0):
        self.cmd = cmd
        self.local_ip = local_ip
        self.local_port = local_port
        self.client_ip = client_ip
        self.client_port = client_port
        self.connection_id = connection_id
        self.flag = flag
        self.gateway_port = gateway_port
        self.ext = ext
        self.body = body

    def encode(self):
        head = HEAD.pack(HEAD.size + len(self.ext) + len(self.body), self.cmd, self.local_ip, self.local_port, self.client_ip,
                         self.client_port, self.connection_id, self.flag, self.gateway_port, len(self.ext))
        return head + self.ext + self.body

    @classmethod
    def decode(cls, data):
        (pack_len, cmd, local_ip, local_port, client_ip, client_port, connection_id, flag, gateway_port,
         ext_len) = HEAD.unpack_from(data)
        assert pack_len == len(data), (pack_len, len(data))
        assert ext_len <= pack_len - HEAD.size, (ext_len, pack_len)
        ext = bytes(data[HEAD.size : HEAD.size + ext_len])
        body = bytes(data[HEAD.size + ext_len :])
        return cls(cmd, connection_id, ext, body, flag, local_ip, local_port, client_ip, client_port, gateway_port)

    @property
    def value(self):
        return self.body if self.flag & FLAG_SCALAR else unserialize(self.body)

    @property
    def client_id(self):
        return struct.pack(">IHI", self.local_ip, self.local_port, self.connection_id).hex()

    def __repr__(self):
        return "Packet(cmd=%d, id=%#x, flag=%d, ext=%r, body=%r)" % (self.cmd, self.connection_id, self.flag, self.ext[:80], self.body[:80])


def to_bytes(text):
    return text.encode() if isinstance(text, str) else bytes(text)


def to_json(value):
    """JSON as PHP's json_encode writes it (no spaces); bytes in it are UTF-8 text; bytes alone are JSON already."""
    if isinstance(value, bytes):
        return value

    def plain(v):
        if isinstance(v, bytes):
            return v.decode()
        if isinstance(v, dict):
            return {plain(k): plain(x) for k, x in v.items()}
        if isinstance(v, (list, tuple)):
            return [plain(x) for x in v]
        return v

    return json.dumps(plain(value), separators=(",", ":")).encode()


def packet(cmd, connection_id=0, ext=b"", body=b"", raw=False):
    """As PHP's GatewayProtocol::encode: bytes and str go as they are (flag 0x01), everything else serialized."""
    flag = FLAG_RAW if raw else 0
    if isinstance(body, (bytes, str)):
        return Packet(cmd, connection_id, to_bytes(ext), to_bytes(body), flag | FLAG_SCALAR)
    return Packet(cmd, connection_id, to_bytes(ext), serialize(body), flag)


class Stream:
    """A TCP connection with a buffer and deadlines."""

    def __init__(self, address, source=None, rcvbuf=None):
        """address: (IPv4 or IPv6, port), or the path of a Unix socket. source: the address to come from. rcvbuf: a small
        receive buffer, for peers that are to be slow."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if source:
            self.sock.bind((source, 0))
        self.sock.settimeout(PATIENCE)
        self.buffer = bytearray()
        self.ended = False
        try:
            self.sock.connect(address)
        except ConnectionResetError:
            self.ended = True  # it was refused before connect returned

    def send_bytes(self, data):
        self.sock.settimeout(PATIENCE)
        self.sock.sendall(data)

    def fill(self, deadline):
        """Read once more into the buffer; LinkClosed at the end, TimeoutError past the deadline."""
        if self.ended:
            raise LinkClosed("end of stream")
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("nothing came in time")
        self.sock.settimeout(left)
        try:
            data = self.sock.recv(1 << 18)
        except ConnectionError as error:
            self.ended = True
            raise LinkClosed(str(error)) from None
        if not data:
            self.ended = True
            raise LinkClosed("end of stream")
        self.buffer += data

    def read_exactly(self, count, deadline):
        while len(self.buffer) < count:
            self.fill(deadline)
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def expect_end(self, timeout=PATIENCE):
        """The other side closes, and says nothing more before."""
        try:
            while True:
                assert not self.buffer, bytes(self.buffer[:200])
                self.fill(time.monotonic() + timeout)
        except LinkClosed:
            pass

    def is_ended(self, within=0.0):
        """True when the end of the stream has come (what came before it stays in the buffer)."""
        try:
            while True:
                self.fill(time.monotonic() + max(within, 0.001))
        except LinkClosed:
            return True
        except TimeoutError:
            return False

    def close(self):
        self.sock.close()

    def reset(self):
        """End with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


def shard_of(connection_id):
    return connection_id >> 26


class Commands:
    """Every command as a method; send_packet and query come from the link."""

    shards = 1  # of the gateway, for sync

    def barrier(self):
        """A question for each shard about a connection that there never is: commands before it on the same link have
        been taken by the time of the last answer."""
        return [packet(IS_ONLINE, shard << 26) for shard in range(self.shards)]

    def send_to_one(self, connection_id, body, raw=False):
        self.send_packet(packet(SEND_TO_ONE, connection_id, body=body, raw=raw))

    def send_to_all(self, body, connections=None, exclude=None, raw=False, ext=None):
        if ext is None:
            ext = b""
            if connections is not None:
                ext = to_json({"connections": connections})
            elif exclude is not None:
                ext = to_json({"exclude": exclude})
        self.send_packet(packet(SEND_TO_ALL, ext=ext, body=body, raw=raw))

    def kick(self, connection_id, body=None):
        self.send_packet(packet(KICK, connection_id, body=body))

    def destroy(self, connection_id):
        self.send_packet(packet(DESTROY, connection_id))

    def bind_uid(self, connection_id, uid):
        self.send_packet(packet(BIND_UID, connection_id, ext=uid))

    def unbind_uid(self, connection_id, uid=b""):
        self.send_packet(packet(UNBIND_UID, connection_id, ext=uid))

    def send_to_uid(self, uids, body, raw=False):
        self.send_packet(packet(SEND_TO_UID, ext=to_json(uids), body=body, raw=raw))

    def join_group(self, connection_id, group):
        self.send_packet(packet(JOIN_GROUP, connection_id, ext=group))

    def leave_group(self, connection_id, group):
        self.send_packet(packet(LEAVE_GROUP, connection_id, ext=group))

    def ungroup(self, group):
        self.send_packet(packet(UNGROUP, ext=group))

    def send_to_group(self, groups, body, exclude=None, raw=False):
        ext = to_json({"group": groups, "exclude": exclude})
        self.send_packet(packet(SEND_TO_GROUP, ext=ext, body=body, raw=raw))

    def set_session(self, connection_id, session):
        """session: bytes as they are, anything else serialized."""
        ext = session if isinstance(session, bytes) else serialize(session)
        self.send_packet(packet(SET_SESSION, connection_id, ext=ext))

    def update_session(self, connection_id, session):
        ext = session if isinstance(session, bytes) else serialize(session)
        self.send_packet(packet(UPDATE_SESSION, connection_id, ext=ext))

    # Queries: the value; each has a twin in packets for pipelining.

    def session(self, connection_id):
        return unserialize(self.session_bytes(connection_id))

    def session_bytes(self, connection_id):
        return self.query(packet(GET_SESSION_BY_CLIENT_ID, connection_id))

    def all_sessions(self):
        return unserialize(self.query(packet(GET_ALL_CLIENT_SESSIONS)))

    def is_online(self, connection_id):
        return unserialize(self.query(packet(IS_ONLINE, connection_id)))

    def ids_by_uid(self, uid):
        return unserialize(self.query(packet(GET_CLIENT_ID_BY_UID, ext=uid)))

    def batch_ids_by_uid(self, uids):
        return unserialize(self.query(packet(BATCH_GET_CLIENT_ID_BY_UID, ext=to_json(uids))))

    def group_sessions(self, group):
        return unserialize(self.query(packet(GET_CLIENT_SESSIONS_BY_GROUP, ext=group)))

    def group_count(self, group=b""):
        return unserialize(self.query(packet(GET_CLIENT_COUNT_BY_GROUP, ext=group)))

    def batch_group_count(self, groups):
        return unserialize(self.query(packet(BATCH_GET_CLIENT_COUNT_BY_GROUP, ext=to_json(groups))))

    def group_list(self):
        return unserialize(self.query(packet(GET_GROUP_ID_LIST)))

    def select(self, fields, where=()):
        ext = to_json({"fields": fields, "where": where})
        return unserialize(self.query(packet(SELECT, ext=ext)))


class ClientLink(Stream, Commands):
    """GatewayClient's link: commands, and queries with their replies in order."""

    def __init__(self, address, secret_key=None, announce=None, source=None, rcvbuf=None):
        """Without a key GatewayClient says nothing first; announce=True says 202 all the same."""
        super().__init__(address, source, rcvbuf)
        if secret_key is not None or announce:
            key = "" if secret_key is None else secret_key
            self.send_packet(packet(GATEWAY_CLIENT_CONNECT, body=json.dumps({"secret_key": key})))

    def send_packet(self, packet_):
        self.send_bytes(packet_.encode())

    def read_reply(self, timeout=PATIENCE):
        deadline = time.monotonic() + timeout
        (length,) = struct.unpack(">I", self.read_exactly(4, deadline))
        return self.read_exactly(length, deadline)

    def query(self, packet_, timeout=PATIENCE):
        self.send_packet(packet_)
        return self.read_reply(timeout)

    def sync(self):
        """When this returns, every command sent on this link before has been taken, on every shard."""
        for question in self.barrier():
            reply = self.query(question)
            assert reply == b"i:0;", reply


_names = itertools.count(1)


class WorkerLink(Stream, Commands):
    """A business worker's link: events come in on it, commands go out on it."""

    def __init__(self, address, worker_key=None, secret_key="", connect=True, source=None, rcvbuf=None):
        super().__init__(address, source, rcvbuf)
        self.worker_key = worker_key or "test-worker-%d" % next(_names)
        self.events = collections.deque()
        if connect:
            self.connect(secret_key)

    def connect(self, secret_key=""):
        self.send_packet(packet(WORKER_CONNECT, body=json.dumps({"worker_key": self.worker_key, "secret_key": secret_key})))

    def send_packet(self, packet_):
        self.send_bytes(packet_.encode())

    def query(self, packet_, timeout=PATIENCE):
        """Only when no event can be on its way: replies and events share this stream."""
        assert not self.events and not self.buffer
        self.send_packet(packet_)
        deadline = time.monotonic() + timeout
        (length,) = struct.unpack(">I", self.read_exactly(4, deadline))
        return self.read_exactly(length, deadline)

    def _take_packets(self):
        offset = 0
        while len(self.buffer) - offset >= 4:
            (length,) = struct.unpack_from(">I", self.buffer, offset)
            assert length >= HEAD.size, "packet of %d bytes from the gateway" % length
            if len(self.buffer) - offset < length:
                break
            event = Packet.decode(memoryview(self.buffer)[offset : offset + length].tobytes())
            offset += length
            if event.cmd != PING:
                self.events.append(event)
        del self.buffer[:offset]

    def next(self, timeout=PATIENCE):
        """The next event, whatever it is."""
        deadline = time.monotonic() + timeout
        self._take_packets()
        while not self.events:
            self.fill(deadline)
            self._take_packets()
        return self.events.popleft()

    def wait(self, cmd=None, connection_id=None, client_port=None, timeout=PATIENCE):
        """The next event of that kind and connection; the others stay, in order."""
        deadline = time.monotonic() + timeout
        looked_at = 0
        self._take_packets()
        while True:
            for index in range(looked_at, len(self.events)):
                event = self.events[index]
                if cmd in (None, event.cmd) and connection_id in (None, event.connection_id) and client_port in (None, event.client_port):
                    del self.events[index]
                    return event
            looked_at = len(self.events)
            self.fill(deadline)
            self._take_packets()

    def collect(self, count, cmd=None, timeout=PATIENCE):
        return [self.wait(cmd, timeout=timeout) for _ in range(count)]

    def sync(self):
        """When this returns, the gateway has taken what was sent on this link. Only before events can come."""
        for question in self.barrier():
            reply = self.query(question)
            assert reply == b"i:0;", reply

    def settle(self, timeout=2):
        """Reads until every event that was on its way to this link when it was called has come; they are kept. A shard's
        answer stands behind what it had sent before."""
        deadline = time.monotonic() + timeout
        self._take_packets()
        self.send_bytes(b"".join(question.encode() for question in self.barrier()))
        missing = self.shards
        while missing > 0:
            (length,) = struct.unpack(">I", self.read_exactly(4, deadline))
            data = self.read_exactly(length if length < HEAD.size else length - 4, deadline)
            if length < HEAD.size:
                missing -= 1
            else:
                self.events.append(Packet.decode(struct.pack(">I", length) + data))

    def quiet(self, seconds=0.05):
        """What has come without being asked for, after nothing more came for so long."""
        try:
            while True:
                self.fill(time.monotonic() + seconds)
        except TimeoutError:
            pass
        except LinkClosed:
            pass
        self._take_packets()
        return list(self.events)


class EchoWorker:
    """A worker in a thread of its own that gives each event to a function; for tests with many events."""

    def __init__(self, address, on_event, worker_key=None, secret_key=""):
        self.link = WorkerLink(address, worker_key, secret_key)
        self.on_event = on_event
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while True:
                self.on_event(self.link, self.link.next(timeout=3600))
        except (LinkClosed, OSError, ValueError):
            pass

    def close(self):
        try:
            self.link.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.thread.join(PATIENCE)
        self.link.close()


class RegisterLink(Stream):
    """A worker's or a gateway's connection to a register: a JSON object per line."""

    def send_line(self, value):
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_bytes(text + b"\n")

    def read_line(self, timeout=PATIENCE):
        deadline = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            self.fill(deadline)
        line, _, rest = bytes(self.buffer).partition(b"\n")
        self.buffer[:] = rest
        return json.loads(line)

    def worker_connect(self, secret_key=""):
        self.send_line({"event": "worker_connect", "secret_key": secret_key})

    def gateway_connect(self, address, secret_key=""):
        self.send_line({"event": "gateway_connect", "address": address, "secret_key": secret_key})

    def addresses(self, timeout=PATIENCE):
        message = self.read_line(timeout)
        assert message["event"] == "broadcast_addresses", message
        addresses = message["addresses"]
        # PHP's array_unique keeps keys: after a duplicate the list is an object.
        return sorted(addresses.values() if isinstance(addresses, dict) else addresses)
