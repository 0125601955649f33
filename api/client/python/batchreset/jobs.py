"""Batches of up to 32 instances."""

from __future__ import annotations

import json
from typing import Dict, Iterator, List, Optional, Sequence, cast

from ._clock import Deadline
from ._connection import Answer, Request
from ._kind import Kind
from ._records import Records
from ._repeat import Repeater
from .types import Accepted, Batch, Job, JobState, Verdict

_PATH = "/v1/instances/batch-reset"
_KIND: Kind[Job] = Kind("job", frozenset(["pending", "running"]))


class Jobs(Records[Job]):
    """Batches of up to 32 instances."""

    def __init__(self, repeater: Repeater) -> None:
        super().__init__(repeater, _KIND)

    def submit(self, batch: Batch, *, idempotency_key: Optional[str] = None, timeout: Optional[float] = None) -> Accepted:
        """Posts one batch.

        The key, of 1 to 255 printable characters, makes the same batch the same job, however often it is submitted.
        Without one, submit makes one up, for its own tries: after a 429, until the timeout, and after an answer that
        was lost, a few times, it sends the batch again, under the same key, so that it becomes one job. An error says
        that nothing was accepted, unless it is uncertain; so is a timeout while the request was under way.
        """
        return self._repeater.submit(_PATH, json.dumps(batch), idempotency_key, _accepted, Deadline(timeout))

    def dry_run(self, batch: Batch, *, timeout: Optional[float] = None) -> List[Verdict]:
        """Asks what submit would do with each instance now. Nothing is stored."""
        request = Request("POST", _PATH, body=json.dumps({**batch, "dry_run": True}))
        answer = self._repeater.attempt(request, Deadline(timeout))
        if not answer.fields.get("dry_run"):
            raise answer.unusable("it does not know dry_run: the instances are being reset")
        if not answer.fields.get("instances"):
            raise answer.unusable("no instances")
        return cast(List[Verdict], answer.fields["instances"])

    def list(
        self,
        *,
        state: Optional[JobState] = None,
        instance_id: Optional[str] = None,
        label: Sequence[str] = (),
        since: Optional[str] = None,
        until: Optional[str] = None,
        limit: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> Iterator[Job]:
        """Yields all of the tenant's jobs that match, newest first, without their items.

        label are texts such as name=value, up to 8; a job must have all of them. since and until bound the time of
        creation, such as 2026-01-02T00:00:00Z; until is the first moment that is not meant. limit is how many one
        request asks for, 1 to 100.
        """
        filters = {"state": state, "instance_id": instance_id, "since": since, "until": until, "limit": limit}
        return self._list(filters, label, timeout)

    def proof(self, record_id: str, *, timeout: Optional[float] = None) -> str:
        """Returns what became of a job that has ended, signed by the service: a JWS in compact form."""
        path = self._kind.path(record_id, "proof")
        answer = self._repeater.get(path, Deadline(timeout), {"Accept": "application/jose"})
        if not answer.signed or not answer.data:
            raise answer.unusable("no proof")
        return str(answer.data)


def _accepted(answer: Answer) -> Accepted:
    """Reads the answer to a batch. KooPhone calls a job a task, and an item a job."""
    if not answer.fields.get("task_id"):
        raise answer.unusable("no task_id")
    items: List[Dict[str, str]] = answer.fields.get("cmd_jobs", [])
    return {
        "job_id": answer.fields["task_id"],
        "items": [{"item_id": item["job_id"], "instance_id": item["instance_id"]} for item in items],
    }
