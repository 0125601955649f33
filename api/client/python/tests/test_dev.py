"""Against a real service: BATCHRESET_SERVER, BATCHRESET_TOKEN, and as APPROVER another owner's token."""

from __future__ import annotations

import base64
import datetime
import json
import os
import time
import unittest
from typing import Callable, List, Tuple

from batchreset import Batch, BatchResetError, Client

UNIQUE = f"py-{os.getpid()}-{time.time_ns()}"


def ids(prefix: str, n: int) -> List[str]:
    """Gives IDs of instances."""
    return [f"{UNIQUE}-{prefix}-{i}" for i in range(n)]


@unittest.skipUnless("APPROVER" in os.environ, "no service: 'make test' starts one")
class Dev(unittest.TestCase):
    """What callers do."""

    def setUp(self) -> None:
        self.client = Client()
        self.approver = Client(token=os.environ["APPROVER"])

    def test_a_batch(self) -> None:
        jobs = self.client.jobs
        batch: Batch = {"instance_ids": ids("batch", 3), "labels": {"by": UNIQUE}}
        self.assertEqual(["would_reset"] * 3, [one["verdict"] for one in jobs.dry_run(batch)])
        accepted = jobs.submit(batch, idempotency_key=UNIQUE)
        self.assertEqual(batch["instance_ids"], [item["instance_id"] for item in accepted["items"]])
        self.assertEqual(accepted, jobs.submit(batch, idempotency_key=UNIQUE))

        *_, last = jobs.stream(accepted["job_id"])
        job = jobs.wait(accepted["job_id"])
        self.assertEqual(("succeeded", job), (last["state"], last))
        self.assertEqual(job, jobs.get(accepted["job_id"]))
        self.assertEqual(["succeeded"] * 3, [item["state"] for item in job.get("items", [])])
        self.assertEqual([job["job_id"]], [one["job_id"] for one in jobs.list(label=[f"by={UNIQUE}"], limit=1)])
        payload = jobs.proof(job["job_id"]).split(".")[1]
        self.assertEqual(job["job_id"], json.loads(base64.urlsafe_b64decode(payload + "=="))["job_id"])

    def test_a_wait_ends_when_the_job_does(self) -> None:
        accepted = self.client.jobs.submit({"instance_ids": ids("wait", 2)})
        self.assertEqual("succeeded", self.client.jobs.wait(accepted["job_id"])["state"])

    def test_a_batch_that_is_cancelled_and_tried_again(self) -> None:
        jobs = self.client.jobs
        later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
        job_id = jobs.submit({"instance_ids": ids("cancel", 2), "not_before": later.isoformat()})["job_id"]
        self.assertEqual("cancelled", jobs.cancel(job_id)["state"])
        self.refused(409, "RESET.0003", lambda: jobs.cancel(job_id))
        jobs.retry(job_id, ["cancelled"])
        self.assertEqual("succeeded", jobs.wait(job_id)["state"])

    def test_a_run_of_more_than_one_job(self) -> None:
        runs = self.client.runs
        self.assertEqual(70, len(list(runs.dry_run({"instance_ids": ids("run", 70)}))))
        run = runs.submit({"instance_ids": ids("run", 70), "name": UNIQUE, "labels": {"by": UNIQUE}})
        *_, last = runs.stream(run["run_id"])
        self.assertEqual("succeeded", last["state"])
        self.assertEqual(last, runs.wait(run["run_id"]))
        self.assertEqual(ids("run", 70), [row["instance_id"] for row in runs.results(run["run_id"])])
        self.assertEqual([], list(runs.results(run["run_id"], state=["failed", "unknown"])))
        self.assertEqual(72, len(list(runs.proof(run["run_id"]))))
        self.assertEqual([run["run_id"]], [one["run_id"] for one in runs.list(label=[f"by={UNIQUE}"])])

    def test_the_brakes_of_a_run(self) -> None:
        runs = self.client.runs
        run_id = runs.submit({"instance_ids": ids("brakes", 200), "max_parallel": 1})["run_id"]
        self.assertEqual("paused", runs.pause(run_id)["state"])
        self.refused(409, "RESET.0003", lambda: runs.pause(run_id))
        self.assertEqual("50%", runs.resume(run_id, max_failures="50%").get("max_failures"))
        runs.cancel(run_id)
        last = runs.wait(run_id)
        self.assertIn(last["state"], ("partial", "cancelled"))
        self.assertGreater(last["counts"]["cancelled"], 0)
        runs.retry(run_id, ["cancelled"])
        runs.cancel(run_id)

    def test_a_run_that_others_approve_or_reject(self) -> None:
        runs, others = self.client.runs, self.approver.runs
        run = runs.submit({"instance_ids": ids("approve", 1), "approval": True})
        self.assertEqual("waiting", run["state"])
        run_id = run["run_id"]
        self.refused(409, "RESET.0003", lambda: others.approve(run_id, list_sha256="0" * 64, comment="another list"))
        others.approve(run["run_id"], list_sha256=run["list_sha256"], comment="checked")
        self.assertEqual("succeeded", runs.wait(run["run_id"])["state"])
        run = runs.submit({"instance_ids": ids("reject", 1), "approval": True})
        self.assertEqual("rejected", others.reject(run["run_id"], comment="no")["state"])

    def test_what_the_service_refuses(self) -> None:
        client, nobody, key = self.client, "0" * 32, f"{UNIQUE}-refused"
        client.jobs.submit({"instance_ids": ids("refused", 1)}, idempotency_key=key)
        refusals: List[Tuple[int, str, Callable[[], object]]] = [
            (400, "KOOPHONE.API.1000", lambda: client.jobs.submit({"instance_ids": ["no space"]})),
            (400, "KOOPHONE.API.1000", lambda: client.jobs.submit({"instance_ids": ids("x", 33)})),
            (422, "RESET.0002", lambda: client.jobs.submit({"instance_ids": ["other"]}, idempotency_key=key)),
            (404, "RESET.0001", lambda: client.jobs.get(nobody)),
            (404, "RESET.0001", lambda: client.jobs.wait(nobody)),
            (404, "RESET.0001", lambda: list(client.runs.stream(nobody))),
            (404, "RESET.0001", lambda: list(client.runs.results(nobody))),
            (401, "APIGW.0301", lambda: Client(token="wrong").whoami()),
            (403, "APIGW.0302", lambda: self.approver.jobs.submit({"instance_ids": ["a"]})),
        ]
        for status, code, call in refusals:
            with self.subTest(code):
                self.refused(status, code, call)

    def test_whose_token_it_is(self) -> None:
        self.assertIn("submit", self.client.whoami()["scopes"])

    def refused(self, status: int, code: str, call: Callable[[], object]) -> None:
        """Expects an answer that accepted nothing."""
        with self.assertRaises(BatchResetError) as raised:
            call()
        error = raised.exception
        self.assertEqual((status, code, False), (error.status, error.code, error.uncertain))
        self.assertTrue(error.message and error.request_id)
