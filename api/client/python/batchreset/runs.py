"""Lists of any length, each of which is reset as one thing."""

from __future__ import annotations

import json
from typing import Iterator, Optional, Sequence

from ._clock import Deadline
from ._connection import Request
from ._kind import Kind
from ._records import Records, with_query
from ._repeat import Repeater
from .errors import BatchResetError
from .types import Budget, ItemState, Run, RunRequest, RunResult, RunState, RunVerdict

_KIND: Kind[Run] = Kind("run", frozenset(["waiting", "running", "paused"]))


class Runs(Records[Run]):
    """Lists of any length. A run that pauses has not ended: somebody may resume it."""

    def __init__(self, repeater: Repeater) -> None:
        super().__init__(repeater, _KIND)

    def submit(self, request: RunRequest, *, idempotency_key: Optional[str] = None, timeout: Optional[float] = None) -> Run:
        """Makes a run, and returns its record. It is repeated, and fails, as a submit of a batch."""
        path, body = self._kind.list_path, json.dumps(request)
        return self._repeater.submit(path, body, idempotency_key, self._kind.record_of, Deadline(timeout))

    def dry_run(self, request: RunRequest, *, timeout: Optional[float] = None) -> Iterator[RunVerdict]:
        """Yields what submit would do with each instance now. Nothing is stored. It asks once."""
        asked = Request("POST", self._kind.list_path, body=json.dumps({**request, "dry_run": True}))
        return map(json.loads, self._repeater.connection.lines(asked, Deadline(timeout)))

    def pause(self, record_id: str, *, timeout: Optional[float] = None) -> Run:
        """Begins nothing more of a run, and returns its record. What runs goes on to its end. It is sent once."""
        return self._change(record_id, "pause", None, timeout)

    def resume(self, record_id: str, *, max_failures: Optional[Budget] = None, timeout: Optional[float] = None) -> Run:
        """Goes on with a run that is paused, maybe under a new budget, and returns its record. It is sent once."""
        body = None if max_failures is None else {"max_failures": max_failures}
        return self._change(record_id, "resume", body, timeout)

    def approve(self, record_id: str, *, list_sha256: str, comment: str, timeout: Optional[float] = None) -> Run:
        """Approves a run that somebody else has asked for, and returns its record.

        list_sha256 is that of the list which the caller has seen. It is sent once.
        """
        return self._change(record_id, "approve", {"list_sha256": list_sha256, "comment": comment}, timeout)

    def reject(self, record_id: str, *, comment: str, timeout: Optional[float] = None) -> Run:
        """Ends a run that waits for approval, and returns its record. It is sent once."""
        return self._change(record_id, "reject", {"comment": comment}, timeout)

    def list(
        self,
        *,
        state: Optional[RunState] = None,
        label: Sequence[str] = (),
        since: Optional[str] = None,
        until: Optional[str] = None,
        limit: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> Iterator[Run]:
        """Yields all of the tenant's runs that match, newest first. The filters are those of a list of jobs."""
        return self._list({"state": state, "since": since, "until": until, "limit": limit}, label, timeout)

    def results(
        self, record_id: str, *, state: Sequence[ItemState] = (), timeout: Optional[float] = None
    ) -> Iterator[RunResult]:
        """Yields a row for each instance, in the order of the list, or for those in one of the states.

        The rows come while the server reads them, so that any number fits. It asks once: a loop that ends without an
        error has seen every row.
        """
        path = with_query(self._kind.path(record_id, "results"), [("state", one) for one in state])
        return map(json.loads, self._repeater.connection.lines(Request("GET", path), Deadline(timeout)))

    def proof(self, record_id: str, *, timeout: Optional[float] = None) -> Iterator[str]:
        """Yields the lines of what became of a run that has ended, signed by the service.

        They have their line ends: one after the other, they are the proof. After an error, they are none. It asks once.
        """
        last = ""
        for last in self._repeater.connection.lines(Request("GET", self._kind.path(record_id, "proof")), Deadline(timeout)):
            yield last
        if not last.startswith('{"signature":'):
            raise BatchResetError("no proof that is whole: it has no signature")
