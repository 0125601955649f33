"""Repeats requests where that can help, as "How clients repeat" in api/README.md says."""

from __future__ import annotations

import re
import secrets
from typing import Callable, Mapping, Optional, TypeVar

from ._clock import Deadline
from ._connection import Answer, Connection, Request
from ._waits import MAX_TRIES, PATIENCE, backoff, spread
from .errors import BatchResetError, as_uncertain, may_be_accepted, passing, refused, too_many

Result = TypeVar("Result")
OnRetry = Callable[[BatchResetError, float], None]
_Again = Callable[[int, float, BatchResetError], bool]


class Repeater:
    """Sends requests over a connection, and tells whoever wants to know before one is repeated."""

    def __init__(self, connection: Connection, on_retry: Optional[OnRetry]) -> None:
        self.connection = connection
        self._on_retry = on_retry

    def get(self, path: str, deadline: Deadline, headers: Optional[Mapping[str, str]] = None) -> Answer:
        """Reads, and repeats where that can help."""
        request = Request("GET", path, headers or {})

        def again(tries: int, waited: float, error: BatchResetError) -> bool:
            if waited > PATIENCE:
                return False
            if too_many(error):
                return True
            return passing(error) and tries < MAX_TRIES

        return self._repeat(lambda: self.connection.ask(request, deadline), again, deadline)

    def attempt(self, request: Request, deadline: Deadline) -> Answer:
        """Asks what changes nothing, and repeats only after a 429, until the deadline."""
        return self._repeat(lambda: self.connection.ask(request, deadline), lambda _t, _w, error: too_many(error), deadline)

    def submit(
        self, path: str, body: str, key: Optional[str], take: Callable[[Answer], Result], deadline: Deadline
    ) -> Result:
        """Posts a body under a key, which it makes up if there is none, until take understands an answer. After a
        failure nothing was accepted, unless that is uncertain."""
        quoted = '"' + re.sub(r'(["\\])', r"\\\1", key or secrets.token_hex(16)) + '"'
        request = Request("POST", path, {"Idempotency-Key": quoted}, body)
        uncertain = False  # since a try before

        def once() -> Result:
            nonlocal uncertain
            deadline.bound(1)
            try:
                return take(self.connection.ask(request, deadline))
            except (BatchResetError, TimeoutError) as error:
                uncertain = uncertain or isinstance(error, TimeoutError) or may_be_accepted(error)
                if not uncertain:
                    raise
                raise as_uncertain(error) from error

        def again(tries: int, _waited: float, error: BatchResetError) -> bool:
            return too_many(error) or (uncertain and not refused(error) and tries < MAX_TRIES)

        try:
            return self._repeat(once, again, deadline)
        except TimeoutError as error:  # a wait was interrupted
            if not uncertain:
                raise
            raise as_uncertain(error) from error

    def outlast(self, ask: Callable[[], Result], deadline: Deadline) -> Result:
        """Asks until there is an answer of the service. One that has answered this client before may go away for
        any time; what no waiting can repair is an error at once."""
        return self._repeat(ask, lambda _t, _w, error: self.connection.reached and passing(error), deadline)

    def _repeat(self, once: Callable[[], Result], again: _Again, deadline: Deadline) -> Result:
        tries, waited = 0, 0.0
        while True:
            try:
                return once()
            except BatchResetError as error:
                tries += 1
                wait = max(backoff(tries), error.retry_after)
                waited += wait
                if deadline.over or not again(tries, waited, error):
                    raise
                if self._on_retry:
                    self._on_retry(error, wait)
            deadline.sleep(spread(wait))
