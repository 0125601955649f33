"""A fake service, and the cases that all clients share."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, Dict, Generator, List
from unittest import mock

JOB_ID = "0123456789abcdef0123456789abcdef"
_CASES = Path(__file__).resolve().parents[2] / "testdata" / "repeats.json"


def cases() -> List[Dict[str, Any]]:
    """Reads the cases that all clients share."""
    return json.loads(_CASES.read_text("utf-8"))["cases"]


def envelope(data: object) -> str:
    """Gives an answer of the service."""
    return json.dumps({"error_code": "0", "error_msg": "ok", "data": data})


class Seen:
    """A request that came."""

    def __init__(self, handler: Handler) -> None:
        self.path = handler.path
        self.headers: Message = handler.headers
        self.body = handler.rfile.read(int(handler.headers.get("Content-Length", 0))).decode()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    answer: Callable[[Handler, Seen], None]

    def do_GET(self) -> None:
        """Answers, and counts no more than one request a connection."""
        self.close_connection = True
        self.answer(self, Seen(self))

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def give(self, body: str = "", status: int = 200, /, **headers: str) -> None:
        """Answers as a whole."""
        self.head(status, Content_Length=str(len(body.encode())), **headers)
        self.write(body)

    def head(self, status: int = 200, /, **headers: str) -> None:
        """Sends the head of an answer."""
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def write(self, text: str) -> None:
        """Sends text now."""
        self.wfile.write(text.encode())
        self.wfile.flush()

    def cut(self) -> None:
        """Breaks the connection."""
        time.sleep(0.02)  # what was written is to arrive
        self.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serve(answer: Callable[[Handler, Seen], None]) -> Generator[str, None, None]:
    """Gives the URL of a server."""
    handler = type("Answering", (Handler,), {"answer": staticmethod(answer)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.block_on_close = False


def closed_port() -> str:
    """Gives the URL of a server that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def no_sleep() -> Generator[List[float], None, None]:
    """Keeps a client from waiting, and gives how many seconds it wanted to."""
    slept: List[float] = []
    with mock.patch("batchreset._clock.sleep", slept.append):
        yield slept
