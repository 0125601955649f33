"""Asks one server with one token, once, and understands the answer."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import urllib.error
import urllib.parse
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Dict, Generator, Iterable, Iterator, Mapping, NamedTuple, Optional, cast

from ._clock import Deadline
from ._transport import Exchange
from ._waits import parse_retry_after
from .errors import BatchResetError

_REQUEST_TIME = 30.0
"""How many seconds a whole answer may take."""
_SILENCE = 45.0
"""How many seconds a streamed answer may be silent. The server says something every 15 s."""
_MAX_ANSWER = 8 << 20
"""Far above a record of 100 items with the longest messages."""


class Request(NamedTuple):
    """What is asked."""

    method: str
    path: str
    """With a slash in front, and the query."""
    headers: Mapping[str, str] = {}
    body: Optional[str] = None
    """JSON."""


@dataclass
class Answer:
    """What came back for one request."""

    url: str
    request_id: str
    status: int
    headers: http.client.HTTPMessage
    data: Any = None
    """Of the envelope, or the whole body if that is signed; none with a 304."""

    def unusable(self, what: str) -> BatchResetError:
        """Gives the error for an answer that is not what the contract says: "the server answered 200 with …"."""
        return self.failure("", f"{self.url} answered {self.status} with {what}")

    def failure(self, code: str, message: str) -> BatchResetError:
        """Gives the error that it is."""
        return BatchResetError(
            message,
            status=self.status,
            code=code,
            request_id=self.request_id,
            retry_after=parse_retry_after(self.headers),
        )

    @property
    def fields(self) -> Dict[str, Any]:
        """Is the data, if that is an object."""
        data: object = self.data
        return cast(Dict[str, Any], data) if isinstance(data, dict) else {}

    @property
    def signed(self) -> bool:
        """Tells whether the body comes as it is, without an envelope, because the service has signed it."""
        return self.status == 200 and self.headers.get("Content-Type") == "application/jose"

    @property
    def type(self) -> str:
        """Is the media type, without parameters."""
        return self.headers.get("Content-Type", "").split(";")[0].strip().lower()


class Connection:
    """Sends single requests to one server with one token."""

    reached = False
    """Whether the service has answered: tells its outage from an address where there is none."""

    def __init__(self, server: str, token: str) -> None:
        self._server = _check_server(server)
        self._token = _check_token(token)

    def ask(self, request: Request, deadline: Deadline) -> Answer:
        """Asks for an answer that comes as a whole."""
        bounded = Deadline(deadline.bound(_REQUEST_TIME))
        with self._answered(request, deadline) as exchange:
            exchange.send(bounded.bound(_REQUEST_TIME))
            return self._read(self._head(request, exchange), exchange.pieces(_REQUEST_TIME, _REQUEST_TIME, bounded))

    def lines(self, request: Request, deadline: Deadline) -> Iterator[str]:
        """Asks for the lines of an answer without an envelope. They have their line ends."""
        with self._answered(request, deadline) as exchange:
            exchange.send(deadline.bound(_SILENCE))
            answer = self._head(request, exchange)
            pieces = exchange.pieces(_SILENCE, _SILENCE, deadline)
            if answer.status != 200 or answer.type != "application/jsonl":
                self._read(answer, pieces)
                raise answer.unusable("no lines")
            self.reached = True
            for line in split_lines(pieces):
                if not line.endswith("\n"):
                    raise http.client.IncompleteRead(line.encode())
                yield line

    def events(self, request: Request, first: float, silence: float, deadline: Deadline) -> Iterator[str]:
        """Asks for the lines of an event stream, which begins within so many seconds, and may be silent for so
        many then. There are none if the answer is another one."""
        with self._answered(request, deadline) as exchange:
            exchange.send(deadline.bound(first))
            answer = self._head(request, exchange)
            if answer.status != 200 or answer.type != "text/event-stream":
                return
            yield from split_lines(exchange.pieces(first, silence, deadline))

    @contextmanager
    def _answered(self, request: Request, deadline: Deadline) -> Generator[Exchange, None, None]:
        """Gives a request, and turns what happens to its connection into an error."""
        headers = {**request.headers, "X-Auth-Token": self._token, "X-Request-Id": secrets.token_hex(16)}
        body = None
        if request.body is not None:
            headers["Content-Type"] = "application/json"
            body = request.body.encode()
        exchange = Exchange(self._server + request.path, body, headers, method=request.method)
        try:
            yield exchange
        except (OSError, http.client.HTTPException) as error:
            deadline.bound(1)  # it may have been the caller's
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            whole = " that is whole" if exchange.answer else ""
            message = f"no answer from {self._server}{whole}: {reason!r}"
            raise BatchResetError(message, sent=exchange.connection is not None) from error
        finally:
            exchange.close()

    def _head(self, request: Request, exchange: Exchange) -> Answer:
        answer = exchange.answer
        assert answer
        request_id = answer.headers.get("X-Request-Id") or exchange.get_header("X-request-id", "")
        url = self._server + request.path.split("?")[0]
        return Answer(url, request_id, answer.status, answer.headers)

    def _read(self, answer: Answer, pieces: Iterable[bytes]) -> Answer:
        raw = bytearray()
        for piece in pieces:
            raw += piece
            if len(raw) > _MAX_ANSWER:
                raise answer.unusable(f"more than {_MAX_ANSWER} bytes")
        text = raw.decode(errors="replace")
        if answer.status == 304:
            return answer
        if answer.signed:
            self.reached = True
            answer.data = text
            return answer
        if 300 <= answer.status < 400:
            location = answer.headers.get("Location", "")
            raise answer.unusable(f'a redirect to "{location}"; if that is the right server, name it')
        if not text:
            raise answer.unusable("nothing, which the service never does")
        envelope = _parse_envelope(text)
        if envelope is None:
            raise answer.unusable(f"something that the service does not say: {text[:120]}")
        if answer.status < 500:
            self.reached = True
        if envelope["error_code"] != "0" or answer.status >= 300:
            raise answer.failure(envelope["error_code"], str(envelope.get("error_msg", "")))
        answer.data = envelope.get("data")
        return answer


def split_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Splits text into lines with their ends; the last may lack one."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace") + "\n"
    if rest:
        yield rest.decode(errors="replace")


def _parse_envelope(text: str) -> Any:
    try:
        envelope = json.loads(text)
        if isinstance(envelope["error_code"], str) and envelope["error_code"]:
            return envelope
    except (ValueError, TypeError, KeyError, RecursionError):
        pass  # another site's page, or half an answer
    return None


def _check_server(server: str) -> str:
    try:
        url = urllib.parse.urlsplit(server)
        if url.scheme not in ("http", "https") or not url.hostname or url.port == 0 or re.search(r"[^!-~]", server):
            raise ValueError
    except ValueError:
        raise ValueError(f"server {server[:200]!r} is not a URL such as http://127.0.0.1:8080") from None
    if "@" in url.netloc:
        raise ValueError("server has a user name or a password, which this client does not send")
    if url.query or url.fragment:
        raise ValueError(f"server {server[:200]!r} has a query or a fragment")
    return server.rstrip("/")


def _check_token(token: str) -> str:
    if not token:
        raise ValueError("token is empty: give one, or set BATCHRESET_TOKEN")
    if not re.fullmatch(r"[!-~]+", token):
        raise ValueError("token has spaces or other characters that no token has")
    return token
