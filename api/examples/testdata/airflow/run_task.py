"""Runs the operator as Airflow does: execute in a worker; what it defers to goes through the database, as JSON, to a
triggerer; and the method that it has named gets the event in another worker."""

import asyncio
import importlib
import json
import os
import sys
import types

from airflow.exceptions import AirflowException, TaskDeferred
from batchreset_operator import BatchResetOperator


async def first_event(path, kwargs):
    module, _, name = path.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**kwargs)
    events = trigger.run()
    try:
        return await events.__anext__()
    finally:
        await events.aclose()


def new_operator():
    return BatchResetOperator(task_id="reset", instance_ids=os.environ["PHONES"].split(), poll_interval=float(os.environ["POLL"]))


context = {"ti": types.SimpleNamespace(dag_id="nightly", run_id=os.environ["DAG_RUN"], task_id="reset", map_index=-1)}
try:
    try:
        print("result", new_operator().execute(context))
    except TaskDeferred as d:
        stored = json.dumps([d.trigger.serialize(), d.method_name])
        print("deferred", stored, flush=True)
        (path, kwargs), method = json.loads(stored)
        event = json.loads(json.dumps(asyncio.run(first_event(path, kwargs)).payload))
        print("result", getattr(new_operator(), method)(context, event=event))
except AirflowException as e:
    print("failed", e)
    sys.exit(1)
