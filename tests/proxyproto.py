# SPDX-License-Identifier: MIT
"""The PROXY protocol from the sender's side, written from haproxy's proxy-protocol.txt; and haproxy and nginx themselves.

    client.send_bytes(v1(("203.0.113.9", 4711)))
    client.send_bytes(v2(("2001:db8::1", 4711), tlvs=[(PP2_NOOP, b"abc")]))

    with Haproxy(folder, "listen l\\n bind 127.0.0.1:8000\\n ...", 8000): ...
"""

import ipaddress
import os
import struct

from proc import Process, wait_for

SIGNATURE = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
LOCAL, PROXY = 0, 1
UNSPEC, INET, INET6, UNIX = 0, 1, 2, 3
STREAM, DGRAM = 1, 2
PP2_ALPN, PP2_CRC32C, PP2_NOOP, PP2_UNIQUE_ID = 0x01, 0x03, 0x04, 0x05
SERVER = {4: ("198.51.100.1", 443), 6: ("2001:db8:ffff::1", 443)}


def _versions(client, server):
    ip = ipaddress.ip_address(client[0])
    return ip, server or SERVER[ip.version]


def v1(client, server=None):
    """A line for a TCP connection from `client`, an (address, port)."""
    ip, server = _versions(client, server)
    return ("PROXY TCP%d %s %s %d %d\r\n" % (ip.version, client[0], server[0], client[1], server[1])).encode()


def v2_header(command, family, transport, block=b"", tlvs=(), version=2):
    """Any header of version 2, right or wrong. tlvs: (type, value)."""
    for kind, value in tlvs:
        block += struct.pack(">BH", kind, len(value)) + value
    return SIGNATURE + struct.pack(">BBH", version << 4 | command, family << 4 | transport, len(block)) + block


def v2(client, server=None, transport=STREAM, tlvs=()):
    ip, server = _versions(client, server)
    block = ip.packed + ipaddress.ip_address(server[0]).packed + struct.pack(">HH", client[1], server[1])
    return v2_header(PROXY, INET if ip.version == 4 else INET6, transport, block, tlvs)


def v2_local(tlvs=()):
    return v2_header(LOCAL, UNSPEC, 0, b"", tlvs)


def v2_unix():
    return v2_header(PROXY, UNIX, STREAM, b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0"))


def is_listening(port):
    """Whoever it is, on whichever address. Nothing is connected to: a proxy would pass that on."""
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(path) as f:
            for line in f.readlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    return True
    return False


class RealProxy:
    """haproxy or nginx in front of the gateway, with the configuration that a test gives it; it listens on `port`."""

    program = None

    def __init__(self, folder, text, port):
        self.folder = str(folder)
        self.config_path = os.path.join(self.folder, self.program + ".conf")
        with open(self.config_path, "w") as f:
            f.write(self.wrap(text))
        self.process = Process(self.argv(), self.folder, self.program, env=dict(os.environ))
        try:
            wait_for(lambda: self._is_up(port), what="%s to listen" % self.program)
        except BaseException:
            self.process.kill_all()
            raise

    def _is_up(self, port):
        assert self.process.is_running(), self.process.err() + self.process.out()
        return is_listening(port)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill_all()


class Haproxy(RealProxy):
    program = "haproxy"

    def argv(self):
        return ["haproxy", "-db", "-f", self.config_path]

    @staticmethod
    def wrap(text):
        return "defaults\n timeout connect 20s\n timeout client 60s\n timeout server 60s\n timeout tunnel 60s\n" + text


class Nginx(RealProxy):
    """One process, so that it runs as whoever runs the tests. text: what stands beside `events`."""

    program = "nginx"

    def argv(self):
        return ["nginx", "-c", self.config_path, "-p", self.folder]

    def wrap(self, text):
        temp = "".join("%s_temp_path %s/%s;\n" % (name, self.folder, name)
                       for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        head = "daemon off;\nmaster_process off;\nerror_log stderr;\npid %s/nginx.pid;\n" % self.folder
        if "stream {" in text:
            head += "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n"
        return head + "events { }\n" + text.replace("http {", "http {\naccess_log off;\n" + temp)
