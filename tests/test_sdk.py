# SPDX-License-Identifier: MIT
"""The C worker library's two examples behind tgg: the demo chat as its page uses it, and the echo worker."""

import asyncio
import json
import os

import pytest
import websockets

from proc import BUILD, Gateway, Process, Register, wait_for

KEY = "a \"quoted\" key"


_sockets = []


async def connect(url):
    _sockets.append(await websockets.connect(url, max_size=None))
    return _sockets[-1]


def run(scenario):
    """Leaves no socket open: the library would wait 10 s for each at the end of its loop."""

    async def whole():
        try:
            await scenario()
        finally:
            while _sockets:
                await _sockets.pop().close()

    asyncio.run(whole())


def example(name, folder, *args):
    return Process([os.path.join(BUILD, "sdk", name), *args], folder, name)


class Cluster:
    """A Register and a gateway with a key, and one of the examples that has found them."""

    def __init__(self, folder, program, *args):
        self.folder, self.program, self.args = folder, program, args
        self.register = Register(folder / "register", secret_key=KEY)
        self.gateway = Gateway(folder / "gateway", gateway={"secret_key": KEY}, registers=[self.register.address])
        self.worker = None
        self.start_worker()

    def start_worker(self):
        address = "%s:%d" % self.register.address
        seen = 0 if self.worker is None else self.worker.err().count(": connected")
        self.worker = example(self.program, self.folder, "--register", address, "--secret", KEY, *self.args)
        wait_for(lambda: self.worker.err().count(": connected") > seen, what="the worker at the gateway")

    @property
    def url(self):
        return "ws://127.0.0.1:%d/" % self.gateway.ports["websocket"]

    def stop(self):
        self.worker.stop()
        self.gateway.stop()
        self.register.stop()


@pytest.fixture
def cluster(tmp_path):
    running = []

    def start(program, *args):
        for part in ("register", "gateway"):
            (tmp_path / part).mkdir()
        running.append(Cluster(tmp_path, program, *args))
        return running[-1]

    yield start
    for one in running:
        one.stop()


class Chatter:
    """One tab of the page."""

    def __init__(self, url):
        self.url, self.socket, self.id = url, None, None

    async def login(self, name, room):
        if self.socket is None:
            self.socket = await connect(self.url)
        await self.send(type="login", name=name, room=room)
        welcome = await self.expect("welcome")
        assert (welcome["name"], welcome["room"]) == (name.strip(), room.strip())
        self.id = welcome["id"]
        return await self.expect("members")

    async def send(self, **message):
        await self.socket.send(json.dumps(message))

    async def receive(self):
        return json.loads(await asyncio.wait_for(self.socket.recv(), 20))

    async def expect(self, kind):
        message = await self.receive()
        assert message["type"] == kind, message
        return message

    async def expect_nothing(self):
        """Whatever is on its way arrives before the answer to a ping that is sent now."""
        await self.send(type="ping")
        await self.expect("pong")


async def two_in(cluster, room="lobby"):
    ann, bob = Chatter(cluster.url), Chatter(cluster.url)
    assert [m["name"] for m in (await ann.login("Ann", room))["members"]] == ["Ann"]
    members = (await bob.login("Bob", room))["members"]
    assert {m["id"]: m["name"] for m in members} == {ann.id: "Ann", bob.id: "Bob"}
    joined = await ann.expect("joined")
    assert (joined["id"], joined["name"]) == (bob.id, "Bob")
    return ann, bob


@pytest.mark.tgg_only
def test_a_room_hears_what_one_says(cluster):
    chat = cluster("tgg-demo-chat")

    async def scenario():
        ann, bob = await two_in(chat)
        text = "</script> \"quoted\" \\ \u00e9 \U0001f600"
        await ann.send(type="say", text=text)
        for one in (ann, bob):
            said = await one.expect("say")
            assert (said["from"], said["name"], said["text"], said["private"]) == (ann.id, "Ann", text, False)

    run(scenario)


@pytest.mark.tgg_only
def test_rooms_do_not_hear_each_other(cluster):
    chat = cluster("tgg-demo-chat")

    async def scenario():
        ann, bob = await two_in(chat, "one")
        carl = Chatter(chat.url)
        assert len((await carl.login("Carl", "0"))["members"]) == 1
        await carl.send(type="say", text="anybody?")
        await carl.expect("say")
        await ann.expect_nothing()
        await bob.expect_nothing()

    run(scenario)


@pytest.mark.tgg_only
def test_a_private_message_reaches_one(cluster):
    chat = cluster("tgg-demo-chat")

    async def scenario():
        ann, bob = await two_in(chat)
        carl = Chatter(chat.url)
        await carl.login("Carl", "lobby")
        for one in (ann, bob):
            await one.expect("joined")
        await ann.send(type="say", text="psst", to=bob.id)
        for one in (ann, bob):
            said = await one.expect("say")
            assert (said["text"], said["private"], said["to"]) == ("psst", True, bob.id)
        await carl.expect_nothing()
        await ann.send(type="say", text="psst", to="nobody")
        await ann.expect("error")

    run(scenario)


@pytest.mark.tgg_only
def test_leaving_and_moving_are_told(cluster):
    chat = cluster("tgg-demo-chat")

    async def scenario():
        ann, bob = await two_in(chat)
        await bob.login("Bobby", "elsewhere")
        left = await ann.expect("left")
        assert (left["id"], left["name"]) == (bob.id, "Bob")
        await bob.login("Bob", "lobby")
        await ann.expect("joined")
        await bob.socket.close()
        assert (await ann.expect("left"))["id"] == bob.id
        await ann.send(type="list")
        assert [m["name"] for m in (await ann.expect("members"))["members"]] == ["Ann"]

    run(scenario)


@pytest.mark.tgg_only
def test_nonsense_is_answered_and_does_no_harm(cluster):
    chat = cluster("tgg-demo-chat")

    async def scenario():
        ann = Chatter(chat.url)
        ann.socket = await connect(chat.url)
        await ann.send(type="say", text="before the login")
        await ann.expect("error")
        garbage = ["", "{", "[]", "null", "7", '{"type":7}', '{"type":"nothing"}', '{"type":"login"}', b"\xff\x00",
                   '{"type":"login","name":"","room":"x"}', json.dumps({"type": "login", "name": "n" * 65, "room": "x"}),
                   json.dumps({"type": "login", "name": "a\nb", "room": "x"}), "[" * 5000]
        for text in garbage:
            await ann.socket.send(text)
            await ann.expect("error")
        await ann.send(type="pong")
        await ann.login("  Ann  ", "lobby")
        await ann.send(type="say", text="x" * 4001)
        await ann.expect("error")
        await ann.send(type="say", text="still here")
        await ann.expect("say")

    run(scenario)


@pytest.mark.tgg_only
def test_the_chat_worker_may_be_restarted_under_its_clients(cluster):
    chat = cluster("tgg-demo-chat")

    async def scenario():
        ann, bob = await two_in(chat)
        chat.worker.stop()
        await ann.send(type="say", text="said while no worker was there")
        chat.start_worker()
        for one in (ann, bob):
            assert (await one.expect("say"))["name"] == "Ann"

    run(scenario)


@pytest.mark.tgg_only
def test_the_echo_worker_echoes_in_order_at_all_sizes(cluster):
    echo = cluster("tgg-echo-worker", "--bind-uid", "--join-group", "--session", "64")

    async def scenario():
        socket = await connect(echo.url)
        texts = ["x" * n for n in (1, 125, 126, 65535, 65536, 300000, 1, 900000)] + [str(n) for n in range(2000)]

        async def read_all():
            return [await asyncio.wait_for(socket.recv(), 30) for _ in texts]

        reader = asyncio.create_task(read_all())
        for text in texts:
            await socket.send(text)
        assert await reader == texts

    run(scenario)


@pytest.mark.tgg_only
def test_the_echo_worker_sends_to_all(cluster):
    echo = cluster("tgg-echo-worker", "--broadcast")

    async def scenario():
        sockets = [await connect(echo.url) for _ in range(5)]
        await sockets[0].send("hello")
        for socket in sockets:
            assert await asyncio.wait_for(socket.recv(), 20) == "hello"

    run(scenario)
