from airflow.exceptions import TaskDeferred


class BaseOperator:
    def __init__(self, *, task_id):
        self.task_id = task_id

    def defer(self, *, trigger, method_name, kwargs=None, timeout=None):
        raise TaskDeferred(trigger=trigger, method_name=method_name, kwargs=kwargs, timeout=timeout)
