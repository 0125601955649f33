"""An Airflow operator that resets phones and holds no worker slot while it waits.

    from batchreset_operator import BatchResetOperator

    BatchResetOperator(task_id="reset", instance_ids=["phone-1", "phone-2"], conn_id="batchreset")

The connection has the URL of the service as its host ("https://reset.example") and the token as its password. Put this
file where workers and triggerers can import it. It needs nothing but Airflow (2.6 or later).

The task waits in the triggerer. There it asks for the record of the run every poll_interval seconds. To hear of the end
at once, let the service tell the triggerer: give the connection the extra fields

    {"webhook_listen": "0.0.0.0:8790", "webhook_secret": "whsec_…"}

and add that address as a webhook: batchreset webhook add --url http://TRIGGERER:8790/ --events run.finished,run.paused
Several triggerers may stand behind one address: one that is not told finds out by asking. What a webhook says is never
believed, it only has the trigger ask at once.

The key of the reset is made of DAG, run, task and map index, which a retry or a clear of the task keeps: it finds what was
begun, and wipes nothing twice. A task that is killed leaves the run running: 'batchreset run cancel' ends it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request

from airflow.exceptions import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

try:  # Airflow 3
    from airflow.sdk import BaseHook, BaseOperator
except ImportError:
    from airflow.hooks.base import BaseHook
    from airflow.models import BaseOperator

FINAL = {"succeeded", "failed", "partial", "cancelled", "rejected", "expired"}
MAX_BODY = 1 << 20  # of a webhook
CLOCKS = 300  # seconds that a webhook may be old


class Refused(Exception):
    """The service has said no; asking again does not help."""


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to somewhere that nobody has named."""

    def redirect_request(self, *_):
        return None


OPENER = urllib.request.build_opener(NoRedirect)


def ask(conn_id, method, path, body=None, headers=None):
    """One request. It reads the connection each time, so that no token is kept with the trigger."""
    conn = BaseHook.get_connection(conn_id)
    request = urllib.request.Request(conn.host.rstrip("/") + path, method=method, headers={"X-Auth-Token": conn.password, **(headers or {})})
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with OPENER.open(request, timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as e:
        if e.code < 500 and e.code != 429:
            raise Refused(f"HTTP {e.code}: {e.read(2000)!r}") from None
        raise


class BatchResetOperator(BaseOperator):
    template_fields = ("instance_ids",)

    def __init__(self, *, instance_ids, conn_id="batchreset", max_failures="5%", poll_interval=60, **kwargs):
        super().__init__(**kwargs)
        self.instance_ids, self.conn_id = instance_ids, conn_id
        self.max_failures, self.poll_interval = max_failures, poll_interval

    def execute(self, context):
        ti = context["ti"]
        # Hashed, because the name of a DAG may have characters that a key may not have.
        name = json.dumps([ti.dag_id, ti.run_id, ti.task_id, getattr(ti, "map_index", -1)])
        key = "airflow-" + hashlib.sha256(name.encode()).hexdigest()
        request = {
            "instance_ids": list(self.instance_ids), "max_failures": self.max_failures, "name": f"{ti.dag_id} {ti.task_id}"[:128], "reason": f"Airflow run {ti.run_id}"[:256],
        }
        try:
            run = ask(self.conn_id, "POST", "/v1/runs", request, {"Idempotency-Key": f'"{key}"'})
        except Refused as e:
            raise AirflowException(f"the reset was refused: {e}") from None
        # Any other error fails this try of the task: its next one has the same key.
        if run["state"] in FINAL:
            return self.end(run)
        self.defer(trigger=BatchResetTrigger(run["run_id"], self.conn_id, self.poll_interval), method_name="finished")

    def finished(self, context, event=None):
        if "error" in event:
            raise AirflowException(event["error"])
        return self.end(event["run"])

    def end(self, run):
        counts = {state: n for state, n in run["counts"].items() if n}
        if run["state"] != "succeeded":
            raise AirflowException(f'run {run["run_id"]} is {run["state"]}: {counts}; failures: {run.get("failures", [])}')
        return run["run_id"]


class BatchResetTrigger(BaseTrigger):
    """Waits for the end of a run."""

    def __init__(self, run_id, conn_id, poll_interval):
        super().__init__()
        self.run_id, self.conn_id, self.poll_interval = run_id, conn_id, poll_interval

    def serialize(self):
        return (f"{type(self).__module__}.BatchResetTrigger", {"run_id": self.run_id, "conn_id": self.conn_id, "poll_interval": self.poll_interval})

    async def run(self):
        told = asyncio.Event()
        conn = await asyncio.to_thread(BaseHook.get_connection, self.conn_id)
        extra = conn.extra_dejson
        listener = None
        if extra.get("webhook_listen"):
            listener = await Listener.at(extra["webhook_listen"], extra["webhook_secret"])
            listener.waiting.setdefault(self.run_id, set()).add(told)
        try:
            while True:
                told.clear()  # before the look: what is told meanwhile is not missed
                try:
                    run = await asyncio.to_thread(ask, self.conn_id, "GET", "/v1/runs/" + self.run_id)
                except Refused as e:
                    yield TriggerEvent({"error": f"run {self.run_id}: {e}"})
                    return
                except (OSError, ValueError, KeyError) as e:  # no answer: it is asked again
                    self.log.warning("run %s: %s", self.run_id, e)
                    run = {"state": ""}
                if run["state"] in FINAL:
                    yield TriggerEvent({"run": run})
                    return
                try:
                    await asyncio.wait_for(told.wait(), self.poll_interval)
                except asyncio.TimeoutError:
                    pass
        finally:
            if listener:
                await listener.leave(self.run_id, told)


class Listener:
    """Takes the webhooks for all triggers of this process that have the same address. It is there while one waits."""

    all: dict = {}

    def __init__(self, address, secret):
        self.address, self.waiting, self.server = address, {}, None
        self.key = base64.b64decode(secret.removeprefix("whsec_"))

    @classmethod
    async def at(cls, address, secret):
        listener = cls.all.get(address)
        if listener is None:
            listener = cls.all[address] = cls(address, secret)
            host, _, port = address.rpartition(":")
            try:
                listener.server = await asyncio.start_server(listener.serve, host, int(port), limit=64 << 10)
            except OSError:  # another triggerer on this machine has it: this one asks
                pass
        return listener

    async def leave(self, run_id, told):
        self.waiting[run_id].discard(told)
        if not self.waiting[run_id]:
            del self.waiting[run_id]
        if not self.waiting and self.all.get(self.address) is self:
            del self.all[self.address]
            if self.server:
                self.server.close()

    async def serve(self, reader, writer):
        try:
            status = await asyncio.wait_for(self.take(reader), 10)
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        except (OSError, ValueError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it is sent again
        finally:
            writer.close()

    async def take(self, reader):
        """Reads one request and returns what to answer. Requests are signed as Standard Webhooks describes."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        if not head[0].startswith("POST "):
            return "405 Method Not Allowed"
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        size = int(headers.get("content-length", "-1"))
        if not 0 <= size <= MAX_BODY:
            return "413 Content Too Large"
        body = await reader.readexactly(size)
        sent = headers.get("webhook-timestamp", "")
        signed = f'{headers.get("webhook-id", "")}.{sent}.'.encode() + body
        want = "v1," + base64.b64encode(hmac.new(self.key, signed, hashlib.sha256).digest()).decode()
        good = [hmac.compare_digest(want.encode(), s.encode()) for s in headers.get("webhook-signature", "").split()]
        if not any(good) or not sent.isdigit() or abs(time.time() - int(sent)) > CLOCKS:
            return "401 Unauthorized"
        data = json.loads(body).get("data", {})
        for told in self.waiting.get(data.get("run_id") or "", ()):
            told.set()
        return "204 No Content"
