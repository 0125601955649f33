"""The types of the contract. Made from api/openapi.yaml by generate.py: do not edit."""

from __future__ import annotations

from typing import Dict, List, Literal, TypedDict, Union


InstanceID = str


class _Batch(TypedDict):
    instance_ids: List[InstanceID]
    """An ID that is repeated counts once; the order is kept. An operator may raise the limit of 32."""


class Batch(_Batch, total=False):
    max_failures: int
    """Cancels the rest of the job after so many of its items have failed; 0 = never."""
    generation: Union[int, Dict[str, int]]
    """What the fleet's counter of assignments must be, for all instances or for each that is named. An
    instance that was assigned to another user or tenant since is not reset: its item ends as failed with
    `RESET.1006`. So does one that is not registered."""
    not_before: str
    """No attempt begins earlier. Until then a cancel is certain to take everything back. Up to 7 days ahead.
    A later retry of the job starts at once."""
    reason: str
    """Kept in the record."""
    labels: Dict[str, str]
    """Kept in the record. Names of up to 64 characters, values of up to 256."""


class DryRunInstances(TypedDict):
    instance_id: InstanceID
    verdict: Literal['would_reset', 'unknown', 'protected', 'reassigned', 'busy', 'over_quota']
    """`unknown` = not registered, or another tenant's; `reassigned` = it has another generation; `busy` =
    being reset now, so it would have to wait; `over_quota` = more than the tenant's limits allow now."""


class DryRun(TypedDict):
    instances: List[DryRunInstances]


JobState = Literal['pending', 'running', 'succeeded', 'failed', 'partial', 'cancelled']
"""`succeeded` = every item succeeded, `failed` = none did, `partial` = some did, `cancelled` = none did, and
every item was cancelled."""


Time = str
"""RFC 3339, UTC, milliseconds. Absent when not yet known."""


class Counts(TypedDict):
    pending: int
    running: int
    retrying: int
    succeeded: int
    failed: int
    unknown: int
    cancelled: int


class Held(TypedDict):
    """Why instances that could begin do not, and since when; absent if nothing holds them. A halt, a pause of
    the run and `not_before` are there at once, and change the `ETag`. A driver that no worker has is noted
    within minutes. A quota that is used up is not said here."""
    reason: str
    since: Time


ItemState = Literal['pending', 'running', 'retrying', 'succeeded', 'failed', 'unknown', 'cancelled']
"""`unknown` = the reset was sent and nobody can say whether it happened. It is not repeated by itself."""


ItemCode = str
"""The upstream's own code, or one of ours: `RESET.1001` timed out, outcome unknown · `RESET.1002` worker
lost, outcome unknown · `RESET.1003` cancelled · `RESET.1004` instance busy too long · `RESET.1005` stopped
after too many failures · `RESET.1006` protected or no longer the tenant's · `RESET.1007` reset failed, no
code given · `RESET.1008` not done in time · `RESET.1009` the control plane's answer was not understood,
outcome unknown · `RESET.1010` done by the control plane's answer, but a look at the instance does not show
it."""


class _ItemHistory(TypedDict):
    attempt: int
    outcome: Literal['retrying', 'failed', 'unknown', 'cancelled', 'lost']
    """`lost` = its worker died."""


class ItemHistory(_ItemHistory, total=False):
    started_at: Time
    finished_at: Time
    error_code: ItemCode
    error_msg: str


class _Item(TypedDict):
    item_id: str
    instance_id: InstanceID
    state: ItemState
    attempts: int
    """All attempts that have begun, whatever their outcome."""


class Item(_Item, total=False):
    started_at: Time
    finished_at: Time
    not_before: Time
    """When the next attempt is due, if the item waits for one and the time is known."""
    error_code: ItemCode
    error_msg: str
    evidence: str
    """What was seen of the instance after its last attempt, and when, if its driver can look. An item of such
    a driver is `succeeded` only once its instance was seen in its initial state."""
    history: List[ItemHistory]
    """The attempts that did not succeed, the last 20 of them."""


class _Job(TypedDict):
    job_id: str
    state: JobState
    request_id: str
    created_at: Time
    total: int
    counts: Counts


class Job(_Job, total=False):
    run_id: str
    """The run that the job is a part of. Absent if it is none's."""
    started_at: Time
    finished_at: Time
    not_before: Time
    held: Held
    items: List[Item]
    """Absent in lists of jobs."""
    reason: str
    labels: Dict[str, str]


Budget = Union[int, str]
"""How many instances may fail, or end as unknown: with one more the run pauses. A number, 0 included, or a
percentage such as `"2%"` of those that have ended, which counts once 20 have. Without it any number may."""


class _RunRequest(TypedDict):
    instance_ids: List[InstanceID]
    """They go in this order. An ID that is repeated counts once, and is counted as `repeats`. An operator may
    set another limit."""


class RunRequest(_RunRequest, total=False):
    name: str
    """For people; it need not be unique."""
    max_parallel: int
    """How many instances may be open at a time."""
    canary: int
    """How many instances go first. All of them must succeed before others begin; otherwise the run pauses. 0
    = none."""
    soak: str
    """How long to wait after the canary, such as `30s` or `1h30m`; up to 7 days. Needs a canary."""
    growth: float
    """The factor by which each wave after the canary is larger than the one before. Needs a canary."""
    generation: Union[int, Dict[str, int]]
    """What the fleet's counter of assignments must be, for all instances or for each that is named. An
    instance that was assigned to another user or tenant since is not reset: its item ends as failed with
    `RESET.1006`. So does one that is not registered."""
    approval: bool
    """The run waits until somebody else has approved it, also where the tenant's policy does not ask for
    that. `false` says nothing against the policy."""
    max_failures: Budget
    not_before: str
    """Nothing begins earlier. Up to 7 days ahead."""
    reason: str
    """Kept in the record."""
    labels: Dict[str, str]
    """Kept in the record. Names of up to 64 characters, values of up to 256."""


RunState = Literal['waiting', 'running', 'paused', 'succeeded', 'failed', 'partial', 'cancelled', 'rejected', 'expired']
"""`waiting` = for approval, or for its time; `paused` = by somebody, or because too many failed; `rejected`
and `expired` = not approved, so that nothing of it began. The others are as for a job."""


class RunFailure(TypedDict):
    error_code: ItemCode
    count: int


class RunDecision(TypedDict):
    """What somebody thinks of a run. One principal decides once."""
    principal: str
    decision: Literal['approved', 'rejected']
    comment: str
    at: Time


class Approval(TypedDict):
    """What a run needs before anything of it begins. Absent if it needs nothing."""
    approvers: int
    """How many must approve, besides who asked."""
    expires_at: Time
    decisions: List[RunDecision]


class RunLinks(TypedDict):
    """Paths of the API at which there is more about the run. `proof` answers once the run has ended."""
    self: str
    results: str
    events: str
    proof: str


class _Run(TypedDict):
    run_id: str
    state: RunState
    request_id: str
    created_at: Time
    total: int
    repeats: int
    """Repeated IDs that were folded."""
    counts: Counts
    list_sha256: str
    """SHA-256 over the sorted instance IDs, each with a line end after it."""
    round: int
    """1, and one more after each retry."""
    max_parallel: int


class Run(_Run, total=False):
    name: str
    stage: str
    """How far it is; `draining` = nothing more begins. Absent when the run has ended."""
    principal: str
    """Who asked for it. The owner of the token; a token without one is named by its ID."""
    started_at: Time
    finished_at: Time
    failures: List[RunFailure]
    """The most frequent codes of failed and unknown instances, of the first 1000 different ones."""
    approval: Approval
    not_before: Time
    held: Held
    reason: str
    labels: Dict[str, str]
    canary: int
    soak: str
    growth: float
    max_failures: Budget
    budget_used: int
    """How many of `max_failures` are used: instances of this round that failed or are unknown. Absent = none,
    or no budget."""
    rate_per_second: float
    """How many instances have ended each second since the run, or its last retry, began."""
    estimated_finish_at: Time
    links: RunLinks


class _RunResult(TypedDict):
    instance_id: InstanceID
    state: ItemState
    attempts: int


class RunResult(_RunResult, total=False):
    """A line of the results of a run."""
    job_id: str
    """Absent until the instance is in a job."""
    item_id: str
    error_code: ItemCode
    error_msg: str
    started_at: Time
    finished_at: Time
    evidence: str


class RunVerdict(TypedDict):
    """A line of a dry run of a run."""
    instance_id: InstanceID
    verdict: Literal['would_reset', 'unknown', 'protected', 'busy']
    """`unknown` = not registered, or another tenant's; `busy` = being reset now, so it would have to wait."""


class _Identity(TypedDict):
    token_id: str
    """The ID of the token in `batchreset token list` and in the audit trail; the access key itself; or the ID
    that the token service gives its token."""
    kind: Literal['token', 'access-key', 'iam', 'jwt', 'certificate']
    """A token or an access key of this service, a token of the token service, or a signed bearer token."""
    tenant: str
    scopes: List[str]
    """What the token may be used for."""


class Identity(_Identity, total=False):
    name: str
    """What it is for, if somebody has said."""
    owner: str
    """The person or program that has it, if that is known."""
    addresses: List[str]
    """The networks that it may be used from; absent for any."""
    instance_labels: Dict[str, str]
    """The labels that an instance must have in the fleet to be reset with it; absent for any instance of the
    tenant."""
    created_at: Time
    expires_at: Time
