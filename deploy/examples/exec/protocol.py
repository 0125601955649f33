"""The program's side of the exec protocol, see worker/execdriver/README.md."""

import json
import subprocess
import sys
from datetime import datetime, timezone


def request():
    """What the worker asks for: one line of JSON."""
    return json.loads(sys.stdin.readline())


def say(**line):
    """Say something in one line of JSON. It is flushed: the worker keeps a checkpoint at once."""
    print(json.dumps(line), flush=True)


def end(result, message="", **more):
    """Say how it ended, and end."""
    say(result=result, message=message, **more)
    sys.exit(0)


def in_time(asked, result):
    """To be called directly before data is destroyed. If the time for it is over, end with result:
    this machine may have been frozen since it was asked, and the phone may be somebody else's."""
    deadline = datetime.strptime(asked["deadline"], "%Y-%m-%dT%H:%M:%S.%f%z")
    if datetime.now(timezone.utc) >= deadline:
        end(result, "it was too late to begin")


def saw(initial, evidence):
    """Say what a look has shown, and end. None says that it has not shown it yet."""
    if initial is None:
        end("unknown", evidence=evidence)
    say(initial=initial, evidence=evidence)
    sys.exit(0)


def tool(*argv, stdin=""):
    """Run a tool. Its standard output is returned and not passed on: ours is for the worker."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, errors="replace")
    except OSError as error:
        end("unreachable", f"{argv[0]} cannot be run: {error}")
    sys.stderr.write(done.stderr)
    return done


def complaint(done):
    """The last line of what a tool complains of."""
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"
