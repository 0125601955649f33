"""What is sent, and what answers are understood."""

from __future__ import annotations

import json
import os
import threading
import unittest
from contextlib import contextmanager
from http.client import HTTPMessage
from typing import Generator, List, Tuple
from unittest import mock

from batchreset import BatchResetError, Client
from batchreset._waits import parse_retry_after
from batchreset.errors import printable

from .fake import JOB_ID, Handler, Seen, envelope, no_sleep, serve

JOB = {"job_id": JOB_ID, "state": "running"}
BUSY = '{"error_code":"APIGW.0308","error_msg":"too many"}'


@contextmanager
def answered(body: str, status: int = 200, **headers: str) -> Generator[Tuple[Client, List[Seen]], None, None]:
    """Gives a client of a server that has one answer, and the requests that came."""
    seen: List[Seen] = []

    def answer(handler: Handler, request: Seen) -> None:
        seen.append(request)
        handler.give(body, status, **headers)

    with serve(answer) as server:
        yield Client(server + "/prefix/", "t"), seen


class Clients(unittest.TestCase):
    """A client, and what it sends."""

    def test_refuses_what_cannot_be_a_server_or_a_token(self) -> None:
        for server, token, want in (
            ("127.0.0.1:8080", "t", "is not a URL such as"),
            ("redis://127.0.0.1", "t", "is not a URL such as"),
            ("http:///v1", "t", "is not a URL such as"),
            ("http://a:b", "t", "is not a URL such as"),
            ("http://a/ b", "t", "is not a URL such as"),
            ("http://user:geheim@a", "t", "^server has a user name"),
            ("http://a/?b=c", "t", "has a query"),
            ("http://a", "", "token is empty"),
            ("http://a", "x\r\nHost: b", "token has spaces"),
        ):
            with self.subTest(server, token=token), self.assertRaisesRegex(ValueError, want):
                Client(server, token)

    def test_takes_server_and_token_from_the_environment(self) -> None:
        seen: List[Seen] = []

        def answer(handler: Handler, request: Seen) -> None:
            seen.append(request)
            handler.give(envelope(JOB))

        with serve(answer) as server:
            environment = {"BATCHRESET_SERVER": server, "BATCHRESET_TOKEN": "from-it", "http_proxy": "http://127.0.0.1:1"}
            with mock.patch.dict(os.environ, environment):
                Client().jobs.get(JOB_ID)
        self.assertEqual(["from-it"], [request.headers["X-Auth-Token"] for request in seen])

    def test_keeps_the_path_of_the_server_and_escapes_ids(self) -> None:
        with answered(envelope(JOB)) as (client, seen):
            client.jobs.get("../a b")
            for no in ("", ".", ".."):
                with self.assertRaises(ValueError):
                    client.jobs.cancel(no)
        self.assertEqual(["/prefix/v1/jobs/..%2Fa%20b"], [request.path for request in seen])

    def test_sends_bodies_with_the_names_of_the_contract(self) -> None:
        with answered(envelope({"run_id": JOB_ID, "state": "running"})) as (client, seen):
            client.runs.submit({"instance_ids": ["a"], "max_failures": "2%", "canary": 1}, idempotency_key='a"\\b')
            client.runs.pause(JOB_ID)
            client.runs.resume(JOB_ID, max_failures=0)
            client.runs.retry(JOB_ID, ["unknown"])
            client.runs.approve(JOB_ID, list_sha256="0", comment="fine")
            client.runs.reject(JOB_ID, comment="no")
            client.runs.cancel(JOB_ID)
        bodies = [json.loads(request.body) if request.body else None for request in seen]
        self.assertEqual(
            [
                {"instance_ids": ["a"], "max_failures": "2%", "canary": 1},
                None,
                {"max_failures": 0},
                {"states": ["unknown"]},
                {"list_sha256": "0", "comment": "fine"},
                {"comment": "no"},
                None,
            ],
            bodies,
        )
        below = "pause resume retry approve reject cancel".split()
        self.assertEqual([f"/prefix/v1/runs/{JOB_ID}/{what}" for what in below], [request.path for request in seen[1:]])
        self.assertEqual('"a\\"\\\\b"', seen[0].headers["Idempotency-Key"])

    def test_lists_go_on_at_their_cursor_with_the_same_filters(self) -> None:
        paths: List[str] = []

        def answer(handler: Handler, request: Seen) -> None:
            paths.append(request.path)
            more = {} if len(paths) == 3 else {"next_cursor": f"c/{len(paths)}"}
            handler.give(envelope({"jobs": [] if len(paths) == 2 else [JOB], **more}))

        with serve(answer) as server:
            jobs = Client(server, "t").jobs.list(state="running", label=["a=b&c", "d=e"], limit=1)
            self.assertEqual(2, len(list(jobs)))
        query = "/v1/jobs?state=running&limit=1&label=a%3Db%26c&label=d%3De"
        self.assertEqual([query, f"{query}&cursor=c%2F1", f"{query}&cursor=c%2F2"], paths)


class Answers(unittest.TestCase):
    """What answers are taken for."""

    def test_errors(self) -> None:
        for body, status, want in (
            ('{"error_code":"RESET.0003","error_msg":"it has ended"}', 409, r"^RESET.0003: it has ended \(HTTP 409, request R1\)$"),
            ('{"error_code":"RESET.0001","error_msg":"no job"}', 200, "^RESET.0001: no job"),
            ('{"error_code":"X.1","error_msg":"a\\u001b[2Jb\\nc\\u202ed"}', 400, r"a\?\[2Jb c\?d"),
            ('{"status":"fine"}', 200, "answered 200 with something that the service does not say"),
            ("[" * 100_000, 200, "something that the service does not say"),
            (envelope(JOB)[:-9], 200, "something that the service does not say"),
            ("", 200, "answered 200 with nothing"),
            ("x" * ((8 << 20) + 1), 200, "more than 8388608 bytes"),
            ('{"error_code":"0","error_msg":"ok"}', 200, "data that cannot be read"),
            (envelope({"job_id": JOB_ID}), 200, "without job_id or state"),
        ):
            with self.subTest(want), answered(body, status, X_Request_Id="R1") as (client, _):
                with self.assertRaisesRegex(BatchResetError, want) as raised:
                    client.jobs.get(JOB_ID)
                self.assertEqual((status, "R1"), (raised.exception.status, raised.exception.request_id))

    def test_a_dry_run_that_an_older_service_takes_for_a_submit(self) -> None:
        with answered(envelope({"task_id": JOB_ID, "cmd_jobs": []})) as (client, seen):
            with self.assertRaisesRegex(BatchResetError, "does not know dry_run"):
                client.jobs.dry_run({"instance_ids": ["a"]})
        self.assertEqual([{"instance_ids": ["a"], "dry_run": True}], [json.loads(request.body) for request in seen])

    def test_a_proof_of_a_run_that_lost_its_end(self) -> None:
        with answered('{"version":1}\n', Content_Type="application/jsonl") as (client, _):
            with self.assertRaisesRegex(BatchResetError, "it has no signature"):
                list(client.runs.proof(JOB_ID))

    def test_retry_after(self) -> None:
        day, then = 24 * 60 * 60, "Mon, 02 Jan 2006 15:04:05 GMT"
        for value, date, want in (
            ("", "", 0), ("7", "", 7), ("-1", "", 0), ("soon", "", 0), ("1e9", "", 0), ("9" * 30, "", day), (then, "", 0),
            ("Mon, 02 Jan 2006 15:04:15 GMT", then, 10), ("Wed, 02 Jan 2126 15:04:15 GMT", then, day),
        ):  # fmt: skip
            headers = HTTPMessage()
            headers["Retry-After"], headers["Date"] = value, date
            self.assertEqual(want, parse_retry_after(headers), value)

    def test_printable(self) -> None:
        self.assertEqual("größer 手机 a b c?[2J??abc?", printable("größer 手机\ta\nb\rc\x1b[2J\x07\u202eabc\u200b"))


class Timeouts(unittest.TestCase):
    """Timeouts of a submit."""

    def test_one_that_passes_while_it_is_under_way_leaves_it_uncertain(self) -> None:
        over = threading.Event()
        def answer(_: Handler, __: Seen) -> None:
            over.wait(9)

        with serve(answer) as server:
            with self.assertRaisesRegex(BatchResetError, "interrupted: .*; it may have been accepted") as raised:
                Client(server, "t").jobs.submit({"instance_ids": ["a"]}, timeout=0.2)
            over.set()
        self.assertTrue(raised.exception.uncertain)
        self.assertIsInstance(raised.exception.__cause__, TimeoutError)

    def test_one_that_has_passed_before_does_not(self) -> None:
        with self.assertRaises(TimeoutError):
            Client("http://127.0.0.1:1", "t").jobs.submit({"instance_ids": ["a"]}, timeout=0)

    def test_one_bounds_the_waits_after_a_429(self) -> None:
        with answered(BUSY, 429, Retry_After="60") as (client, seen), no_sleep() as slept:
            with mock.patch("time.monotonic", lambda: 60.0 * len(slept)), self.assertRaises(TimeoutError):
                client.jobs.submit({"instance_ids": ["a"]}, timeout=90)
        self.assertEqual((2, 2, 30), (len(seen), len(slept), slept[1]))
