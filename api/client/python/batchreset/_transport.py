"""Sends one request with urllib, on a connection of its own."""

from __future__ import annotations

import functools
import http.client
import ipaddress
import socket
import ssl
import urllib.parse
import urllib.request
from typing import Any, Dict, Iterator, Optional, Type, cast

from ._clock import Deadline

_PIECE = 1 << 16


class Exchange(urllib.request.Request):
    """A request on its way, and its answer."""

    connection: Optional[socket.socket] = None
    """What it goes over. None: there is no connection yet."""
    answer: Optional[http.client.HTTPResponse] = None

    def send(self, seconds: float) -> None:
        """Sends it, and reads the head of its answer. Redirects are not followed: they would carry the token,
        and maybe the batch, to somewhere that nobody named. Nothing may take longer than so many seconds."""
        proxies: Optional[Dict[str, str]] = {} if _is_loopback(self.full_url) else None
        opener = urllib.request.OpenerDirector()
        for handler in (urllib.request.ProxyHandler(proxies), _HTTPHandler(), _HTTPSHandler()):
            opener.add_handler(handler)
        self.answer = cast(http.client.HTTPResponse, opener.open(self, timeout=seconds))

    def pieces(self, first: float, silence: float, deadline: Deadline) -> Iterator[bytes]:
        """Reads the body. Its first piece may take so many seconds to come, and each that follows so many."""
        connection, answer, seconds = self.connection, self.answer, first
        assert connection and answer
        while not answer.isclosed():
            connection.settimeout(deadline.bound(seconds))
            seconds = silence
            length = answer.length
            if length is None:
                piece = answer.read1(_PIECE)
            else:
                piece = answer.read(min(_PIECE, length))
                if not piece and length > 0:
                    raise http.client.IncompleteRead(piece, length)
            if not piece:
                return
            yield piece

    def close(self) -> None:
        """Closes the connection, if there is one."""
        if self.answer:
            self.answer.close()


def _is_loopback(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_watched(http.client.HTTPConnection, req), req)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def __init__(self) -> None:
        urllib.request.AbstractHTTPHandler.__init__(self)  # without certificates, which take long to read

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_watched(http.client.HTTPSConnection, req), req, context=_tls())


@functools.lru_cache(maxsize=None)
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _watched(kind: Type[http.client.HTTPConnection], exchange: urllib.request.Request) -> Any:
    """Makes connections that tell the exchange once they are there."""
    assert isinstance(exchange, Exchange)

    def make(host: str, **options: Any) -> http.client.HTTPConnection:
        connection = kind(host, **options)
        connect = connection.connect

        def watched() -> None:
            connect()
            exchange.connection = connection.sock

        connection.connect = watched
        return connection

    return make
