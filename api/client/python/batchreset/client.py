"""Calls one server with one token."""

from __future__ import annotations

import os
from typing import Optional, cast

from ._clock import Deadline
from ._connection import Connection
from ._repeat import OnRetry, Repeater
from .jobs import Jobs
from .runs import Runs
from .types import Identity


class Client:
    """Calls one server with one token. It may be used by several threads at once."""

    jobs: Jobs
    """Batches of up to 32 instances."""
    runs: Runs
    """Lists of any length."""

    def __init__(
        self, server: Optional[str] = None, token: Optional[str] = None, *, on_retry: Optional[OnRetry] = None
    ) -> None:
        """Takes the URL of the service (otherwise BATCHRESET_SERVER, or http://127.0.0.1:8080) and a token (otherwise
        BATCHRESET_TOKEN). on_retry is called with an error and a number of seconds before a request is repeated.

        Raises ValueError if server or token cannot be one. Nothing is sent yet.
        """
        if server is None:
            server = os.environ.get("BATCHRESET_SERVER") or "http://127.0.0.1:8080"
        if token is None:
            token = os.environ.get("BATCHRESET_TOKEN", "")
        self._repeater = Repeater(Connection(server, token), on_retry)
        self.jobs = Jobs(self._repeater)
        self.runs = Runs(self._repeater)

    def whoami(self, *, timeout: Optional[float] = None) -> Identity:
        """Asks whose the token is."""
        answer = self._repeater.get("/v1/whoami", Deadline(timeout))
        if not answer.fields.get("token_id") or not answer.fields.get("tenant"):
            raise answer.unusable("no token_id or tenant")
        return cast(Identity, answer.fields)
