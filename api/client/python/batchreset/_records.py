"""What jobs and runs have in common."""

from __future__ import annotations

import json
import urllib.parse
from typing import Generic, Iterator, Mapping, Optional, Sequence, Tuple

from ._clock import Deadline
from ._connection import Request
from ._follow import Follower
from ._kind import Kind, Record
from ._repeat import Repeater
from .types import Retried


class Records(Generic[Record]):
    """What can be done with records of one kind.

    Every timeout bounds a whole call, its waits included, in seconds. When it has passed, TimeoutError is raised.
    """

    def __init__(self, repeater: Repeater, kind: Kind[Record]) -> None:
        self._repeater = repeater
        self._kind = kind

    def get(self, record_id: str, *, timeout: Optional[float] = None) -> Record:
        """Reads the record."""
        return self._kind.record_of(self._repeater.get(self._kind.path(record_id), Deadline(timeout)))

    def wait(self, record_id: str, *, timeout: Optional[float] = None) -> Record:
        """Waits until it has ended, and returns the last record.

        It asks with Prefer: wait, so that the answer comes at the end. A server that has answered before may go away
        for any time; what no waiting can repair, such as an ID that does not exist, is an error at once.
        """
        *_, last = Follower(self._repeater, self._kind, record_id, Deadline(timeout)).records(streams=False)
        return last

    def stream(self, record_id: str, *, timeout: Optional[float] = None) -> Iterator[Record]:
        """Yields the first record and each one that differs, until it has ended; changes that come close together are
        one.

        It reads the event stream, reconnects where that was cut, and asks as wait does where no stream comes through.
        It bears with an outage as wait does.
        """
        return Follower(self._repeater, self._kind, record_id, Deadline(timeout)).records(streams=True)

    def cancel(self, record_id: str, *, timeout: Optional[float] = None) -> Record:
        """Cancels what has not begun, and returns the record. It is sent once."""
        return self._change(record_id, "cancel", None, timeout)

    def retry(self, record_id: str, states: Sequence[Retried] = (), *, timeout: Optional[float] = None) -> Record:
        """Tries what is in one of the states again, once all has ended, and returns the record.

        Without states that is what failed. An unknown instance may have been reset already, and is then reset a second
        time. It is sent once.
        """
        return self._change(record_id, "retry", {"states": list(states)} if states else None, timeout)

    def _list(self, filters: Mapping[str, object], label: Sequence[str], timeout: Optional[float]) -> Iterator[Record]:
        """Yields all that match, and asks for the next page when the loop has come to it."""
        query = [(name, str(value)) for name, value in filters.items() if value is not None]
        query += [("label", one) for one in label]
        deadline = Deadline(timeout)
        cursor: Sequence[Tuple[str, str]] = ()
        while True:
            answer = self._repeater.get(with_query(self._kind.list_path, [*query, *cursor]), deadline)
            records, following = self._kind.page_of(answer)
            yield from records
            if not following:
                return
            cursor = [("cursor", following)]

    def _change(
        self, record_id: str, what: str, body: Optional[Mapping[str, object]], timeout: Optional[float]
    ) -> Record:
        """Asks for a change, once."""
        text = None if body is None else json.dumps(body)
        request = Request("POST", self._kind.path(record_id, what), body=text)
        return self._kind.record_of(self._repeater.connection.ask(request, Deadline(timeout)))


def with_query(path: str, query: Sequence[Tuple[str, str]]) -> str:
    """Gives a path with a query, if there is one."""
    return f"{path}?{urllib.parse.urlencode(query)}" if query else path
