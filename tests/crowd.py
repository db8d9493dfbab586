# SPDX-License-Identifier: MIT
"""Many text clients in a process of their own, so that neither their number nor their speed is held up by the test that
watches them. Started by load.Crowd; a line of JSON in, a line of JSON out.

    {"do": "connect", "count": n, "burst": bool}   -> {"ports": [...]}; burst: all SYNs at once
    {"do": "echo", "pace": s, "resend": s}         each sends "e<n>", awaits its echo, waits for pace, goes on; one whose
                                                   echo does not come within resend counts it as lost and goes on
    {"do": "mark"}                                 the worst round trip is measured anew from now on
    {"do": "pause"}                                no new messages; -> {} when none is awaited any more
    {"do": "report"}                               -> {"<port>": {...}}
    {"do": "take", "lines": n, "timeout": s}       wait until each open client has had n lines (not echoes)
                                                   -> {"<lines, joined by a space>": clients}
    {"do": "close", "count": n, "reset": bool}     the first n that are open
"""

import collections
import json
import resource
import select
import socket
import struct
import sys
import time


class Client:
    __slots__ = ("sock", "port", "data", "lines", "number", "sent_at", "echoed", "lost", "wrong", "worst", "worst_at", "ended_at")

    def __init__(self, sock):
        self.sock = sock
        self.port = 0
        self.data = b""
        self.lines = []
        self.number = self.echoed = self.lost = self.wrong = 0
        self.sent_at = None
        self.worst, self.worst_at = 0.0, None
        self.ended_at = None


class Crowd:
    def __init__(self, address):
        self.address = address
        self.poll = select.epoll()
        self.poll.register(0, select.EPOLLIN)
        self.clients = {}
        self.stdin = b""
        self.due = collections.deque()  # (when, client): who sends next
        self.waiting = collections.deque()  # (when, number, client): whose echo is late then
        self.pace = None
        self.resend = 3.0
        self.awaited = None  # a command's condition, and what to say then

    # -- commands

    def do_connect(self, count, burst=False):
        began, new = time.monotonic(), []
        for _ in range(count):
            sock = socket.socket()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if burst:
                sock.setblocking(False)
                sock.connect_ex(self.address)
            else:
                sock.settimeout(60)
                sock.connect(self.address)
                sock.setblocking(False)
            new.append(Client(sock))
        if burst:
            self.await_connected(new)
        for client in new:
            client.port = client.sock.getsockname()[1]
            self.clients[client.sock.fileno()] = client
            self.poll.register(client.sock.fileno(), select.EPOLLIN)
        say({"ports": [client.port for client in new], "seconds": time.monotonic() - began})

    def await_connected(self, new):
        poll = select.epoll()
        for client in new:
            poll.register(client.sock.fileno(), select.EPOLLOUT)
        by_fd = {client.sock.fileno(): client for client in new}
        while by_fd:
            for fd, _ in poll.poll(60) or sys.exit("not connected in 60 s: %d" % len(by_fd)):
                error = by_fd.pop(fd).sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    sys.exit("connect: errno %d" % error)
                poll.unregister(fd)
        poll.close()

    def do_echo(self, pace, resend=3.0):
        self.pace, self.resend = pace, resend
        now = time.monotonic()
        open_ = [c for c in self.clients.values() if c.ended_at is None]
        self.due = collections.deque((now + pace * i / len(open_), c) for i, c in enumerate(open_))
        say({})

    def do_mark(self):
        for client in self.clients.values():
            client.worst, client.worst_at = 0.0, None
        say({})

    def do_pause(self):
        self.pace = None
        self.due.clear()
        self.await_(lambda: all(c.sent_at is None or c.ended_at for c in self.clients.values()), lambda: {})

    def do_report(self):
        say({str(c.port): {"sent": c.number, "echoed": c.echoed, "lost": c.lost, "wrong": c.wrong, "worst": c.worst,
                           "worst_at": c.worst_at, "ended_at": c.ended_at} for c in self.clients.values()})

    def do_take(self, lines, timeout=20):
        def result():
            found = collections.Counter(" ".join(c.lines[:lines]) for c in self.clients.values() if c.ended_at is None)
            for client in self.clients.values():
                del client.lines[:lines]
            return found

        self.await_(lambda: all(len(c.lines) >= lines or c.ended_at for c in self.clients.values()), result, timeout)

    def do_close(self, count, reset=False):
        for client in list(self.clients.values())[:count]:
            if reset:
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            del self.clients[client.sock.fileno()]
            client.ended_at = client.ended_at or time.monotonic()
            client.sock.close()
        say({})

    def await_(self, condition, result, timeout=20):
        self.awaited = (condition, result, time.monotonic() + timeout)
        self.look()

    def look(self):
        condition, result, deadline = self.awaited
        if condition() or time.monotonic() > deadline:
            self.awaited = None
            say(result())

    # -- what comes

    def read(self, client):
        try:
            data = client.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            client.ended_at = time.monotonic()
            self.poll.unregister(client.sock.fileno())
            return
        *lines, client.data = (client.data + data).split(b"\n")
        for line in lines:
            if line.startswith(b"e"):
                self.echo(client, line)
            else:
                client.lines.append(line.decode())

    def echo(self, client, line):
        now = time.monotonic()
        if int(line[1:]) != client.number or client.sent_at is None:
            # An echo that was given up, late; anything else is somebody else's or the same again.
            client.wrong += not (client.lost and int(line[1:]) <= client.number)
            return
        if now - client.sent_at > client.worst:
            client.worst, client.worst_at = now - client.sent_at, client.sent_at
        client.sent_at = None
        client.echoed += 1
        if self.pace is not None:
            self.due.append((now + self.pace, client))

    def send(self, client, now):
        if client.ended_at is not None or self.clients.get(client.sock.fileno()) is not client:
            return
        client.number += 1
        try:
            client.sock.send(b"e%d\n" % client.number)
        except OSError:
            client.number -= 1
            return
        client.sent_at = now
        self.waiting.append((now + self.resend, client.number, client))

    def work(self, now):
        while self.due and self.due[0][0] <= now:
            self.send(self.due.popleft()[1], now)
        while self.waiting and self.waiting[0][0] <= now:
            _, number, client = self.waiting.popleft()
            if client.sent_at is not None and client.number == number:
                client.sent_at = None
                client.lost += client.ended_at is None
                if self.pace is not None:
                    self.due.append((now, client))

    def run(self):
        while True:
            now = time.monotonic()
            self.work(now)
            times = [q[0][0] for q in (self.due, self.waiting) if q]
            wait = max(min(times) - now, 0) if times else 1
            for fd, _ in self.poll.poll(min(wait, 0.1 if self.awaited else 1)):
                if fd:
                    self.read(self.clients[fd])
                else:
                    self.command()
            if self.awaited:
                self.look()

    def command(self):
        data = sys.stdin.buffer.raw.read(1 << 16)
        if not data:
            sys.exit(0)
        *lines, self.stdin = (self.stdin + data).split(b"\n")
        for line in lines:
            how = json.loads(line)
            getattr(self, "do_" + how.pop("do"))(**how)


def say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Crowd((sys.argv[1], int(sys.argv[2]))).run()
