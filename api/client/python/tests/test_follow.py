"""Streams and waits."""

from __future__ import annotations

import json
import threading
import unittest
from contextlib import contextmanager
from typing import Callable, Generator, Iterable, List, Sequence
from unittest import mock

from batchreset import BatchResetError, Client, Job

from .fake import JOB_ID, Handler, Seen, envelope, no_sleep, serve

Answer = Callable[[Handler], None]
RUNNING = {"job_id": JOB_ID, "state": "running"}
DONE = {"job_id": JOB_ID, "state": "succeeded"}


def event(tag: str, record: object) -> str:
    """Gives an event of a stream."""
    return f"id: {tag}\nevent: job\ndata: {json.dumps(record)}\n\n"


def stream(*texts: str, cut: bool = False) -> Answer:
    """Answers with a stream."""

    def answer(handler: Handler) -> None:
        handler.head(Content_Type="text/event-stream; charset=utf-8", Connection="close")
        for text in texts:
            handler.write(text)
        if cut:
            handler.cut()

    return answer


def record(data: object, **headers: str) -> Answer:
    """Answers with a record."""
    return lambda handler: handler.give(envelope(data), **headers)


def refusal(status: int, code: str) -> Answer:
    """Answers with an error."""
    return lambda handler: handler.give(json.dumps({"error_code": code, "error_msg": "so it is"}), status)


def nothing(over: threading.Event) -> Answer:
    """Does not answer until it is over."""

    def answer(_: Handler) -> None:
        over.wait(9)

    return answer


def unchanged(handler: Handler) -> None:
    """Answers that the record is the same."""
    handler.head(304)


def no_stream(handler: Handler) -> None:
    """Answers what a proxy does that has no streams."""
    handler.give("<html>", 404)


class Service:
    """Streams, and looks, are answered in turn; the last again and again."""

    def __init__(self, streams: Sequence[Answer] = (no_stream,), looks: Sequence[Answer] = (unchanged,)) -> None:
        self.answers = {True: streams, False: looks}
        self.streams: List[Seen] = []
        self.looks: List[Seen] = []
        self.slept: List[float] = []

    @contextmanager
    def client(self) -> Generator[Client, None, None]:
        """Gives a client that does not wait."""
        with serve(self.answer) as server, no_sleep() as self.slept:
            yield Client(server, "t")

    def answer(self, handler: Handler, request: Seen) -> None:
        """Answers one request."""
        streams = request.path.endswith("/events")
        seen, answers = self.streams if streams else self.looks, self.answers[streams]
        seen.append(request)
        answers[min(len(seen), len(answers)) - 1](handler)


def states(jobs: Iterable[Job]) -> str:
    """Gives the states of records."""
    return " ".join(job["state"] for job in jobs)


class Streams(unittest.TestCase):
    """Client.jobs.stream."""

    def test_is_read_to_its_end_and_nothing_is_asked(self) -> None:
        text = f"retry: 2000\n\n{event('1', RUNNING)}:\r\n\r\nevent: news\ndata: {{}}\n\n{event('2', DONE)}"
        s = Service([stream(text)])
        with s.client() as client:
            self.assertEqual("running succeeded", states(client.jobs.stream(JOB_ID)))
        self.assertEqual((1, 0, []), (len(s.streams), len(s.looks), s.slept))

    def test_goes_on_where_it_was_cut(self) -> None:
        for cut in ("", event("2", DONE)[:-20], event("2", DONE)[:-1]):
            with self.subTest(cut):
                s = Service([stream("retry: 3000\n\n", event("1", RUNNING), cut, cut=True), stream(event("2", DONE))])
                with s.client() as client:
                    self.assertEqual("running succeeded", states(client.jobs.stream(JOB_ID)))
                self.assertEqual([None, "1"], [request.headers["Last-Event-ID"] for request in s.streams])
                self.assertEqual(['"1"'], [request.headers["If-None-Match"] for request in s.looks])
                self.assertEqual([True], [3 <= wait <= 3.75 for wait in s.slept])

    def test_finds_the_end_that_fell_between_two_streams(self) -> None:
        s = Service([stream(event("1", RUNNING))], [record(DONE, ETag='"2"')])
        with s.client() as client:
            self.assertEqual("running succeeded", states(client.jobs.stream(JOB_ID)))
        self.assertEqual(1, len(s.streams))

    def test_is_given_up_when_it_is_silent_and_then_it_asks(self) -> None:
        over = threading.Event()
        looks = [record(RUNNING, ETag='"1"'), unchanged, unchanged, record(DONE, ETag='"2"')]
        s = Service([nothing(over)], looks)
        with s.client() as client, mock.patch("batchreset._follow._FIRST_LINE", 0.2):
            self.assertEqual("running succeeded", states(client.jobs.stream(JOB_ID)))
            over.set()
        self.assertEqual(2, len(s.streams))
        prefer = [request.headers["Prefer"] for request in s.looks]
        self.assertEqual([None, "wait=10", "wait=10", "wait=10"], prefer)

    def test_may_be_silent_longer_once_it_has_begun(self) -> None:
        def slow(handler: Handler) -> None:
            stream(event("1", RUNNING))(handler)
            threading.Event().wait(0.5)
            handler.write(event("2", DONE))

        s = Service([slow])
        with s.client() as client, mock.patch("batchreset._follow._FIRST_LINE", 0.2):
            self.assertEqual("running succeeded", states(client.jobs.stream(JOB_ID)))
        self.assertEqual((1, 0), (len(s.streams), len(s.looks)))

    def test_ends_with_the_error_of_a_look(self) -> None:
        text = 'event: error\ndata: {"error_code":"APIGW.0307","error_msg":"revoked"}\n\n'
        s = Service([stream(event("1", RUNNING), text)], [refusal(401, "APIGW.0307")])
        with s.client() as client, self.assertRaises(BatchResetError) as raised:
            states(client.jobs.stream(JOB_ID))
        self.assertEqual((401, "APIGW.0307"), (raised.exception.status, raised.exception.code))

    def test_closes_the_connection_when_its_loop_is_left(self) -> None:
        closed = threading.Event()

        def watch(handler: Handler) -> None:
            stream(event("1", RUNNING))(handler)
            handler.connection.recv(1)
            closed.set()

        with Service([watch]).client() as client:
            for job in client.jobs.stream(JOB_ID):
                self.assertEqual("running", job["state"])
                break
            self.assertTrue(closed.wait(5))

    def test_ends_with_its_timeout(self) -> None:
        over = threading.Event()

        def quiet(handler: Handler) -> None:
            stream(event("1", RUNNING))(handler)
            over.wait(9)

        told: List[Job] = []
        with Service([quiet]).client() as client, self.assertRaisesRegex(TimeoutError, "longer than 0.3 s"):
            try:
                told.extend(client.jobs.stream(JOB_ID, timeout=0.3))
            finally:
                over.set()


class Waits(unittest.TestCase):
    """Client.jobs.wait."""

    def test_asks_as_often_as_the_server_suggests_and_only_for_what_is_new(self) -> None:
        s = Service(looks=[record(RUNNING, ETag='"1"', Retry_After="7"), unchanged, record(DONE, ETag='"2"')])
        with s.client() as client:
            self.assertEqual("succeeded", client.jobs.wait(JOB_ID)["state"])
        self.assertEqual([], s.streams)
        self.assertEqual(["wait=10"] * 3, [request.headers["Prefer"] for request in s.looks])
        self.assertEqual([None, '"1"', '"1"'], [request.headers["If-None-Match"] for request in s.looks])
        self.assertEqual([True, True], [7 <= s.slept[0] <= 8.75, 0.4 <= s.slept[1] <= 0.5])

    def test_outlasts_a_server_that_has_answered_before(self) -> None:
        broken = refusal(500, "KOOPHONE.API.9999")
        s = Service(looks=[record(RUNNING, ETag='"1"', Retry_After="1"), *[broken] * 30, record(DONE, ETag='"2"')])
        with s.client() as client:
            self.assertEqual("succeeded", client.jobs.wait(JOB_ID)["state"])

    def test_gives_up_on_a_server_that_never_answered(self) -> None:
        s = Service(looks=[refusal(500, "KOOPHONE.API.9999")])
        with s.client() as client, self.assertRaisesRegex(BatchResetError, "HTTP 500"):
            client.jobs.wait(JOB_ID)
        self.assertEqual(4, len(s.looks))

    def test_gives_up_on_what_no_waiting_can_repair(self) -> None:
        s = Service(looks=[record(RUNNING, ETag='"1"', Retry_After="1"), refusal(404, "RESET.0001")])
        with s.client() as client, self.assertRaisesRegex(BatchResetError, "RESET.0001"):
            client.jobs.wait(JOB_ID)

    def test_ends_with_its_timeout_while_it_waits_for_an_answer(self) -> None:
        over = threading.Event()
        with Service(looks=[nothing(over)]).client() as client:
            with self.assertRaises(TimeoutError):
                client.jobs.wait(JOB_ID, timeout=0.2)
            over.set()
