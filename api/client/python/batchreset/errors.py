"""What can go wrong with a request."""

from __future__ import annotations

from typing import Optional

_TOO_MANY = 429
_TOKEN_SERVICE_DOWN = "APIGW.0613"  # asked before anything is stored
_STORAGE_FULL = "RESET.0006"  # nothing was stored


class BatchResetError(Exception):
    """Everything that can go wrong with a request, but for a timeout of the caller's own."""

    status: Optional[int]
    """The HTTP status. None: no whole answer came."""
    code: str
    """The API's error_code. Empty: the answer was none of the service's."""
    message: str
    """A sentence for people, fit for one line on a terminal."""
    request_id: Optional[str]
    """What the service, and its log, call the request. None: no answer came."""
    retry_after: float
    """How many seconds the server wants us to wait, or 0."""
    uncertain: bool
    """Whether the batch, or run, may have been accepted all the same. Look at the lists of jobs or runs
    before you send it under another key: that could reset a phone twice."""

    def __init__(
        self,
        message: str,
        *,
        status: Optional[int] = None,
        code: str = "",
        request_id: Optional[str] = None,
        retry_after: float = 0,
        uncertain: bool = False,
        sent: bool = True,
    ) -> None:
        self.message = printable(message)
        super().__init__(self.message)
        self.status = status
        self.code = printable(code)
        self.request_id = None if request_id is None else printable(request_id)
        self.retry_after = retry_after
        self.uncertain = uncertain
        self._sent = sent

    def __str__(self) -> str:
        code = f"{self.code}: " if self.code else ""
        answer = "" if self.status is None else f" (HTTP {self.status}, request {self.request_id})"
        return f"{code}{self.message}{answer}"


def may_be_accepted(error: BatchResetError) -> bool:
    """Tells whether a submit that failed may have been accepted. A 5xx says nothing: a proxy may have lost track."""
    return error._sent and not refused(error)


def refused(error: BatchResetError) -> bool:
    """Tells whether it is an answer after which nothing was accepted for certain."""
    if error.status is None:
        return False
    return 300 <= error.status < 500 or error.code in (_TOKEN_SERVICE_DOWN, _STORAGE_FULL)


def too_many(error: BatchResetError) -> bool:
    """Tells whether the server wants less of us."""
    return error.status == _TOO_MANY


def passing(error: BatchResetError) -> bool:
    """Tells whether it may go away by itself: no answer, or a server that is overloaded or broken."""
    return error.status is None or error.status >= 500 or too_many(error)


def as_uncertain(error: BaseException) -> BatchResetError:
    """Gives the same error, which now says that the request may have been accepted."""
    known = error if isinstance(error, BatchResetError) else BatchResetError(f"interrupted: {error}")
    if known.uncertain:
        return known
    uncertain = BatchResetError(
        f"{known.message}; it may have been accepted all the same: look before you send it again",
        status=known.status,
        code=known.code,
        request_id=known.request_id,
        retry_after=known.retry_after,
        uncertain=True,
    )
    uncertain.__cause__ = error
    return uncertain


def printable(text: str) -> str:
    """Makes text from elsewhere fit for one line on a terminal."""
    return "".join(" " if c.isspace() else c if c.isprintable() else "?" for c in text)
