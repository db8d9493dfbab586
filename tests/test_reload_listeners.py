# SPDX-License-Identifier: MIT
"""HUP: listeners come and go, while clients of the others, and of those that go, are there."""

import os
import pwd
import signal
import socket
import threading
import time

import pytest

import certs
from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE
from load import Busy
from node import check_echo
from proc import free_port, slow, wait_for
from test_listen_sockets import TextOver, WsOver, say_and_hear
from test_privileges import ROOT_ONLY
from test_reload import change, hup, line_of, refused, reload
from tlsclient import WssClient
from wsclient import BINARY, FrameClient, TextClient, WsClient, request

pytestmark = pytest.mark.tgg_only


def put(site, name, **keys):
    """A listener more, or another one in its place, in the file."""
    keys = {"address": "127.0.0.1", "port": free_port(), "protocol": "text", **keys}
    site.gateway.sections["listen " + name] = keys
    site.gateway.ports[name] = keys["port"]
    site.gateway.write_config()


def take_out(site, name):
    """What it had, to be put again."""
    keys = site.gateway.sections.pop("listen " + name)
    site.gateway.write_config()
    return keys


def is_refused(address):
    """Nobody listens there. (Of several shards the last one may close a moment after the first.)"""
    try:
        with socket.create_connection(address, 5) as sock:
            return sock.recv(1) == b""
    except ConnectionError:
        return True


def descriptors(site):
    pids = [site.gateway.process.pid] + site.gateway.shard_pids()
    return [len(os.listdir("/proc/%d/fd" % pid)) for pid in pids]


def one_on_each_shard(site, listener):
    return [clients[0] for clients in site.clients_on_each_shard(1, listener)]


@pytest.mark.shards(1, 3)
def test_a_listener_comes_and_goes(start, shards):
    site = start()
    old = site.client("text")
    pids = site.gateway.shard_pids()
    put(site, "more")
    reload(site)
    site.gateway.wait_log("listener_added name=more address=127.0.0.1")
    stayers = one_on_each_shard(site, "more")
    for client in (old, *stayers):
        check_echo(site, client)
    address = site.gateway.client_address("more")
    take_out(site, "more")
    reload(site)
    site.gateway.wait_log("listener_removed name=more address=127.0.0.1")
    assert is_refused(address)
    for client in (old, *stayers):  # they stay
        check_echo(site, client)
    for client in stayers:
        client.close()
        assert site.worker.wait(ON_CLOSE, client.id)
    assert site.gateway.shard_pids() == pids
    assert "listeners_added=1 listeners_removed=0" in site.gateway.log()
    assert "listeners_added=0 listeners_removed=1" in site.gateway.log()
    for text in ("sandbox:", "shard_not_reloaded", "not_adjusted"):
        assert text not in site.gateway.log()


@pytest.mark.shards(1, 3)
def test_nobody_is_held_up_and_nothing_is_lost(start, shards):
    busy = Busy(start, shards, workers=2, clients=100, pace=0.02)
    site = busy.site
    time.sleep(0.5)
    busy.crowd.mark()
    for i in range(5):
        put(site, "more%d" % i, protocol=("websocket", "text")[i % 2])
        reload(site)
    for i in range(5):
        take_out(site, "more%d" % i)
        reload(site)
    busy.crowd.pause()
    report = busy.crowd.report()
    assert len(report) == 100
    for said in report.values():
        assert said["lost"] == said["wrong"] == 0 and said["echoed"] > 10, said
    worst = max(said["worst"] for said in report.values())
    print("worst echo during 10 reloads: %.1f ms" % (worst * 1000))
    assert worst < 0.25 * slow()


@pytest.mark.shards(1, 3)
def test_another_port(start, shards):
    site = start()
    old, before = site.client("text"), site.gateway.client_address("text")
    change(site, "listen text", port=free_port())
    site.gateway.ports["text"] = site.gateway.sections["listen text"]["port"]
    reload(site)
    assert is_refused(before)
    for client in (old, *one_on_each_shard(site, "text")):
        check_echo(site, client)
    log = site.gateway.log()
    assert 'setting_changed section="listen text" key=port' in log
    assert "listener_added name=text" in log and "listener_removed name=text" in log
    assert "needs_restart=0" in log


@pytest.mark.shards(1, 3)
def test_another_protocol_on_the_same_port(start, shards):
    """The socket is the same one: nobody is refused or reset meanwhile, and who came before goes on as he began."""
    site = start()
    old = one_on_each_shard(site, "text")
    stop, failures, connects = threading.Event(), [], [0]

    def connect():
        while not stop.is_set():
            try:
                sock = socket.create_connection(site.gateway.client_address("text"), 5)
                sock.settimeout(0.02)
                try:
                    assert sock.recv(1) != b"", "closed"
                except socket.timeout:
                    pass
                sock.close()
                connects[0] += 1
            except (OSError, AssertionError) as error:
                failures.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        for protocol in ("frame", "text", "frame"):
            change(site, "listen text", protocol=protocol)
            reload(site)
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join()
    assert not failures and connects[0] > 3
    for client in old:
        check_echo(site, client)
    client = FrameClient(site.gateway.client_address("text"))
    site.clients.append(client)
    client.id = site.worker.wait(ON_CONNECT, client_port=client.sock.getsockname()[1]).connection_id
    check_echo(site, client)


def test_another_backlog_and_address_on_the_same_port(start):
    site = start()
    old = site.client("text")
    change(site, "listen text", backlog=7)
    reload(site)
    check_echo(site, site.client("text"))
    for address in ("0.0.0.0", "127.0.0.1"):
        change(site, "listen text", address=address)
        reload(site)
        check_echo(site, site.client("text"))
    check_echo(site, old)


@pytest.mark.shards(1, 3)
def test_the_same_a_hundred_times_under_load(start, shards):
    busy = Busy(start, shards, workers=2, clients=60, pace=0.05)
    site = busy.site
    keys = {"port": free_port()}
    before = descriptors(site)
    served = 0
    for i in range(100):
        put(site, "more", **keys)
        reload(site)
        if i % 10 == 0:
            client = site.connect("more")
            client.send_message(b"e1")
            assert client.read_message() == b"e1"
            served += 1
            client.close()
        take_out(site, "more")
        reload(site)
    assert served == 10
    # And as fast as it goes: what is overtaken is left out, the last one counts.
    path, texts = site.gateway.config_path, []
    for change_it in (lambda: put(site, "more", **keys), lambda: take_out(site, "more")):
        change_it()
        with open(path) as f:
            texts.append(f.read())
    for i in range(201):
        with open(path + ".new", "w") as f:
            f.write(texts[i % 2])
        os.rename(path + ".new", path)
        hup(site)
    done = site.gateway.log().count(" reloaded ")
    hup(site)
    wait_for(lambda: site.gateway.log().count(" reloaded ") > done, what="the last reload")
    client = TextClient(site.gateway.client_address("more"))
    client.send_message(b"e2")
    assert client.read_message() == b"e2"
    client.close()
    assert site.counter("reloads_failed") == 0
    assert "reload_not_done" not in site.gateway.log()
    site.gateway.write_config()
    hup(site)
    wait_for(lambda: descriptors(site) == before, what="no descriptor is left behind")
    busy.crowd.pause()
    for said in busy.crowd.report().values():
        assert said["lost"] == said["wrong"] == 0, said


@pytest.mark.shards(1, 3)
def test_clients_of_one_that_comes_again_have_it_again(start, shards):
    """With its clients on it all the time, more often than there are slots."""
    site = start()
    put(site, "more", protocol="websocket")
    reload(site)
    stayers = one_on_each_shard(site, "more")

    def opcodes():
        found = set()
        for client in stayers:
            site.worker.send_to_one(client.id, b"x")
            found.add(client.read_frame().opcode)
        return found

    for i in range(80):
        keys = take_out(site, "more")
        reload(site)
        put(site, "more", **keys)
        reload(site)
    take_out(site, "more")
    change(site, "gateway", retry_after=3)
    reload(site)
    assert BINARY not in opcodes()  # as it was when it went
    put(site, "more", **{**keys, "send_type": "binary"})
    reload(site)
    assert opcodes() == {BINARY}
    assert one_on_each_shard(site, "more")


def test_without_a_place_it_is_refused(start):
    """64 at once, those that are gone but for their clients among them."""
    site = start()
    clients = []
    for i in range(60):
        put(site, "more%d" % i)
        reload(site)
        clients.append(site.client("more%d" % i))
        take_out(site, "more%d" % i)
        reload(site)
    put(site, "last")
    refused(site, "[listen last] no room for another listener")
    check_echo(site, clients[7])
    clients[7].close()
    assert site.worker.wait(ON_CLOSE, clients[7].id)

    def is_possible():
        reloads = site.counter("reloads")
        hup(site)
        time.sleep(0.3)
        return site.counter("reloads") > reloads

    wait_for(is_possible, what="a place")
    check_echo(site, site.client("last"))


@pytest.mark.shards(1, 3)
def test_a_port_that_is_taken_changes_nothing(start, shards):
    site = start()
    client = site.client("text")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        put(site, "more", port=taken.getsockname()[1])
        put(site, "other")
        keys = take_out(site, "tcp")
        change(site, "listen websocket", send_type="binary")
        refused(site, "tgg_conf.ini:%d: [listen more] port: 127.0.0.1 port %d is in use" % (line_of(site, "port = %d" % taken.getsockname()[1]), taken.getsockname()[1]))
        assert is_refused(site.gateway.client_address("other"))
        put(site, "tcp", **keys)
        take_out(site, "other")
        check_echo(site, client)
        check_echo(site, site.client("tcp"))
    reload(site)
    check_echo(site, site.client("more"))


def test_a_wrong_listener_changes_nothing(start, tmp_path):
    site = start()
    put(site, "more", idle_timout=3)
    refused(site, "[listen more] idle_timout")
    put(site, "more", address="192.0.2.77")
    refused(site, "[listen more] address: 192.0.2.77 is not an address of this machine")
    put(site, "more", address="unix:%s/none/s" % tmp_path)
    refused(site, "[listen more] address: the folder of")
    put(site, "more", tls_certificate="/does/not/exist")
    refused(site, "[listen more] tls_certificate")
    put(site, "more", port=site.gateway.ports["text"])
    refused(site, "[listen more] port")
    assert is_refused(("127.0.0.1", 1))
    put(site, "more")
    reload(site)
    check_echo(site, site.client("more"))


@pytest.mark.shards(1, 3)
def test_with_tls(start, shards, tmp_path):
    ca = certs.make_ca()
    cert = certs.make_cert(ca, ["localhost"])
    site = start()
    assert site.worker
    put(site, "secure", protocol="websocket", tls_certificate=cert.chain, tls_key=cert.key, deflate="yes")
    reload(site)
    context = certs.client_context(ca)

    def connect():
        client = WssClient(site.gateway.client_address("secure"), tls=context)
        site.clients.append(client)
        client.send_text(b"hello")
        client.id = site.worker.wait(ON_MESSAGE, client_port=client.sock.getsockname()[1]).connection_id
        return client

    stayers = [connect() for _ in range(4 * shards)]
    keys = take_out(site, "secure")
    reload(site)
    for client in stayers:
        check_echo(site, client)
    put(site, "secure", **keys)
    reload(site)
    for client in (*stayers, connect()):
        check_echo(site, client)
    assert "sandbox:" not in site.gateway.log()


@pytest.mark.shards(1, 3)
def test_a_unix_socket(start, shards, tmp_path):
    path = str(tmp_path / "clients.sock")
    site = start()
    assert site.worker
    put(site, "local", address="unix:" + path, port=7272, socket_mode="0600")
    reload(site)
    assert os.stat(path).st_mode & 0o777 == 0o600
    stayers = [TextOver(socket.AF_UNIX, path) for _ in range(4 * shards)]
    for client in stayers:
        site.clients.append(client)
        event = site.worker.wait(ON_CONNECT)
        assert event.gateway_port == 7272
        client.send_message(b"%d" % event.connection_id)
    said = [site.worker.wait(ON_MESSAGE) for _ in stayers]
    assert len({event.connection_id for event in said}) == len(stayers)
    change(site, "listen local", socket_mode="0666")
    reload(site)
    assert os.stat(path).st_mode & 0o777 == 0o666
    say_and_hear(site, TextOver(socket.AF_UNIX, path))
    change(site, "listen local", protocol="websocket")
    reload(site)
    say_and_hear(site, WsOver(socket.AF_UNIX, path))
    keys = take_out(site, "local")
    reload(site)
    assert not os.path.exists(path)
    for event in said:
        site.worker.send_to_one(event.connection_id, b"still there")
    for client in stayers:
        assert client.read_message() == b"still there"
    put(site, "local", **keys)
    reload(site)
    say_and_hear(site, WsOver(socket.AF_UNIX, path))
    site.gateway.stop()
    assert not os.path.exists(path)
    site.gateway.start()


@pytest.mark.shards(1, 3)
def test_who_waits_in_the_queue_is_served_first(start, shards):
    """Nobody is reset who had come before the listener went."""
    site = start()
    assert site.worker
    put(site, "more")
    reload(site)
    pids = site.gateway.shard_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        waiting = [site.connect("more") for _ in range(20 * shards)]
        take_out(site, "more")
        reloads = site.gateway.log().count(" reloaded ")
        hup(site)
        wait_for(lambda: site.gateway.log().count(" reloaded ") > reloads, what="the supervisor")
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    for client in waiting:
        client.id = site.worker.wait(ON_CONNECT, client_port=client.port).connection_id
        check_echo(site, client)
    assert is_refused(site.gateway.client_address("more"))


@pytest.mark.shards(1, 3)
def test_a_shard_dies_in_the_middle(start, shards):
    """It has not read the news: its successor has them from the start."""
    site = start()
    put(site, "old")
    reload(site)
    for i in range(3):
        victim = site.gateway.shard_pids()[i % shards]
        os.kill(victim, signal.SIGSTOP)
        put(site, "new%d" % i)
        if i == 0:
            take_out(site, "old")
        reloads = site.gateway.log().count(" reloaded ")
        hup(site)
        wait_for(lambda: site.gateway.log().count(" reloaded ") > reloads, what="the supervisor")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: site.gateway.status() and victim not in site.gateway.shard_pids()
                 and all(s["state"] == "running" for s in site.gateway.status()["shards"]), what="a successor")
    worker = site.worker_link()
    site._worker = worker
    assert is_refused(site.gateway.client_address("old"))
    for i in range(3):
        for client in one_on_each_shard(site, "new%d" % i):
            check_echo(site, client)
    take_out(site, "new0")  # and its numbers are those of the others
    put(site, "again", port=site.gateway.ports["new0"])
    reload(site)
    for client in one_on_each_shard(site, "again"):
        check_echo(site, client)
    assert "hand_over_lost" not in site.gateway.log()


def ask_path(site, listener, path):
    """A client at that listener's port, or the status that refused it."""
    client = WsClient(site.gateway.client_address(listener), open=False)
    site.clients.append(client)
    return finish_path(client, path)


def finish_path(client, path):
    client.send_bytes(request(path=path))
    head = client.read_response_head()
    status = int(head.split()[1])
    return client if status == 101 else status


@pytest.mark.shards(1, 3)
def test_listeners_on_one_port(start, shards):
    port = free_port()
    names = ("a", "b", "c")
    site = start(listen={name: {"protocol": "websocket", "port": port, "path": "/" + name} for name in names[:2]})
    assert site.worker

    def answers():
        return [isinstance(ask_path(site, "a", "/" + name), WsClient) for name in names for _ in range(2 * shards)]

    def expected(*which):
        return [name in which for name in names for _ in range(2 * shards)]

    assert answers() == expected("a", "b")
    stayers = [ask_path(site, "a", "/" + name) for name in "ab" for _ in range(2 * shards)]
    early = [WsClient(site.gateway.client_address("a"), open=False) for _ in range(2 * shards)]  # nothing said yet
    site.clients += early
    time.sleep(0.2)
    put(site, "c", protocol="websocket", port=port, path="/c")
    reload(site)
    assert answers() == expected("a", "b", "c")
    take_out(site, "a")  # whose socket it was
    reload(site)
    assert answers() == expected("b", "c")
    assert isinstance(finish_path(early.pop(), "/b"), WsClient)  # from before: any of them
    assert isinstance(finish_path(early.pop(), "/a"), WsClient)
    take_out(site, "b")
    reload(site)
    assert answers() == expected("c")
    put(site, "a", protocol="websocket", port=port, path="/a")
    reload(site)
    assert answers() == expected("a", "c")
    for client in stayers:
        client.send_text(b"still here")
        assert site.worker.wait(ON_MESSAGE, client_port=client.sock.getsockname()[1]).body == b"still here"
    for name in "ac":
        take_out(site, name)
    reload(site)
    assert is_refused(("127.0.0.1", port))


@pytest.mark.shards(3)
def test_clients_of_a_new_listener_are_spread(start, shards):
    """Handed over under the listener's own number, whatever came and went before."""
    site = start()
    assert site.worker
    for i in range(5):
        put(site, "x%d" % i, protocol=("frame", "text", "websocket", "tcp", "text")[i])
    reload(site)
    for i in range(0, 5, 2):
        take_out(site, "x%d" % i)
    reload(site)
    put(site, "y", protocol="frame")
    put(site, "z", protocol="text")
    reload(site)
    clients = [site.client(name) for _ in range(40) for name in ("x1", "y", "z")]
    assert site.counter("handed_over") > 0
    per_shard = site.per_shard("clients")
    assert max(per_shard) - min(per_shard) <= 10, per_shard
    for client in clients:
        check_echo(site, client)
    assert site.counter("hand_over_failed") == 0


def test_what_needs_a_restart_still_does(start):
    site = start()
    put(site, "more")
    change(site, "gateway", stuck_timeout=77)
    reload(site)
    assert "needs_restart=1 files_changed=0 listeners_added=1 listeners_removed=0" in site.gateway.log()
    check_echo(site, site.client("more"))


@ROOT_ONLY
def test_the_supervisor_makes_them_with_its_own_rights(start, tmp_path):
    """Shards run as somebody else and in a sandbox; the file is theirs."""
    path = str(tmp_path / "clients.sock")
    site = start(gateway={"user": "nobody"})
    assert site.worker
    put(site, "local", address="unix:" + path, port=7272)
    port = next(p for p in range(1000, 1024) if is_refused(("127.0.0.1", p)))
    put(site, "low", port=port)
    reload(site)
    assert os.stat(path).st_uid == pwd.getpwnam("nobody").pw_uid
    say_and_hear(site, TextOver(socket.AF_UNIX, path))
    check_echo(site, site.client("low"))
    assert "sandbox:" not in site.gateway.log()
