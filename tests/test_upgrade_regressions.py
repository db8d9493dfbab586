# SPDX-License-Identifier: MIT
"""What upgrades once did wrong."""

import os
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

import certs
from node import check_echo
from proc import PATIENCE, TGG, run_tgg, wait_for
from upgrade import adopt, ask_upgrade, reaper, upgrade  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.tgg_only, pytest.mark.usefixtures("reaper"), pytest.mark.timeout(120)]


def ctl(site, *args):
    done = run_tgg("ctl", "-c", site.gateway.config_path, *args)
    assert done.returncode == 0, done
    return done


def upgrade_to_shards(site, count):
    site.gateway.sections["gateway"]["shards"] = count
    site.gateway.write_config()
    done = ask_upgrade(site.gateway)
    assert done.returncode == 0, done
    site.gateway.shards = count
    adopt(site.gateway)


def tls_listener(**keys):
    ca = certs.make_ca()
    cert = certs.make_cert(ca, ["localhost"])
    return certs.client_context(ca), {"protocol": "text", "tls_certificate": cert.chain, "tls_key": cert.key, **keys}


class Handshake:
    """The client's side of TLS, flight by flight."""

    def __init__(self, site, context):
        self.sock = socket.create_connection(site.gateway.client_address("tls"), PATIENCE)
        site.clients.append(self)
        self.in_, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.in_, self.out, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.hello = self.out.read()

    def finish(self):
        while True:
            try:
                self.tls.do_handshake()
                self.sock.sendall(self.out.read())
                return
            except ssl.SSLWantReadError:
                self.sock.sendall(self.out.read())
            data = self.sock.recv(65536)
            assert data, "closed in its handshake"
            self.in_.write(data)

    def close(self):
        self.sock.close()


# ---- shards that take no clients


@pytest.mark.parametrize("order", [("drain", "shard", "0"), ("evacuate", "0")])
def test_a_drained_shard_that_is_left_alone_takes_clients_again(start, order):
    site = start(shards=2)
    ctl(site, *order)
    upgrade_to_shards(site, 1)
    check_echo(site, site.client("text"))


def test_a_drained_shard_stays_drained(start):
    site = start(shards=3)
    ctl(site, "drain", "shard", "0")
    for count in (3, 2):
        upgrade_to_shards(site, count)
        before = site.per_shard("clients")[0]
        for _ in range(6):
            check_echo(site, site.client("text"))
        assert site.per_shard("clients")[0] == before


# ---- a pause that nobody ends


def state_of_old(gateway):
    """What the log says that the old supervisor is at."""
    states = [line.split("state=")[1].split()[0] for line in gateway.log().splitlines() if " side=old state=" in line]
    return states[-1] if states else ""


def test_a_supervisor_that_stands_still_before_it_has_said_stop(start):
    """Held shards go on by themselves."""
    site = start(shards=2, gateway={"upgrade_pause_max": 1500, "upgrade_handshake_wait": 0})
    clients = [site.client("text") for _ in range(6)]
    old, shard = site.gateway.process.pid, site.gateway.shard_pid(0)
    os.kill(shard, signal.SIGSTOP)  # so that it is waited for
    command = subprocess.Popen([TGG, "upgrade", "-c", site.gateway.config_path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: state_of_old(site.gateway) == "holds", what="the pause")
    os.kill(old, signal.SIGSTOP)
    os.kill(shard, signal.SIGCONT)
    try:
        for client in clients:
            check_echo(site, client)
    finally:
        os.kill(old, signal.SIGCONT)
    assert command.wait(PATIENCE) != 0
    for client in clients:
        check_echo(site, client)


def test_a_handshake_that_is_waited_for_holds_nobody_on_other_shards(start):
    context, listener = tls_listener()
    site = start(shards=3, gateway={"upgrade_handshake_wait": 5000}, listen={"tls": listener})
    clients = [found[0] for found in site.clients_on_each_shard(1)]
    stuck = Handshake(site, context)
    stuck.sock.sendall(stuck.hello)
    wait_for(lambda: site.gauge("tls_handshakes_begun") == 1, what="a handshake that has begun")
    stopping, gaps = threading.Event(), []

    def echo():
        while not stopping.is_set():
            try:
                event = site.worker.next(0.05)
            except TimeoutError:
                continue
            site.worker.send_to_one(event.connection_id, event.body)

    def talk(client):
        longest = 0
        while not stopping.is_set():
            began = time.monotonic()
            client.send_message(b"x")
            client.read_message()
            longest = max(longest, time.monotonic() - began)
        gaps.append(longest)

    threads = [threading.Thread(target=echo)] + [threading.Thread(target=talk, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    upgrade(site.gateway)
    stopping.set()
    for thread in threads[1:] + threads[:1]:
        thread.join()
    assert max(gaps) < 3, gaps


# ---- what comes while others have their turn


def test_the_rest_of_client_hellos_comes_behind_their_beginning(start):
    """More of them than one turn can take up."""
    context, listener = tls_listener(tls_handshake_timeout=60)
    site = start(shards=2, gateway={"turn_max": 1}, listen={"tls": listener})
    site.worker
    halves = [Handshake(site, context) for _ in range(1000)]
    for half in halves:
        half.sock.sendall(half.hello[:100])
    site.wait_gauge("clients", len(halves))
    wait_for(lambda: site.gauge("client_input_bytes") >= 100 * len(halves), what="what they have said")
    shard = site.gateway.shard_pid(1)
    os.kill(shard, signal.SIGSTOP)  # so that it is waited for, while the other one is held
    command = subprocess.Popen([TGG, "upgrade", "-c", site.gateway.config_path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: state_of_old(site.gateway) == "holds", what="the pause")
    time.sleep(0.1)
    for half in halves:
        half.sock.sendall(half.hello[100:])
    os.kill(shard, signal.SIGCONT)
    assert command.wait(PATIENCE) == 0
    adopt(site.gateway)
    for half in halves:
        half.finish()
