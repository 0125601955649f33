"""A client of the batch reset service. It needs nothing but the standard library."""

from .client import Client
from .errors import BatchResetError
from .types import (
    Accepted,
    AcceptedItem,
    Batch,
    Budget,
    Counts,
    Identity,
    Item,
    ItemState,
    Job,
    JobState,
    Retried,
    Run,
    RunRequest,
    RunResult,
    RunState,
    RunVerdict,
    Verdict,
)

__all__ = [
    "Accepted",
    "AcceptedItem",
    "Batch",
    "BatchResetError",
    "Budget",
    "Client",
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
