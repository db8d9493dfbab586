# SPDX-License-Identifier: MIT
"""Clients with full control over every byte: WebSocket, text, frame, raw TCP; and a well-behaved WebSocket client.

WsClient frames by hand so that a test can be as wrong as it likes. Well-behaved clients are those of Debian's
python3-websockets (well_behaved), a second opinion on what we send.
"""

import base64
import hashlib
import struct
import time

from gwproto import PATIENCE, LinkClosed, Stream

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="

# A text frame's masking key, changed by no test unless it says so.
MASK = b"\x37\xfa\x21\x3d"


def accept_of(key):
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


def mask_bytes(data, mask):
    if not data:
        return b""
    whole = (mask * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(whole, "big")).to_bytes(len(data), "big")


def frame(opcode, payload=b"", fin=True, rsv=0, mask=MASK, length_form=None):
    """A frame as a client sends it. mask None: not masked. length_form 7, 16 or 64: bits of the length to use."""
    if isinstance(payload, str):
        payload = payload.encode()
    size = len(payload)
    if length_form is None:
        length_form = 7 if size < 126 else 16 if size < 65536 else 64
    bit = 0x80 if mask is not None else 0
    head = bytes([(FIN if fin else 0) | rsv | opcode])
    if length_form == 7:
        head += bytes([bit | size])
    elif length_form == 16:
        head += bytes([bit | 126]) + struct.pack(">H", size)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", size)
    if mask is None:
        return head + payload
    return head + mask + mask_bytes(payload, mask)


def server_frame(opcode, payload=b""):
    """The frame that a server must send for this message (shortest length, not masked)."""
    return frame(opcode, payload, mask=None)


def close_payload(code=None, reason=b""):
    return b"" if code is None else struct.pack(">H", code) + reason


class Frame:
    __slots__ = ("opcode", "fin", "rsv", "payload")

    def __init__(self, opcode, fin, rsv, payload):
        self.opcode, self.fin, self.rsv, self.payload = opcode, fin, rsv, payload

    @property
    def code(self):
        assert self.opcode == CLOSE
        return struct.unpack(">H", self.payload[:2])[0] if self.payload else None

    def __repr__(self):
        return "Frame(%d, fin=%d, rsv=%d, %d bytes %r)" % (self.opcode, self.fin, self.rsv, len(self.payload), self.payload[:80])


def request(path="/", host=b"localhost", extra=(), key=KEY, version=b"13", method=b"GET", http=b"HTTP/1.1", upgrade=b"websocket",
            connection=b"Upgrade"):
    """A handshake request; None leaves a header out."""
    lines = [method + b" " + (path if isinstance(path, bytes) else path.encode()) + b" " + http]
    for name, value in ((b"Host", host), (b"Upgrade", upgrade), (b"Connection", connection), (b"Sec-WebSocket-Key", key),
                        (b"Sec-WebSocket-Version", version)):
        if value is not None:
            lines.append(name + b": " + value)
    lines.extend(extra)
    return b"\r\n".join(lines) + b"\r\n\r\n"


class HttpResponse:
    def __init__(self, head, body):
        lines = head.split(b"\r\n")
        self.status_line = lines[0]
        self.status = int(lines[0].split(b" ")[1])
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            self.headers[name.strip().lower().decode()] = value.strip()
        self.body = body


class WsClient(Stream):
    """A WebSocket connection. open=False: only TCP, the test says the handshake itself."""

    def __init__(self, address, open=True, source=None, rcvbuf=None, **request_args):
        super().__init__(address, source, rcvbuf)
        if open:
            try:
                self.handshake(**request_args)
            except BaseException:
                self.close()
                raise

    @property
    def local_port(self):
        return self.sock.getsockname()[1]

    def handshake(self, **request_args):
        self.send_bytes(request(**request_args))
        self.finish_handshake(request_args.get("key", KEY))

    def read_response_head(self, timeout=PATIENCE):
        deadline = time.monotonic() + timeout
        while b"\r\n\r\n" not in self.buffer:
            self.fill(deadline)
        head, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        self.buffer[:] = rest
        return head

    def finish_handshake(self, key=KEY):
        response = HttpResponse(self.read_response_head(), b"")
        assert response.status == 101, response.status_line
        assert response.headers["sec-websocket-accept"] == accept_of(key)
        assert response.headers["upgrade"].lower() == b"websocket"
        assert response.headers["connection"].lower() == b"upgrade"

    def refused(self, timeout=PATIENCE):
        """The HTTP error that answered the handshake; the connection must have ended after it."""
        head = self.read_response_head(timeout)
        try:
            while True:
                self.fill(time.monotonic() + timeout)
        except LinkClosed:
            pass
        return HttpResponse(head, bytes(self.buffer))

    def send_frame(self, opcode, payload=b"", **how):
        self.send_bytes(frame(opcode, payload, **how))

    def send_text(self, text):
        self.send_frame(TEXT, text)

    def send_binary(self, data):
        self.send_frame(BINARY, data)

    def send_close(self, code=1000, reason=b""):
        self.send_frame(CLOSE, close_payload(code, reason))

    def read_frame(self, timeout=PATIENCE):
        """The next frame, checked to be one that a server may send."""
        deadline = time.monotonic() + timeout
        head = self.read_exactly(2, deadline)
        assert not head[1] & 0x80, "the server masked a frame"
        size = head[1] & 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self.read_exactly(2, deadline))
            assert size > 125
        elif size == 127:
            (size,) = struct.unpack(">Q", self.read_exactly(8, deadline))
            assert size > 65535
        return Frame(head[0] & 0x0F, bool(head[0] & FIN), head[0] & 0x70, self.read_exactly(size, deadline))

    def read_message(self, timeout=PATIENCE):
        """The payload of the next data frame, which must be a whole message."""
        got = self.read_frame(timeout)
        assert got.opcode in (TEXT, BINARY) and got.fin and not got.rsv, got
        return got.payload

    def expect_close(self, code, timeout=PATIENCE):
        """The next frame is a close with this code (None: without one). Answered; then the stream ends, and so do we."""
        got = self.read_frame(timeout)
        assert got.opcode == CLOSE, got
        assert got.code == code, got
        if got.code is not None:
            got.payload[2:].decode()
        try:
            self.send_frame(CLOSE, got.payload[:2])
        except OSError:
            pass
        self.expect_end(timeout)
        self.close()

    def leave(self, code=1000):
        """The orderly end from our side: close frame, the answer, the end of the stream."""
        self.send_close(code)
        while True:
            got = self.read_frame()
            if got.opcode == CLOSE:
                break
        self.expect_end()
        self.close()
        return got.code


def read_until_end(stream, timeout=PATIENCE):
    """Everything up to the end of the stream."""
    try:
        while True:
            stream.fill(time.monotonic() + timeout)
    except LinkClosed:
        pass
    data = bytes(stream.buffer)
    stream.buffer.clear()
    return data


class TextClient(Stream):
    def send_message(self, data):
        self.send_bytes(data + b"\n")

    def read_message(self, timeout=PATIENCE):
        deadline = time.monotonic() + timeout
        while b"\n" not in self.buffer:
            self.fill(deadline)
        line, _, rest = bytes(self.buffer).partition(b"\n")
        self.buffer[:] = rest
        return line


class FrameClient(Stream):
    def send_message(self, data):
        self.send_bytes(struct.pack(">I", len(data) + 4) + data)

    def read_message(self, timeout=PATIENCE):
        deadline = time.monotonic() + timeout
        (size,) = struct.unpack(">I", self.read_exactly(4, deadline))
        return self.read_exactly(size - 4, deadline)


class TcpClient(Stream):
    def send_message(self, data):
        self.send_bytes(data)

    def read_message(self, timeout=PATIENCE):
        """Whatever is there."""
        if not self.buffer:
            self.fill(time.monotonic() + timeout)
        data = bytes(self.buffer)
        self.buffer.clear()
        return data
