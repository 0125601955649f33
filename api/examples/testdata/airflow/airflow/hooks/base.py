import json
import os
import types


class BaseHook:
    @classmethod
    def get_connection(cls, conn_id):
        c = json.loads(os.environ["AIRFLOW_CONN_" + conn_id.upper()])
        return types.SimpleNamespace(host=c["host"], password=c["password"], extra_dejson=c["extra"] or {})
