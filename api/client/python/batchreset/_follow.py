"""Follows one record until it is final."""

from __future__ import annotations

import json
import time
from typing import Generic, Iterator, Optional

from ._clock import Deadline
from ._connection import Answer, Request
from ._events import Event, Line, Retry, read_events
from ._kind import Kind, Record
from ._repeat import Repeater
from ._waits import backoff, parse_retry_after, spread
from .errors import BatchResetError

_LONG_POLL = 10
"""How many seconds the server may keep a request, where there is no stream."""
_MAX_SILENT = 2
"""How many streams in a row may bring nothing at all before they are given up: something on the way keeps them back."""
_FIRST_LINE = 5.0
"""How many seconds a stream may take to begin: the server sends the record at once."""
_NEXT_LINE = 45.0
"""How many seconds it may be silent then. The server says something every 15 s."""
_RECONNECT = 2.0
"""After how many seconds to come back to a stream that was cut, unless the server says."""


class Follower(Generic[Record]):
    """Follows one record."""

    def __init__(self, repeater: Repeater, kind: Kind[Record], record_id: str, deadline: Deadline) -> None:
        self._repeater = repeater
        self._kind = kind
        self._id = record_id
        self._deadline = deadline
        self._last: Optional[Record] = None
        self._etag = ""
        # Of the stream that was read last: whether anything came, and when to come back.
        self._heard = False
        self._again = _RECONNECT

    def records(self, streams: bool) -> Iterator[Record]:
        """Yields the first record and each one that differs. It reads the event stream unless it is told not to,
        goes on where a stream was cut, and asks instead, with Prefer: wait, where no stream comes through."""
        silent = 0 if streams else _MAX_SILENT
        quiet = 0
        while True:
            if silent < _MAX_SILENT:
                yield from self._stream()
                if self._ended:
                    return
                silent += 1
                if self._heard:
                    silent = 0
                    self._deadline.sleep(spread(self._again))

            ask, began = silent >= _MAX_SILENT, time.monotonic()
            answer = self._repeater.outlast(lambda: self._look(ask), self._deadline)
            quiet += 1
            if answer.status != 304 or not self._etag:
                quiet = 1
                record = self._kind.record_of(answer)
                if self._take(record, answer.headers.get("ETag", "")):
                    yield record
            if self._ended:
                return
            if ask and time.monotonic() - began < _LONG_POLL:  # it did not wait
                self._deadline.sleep(spread(parse_retry_after(answer.headers) or backoff(quiet)))

    @property
    def _ended(self) -> bool:
        return self._last is not None and self._kind.final(self._last)

    def _take(self, record: Record, etag: str) -> bool:
        """Keeps a record, and tells whether it is another one."""
        if etag and etag == self._etag:
            return False
        self._last, self._etag = record, etag
        return True

    def _look(self, ask: bool) -> Answer:
        """Reads the record unless it is still the same. With ask it may take a while, if it is not final."""
        headers = {"If-None-Match": self._etag} if self._etag else {}
        if ask:
            headers["Prefer"] = f"wait={_LONG_POLL}"
        return self._repeater.get(self._kind.path(self._id), self._deadline, headers)

    def _stream(self) -> Iterator[Record]:
        """Reads one stream to its end. Why it ended does not matter: a look at the record tells."""
        self._heard, self._again = False, _RECONNECT
        headers = {"Accept": "text/event-stream"}
        if self._etag:
            headers["Last-Event-ID"] = self._etag.replace('"', "")
        request = Request("GET", self._kind.path(self._id, "events"), headers)
        connection = self._repeater.connection
        try:
            for event in read_events(connection.events(request, _FIRST_LINE, _NEXT_LINE, self._deadline)):
                if isinstance(event, Line):
                    self._heard = connection.reached = True
                elif isinstance(event, Retry):
                    self._again = event.seconds
                elif event.name == self._kind.name:
                    record = self._parse(event)
                    if record is not None and self._take(record, f'"{event.id}"'):
                        yield record
        except BatchResetError:
            pass

    def _parse(self, event: Event) -> Optional[Record]:
        try:
            record: Record = json.loads(event.data)
        except (ValueError, RecursionError):
            return None  # not the service's
        return record if self._kind.is_record(record) and record[f"{self._kind.name}_id"] == self._id else None
