"""As much of Airflow as the example needs: it ends a task in these two ways."""


class AirflowException(Exception):
    pass


class TaskDeferred(BaseException):
    def __init__(self, *, trigger, method_name, kwargs=None, timeout=None):
        super().__init__()
        self.trigger, self.method_name, self.kwargs, self.timeout = trigger, method_name, kwargs, timeout
