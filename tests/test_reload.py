# SPDX-License-Identifier: MIT
"""HUP: the configuration and what it names are read again, all or nothing, while clients are there."""

import os
import signal
import time

import pytest

import certs
from gwproto import ON_CLOSE, ON_MESSAGE
from node import check_echo
from proc import config_text, run_tgg, wait_for
from tlsclient import WssClient
from wsclient import BINARY, TEXT

pytestmark = pytest.mark.tgg_only


def hup(site):
    site.gateway.process.send_signal(signal.SIGHUP)


def reload(site):
    """HUP, and until every shard has taken it over."""
    before = site.counter("reloads")
    hup(site)
    site.wait_counter("reloads", before + site.shards)
    assert site.counter("reloads_failed") == 0


def refused(site, *texts):
    """HUP with a file that is wrong: every text is in the log, once more than before, and no shard hears of it."""
    log = lambda: site.gateway.log()
    before = {text: log().count(text) for text in texts}
    done, reloads = log().count("reload_not_done"), site.counter("reloads")
    hup(site)
    wait_for(lambda: log().count("reload_not_done") > done, what="the refusal")
    for text in texts:
        assert log().count(text) == before[text] + 1, "%r in\n%s" % (text, log()[-3000:])
    assert site.counter("reloads") == reloads


def change(site, section, **keys):
    """In the file; None takes a key out."""
    site.gateway.sections[section].update(keys)
    site.gateway.write_config()


def line_of(site, text):
    return config_text(site.gateway.sections).splitlines().index(text) + 1


def opcode_of_a_message(site, client):
    site.worker.send_to_one(client.id, b"x")
    return client.read_frame().opcode


def is_let_in(site, listener="text"):
    """A client that is not on a list has its echo; one that is, is closed without a word."""
    try:
        client = site.connect(listener)
        client.send_message(b"may I")
    except ConnectionError:
        return False
    try:
        event = site.worker.wait(ON_MESSAGE, client_port=client.port, timeout=0.5)
    except TimeoutError:
        assert client.is_ended(within=5)
        return False
    return event.body == b"may I"


@pytest.mark.shards(1, 3)
def test_a_live_key_changes_for_clients_that_are_there(start):
    site = start()
    client = site.client()
    assert opcode_of_a_message(site, client) == TEXT
    pids = site.gateway.shard_pids()
    change(site, "listen websocket", send_type="binary")
    reload(site)
    assert opcode_of_a_message(site, client) == BINARY
    assert opcode_of_a_message(site, site.client()) == BINARY
    assert site.gateway.shard_pids() == pids
    assert 'setting_changed section="listen websocket" key=send_type' in site.gateway.log()
    assert "changed=1 needs_restart=0" in site.gateway.log()
    assert "sandbox:" not in site.gateway.log()


def test_a_wrong_file_changes_nothing_and_says_why(start):
    site = start()
    client = site.client()
    change(site, "listen websocket", send_type="binary", idle_timout=9)
    refused(site, "tgg_conf.ini:%d: [listen websocket] idle_timout" % line_of(site, "idle_timout = 9"))
    change(site, "listen websocket", idle_timout=None, idle_timeout="never")
    refused(site, "tgg_conf.ini:%d: [listen websocket] idle_timeout" % line_of(site, "idle_timeout = never"))
    change(site, "listen websocket", idle_timeout=None)
    change(site, "gateway", deny_list="/does/not/exist")
    refused(site, "tgg_conf.ini:%d: [gateway] deny_list" % line_of(site, "deny_list = /does/not/exist"))
    os.rename(site.gateway.config_path, site.gateway.config_path + ".gone")
    refused(site, "No such file or directory")
    assert opcode_of_a_message(site, client) == TEXT
    assert opcode_of_a_message(site, site.client()) == TEXT
    change(site, "gateway", deny_list=None)  # and then all is right
    reload(site)
    assert opcode_of_a_message(site, client) == BINARY


def test_a_key_that_needs_a_restart_is_told(start):
    site = start()
    change(site, "gateway", stuck_timeout=77, secret_key="not-to-be-seen", retry_after=3)
    reload(site)
    log = site.gateway.log()
    assert 'setting_needs_restart section="gateway" key=stuck_timeout' in log
    assert 'setting_needs_restart section="gateway" key=secret_key' in log
    assert "changed=1 needs_restart=2" in log
    assert "not-to-be-seen" not in log
    check_echo(site, site.client())  # workers still join without the secret
    assert site.worker_link()


@pytest.mark.shards(1, 3)
def test_a_successor_has_what_was_reloaded(start):
    site = start()
    change(site, "listen websocket", send_type="binary")
    reload(site)
    old = site.gateway.shard_pids()
    for pid in old:
        os.kill(pid, signal.SIGKILL)

    def successors():
        status = site.gateway.status()
        return status and all(s["state"] == "running" and s["pid"] not in old for s in status["shards"])

    wait_for(successors, what="a successor of each shard")
    site.gateway.wait_log("shard_died")
    worker = site.worker_link()
    client = site.client(worker=worker)
    worker.send_to_one(client.id, b"x")
    assert client.read_frame().opcode == BINARY


def test_many_reloads_one_after_another(start):
    """What is in the way of each other is left out, the newest is not."""
    site = start()
    for i in range(20):
        change(site, "listen websocket", send_type="binary" if i % 2 == 0 else "text")
        hup(site)
    change(site, "listen websocket", send_type="binary")
    reloads = site.counter("reloads")
    hup(site)
    wait_for(lambda: site.counter("reloads") > reloads, what="a reload")
    client = site.client()
    wait_for(lambda: opcode_of_a_message(site, client) == BINARY, what="the last of them")
    assert site.counter("reloads_failed") == 0


# -- files


def test_lists_in_files_are_read_again(start, tmp_path):
    deny = tmp_path / "deny"
    deny.write_text("192.0.2.0/24\n")
    site = start(gateway={"deny_list": deny})
    client = site.client("text")
    assert is_let_in(site)
    deny.write_text("192.0.2.0/24\n127.0.0.1\n")
    assert is_let_in(site)  # not before HUP
    reload(site)
    assert site.worker.wait(ON_CLOSE, client.id)
    assert client.is_ended(within=5)
    assert not is_let_in(site)
    assert "files_changed=1" in site.gateway.log()
    deny.write_text("127.0.0.1\nnonsense\n")
    refused(site, "[gateway] deny_list")
    assert not is_let_in(site)
    deny.write_text("")
    reload(site)
    assert is_let_in(site)


def test_a_list_of_many_addresses(start, tmp_path):
    deny = tmp_path / "deny"
    deny.write_text("".join("10.%d.%d.%d/32\n" % (i >> 16 & 255, i >> 8 & 255, i & 255) for i in range(100000)))
    site = start()
    client = site.client("text")
    change(site, "gateway", deny_list=deny)
    began = time.monotonic()
    reload(site)
    took = time.monotonic() - began
    check_echo(site, client)
    with open(deny, "a") as f:
        f.write("127.0.0.0/8\n")
    reload(site)
    assert not is_let_in(site)
    print("100,000 entries: %.2f s" % took)


@pytest.mark.shards(1, 3)
def test_certificates_are_exchanged_below_clients(start, tmp_path):
    ca = certs.make_ca()
    first, second, other = certs.make_cert(ca, ["localhost"]), certs.make_cert(ca, ["localhost"]), certs.make_cert(ca, ["localhost"])
    chain, key = str(tmp_path / "chain.pem"), str(tmp_path / "key.pem")
    first.copy_to(chain, key)
    os.chmod(key, 0o600)
    site = start(listen={"websocket": {"protocol": "websocket", "tls_certificate": chain, "tls_key": key}})
    site.with_worker()
    context = certs.client_context(ca)

    def connect():
        client = WssClient(site.gateway.client_address("websocket"), tls=context)
        site.clients.append(client)
        client.port = client.sock.getsockname()[1]
        client.send_text(b"hello")
        client.id = site.worker.wait(ON_MESSAGE, client_port=client.port).connection_id
        return client

    old = connect()
    assert old.sock.getpeercert(True) == first.der()
    second.copy_to(chain, key)
    reload(site)
    assert connect().sock.getpeercert(True) == second.der()
    other.copy_to(chain, str(tmp_path / "elsewhere"))  # the certificate without its key
    refused(site, "[listen websocket] tls_")
    for client in (old, connect()):
        check_echo(site, client)
    assert connect().sock.getpeercert(True) == second.der()
    assert "sandbox:" not in site.gateway.log()


def test_ticket_keys_outlive_a_restart_and_are_for_nobody_else(start, tmp_path):
    ca = certs.make_ca()
    cert = certs.make_cert(ca, ["localhost"])
    site = start(listen={"text": {"protocol": "text", "tls_certificate": cert.chain, "tls_key": cert.key}})
    path = os.path.join(site.gateway.runtime_dir, "tls_tickets")
    assert os.stat(path).st_mode & 0o777 == 0o600
    with open(path) as f:
        kept = f.read()
    assert kept.startswith("tgg tls tickets 1\n")
    reload(site)
    site.gateway.stop()
    site.gateway.start()
    with open(path) as f:
        assert f.read() == kept
    site.gateway.stop()
    os.chmod(path, 0o644)
    site.gateway.start()
    with open(path) as f:
        assert f.read() != kept
    assert "tls_tickets_not_continued" in site.gateway.log()
    assert os.stat(path).st_mode & 0o777 == 0o600


# -- -t


@pytest.mark.parametrize("how", [["-t"], []], ids=["test", "start"])
def test_what_the_file_names_is_looked_at(tmp_path, how):
    bad = tmp_path / "bad"
    bad.write_text("nonsense\n")
    sections = {
        "gateway": {
            "runtime_dir": tmp_path / "run",
            "deny_list": bad,
            "tls_ticket_file": bad,
        },
        "listen a": {"address": "127.0.0.1", "port": 9, "protocol": "text", "tls_certificate": bad},
    }
    path = tmp_path / "tgg_conf.ini"
    path.write_text(config_text(sections))
    done = run_tgg("gateway", *how, "-c", path)
    assert done.returncode == 78
    for line, key in ((3, "[gateway] deny_list"), (4, "[gateway] tls_ticket_file"), (10, "[listen a] tls_certificate")):
        assert "tgg_conf.ini:%d: %s" % (line, key) in done.stderr, done.stderr
    sections["listen a"]["tls_certificate"] = tmp_path / "none"
    path.write_text(config_text(sections))
    done = run_tgg("gateway", *how, "-c", path)
    assert done.returncode == 78
    assert "none" in done.stderr and "No such file" in done.stderr
