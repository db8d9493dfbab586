# SPDX-License-Identifier: MIT
"""Clients of wsclient.py over TLS, by Python's ssl module.

    client = WssClient(address, tls=certs.client_context(ca))
    assert client.sock.version() == "TLSv1.3"
    client.expect_end(); assert client.clean_end
"""

import ssl

from gwproto import LinkClosed
from wsclient import FrameClient, TcpClient, TextClient, WsClient


class OverTls:
    """clean_end: the server's close_notify came before the end of the stream. alert: the reason of the TLS error that ended it."""

    clean_end = False
    alert = None

    def secure(self, tls, server_name="localhost", session=None):
        """The TLS handshake; ssl.SSLError when it fails. The connection is closed then."""
        try:
            self.sock = tls.wrap_socket(self.sock, server_hostname=server_name, suppress_ragged_eofs=False, session=session)
        except BaseException:
            self.sock.close()
            raise

    def fill(self, deadline):
        try:
            super().fill(deadline)
        except ssl.SSLError as error:
            self.ended = True
            self.alert = error.reason
            raise LinkClosed("TLS: %s" % error) from None
        except LinkClosed as closed:
            self.clean_end = str(closed) == "end of stream"
            raise


class WssClient(OverTls, WsClient):
    def __init__(self, address, tls, server_name="localhost", session=None, open=True, source=None, rcvbuf=None, **request_args):
        super().__init__(address, open=False, source=source, rcvbuf=rcvbuf)
        self.secure(tls, server_name, session)
        if open:
            try:
                self.handshake(**request_args)
            except BaseException:
                self.close()
                raise


class _TlsClient(OverTls):
    def __init__(self, address, tls, server_name="localhost", session=None, source=None, rcvbuf=None):
        super().__init__(address, source, rcvbuf)
        self.secure(tls, server_name, session)


class TlsTextClient(_TlsClient, TextClient):
    pass


class TlsFrameClient(_TlsClient, FrameClient):
    pass


class TlsTcpClient(_TlsClient, TcpClient):
    pass


TLS_CLIENTS = {"websocket": WssClient, "text": TlsTextClient, "frame": TlsFrameClient, "tcp": TlsTcpClient}
