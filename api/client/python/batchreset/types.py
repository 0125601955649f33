"""The types of what a client sends and gets: those of the contract, and a few of its own."""

from __future__ import annotations

from typing import List, Literal, TypedDict

from .contract import (
    Batch,
    Budget,
    Counts,
    DryRunInstances,
    Identity,
    Item,
    ItemState,
    Job,
    JobState,
    Run,
    RunRequest,
    RunResult,
    RunState,
    RunVerdict,
)

__all__ = [
    "Accepted",
    "AcceptedItem",
    "Batch",
    "Budget",
    "Counts",
    "Identity",
    "Item",
    "ItemState",
    "Job",
    "JobState",
    "Retried",
    "Run",
    "RunRequest",
    "RunResult",
    "RunState",
    "RunVerdict",
    "Verdict",
]

Verdict = DryRunInstances
"""What a dry run says of an instance of a batch."""

Retried = Literal["failed", "unknown", "cancelled"]
"""The states of items that can be tried again."""


class AcceptedItem(TypedDict):
    """One instance of an accepted batch."""

    item_id: str
    instance_id: str


class Accepted(TypedDict):
    """A batch that the service has taken on."""

    job_id: str
    items: List[AcceptedItem]
