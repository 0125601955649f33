"""What is repeated, and when: the cases that all clients share."""

from __future__ import annotations

import json
import unittest
from collections import deque
from typing import Any, Callable, Dict, List, Tuple

from batchreset import Batch, BatchResetError, Client, RunRequest

from .fake import JOB_ID, Handler, Seen, cases, closed_port, envelope, no_sleep, serve

JSON, LINES = "application/json", "application/jsonl"
JOB = envelope({"job_id": JOB_ID, "state": "succeeded"})
RUN = envelope({"run_id": JOB_ID, "state": "succeeded"})
DRY = envelope({"dry_run": True, "instances": [{"instance_id": "a", "verdict": "busy"}]})
BATCH: Batch = {"instance_ids": ["a"]}
REQUEST: RunRequest = {"instance_ids": ["a"]}

# Each call, and the type and body that it is answered with.
CALLS: Dict[str, Tuple[Callable[[Client], object], str, str]] = {
    "get": (lambda c: c.jobs.get(JOB_ID), JSON, JOB),
    "list": (lambda c: deque(c.jobs.list()), JSON, envelope({"jobs": []})),
    "whoami": (lambda c: c.whoami(), JSON, envelope({"token_id": "t", "tenant": "acme"})),
    "proof": (lambda c: c.jobs.proof(JOB_ID), "application/jose", "a.b.c"),
    "submit": (lambda c: c.jobs.submit(BATCH), JSON, envelope({"task_id": JOB_ID, "cmd_jobs": []})),
    "dry_run": (lambda c: c.jobs.dry_run(BATCH), JSON, DRY),
    "cancel": (lambda c: c.jobs.cancel(JOB_ID), JSON, JOB),
    "retry": (lambda c: c.jobs.retry(JOB_ID), JSON, JOB),
    "run_submit": (lambda c: c.runs.submit(REQUEST), JSON, RUN),
    "pause": (lambda c: c.runs.pause(JOB_ID), JSON, RUN),
    "approve": (lambda c: c.runs.approve(JOB_ID, list_sha256="0", comment="fine"), JSON, RUN),
    "results": (lambda c: deque(c.runs.results(JOB_ID)), LINES, '{"instance_id":"a"}\n{"instance_id":"b"}\n'),
    "run_proof": (lambda c: deque(c.runs.proof(JOB_ID)), LINES, '{"version":1}\n{"signature":"s"}\n'),
}


def give(handler: Handler, step: Any, kind: str, body: str, elsewhere: str) -> None:
    """Gives one answer of a case."""
    if step == "ok":
        handler.give(body, Content_Type=kind)
    elif "cut" in step:
        if step["cut"] != "before":
            handler.head(Content_Type=kind, Content_Length=str(len(body)))
        if step["cut"] == "body":
            handler.write(body[: len(body) // 2])
        handler.cut()
    else:
        text = json.dumps({"error_code": step["code"], "error_msg": "so it is"}) if "code" in step else "<html>"
        location = {"Location": elsewhere} if "elsewhere" in step else {}
        handler.give(text, step["status"], **step.get("headers", {}), **location)


class Repeats(unittest.TestCase):
    """Each case of testdata/repeats.json."""

    def test_cases(self) -> None:
        """Runs all of them."""
        for case in cases():
            with self.subTest(case["name"]):
                self.check(case)

    def check(self, case: Dict[str, Any]) -> None:
        """Runs one."""
        call, kind, body = CALLS[case["call"]]
        steps: List[Any] = case["answers"]
        seen: List[Seen] = []
        elsewhere: List[Seen] = []
        told: List[BatchResetError] = []

        def answer(handler: Handler, request: Seen) -> None:
            seen.append(request)
            give(handler, steps[min(len(seen), len(steps)) - 1], kind, body, f"{other}/x")

        def other_answer(handler: Handler, request: Seen) -> None:
            elsewhere.append(request)
            handler.give(body, Content_Type=kind)

        error = None
        with serve(other_answer) as other, serve(answer) as server, no_sleep() as slept:
            client = Client(server if steps else closed_port(), "secret", on_retry=lambda failed, _: told.append(failed))
            try:
                call(client)
            except BatchResetError as failed:
                error = failed

        self.assertEqual("error" in case, error is not None, error)
        if error:
            got = {"status": error.status, "code": error.code, "uncertain": error.uncertain}
            self.assertEqual({"retry_after": 0, **case["error"]}, {**got, "retry_after": error.retry_after})
            self.assertNotIn("secret", str(error))
        self.assertEqual(case["requests"], len(seen))
        self.assertEqual(len(case["waits"]), len(told))
        self.assertEqual(len(case["waits"]), len(slept), slept)
        for want, wait in zip(case["waits"], slept):
            self.assertTrue(want <= wait <= want * 1.25, slept)
        self.assertEqual([], elsewhere)
        self.assertEqual(case["requests"], len({request.headers["X-Request-Id"] for request in seen}))
        self.assertEqual({"secret"} if seen else set(), {request.headers["X-Auth-Token"] for request in seen})
        keys = {request.headers["Idempotency-Key"] for request in seen}
        if case["call"].endswith("submit") and seen:
            self.assertEqual(1, len(keys))
            self.assertRegex(keys.pop(), '^"[0-9a-f]{32}"$')
        else:
            self.assertEqual({None} if seen else set(), keys)
