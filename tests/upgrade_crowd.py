# SPDX-License-Identifier: MIT
"""Clients of python3-websockets in a process of their own, which number what they say and check the numbers of what they
hear. Started by upgrade.Talkers; a line of JSON in, a line of JSON out. upgrade_crowd.js is the same with the npm package ws.

    {"do": "connect", "url": u, "count": n, "deflate": bool, "ca": path, "tls": "TLSv1_2"}   -> {"ports": [...]}
    {"do": "talk", "pace": s}    each sends a message every `pace` seconds, without waiting for its echo
    {"do": "hush"}               nothing more is sent; -> {} when every echo is there, or after 30 s
    {"do": "report"}             -> {"sent", "echoed", "missing", "closed", "faults": [...], "gap", "fanned": [[all, group], ...]}

What a client says: number i of it, "c<i>" and padding, every third one binary (a byte that no text has before it), every
fifth in three fragments with pauses between. The worker sends it back as it is. What else comes: "a<n>" to all and "g<n>"
to a group, numbered without a gap from the first that a client has heard of.
"""

import asyncio
import collections
import json
import os
import resource
import ssl
import sys
import time

import websockets

SIZES = (40, 300, 70, 5000, 90, 1200, 20)
FRAGMENT_PAUSE = 0.05


def body(number):
    """As a worker and upgrade_crowd.js expect it."""
    text = ("c%d %s" % (number, "word%d " % (number % 7) * (SIZES[number % len(SIZES)] // 6))).rstrip()
    return b"\xff" + text.encode() if number % 3 == 2 else text


async def fragments(whole):
    third = len(whole) // 3
    for piece in (whole[:third], whole[third : 2 * third], whole[2 * third :]):
        yield piece
        await asyncio.sleep(FRAGMENT_PAUSE)


class Client:
    def __init__(self, crowd):
        self.crowd = crowd
        self.ws = None
        self.sent = self.echoed = 0
        self.expected = collections.deque()  # numbers
        self.last = {"a": None, "g": None}
        self.heard_at = None
        self.gap = 0.0
        self.faults = []
        self.closed = None

    async def connect(self, url, deflate, tls):
        self.ws = await websockets.connect(
            url, compression="deflate" if deflate else None, ssl=tls, ping_interval=None, max_size=None, open_timeout=60, max_queue=None
        )
        self.listening = asyncio.ensure_future(self.listen())
        return self.ws.local_address[1]

    async def listen(self):
        try:
            async for message in self.ws:
                self.take(message)
        except websockets.ConnectionClosed:
            pass
        self.closed = self.ws.close_code

    def take(self, message):
        now = time.monotonic()
        if self.heard_at is not None:
            self.gap = max(self.gap, now - self.heard_at)
        self.heard_at = now
        if isinstance(message, str) and message[:1] in self.last:
            kind, number = message[0], int(message[1:])
            if self.last[kind] is not None and number != self.last[kind] + 1:
                self.fault("%s%d after %d" % (kind, number, self.last[kind]))
            self.last[kind] = number
        elif not self.expected:
            self.fault("not expected: %r" % message[:40])
        else:
            number = self.expected.popleft()
            self.echoed += 1
            if message != body(number):
                self.fault("%r instead of %d" % (message[:40], number))

    def fault(self, what):
        if len(self.faults) < 3:
            self.faults.append(what)

    async def talk(self, begin, pace):
        await asyncio.sleep(begin)
        try:
            while self.crowd.talks:
                number = self.sent
                self.sent += 1
                self.expected.append(number)
                whole = body(number)
                await self.ws.send(fragments(whole) if number % 5 == 4 else whole)
                await asyncio.sleep(pace)
        except websockets.ConnectionClosed:
            pass


class Crowd:
    def __init__(self):
        self.clients = []
        self.talks = False
        self.talking = []

    async def do_connect(self, url, count, deflate=False, ca=None, tls=None):
        context = None
        if url.startswith("wss"):
            context = ssl.create_default_context(cafile=ca)
            if tls:
                context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, tls)
        new, ports = [Client(self) for _ in range(count)], []
        for i in range(0, count, 50):
            ports += await asyncio.gather(*(client.connect(url, deflate, context) for client in new[i : i + 50]))
        self.clients += new
        return {"ports": ports}

    async def do_talk(self, pace):
        self.talks = True
        self.talking = [asyncio.ensure_future(c.talk(pace * i / len(self.clients), pace)) for i, c in enumerate(self.clients)]
        return {}

    async def do_hush(self):
        self.talks = False
        await asyncio.gather(*self.talking)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and any(c.expected for c in self.clients if c.closed is None):
            await asyncio.sleep(0.02)
        return {}

    async def do_report(self):
        every = self.clients
        return {
            "sent": sum(c.sent for c in every),
            "echoed": sum(c.echoed for c in every),
            "missing": sum(len(c.expected) for c in every),
            "closed": [c.closed for c in every if c.closed is not None],
            "faults": [fault for c in every for fault in c.faults][:10],
            "gap": max(c.gap for c in every),
            "fanned": [[c.last["a"], c.last["g"]] for c in every],
        }


async def main():
    crowd = Crowd()
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while True:
        line = await lines.readline()
        if not line:
            os._exit(0)  # without a close handshake for each
        how = json.loads(line)
        answer = await getattr(crowd, "do_" + how.pop("do"))(**how)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main())
