# SPDX-License-Identifier: MIT
"""TLS listeners, against Python's ssl, openssl s_client and curl: certificates by SNI, versions, tickets that every shard
and every successor takes, client certificates, reloads with clients there, and clients that break off, say garbage or
come all at once."""

import os
import queue
import random
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

import certs
from gwproto import ON_CLOSE, ON_CONNECT, ON_MESSAGE, PATIENCE, LinkClosed, Stream, shard_of
from node import Site
from proc import Gateway, run_tgg, slow, wait_for
from tlsclient import TLS_CLIENTS, WssClient
from wsclient import BINARY, CLOSE, PING, TEXT, close_payload, frame, request

pytestmark = pytest.mark.tgg_only

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])


class Pki:
    """All certificates of this module."""

    def __init__(self):
        self.ca = certs.make_ca()
        self.other_ca = certs.make_ca("Other CA")
        self.middle = certs.make_ca("Middle CA", issuer=self.ca)
        self.main = certs.make_cert(self.ca, ["localhost", "127.0.0.1"])
        self.second = certs.make_cert(self.ca, ["second.example"], type="rsa")
        self.wild = certs.make_cert(self.ca, ["*.example.org"])
        self.chained = certs.make_cert(self.middle, ["chained.example", "localhost"])
        self.expired = certs.make_cert(self.ca, ["localhost"], days=-1)
        self.client = certs.make_cert(self.ca, ["client one"], client=True)
        self.stranger = certs.make_cert(self.other_ca, ["client two"], client=True)
        self.late = certs.make_cert(self.ca, ["client three"], days=-1, client=True)
        self.tls = certs.client_context(self.ca)


@pytest.fixture(scope="module")
def pki():
    return Pki()


def of(*which):
    """The keys of a listener with these certificates."""
    return {"tls_certificate": ", ".join(cert.chain for cert in which), "tls_key": ", ".join(cert.key for cert in which)}


def listeners_of(pki):
    """One gateway for all tests that need nothing special."""
    return {
        "websocket": {"protocol": "websocket", **of(pki.main, pki.second, pki.wild, pki.chained)},
        "text": {"protocol": "text", **of(pki.main)},
        "frame": {"protocol": "frame", **of(pki.main)},
        "tcp": {"protocol": "tcp", **of(pki.main)},
        "pem": {"protocol": "text", "tls_certificate": pki.second.pem},
        "new": {"protocol": "text", **of(pki.main), "tls_version_min": "1.3", "tls_ciphersuites": "TLS_AES_128_GCM_SHA256"},
        "cipher": {"protocol": "text", **of(pki.main, pki.second), "tls_ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384"},
        "optional": {"protocol": "text", **of(pki.main), "tls_client_ca": pki.ca.cert, "tls_client_verify": "optional"},
        "required": {"protocol": "text", **of(pki.main), "tls_client_ca": pki.ca.cert, "tls_client_verify": "required"},
        "hasty": {"protocol": "text", **of(pki.main), "tls_handshake_timeout": 1},
        "plain": {"protocol": "text"},
    }


@pytest.fixture(scope="module")
def tls_gateway(gateway_factory, pki):
    gateway = gateway_factory(listen=listeners_of(pki), gateway={"send_to_client_buffer_size": 1 << 20})
    yield gateway
    gateway.stop()


@pytest.fixture
def site(tls_gateway):
    site_ = Site(tls_gateway).with_worker()
    yield site_
    site_.close()
    site_.take_what_waits()


def connect(site, tls, listener="websocket", **how):
    """A client over TLS, without waiting for what a worker hears of it."""
    protocol = site.gateway.sections["listen " + listener]["protocol"]
    client = TLS_CLIENTS[protocol](site.gateway.client_address(listener), tls, **how)
    client.port = client.sock.getsockname()[1]
    site.clients.append(client)
    return client


def joined(site, tls, listener="websocket", **how):
    """A client that the worker has heard of: client.id."""
    assert site.worker
    client = connect(site, tls, listener, **how)
    client.id = site.worker.wait(ON_CONNECT, client_port=client.port).connection_id
    return client


def raw(site, listener="text", **how):
    """A TCP connection to a TLS listener."""
    stream = Stream(site.gateway.client_address(listener), **how)
    site.clients.append(stream)
    return stream


def say(client, text):
    if isinstance(client, WssClient):
        client.send_text(text)
    else:
        client.send_message(text)


def check_echo(site, client, text=b"hello"):
    """Up to the worker and down again."""
    say(client, text)
    event = site.worker.wait(ON_MESSAGE, client_port=client.port)
    assert event.body == text
    site.worker.send_to_one(event.connection_id, text + b" yourself")
    assert client.read_message() == text + b" yourself"


def with_echo(site):
    """The site's worker gives way to one that echoes by itself."""
    site.worker.close()
    site.wait_gauge("workers", 0)

    def echo(link, event):
        if event.cmd == ON_MESSAGE:
            link.send_to_one(event.connection_id, event.body)

    site.echo_worker(echo)
    site.wait_gauge("workers", 1)


def s_client(site, pki, listener, *args, say=b"", **how):
    """openssl s_client with its input; CompletedProcess with all output in stdout. It ends when its input has ended (Q)."""
    argv = ["openssl", "s_client", "-connect", "127.0.0.1:%d" % site.gateway.client_address(listener)[1], "-CAfile", pki.ca.cert, *map(str, args)]
    return subprocess.run(argv, input=say, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=2 * PATIENCE, **how)


# ---- every protocol, every version


@VERSIONS
@pytest.mark.parametrize("listener", ["websocket", "text", "frame", "tcp"])
def test_every_protocol(site, pki, listener, version):
    client = joined(site, certs.client_context(pki.ca, version), listener)
    assert client.sock.version() == ("TLSv1.2" if version == V12 else "TLSv1.3")
    check_echo(site, client)
    client.close()
    site.worker.wait(ON_CLOSE, client.id)
    site.wait_counter("tls_handshakes", 1)
    assert site.counter("tls_record_bytes_in") > 0 < site.counter("tls_record_bytes_out")


def test_the_gauge_of_tls_clients(site, pki):
    clients = [joined(site, pki.tls, "text") for _ in range(5)]
    assert site.gauge("tls_clients") == 5
    for client in clients:
        client.close()
    site.wait_gauge("tls_clients", 0)


def test_a_handshake_byte_by_byte(site, pki):
    for version in (V12, V13):
        with raw(site) as stream:
            session = InMemory(certs.client_context(pki.ca, version), stream)
            session.handshake(chop=1)
            session.send(b"by the byte\n", chop=1)
            event = site.worker.wait(ON_MESSAGE)
            assert event.body == b"by the byte"
            site.worker.send_to_one(event.connection_id, b"in one")
            assert session.read_line() == b"in one"


class InMemory:
    """TLS over a Stream of which every byte is in our hands."""

    def __init__(self, tls, stream, server_name="localhost"):
        self.stream = stream
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = tls.wrap_bio(self.incoming, self.outgoing, server_hostname=server_name)

    def hello(self):
        """The ClientHello, to be sent by the caller."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def flush(self, chop=None):
        data = self.outgoing.read()
        for at in range(0, len(data), chop or max(len(data), 1)):
            self.stream.send_bytes(data[at : at + (chop or len(data))])

    def more(self):
        if not self.stream.buffer:
            self.stream.fill(time.monotonic() + PATIENCE)
        self.incoming.write(bytes(self.stream.buffer))
        self.stream.buffer.clear()

    def run(self, step, chop=None):
        while True:
            try:
                result = step()
                self.flush(chop)
                return result
            except ssl.SSLWantReadError:
                self.flush(chop)
                self.more()

    def handshake(self, chop=None):
        self.run(self.tls.do_handshake, chop)

    def send(self, data, chop=None):
        self.run(lambda: self.tls.write(data), chop)

    def read_line(self):
        line = b""
        while not line.endswith(b"\n"):
            line += self.run(lambda: self.tls.read(1))
        return line[:-1]


@VERSIONS
def test_records_of_every_size(site, pki, version):
    """Up and down; up in records of one byte to the largest."""
    with_echo(site)
    client = connect(site, certs.client_context(pki.ca, version))
    for size in (0, 1, 100, 16383, 16384, 16385, 100_000, 1 << 20):
        body = bytes(97 + i % 26 for i in range(26)) * (size // 26 + 1)
        data = frame(TEXT, body[:size])
        for chop in (1, 997, 16384, len(data)):
            if len(data) // chop > 1100:
                continue
            for at in range(0, len(data), chop):
                client.send_bytes(data[at : at + chop])
            assert client.read_message() == body[:size]
    client.leave()
    assert client.clean_end


def test_many_records_in_one_segment(site, pki):
    with_echo(site)
    with raw(site) as stream:
        session = InMemory(pki.tls, stream)
        session.handshake()
        for i in range(500):
            session.tls.write(b"%d\n" % i)
        session.flush()
        for i in range(500):
            assert session.read_line() == b"%d" % i


# ---- certificates


def certificate_for(site, pki, name, listener="websocket", version=None):
    """Which certificate the server shows to a client that asks for name (None: for none)."""
    tls = certs.client_context(None, version)
    with raw(site, listener) as stream, tls.wrap_socket(stream.sock, server_hostname=name) as sock:
        return sock.getpeercert(True)


@VERSIONS
@pytest.mark.parametrize("name, which", [
    ("localhost", "main"), ("second.example", "second"), ("SECOND.example", "second"), ("chained.example", "chained"), ("a.example.org", "wild"),
    ("b.EXAMPLE.org", "wild"), (None, "main"), ("unknown.example", "main"), ("example.org", "main"), ("a.b.example.org", "main"),
    ("xsecond.example", "main"), ("second.example.evil.net", "main"), ("127.0.0.1", "main"),
], ids=str)
def test_the_name_chooses_the_certificate(site, pki, name, which, version):
    assert certificate_for(site, pki, name, version=version) == getattr(pki, which).der()


def test_chains_are_sent(site, pki):
    """Only the root is known to the client; hostname and chain are checked by two libraries' rules."""
    client = connect(site, pki.tls, server_name="chained.example")
    client.leave()
    done = s_client(site, pki, "websocket", "-servername", "chained.example", "-verify_return_error", "-verify_hostname", "chained.example")
    assert b"Verify return code: 0 (ok)" in done.stdout, done.stdout.decode(errors="replace")


def test_a_key_in_the_certificate_file(site, pki):
    assert certificate_for(site, pki, None, "pem") == pki.second.der()


def test_curl(site, pki):
    done = subprocess.run(["curl", "-sS", "--http1.1", "--cacert", pki.ca.cert, "-o", os.devnull, "-w", "%{http_code} %{ssl_verify_result}",
                           "https://localhost:%d/" % site.gateway.client_address("websocket")[1], "--connect-to", "localhost::127.0.0.1:"],
                          capture_output=True, text=True, timeout=2 * PATIENCE)
    assert (done.returncode, done.stdout) == (0, "426 0"), done.stderr


# ---- versions and ciphers


def lax(version_max=None, ciphers=None):
    """A client that agrees to anything."""
    tls = certs.client_context(None)
    tls.set_ciphers(ciphers or "ALL:@SECLEVEL=0")
    tls.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    if version_max is not None:
        tls.maximum_version = version_max
    return tls


def fails_with(site, tls, listener, *reasons):
    """The handshake, or what is read first after it (a server's verdict on a client's certificate comes so late in TLS 1.3)."""
    before = site.counter("tls_handshakes_failed") + site.counter("client_closed_tls_failed")
    try:
        client = connect(site, tls, listener)
        with pytest.raises(LinkClosed):
            client.fill(time.monotonic() + PATIENCE)
        reason = client.alert
    except ssl.SSLError as error:
        reason = error.reason
    except ConnectionError:
        reason = None
    assert reason in reasons, reason
    wait_for(lambda: site.counter("tls_handshakes_failed") + site.counter("client_closed_tls_failed") > before, what="the failure counted")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_versions_are_refused(site, version):
    for listener in ("text", "new"):
        fails_with(site, lax(ssl.TLSVersion[version]), listener, "TLSV1_ALERT_PROTOCOL_VERSION")


def test_only_1_3(site, pki):
    fails_with(site, certs.client_context(None, V12), "new", "TLSV1_ALERT_PROTOCOL_VERSION")
    client = joined(site, pki.tls, "new")
    assert client.sock.version() == "TLSv1.3" and client.sock.cipher()[0] == "TLS_AES_128_GCM_SHA256"
    check_echo(site, client)


@pytest.mark.parametrize("ciphers", ["kRSA", "AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384", "aNULL", "NULL", "PSK"])
def test_ciphers_without_forward_secrecy_or_authentication_are_refused(site, ciphers):
    try:
        tls = lax(V12, ciphers + ":@SECLEVEL=0")
    except ssl.SSLError:
        return  # this library has no such thing to offer
    tls.minimum_version = V12
    fails_with(site, tls, "text", "SSLV3_ALERT_HANDSHAKE_FAILURE", "NO_CIPHERS_AVAILABLE")


@pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"])
def test_ciphers_of_1_2(site, pki, cipher):
    tls = certs.client_context(pki.ca, V12)
    tls.set_ciphers(cipher)
    client = joined(site, tls, "text")
    assert client.sock.cipher()[0] == cipher
    check_echo(site, client)
    if cipher != "ECDHE-ECDSA-AES256-GCM-SHA384":
        fails_with(site, tls, "cipher", "SSLV3_ALERT_HANDSHAKE_FAILURE")


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
def test_suites_of_1_3(site, pki, suite):
    done = s_client(site, pki, "text", "-tls1_3", "-ciphersuites", suite)
    assert ("Cipher is " + suite).encode() in done.stdout
    done = s_client(site, pki, "new", "-tls1_3", "-ciphersuites", suite)
    assert (("Cipher is " + suite).encode() in done.stdout) == (suite == "TLS_AES_128_GCM_SHA256")


@pytest.mark.parametrize("offered", [["http/1.1"], ["h2"], ["h2", "http/1.1"], ["mqtt", "x"]], ids="+".join)
def test_alpn_never_selects_what_is_not_spoken(site, pki, offered):
    """h2 on a WebSocket listener would be a lie; no selection, or a refusal (RFC 7301 section 3.2), are fine."""
    tls = certs.client_context(pki.ca, alpn=offered)
    try:
        client = joined(site, tls)
    except ssl.SSLError as error:
        assert "http/1.1" not in offered and error.reason == "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"
        return
    assert client.sock.selected_alpn_protocol() in (None, "http/1.1")
    check_echo(site, client)


def test_s_client_with_alpn(site, pki):
    for version in ("-tls1_2", "-tls1_3"):
        done = s_client(site, pki, "websocket", version, "-alpn", "http/1.1", "-servername", "localhost", "-verify_return_error")
        assert done.returncode == 0 and b"Verify return code: 0 (ok)" in done.stdout
        assert b"ALPN protocol: http/1.1" in done.stdout or b"No ALPN negotiated" in done.stdout


# ---- client certificates


@VERSIONS
def test_client_certificates(site, pki, version):
    def with_cert(cert):
        return certs.client_context(pki.ca, version, cert)

    for listener in ("optional", "required"):
        check_echo(site, joined(site, with_cert(pki.client), listener))
        fails_with(site, with_cert(pki.stranger), listener, "TLSV1_ALERT_UNKNOWN_CA")
        fails_with(site, with_cert(pki.late), listener, "SSLV3_ALERT_CERTIFICATE_EXPIRED")
        fails_with(site, with_cert(pki.second), listener, "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", "SSLV3_ALERT_BAD_CERTIFICATE",
                   "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
                   "SSLV3_ALERT_HANDSHAKE_FAILURE", "TLSV1_ALERT_UNKNOWN_CA")
    check_echo(site, joined(site, with_cert(None), "optional"))
    fails_with(site, with_cert(None), "required", "TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE")
    check_echo(site, joined(site, with_cert(pki.stranger), "text"))  # nobody asks for it


@VERSIONS
def test_a_resumed_session_keeps_to_the_client_certificate(site, pki, version):
    """A ticket of a client with a certificate resumes; one of a listener that asks for none does not get past one that requires it."""
    tls = certs.client_context(pki.ca, version, pki.client)
    assert resumes(site, tls, session_of(site, tls, "required"), "required")
    nobody = certs.client_context(pki.ca, version)
    session = session_of(site, nobody, "text")
    try:
        client = connect(site, nobody, "required", session=session)
        with pytest.raises(LinkClosed):
            client.fill(time.monotonic() + PATIENCE)
    except (ssl.SSLError, ConnectionError):
        pass


# ---- tickets


def session_of(site, tls, listener="text"):
    """A session that can be resumed. In TLS 1.3 its ticket comes behind the handshake, before what is read."""
    client = joined(site, tls, listener)
    check_echo(site, client)
    session = client.sock.session
    assert session is not None and session.has_ticket
    client.close()
    return session


def resumes(site, tls, session, listener="text"):
    client = joined(site, tls, listener, session=session)
    try:
        check_echo(site, client)
        return client.sock.session_reused
    finally:
        client.close()


@VERSIONS
@pytest.mark.shards(1, 3)
def test_a_ticket_is_good_on_every_shard_and_after_every_end(start, pki, version):
    """Resumed on each of the shards; after kill -9 of each; after a restart of the whole gateway."""
    site = start(listen={"text": of(pki.main)})
    tls = certs.client_context(pki.ca, version)
    session = session_of(site, tls)
    shards, held = set(), []
    for _ in range(30 * site.shards):
        client = joined(site, tls, "text", session=session)
        assert client.sock.session_reused
        shards.add(shard_of(client.id))
        held.append(client)
        if len(shards) == site.shards:
            break
    assert len(shards) == site.shards
    check_echo(site, held[-1])
    site.wait_counter("tls_resumed", len(held))
    for client in held:
        client.close()
    site.wait_gauge("clients", 0)

    for shard in range(site.shards):
        old = site.gateway.shard_pid(shard)
        os.kill(old, signal.SIGKILL)
        wait_for(lambda: site.gateway.status() and site.gateway.shard_pid(shard) not in (0, old)
                 and site.gateway.status()["shards"][shard]["state"] == "running", what="the shard's successor")
    new_worker(site)
    assert resumes(site, tls, session)

    site.gateway.stop()
    site.gateway.start()
    new_worker(site)
    assert resumes(site, tls, session)


def new_worker(site):
    """After a restart, when links have been lost."""
    for link in site.links:
        link.close()
    site._worker = site._g = None
    site.links.clear()
    site._before = {name: 0 for name in site._before}
    assert site.worker
    site.worker.quiet()
    site.worker.events.clear()


def test_s_client_resumes(site, pki, tmp_path):
    for version in ("-tls1_2", "-tls1_3"):
        path = tmp_path / ("session" + version)
        # A line that is echoed, so that the ticket of TLS 1.3 has come by the time that it ends.
        first = SClient(site, pki, "text", version, "-sess_out", str(path))
        first.check_echo(site, b"hello")
        assert first.end().count(b"Reused") == 0
        assert path.exists()
        done = s_client(site, pki, "text", version, "-sess_in", path, say=b"Q\n")
        assert b"Reused, TLSv1." in done.stdout, done.stdout.decode(errors="replace")


def test_early_data_is_not_taken(site, pki, tmp_path):
    """0-RTT can be replayed: no ticket allows it."""
    path, data = tmp_path / "session", tmp_path / "early"
    data.write_bytes(b"replayed\n")
    first = SClient(site, pki, "text", "-tls1_3", "-sess_out", str(path))
    first.check_echo(site, b"hello")
    assert b"Max Early Data: 0" in first.end()
    done = s_client(site, pki, "text", "-tls1_3", "-sess_in", path, "-early_data", data, say=b"Q\n")
    assert b"Early data was accepted" not in done.stdout
    assert all(event.body != b"replayed" for event in site.worker.quiet() if event.cmd == ON_MESSAGE)


@VERSIONS
def test_ticket_keys_from_a_file(start, pki, tmp_path, version):
    """Two gateways with the same file take each other's tickets; a key that has left the file at a reload opens no more."""
    chance = random.Random(11)
    keys = [chance.randbytes(80).hex() for _ in range(3)]
    path = tmp_path / "keys"
    path.write_text(keys[0] + "\n")
    one, two = [start(gateway={"tls_ticket_file": path}, listen={"text": of(pki.main)}) for _ in range(2)]
    tls = certs.client_context(pki.ca, version)
    session = session_of(one, tls)
    assert resumes(two, tls, session) and resumes(one, tls, session)

    path.write_text(keys[1] + "\n" + keys[0] + "\n")
    reload(two)
    assert resumes(two, tls, session)
    newer = session_of(two, tls)
    path.write_text(keys[2] + "\n" + keys[1] + "\n")
    reload(two)
    assert resumes(two, tls, newer) and not resumes(two, tls, session)
    assert resumes(one, tls, session)


def test_tickets_of_another_gateway_are_not_taken(start, pki):
    """Each has keys of its own; the handshake is then a full one, and good."""
    one, two = [start(listen={"text": of(pki.main)}) for _ in range(2)]
    session = session_of(one, pki.tls)
    assert resumes(one, pki.tls, session) and not resumes(two, pki.tls, session)


def test_ticket_keys_are_nobodys_business(start, pki):
    """What is kept in runtime_dir for the next start can be read by its owner only, and no key comes to the log."""
    site = start(listen={"text": of(pki.main)})
    session_of(site, pki.tls)
    for name in os.listdir(site.gateway.runtime_dir):
        if "ticket" in name:
            assert os.stat(os.path.join(site.gateway.runtime_dir, name)).st_mode & 0o077 == 0, name
    assert "BEGIN" not in site.gateway.log()


# ---- openssl s_client with somebody at its keyboard


class SClient:
    """openssl s_client; its commands (R, K, Q) are lines of their own."""

    def __init__(self, site, pki, listener, *args):
        argv = ["openssl", "s_client", "-connect", "127.0.0.1:%d" % site.gateway.client_address(listener)[1], "-CAfile", pki.ca.cert, *args]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.output = b""
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def type(self, line):
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def wait_for(self, text):
        while text not in self.output:
            line = self.lines.get(timeout=PATIENCE)
            assert line is not None, self.output.decode(errors="replace")
            self.output += line

    def check_echo(self, site, text):
        self.type(text)
        event = site.worker.wait(ON_MESSAGE)
        assert event.body == text
        site.worker.send_to_one(event.connection_id, text + b" yourself")
        self.wait_for(text + b" yourself")

    def end(self):
        """All of its output, once it has ended."""
        try:
            self.type(b"Q")
        except OSError:
            pass
        self.process.wait(PATIENCE)
        while True:
            line = self.lines.get(timeout=PATIENCE)
            if line is None:
                return self.output
            self.output += line


def test_renegotiation_is_refused(site, pki):
    """TLS 1.2's, which lets a client make us work for little of its own. Openssl's client ends then."""
    client = SClient(site, pki, "text", "-tls1_2")
    client.check_echo(site, b"before")
    client.type(b"R")
    output = client.end()
    assert b"no renegotiation" in output or b"handshake failure" in output, output.decode(errors="replace")
    site.worker.wait(ON_CLOSE)
    assert site.counter("tls_handshakes") == 1


def test_keys_are_updated(site, pki):
    """TLS 1.3's way: k renews the client's keys, K asks for ours as well."""
    client = SClient(site, pki, "text", "-tls1_3")
    client.check_echo(site, b"before")
    for command in (b"k", b"K", b"k", b"K"):
        client.type(command)
        client.wait_for(b"KEYUPDATE")
        client.output = b""
        client.check_echo(site, b"after " + command)
    client.end()


# ---- files that are renewed, and wrong ones


def reload(site):
    """HUP, and until every shard has taken it over."""
    before = site.gateway.counters()["reloads"] + site.gateway.counters()["reloads_failed"]
    site.gateway.process.send_signal(signal.SIGHUP)
    settled = lambda: site.gateway.counters()["reloads"] + site.gateway.counters()["reloads_failed"]
    wait_for(lambda: settled() >= before + site.shards, what="the reload")


@pytest.mark.shards(1, 3)
def test_a_certificate_is_renewed_while_clients_stay(start, pki, tmp_path):
    chain, key = str(tmp_path / "chain.pem"), str(tmp_path / "key.pem")
    pki.main.copy_to(chain, key)
    site = start(listen={"text": {"tls_certificate": chain, "tls_key": key}})
    stays = [joined(site, certs.client_context(pki.ca, version), "text") for version in (V12, V13) for _ in range(3 * site.shards)]
    session = session_of(site, pki.tls)
    newer = certs.make_cert(pki.ca, ["localhost"], type="rsa")
    newer.copy_to(chain, key)
    assert certificate_for(site, pki, "localhost", "text") == pki.main.der()  # not before it is said
    reload(site)
    for _ in range(4 * site.shards):
        assert certificate_for(site, pki, "localhost", "text") == newer.der()
    for client in stays:
        check_echo(site, client)
    assert resumes(site, pki.tls, session)
    assert site.counter("reloads_failed") == 0


def test_a_wrong_certificate_at_a_reload_changes_nothing(start, pki, tmp_path):
    """Not there, no certificate, another's key, half a file: the old one serves on, the log says what is wrong."""
    chain, key = str(tmp_path / "chain.pem"), str(tmp_path / "key.pem")
    pki.main.copy_to(chain, key)
    site = start(listen={"text": {"tls_certificate": chain, "tls_key": key}})
    stays = joined(site, pki.tls, "text")
    other = certs.make_cert(pki.ca, ["localhost"])
    spoil = {
        "not there": lambda: os.unlink(chain),
        "empty": lambda: open(chain, "w").close(),
        "no certificate": lambda: shutil.copy(pki.main.key, chain),
        "another's key": lambda: shutil.copy(other.key, key),
        "half": lambda: os.truncate(chain, os.path.getsize(chain) // 2),
    }
    for what, how in spoil.items():
        how()
        logged = len(site.gateway.log())
        site.gateway.process.send_signal(signal.SIGHUP)
        name = key if what == "another's key" else chain
        wait_for(lambda: name in site.gateway.log()[logged:] or chain in site.gateway.log()[logged:], what="the log to name the file (%s)" % what)
        assert certificate_for(site, pki, "localhost", "text") == pki.main.der(), what
        check_echo(site, stays)
        pki.main.copy_to(chain, key)
    assert site.counter("reloads") == 0
    other.copy_to(chain, key)
    site.gateway.process.send_signal(signal.SIGHUP)
    wait_for(lambda: certificate_for(site, pki, "localhost", "text") == other.der(), what="the renewed certificate")
    check_echo(site, stays)


def test_tls_keys_change_at_a_reload(start, pki):
    """Version, certificates and what is asked of clients, all LIVE; those who are connected stay."""
    site = start(listen={"text": of(pki.main)})
    stays = joined(site, certs.client_context(pki.ca, V12), "text")
    keys = site.gateway.sections["listen text"]
    keys.update(of(pki.second, pki.main), tls_version_min="1.3", tls_client_verify="required", tls_client_ca=pki.ca.cert)
    site.gateway.write_config()
    reload(site)
    fails_with(site, certs.client_context(None, V12), "text", "TLSV1_ALERT_PROTOCOL_VERSION")
    fails_with(site, certs.client_context(None), "text", "TLSV13_ALERT_CERTIFICATE_REQUIRED")
    client = joined(site, certs.client_context(pki.ca, cert=pki.client), "text")
    assert client.sock.getpeercert(True) == pki.main.der()
    check_echo(site, client)
    check_echo(site, stays)


@pytest.mark.parametrize("case", ["no such certificate", "no such key", "another's key", "no certificate in it", "fewer keys",
                                  "no client authorities", "bad ciphers",
                                  "bad suites"])
def test_wrong_files_are_told_at_the_start(tmp_path, pki, case):
    keys = {
        "no such certificate": {"tls_certificate": str(tmp_path / "nowhere.pem"), "tls_key": pki.main.key},
        "no such key": {"tls_certificate": pki.main.chain, "tls_key": str(tmp_path / "nowhere.pem")},
        "another's key": {"tls_certificate": pki.main.chain, "tls_key": pki.wild.key},
        "no certificate in it": {"tls_certificate": pki.main.key, "tls_key": pki.main.key},
        "fewer keys": {"tls_certificate": pki.main.chain + "," + pki.second.chain, "tls_key": pki.main.key},
        "no client authorities": {**of(pki.main), "tls_client_verify": "required"},
        "bad ciphers": {**of(pki.main), "tls_ciphers": "NO-SUCH-CIPHER"},
        "bad suites": {**of(pki.main), "tls_ciphersuites": "TLS_NO_SUCH_SUITE"},
    }[case]
    gateway = Gateway(tmp_path, listen={"websocket": keys}, start=False)
    for arguments in (("-t",), ()):
        done = run_tgg("gateway", "-c", gateway.config_path, *arguments)
        assert done.returncode != 0, arguments
        assert "listen websocket" in done.stderr and ("tls_" in done.stderr or ".pem" in done.stderr), done.stderr
        assert "PRIVATE" not in done.stderr


def test_an_expired_certificate_serves_with_a_warning(start, pki):
    site = start(listen={"text": of(pki.expired)})
    assert certificate_for(site, pki, "localhost", "text") == pki.expired.der()
    assert "expired" in site.gateway.log()


# ---- clients that do not get far


def test_a_handshake_that_is_not_complete_in_time(site, pki):
    """Nothing, half a hello, a hello and no more: gone at tls_handshake_timeout (1 s), and without an event for a worker."""
    silent = raw(site, "hasty")
    half = raw(site, "hasty")
    half.send_bytes(InMemory(pki.tls, half).hello()[:100])
    whole = raw(site, "hasty")
    whole.send_bytes(InMemory(pki.tls, whole).hello())
    drip = raw(site, "hasty")
    hello = InMemory(pki.tls, drip).hello()
    begun = time.monotonic()
    for byte in hello[:20]:
        drip.send_bytes(bytes([byte]))
    for stream in (silent, half, whole, drip):
        try:
            while True:
                stream.fill(time.monotonic() + PATIENCE)
        except LinkClosed:
            pass
    assert 0.5 < time.monotonic() - begun < 1 + 2 * slow()
    site.wait_counter("client_closed_tls_timeout", 4)
    assert site.gauge("tls_handshakes_waiting") == 0
    assert site.counter("event_connect") == site.counter("event_close")


HTTP = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
NOT_TLS = {
    "HTTP": HTTP,
    "a WebSocket request": request(),
    "a line": b"hello\n",
    "NULs": bytes(100),
    "ones": b"\xff" * 100,
    "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(40),
    "a record too long": b"\x16\x03\x01\xff\xff" + bytes(100),
    "an empty record": b"\x16\x03\x01\x00\x00" * 40,
    "data before the handshake": b"\x17\x03\x03\x00\x10" + bytes(16),
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "a hello of nonsense": b"\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x03" + b"\x55" * 40,
    "a record of no version": b"\x16\x09\x09\x00\x05" + bytes(5),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
}


@pytest.mark.parametrize("what", NOT_TLS)
def test_what_is_no_tls(site, what):
    """Ended at once; nothing is read as plain text, and no worker gets a message of it."""
    for listener in ("websocket", "text"):
        with raw(site, listener) as stream:
            stream.send_bytes(NOT_TLS[what])
            try:
                while True:
                    stream.fill(time.monotonic() + PATIENCE)
            except LinkClosed:
                pass
            assert b"101 Switching" not in stream.buffer and len(stream.buffer) < 600
    site.wait_counter("client_closed_tls_failed", 2)
    assert site.counter("client_messages_in") == 0
    assert site.counter("event_connect") == site.counter("event_close")


def test_garbage_at_random(site, pki):
    chance = random.Random(12)
    hello = InMemory(pki.tls, None).hello()
    for i in range(60):
        data = bytearray(hello if i % 2 else chance.randbytes(200))
        for _ in range(4):
            data[chance.randrange(5 if i % 3 else len(data))] ^= 1 << chance.randrange(8)
        with raw(site) as stream:
            stream.send_bytes(bytes(data))
    site.wait_gauge("clients", 0)
    check_echo(site, joined(site, pki.tls, "text"))


def behind_the_back_of(client):
    """The TCP connection below a client's TLS, for bytes that are not TLS."""
    return socket.socket(fileno=os.dup(client.sock.fileno()))


@VERSIONS
@pytest.mark.parametrize("data", [b"\x17\x03\x03\x00\x20" + bytes(32), b"\x00" * 50, HTTP, b"\x17\x03\x03\xff\xff",
                                  b"\x16\x03\x03\x00\x04\x00\x00\x00\x00"],
                         ids=["forged", "zeros", "http", "too long", "hello request"])
def test_a_broken_record_ends_the_connection(site, pki, version, data):
    client = joined(site, certs.client_context(pki.ca, version), "text")
    check_echo(site, client)
    with behind_the_back_of(client) as sock:
        sock.sendall(data)
        with pytest.raises(LinkClosed):
            client.fill(time.monotonic() + PATIENCE)
    site.worker.wait(ON_CLOSE, client.id)
    site.wait_counter("client_closed_tls_failed", 1)
    assert site.worker.quiet() == []


@VERSIONS
def test_a_broken_off_handshake(site, pki, version):
    """At every length of what the client says: half of it, and then the end or a reset."""
    tls = certs.client_context(pki.ca, version)
    for i in range(24):
        stream = raw(site)
        session = InMemory(tls, stream)
        hello = session.hello()
        if i % 4 == 0:
            stream.send_bytes(hello[: 1 + i * 10])
        else:
            stream.send_bytes(hello)
            session.more()
            try:
                session.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            rest = session.outgoing.read()
            stream.send_bytes(rest[: len(rest) * i // 24])
        stream.reset() if i % 2 else stream.close()
    site.wait_gauge("clients", 0)
    assert site.gauge("tls_clients") == site.gauge("tls_handshakes_waiting") == 0
    assert site.counter("event_connect") == site.counter("event_close")
    check_echo(site, joined(site, tls, "text"))


# ---- the end of a connection


@VERSIONS
def test_close_notify_both_ways(site, pki, version):
    """Kicked: what was sent before, then close_notify, then the end. Left: by close_notify, by FIN alone, by reset."""
    tls = certs.client_context(pki.ca, version)
    client = joined(site, tls, "text")
    check_echo(site, client)
    site.g.kick(client.id, b"good bye")
    assert client.read_message() == b"good bye"
    client.expect_end()
    assert client.clean_end
    for how in ("close_notify", "fin", "reset"):
        client = joined(site, tls, "text")
        check_echo(site, client)
        if how == "close_notify":
            client.sock.settimeout(PATIENCE)
            client.sock.unwrap().close()  # waits for the other side's
        elif how == "fin":
            client.sock.shutdown(socket.SHUT_WR)
            with pytest.raises(LinkClosed):
                client.fill(time.monotonic() + PATIENCE)
        else:
            client.reset()
        site.worker.wait(ON_CLOSE, client.id)


def test_the_last_words_before_close_notify_are_heard(site, pki):
    """Message, close_notify and FIN in one segment."""
    for _ in range(5):
        with raw(site) as stream:
            session = InMemory(pki.tls, stream)
            session.handshake()
            session.tls.write(b"last words\n")
            with pytest.raises(ssl.SSLWantReadError):
                session.tls.unwrap()
            session.flush()
            stream.sock.shutdown(socket.SHUT_WR)
            event = site.worker.wait(ON_MESSAGE)
            assert event.body == b"last words"
            site.worker.wait(ON_CLOSE, event.connection_id)


def test_a_drain_says_good_bye(start, pki):
    site = start(listen={"websocket": of(pki.main), "text": of(pki.main)})
    web, text = joined(site, pki.tls), joined(site, pki.tls, "text")
    site.gateway.process.expected_end = True
    site.gateway.process.send_signal(signal.SIGTERM)
    got = web.read_frame()
    assert got.opcode == CLOSE and got.code == 1001
    web.send_frame(CLOSE, close_payload(1001))
    for client in (web, text):
        client.expect_end()
        assert client.clean_end
        client.close()
    site.gateway.process.wait()


# ---- much at once


def test_a_flood_of_handshakes_is_bounded(start, pki):
    """200 hellos in one moment where 8 may wait and handshakes get a hundredth of a turn: some are closed and counted, the
    others come through, and who is connected is served meanwhile."""
    rsa = certs.make_cert(pki.ca, ["localhost"], type="rsa")
    site = start(gateway={"tls_handshakes_max": 8, "tls_handshake_time": 1}, listen={"text": of(rsa)})
    stays = [joined(site, pki.tls, "text") for _ in range(2 * site.shards)]
    handshakes = site.counter("tls_handshakes")
    streams = [raw(site) for _ in range(200)]
    sessions = [InMemory(pki.tls, stream) for stream in streams]
    hellos = [session.hello() for session in sessions]
    for stream, hello in zip(streams, hellos):
        stream.send_bytes(hello)
    begun = time.monotonic()
    for client in stays:
        check_echo(site, client)
    assert time.monotonic() - begun < 2 * slow()
    good = 0
    for session in sessions:
        try:
            session.handshake()
            good += 1
        except (LinkClosed, ssl.SSLError, OSError):
            pass
    refused = site.counter("tls_handshakes_refused")
    assert 0 < refused < 200 and good == 200 - refused
    site.wait_counter("tls_handshakes", handshakes + good)
    assert site.gauge("tls_handshakes_waiting") == 0
    for stream in streams:
        stream.close()
    check_echo(site, stays[0])
    check_echo(site, joined(site, pki.tls, "text"))


@VERSIONS
def test_large_messages_to_a_client_that_takes_its_time(start, pki, version):
    site = start(gateway={"send_to_client_buffer_size": 64 << 20}, listen={"websocket": of(pki.main)})
    client = joined(site, certs.client_context(pki.ca, version), rcvbuf=8192)
    chance = random.Random(13)
    bodies = [chance.randbytes(size).hex().encode() for size in (3_000_000, 1, 500_000, 70_000)]
    for body in bodies:
        site.worker.send_to_one(client.id, body)
    site.worker.settle()
    received = 0
    for body in bodies:
        got = client.read_message(timeout=2 * PATIENCE)
        assert got == body
        received += len(got)
    client.send_frame(BINARY, b"\xff" * 5_000_000)
    assert site.worker.wait(ON_MESSAGE, client.id).body == b"\xff" * 5_000_000
    assert client.leave() == 1000


def test_fan_outs_with_slow_readers(start, pki):
    """Two of forty do not read: they are closed (policy close), the others get everything, in order."""
    site = start(gateway={"send_to_client_buffer_size": 200_000}, listen={"text": of(pki.main)})
    slow_ones = [joined(site, certs.client_context(pki.ca, version), "text", rcvbuf=4096) for version in (V12, V13)]
    others = [joined(site, certs.client_context(pki.ca, V12 if i % 2 else V13), "text") for i in range(38)]
    filler = random.Random(14).randbytes(20_000).hex().encode()
    for i in range(300):
        site.g.send_to_all(b"%d " % i + filler)
        if i % 4 == 3:
            for client in others:
                for j in range(i - 3, i + 1):
                    assert client.read_message() == b"%d " % j + filler
        if site.counter("client_closed_slow_reader") == 2:
            break
    site.wait_counter("client_closed_slow_reader", 2)
    for client in slow_ones:
        site.worker.wait(ON_CLOSE, client.id)
    site.g.send_to_all(b"still there")
    for client in others:
        while client.read_message() != b"still there":
            pass
    assert site.gauge("clients") >= 38


def test_many_clients_echo_at_once(site, pki):
    with_echo(site)
    clients = [connect(site, certs.client_context(pki.ca, V12 if i % 2 else V13)) for i in range(60)]
    for round_ in range(20):
        for i, client in enumerate(clients):
            client.send_bytes(frame(TEXT, b"%d of %d" % (round_, i)) + frame(PING, b"p%d" % round_))
        for i, client in enumerate(clients):
            got = sorted((f.opcode, f.payload) for f in (client.read_frame(), client.read_frame()))
            assert got == [(TEXT, b"%d of %d" % (round_, i)), (10, b"p%d" % round_)]
    for client in clients:
        client.leave()
        assert client.clean_end


# ---- behind the handshake


def test_much_right_behind_the_handshake_is_taken(start, pki):
    """The client's Finished and all that it has to say come in one read, before the handshake had its turn."""
    site = start(listen={"lines": {"protocol": "text", **of(pki.main)}}).with_worker()
    context = certs.client_context(pki.ca)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(site.gateway.client_address("lines"), PATIENCE) as sock:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
        lines = [b"%03d " % i + b"x" * 996 for i in range(150)]
        tls.write(b"\n".join(lines) + b"\n")
        pid = site.gateway.shard_pid(0)
        os.kill(pid, signal.SIGSTOP)
        try:
            sock.sendall(outgoing.read())
        finally:
            os.kill(pid, signal.SIGCONT)
        for line in lines:
            assert site.worker.wait(ON_MESSAGE).body == line
