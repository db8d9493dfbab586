# SPDX-License-Identifier: MIT
"""Certificates for tests, made by the openssl command when they are needed; nothing of them is kept.

    ca = make_ca()
    cert = make_cert(ca, ["localhost", "127.0.0.1"])
    listen={"websocket": {"tls_certificate": cert.chain, "tls_key": cert.key}}
    context = client_context(ca)
"""

import atexit
import ipaddress
import itertools
import os
import shutil
import ssl
import subprocess
import tempfile

_folders = []
_numbers = itertools.count(1)
KEY_KINDS = {"ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], "rsa": ["-newkey", "rsa:2048"]}


def folder():
    """One for all certificates of this process, gone at its end."""
    if not _folders:
        _folders.append(tempfile.mkdtemp(prefix="tgg-certs-"))
        atexit.register(shutil.rmtree, _folders[0], ignore_errors=True)
    return _folders[0]


def openssl(*args):
    done = subprocess.run(["openssl", *[str(a) for a in args]], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, "openssl %s\n%s" % (" ".join(map(str, args)), done.stderr)
    return done.stdout


class Cert:
    """Paths of PEM files: cert alone, key, chain (the certificate and its issuers below the root), pem (chain and key)."""

    def __init__(self, name):
        self.base = os.path.join(folder(), "%s-%d" % (name, next(_numbers)))
        self.name = name
        self.cert, self.key, self.chain, self.pem = [self.base + end for end in (".crt", ".key", ".chain.pem", ".pem")]
        self.is_root = False

    def write_bundles(self, issuer=None):
        with open(self.cert) as f:
            own = f.read()
        above = ""
        if issuer is not None and not issuer.is_root:
            with open(issuer.chain) as f:
                above = f.read()
        with open(self.key) as f:
            key = f.read()
        for path, text in ((self.chain, own + above), (self.pem, own + above + key)):
            with open(path, "w") as f:
                f.write(text)
        return self

    def der(self):
        """The certificate alone, as a peer's getpeercert(True) gives it."""
        with open(self.cert) as f:
            return ssl.PEM_cert_to_DER_cert(f.read())

    def copy_to(self, other_path, key_path=None):
        """Over another one's files, the way certificates are renewed."""
        shutil.copy(self.chain if key_path else self.pem, other_path)
        if key_path:
            shutil.copy(self.key, key_path)


def _sign(made, ca, days, extensions):
    request, config = made.base + ".csr", made.base + ".ext"
    with open(config, "w") as f:
        f.write("\n".join(extensions) + "\n")
    signed_by = ["-CA", ca.cert, "-CAkey", ca.key] if ca is not None else ["-signkey", made.key]
    openssl("x509", "-req", "-in", request, *signed_by, "-set_serial", 1000 + next(_numbers), "-days", days, "-extfile", config, "-out", made.cert)


def _request(made, kind, common_name):
    openssl("req", "-new", *KEY_KINDS[kind], "-nodes", "-keyout", made.key, "-out", made.base + ".csr", "-subj", "/CN=%s" % common_name)


def make_ca(name="Test CA", issuer=None, type="ec", days=30):
    """A certificate authority; with an issuer one below that."""
    made = Cert("ca")
    _request(made, type, name)
    _sign(made, issuer, days, ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign", "subjectKeyIdentifier=hash"])
    made.is_root = issuer is None
    return made.write_bundles(issuer)


def _alternative(name):
    try:
        return "IP:%s" % ipaddress.ip_address(name)
    except ValueError:
        return "DNS:%s" % name


def make_cert(ca, names, days=30, type="ec", client=False):
    """A certificate for these names (addresses, too), the first of them its CN. days < 0: expired. client: for a client's
    side of TLS. ca None: signed by itself."""
    made = Cert(names[0].replace("*", "any").replace(":", "_"))
    _request(made, type, names[0])
    _sign(made, ca, days, ["basicConstraints=critical,CA:FALSE", "extendedKeyUsage=%s" % ("clientAuth" if client else "serverAuth"),
                           "subjectAltName=" + ",".join(map(_alternative, names))])
    return made.write_bundles(ca)


def client_context(ca=None, version=None, cert=None, alpn=None):
    """An ssl.SSLContext for clients that believe ca (None: anybody). version: ssl.TLSVersion, only this one. cert: the
    client's own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # else an end without close_notify looks like one with it
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(ca.cert)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if cert is not None:
        context.load_cert_chain(cert.chain, cert.key)
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    return context
