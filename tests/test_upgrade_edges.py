# SPDX-License-Identifier: MIT
"""Those whom an upgrade meets on their way in, and those whom it cannot take along."""

import ssl
import threading
import time

import pytest

import certs
from gwproto import ON_CLOSE, ON_CONNECT
from node import check_echo
from proc import run_tgg, slow, wait_for
from test_upgrade import set_shards
from tlsclient import TlsTextClient
from upgrade import reaper, upgrade  # noqa: F401 (a fixture)

pytestmark = [pytest.mark.tgg_only, pytest.mark.usefixtures("reaper"), pytest.mark.timeout(120)]


def test_newcomers_are_let_in_while_the_number_of_shards_changes(start):
    """Also those who wait in sockets that the new shards do not have, and those of whom a shard is given one before it has a
    socket itself."""
    site = start(shards=2)
    came, stop = [], threading.Event()

    def knock():
        while not stop.is_set():
            came.append(site.connect("text"))
            time.sleep(0.005 * slow())

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        for shards in (4, 1, 3, 1):
            set_shards(site, shards)
            upgrade(site.gateway)
            time.sleep(0.2)
    finally:
        stop.set()
        thread.join()
    wait_for(lambda: site.gauge("clients") == len(came), what="all of them")
    assert not [client for client in came if client.is_ended()]


@pytest.fixture
def cbc(start):
    """A client with a cipher that is no AEAD, which only OpenSSL goes on with."""
    ca = certs.make_ca()
    cert = certs.make_cert(ca, ["localhost", "127.0.0.1"])
    site = start(shards=2, listen={"old": {"protocol": "text", "tls_certificate": cert.chain, "tls_key": cert.key,
                                           "tls_ciphers": "ECDHE-ECDSA-AES128-SHA"}}).with_worker()
    context = certs.client_context(ca, ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA@SECLEVEL=0")
    client = TlsTextClient(site.gateway.client_address("old"), tls=context)
    client.port = client.sock.getsockname()[1]
    client.id = site.worker.wait(ON_CONNECT, client_port=client.port).connection_id
    site.clients.append(client)
    return site, client


def test_whose_cipher_cannot_be_handed_over_has_its_end_told(cbc):
    site, client = cbc
    stays = site.client("text")
    site.worker.set_session(client.id, b"last words")
    site.g.sync()
    upgrade(site.gateway)
    client.expect_end()
    closed = site.worker.wait(ON_CLOSE, client.id)
    assert closed.ext == b"last words"
    assert site.counter("client_closed_upgrade") == 1
    check_echo(site, stays)


def test_a_shard_with_such_a_client_is_not_evacuated(cbc):
    site, client = cbc
    shard = client.id >> 26
    done = run_tgg("ctl", "-c", site.gateway.config_path, "evacuate", shard, "--yes")
    assert done.returncode == 1 and "cipher" in done.stderr
    site.worker.send_to_one(client.id, b"still there")
    assert client.read_message() == b"still there"
