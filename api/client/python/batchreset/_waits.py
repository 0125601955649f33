"""How often a request is sent, and how long to wait before it is sent again. In seconds."""

from __future__ import annotations

import random
import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.client import HTTPMessage
from typing import Optional

MAX_TRIES = 4
"""How often a request is sent, at most, to a server that does not answer, or with a 5xx."""
PATIENCE = 60.0
"""How long all waits of one read may take together."""
FIRST_WAIT = 0.2
_LONGEST_WAIT = 2.0
_DAY = 24 * 60 * 60.0


def backoff(n: int) -> float:
    """Gives the wait after the nth (from 1) time in vain, if the server does not ask for more."""
    return min(_LONGEST_WAIT, FIRST_WAIT * 2 ** min(n - 1, 10))


def spread(seconds: float) -> float:
    """Makes a wait up to a quarter longer, so that callers who were turned away together do not come back together."""
    return seconds * (1 + random.random() / 4)


def parse_retry_after(headers: HTTPMessage) -> float:
    """Reads a Retry-After header in either form, a time by the clock of who sent it; 0 if there is none."""
    value = headers.get("Retry-After", "")
    if re.fullmatch(r"[+-]?\d+", value, re.ASCII):
        return max(0.0, min(float(value), _DAY))
    at = _parse_date(value)
    if at is None:
        return 0.0
    now = _parse_date(headers.get("Date", "")) or datetime.now(timezone.utc)
    return max(0.0, min((at - now).total_seconds(), _DAY))


def _parse_date(text: str) -> Optional[datetime]:
    if not text.endswith(" GMT"):
        return None
    try:
        return parsedate_to_datetime(text).replace(tzinfo=timezone.utc)
    except (TypeError, ValueError):
        return None
