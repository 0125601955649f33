#!/usr/bin/env python3
"""Resets the phones of a list and waits for the end, with nothing but Python's standard library.

    BATCHRESET_SERVER=https://reset.example BATCHRESET_TOKEN_FILE=token.txt RUN_ID=nightly-1 ./reset.py phones.txt

RUN_ID names this run of your pipeline. It is the key of the reset, too: the same script with the same RUN_ID and
list finds what it has begun, and wipes nothing twice.

It ends with 0 if every phone was reset, 2 if some were not, 3 if the service refused, 4 if it could not be reached,
64 if it was called wrongly, 124 if TIMEOUT seconds (7200) were over. The run itself goes on then.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

FINAL = {"succeeded", "failed", "partial", "cancelled", "rejected", "expired"}
OK, SOME, REFUSED, AWAY, USAGE, OVER = 0, 2, 3, 4, 64, 124
LONG_POLL = 50  # seconds, the most that the service waits


class End(Exception):
    """Ends the script with an exit code."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to somewhere that nobody has named."""

    def redirect_request(self, *_):
        return None


OPENER = urllib.request.build_opener(NoRedirect)


class Service:
    def __init__(self, server, token, deadline):
        self.server, self.token, self.deadline = server.rstrip("/"), token, deadline

    def ask(self, method, path, body=None, headers=None):
        """Asks until there is an answer of the service. What it asks for is safe to repeat: a GET, or a POST with a key."""
        wait = 1
        while True:
            try:
                return self.ask_once(method, path, body, headers)
            except urllib.error.HTTPError as e:
                answer = read_error(e)
                if e.code < 500 and e.code != 429:
                    raise End(REFUSED, answer) from None
                wait, why = max(wait, retry_after(e)), answer
            except (OSError, ValueError) as e:  # no answer, half an answer, or something else's
                why = str(e)
            if time.monotonic() + wait > self.deadline:
                raise End(AWAY, why)
            print(f"waiting to try again: {why}", file=sys.stderr)
            time.sleep(wait)
            wait = min(2 * wait, 30)

    def ask_once(self, method, path, body, headers):
        request = urllib.request.Request(self.server + path, method=method, headers={"X-Auth-Token": self.token, **(headers or {})})
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with OPENER.open(request, timeout=LONG_POLL + 30) as answer:
            return json.load(answer)["data"]

    def failures(self, run):
        """The rows of the phones that were not reset: a line of JSON each, however many there are."""
        query = urllib.parse.urlencode([("state", "failed"), ("state", "unknown"), ("state", "cancelled")])
        request = urllib.request.Request(f"{self.server}/v1/runs/{run}/results?{query}", headers={"X-Auth-Token": self.token})
        with OPENER.open(request, timeout=60) as lines:
            for line in lines:
                yield json.loads(line)


def read_error(e):
    try:
        answer = json.load(e)
        return f'{answer["error_code"]}: {answer["error_msg"]} (HTTP {e.code})'
    except (OSError, ValueError, KeyError, TypeError):
        return f"HTTP {e.code}"  # a proxy's


def retry_after(e):
    text = e.headers.get("Retry-After", "")
    return min(int(text), 600) if text.isdigit() else 0


def read_list(path):
    with open(path, encoding="utf-8") as lines:
        ids = [line.strip() for line in lines]
    return [i for i in ids if i and not i.startswith("#")]


def setting(name):
    """A value from the environment, or from the file that NAME_FILE names. No secret belongs on a command line."""
    if os.environ.get(name):
        return os.environ[name]
    if os.environ.get(name + "_FILE"):
        with open(os.environ[name + "_FILE"], encoding="utf-8") as file:
            return file.read().strip()
    raise End(USAGE, f"{name} is missing in the environment")


def main():
    if len(sys.argv) != 2:
        raise End(USAGE, "the file with one phone a line is missing")
    key, ids = setting("RUN_ID"), read_list(sys.argv[1])
    deadline = time.monotonic() + float(os.environ.get("TIMEOUT", "7200"))
    service = Service(setting("BATCHRESET_SERVER"), setting("BATCHRESET_TOKEN"), deadline)

    # The same key with the same list is the same run, whatever happened in between.
    request = {"instance_ids": ids, "name": key[:128], "max_failures": os.environ.get("MAX_FAILURES", "5%")}
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    run = service.ask("POST", "/v1/runs", request, {"Idempotency-Key": quoted})
    said = ""
    while run["state"] not in FINAL:
        if run["state"] != said:
            said = run["state"]
            print(f'run {run["run_id"]}: {said}', file=sys.stderr)
        left = int(deadline - time.monotonic())
        if left <= 0:
            raise End(OVER, f'TIMEOUT is over; the run {run["run_id"]} goes on')
        run = service.ask("GET", "/v1/runs/" + run["run_id"], headers={"Prefer": f"wait={min(left, LONG_POLL)}"})

    counts = ", ".join(f"{n} {state}" for state, n in run["counts"].items() if n)
    print(f'run {run["run_id"]}: {run["state"]} ({counts})')
    if run["state"] == "succeeded":
        return OK
    for n, row in enumerate(service.failures(run["run_id"])):
        if n == 20:
            print("…")
            break
        print(row["instance_id"], row["state"], row.get("error_code", ""), ascii(row.get("error_msg", "")))
    return SOME


if __name__ == "__main__":
    try:
        sys.exit(main())
    except End as e:
        print(f"reset: {e}", file=sys.stderr)
        sys.exit(e.code)
    except OSError as e:
        print(f"reset: {e}", file=sys.stderr)
        sys.exit(AWAY if isinstance(e, urllib.error.URLError) else USAGE)
