#!/usr/bin/env python3
"""Resets a virtual machine of Proxmox VE: rolls it back to a snapshot and starts it. It runs where
qm runs, on the node.

The address is the VM's ID; the name of the snapshot is the argument. Settings: look: true, and
command: [/opt/batchreset/proxmox_rollback.py, clean].

How it knows: before the rollback it adds a tag to the VM. A rollback brings back the tags of the
snapshot, so the tag is gone once it has happened. While one goes on the VM is locked.
"""

import sys
import time

from protocol import complaint, end, in_time, request, saw, say, tool

POLL = 0.5

asked = request()
if len(sys.argv) != 2:
    end("unreachable", "the command must have one argument, the name of the snapshot")
vm, snapshot, tag = asked["address"], sys.argv[1], asked["checkpoint"]
if not (vm.isascii() and vm.isdigit()):
    end("permanent", f"the address must be the ID of a VM, not {vm!r}")


def qm(*argv):
    return tool("qm", *argv)


def config():
    """The VM's present settings, such as lock, parent and tags."""
    got = qm("config", vm, "--current", "1")
    if got.returncode != 0 and "does not exist" in got.stderr:
        end("permanent", complaint(got))
    if got.returncode != 0:
        end("unreachable", complaint(got))
    return dict(line.split(": ", 1) for line in got.stdout.splitlines() if ": " in line)


def tags(settings):
    return [t for t in settings.get("tags", "").replace(",", ";").split(";") if t]


def running():
    return "status: running" in qm("status", vm).stdout


def evidence(settings):
    there = "still there" if tag in tags(settings) else "gone"
    return f"qm config: the tag {tag}, from before the rollback, is {there}; parent {settings.get('parent')}"


def look():
    if not tag:
        saw(None, "no earlier run has left a tag to look for")
    settings = config()
    if "lock" in settings:
        saw(None, f"the VM is locked ({settings['lock']})")
    if tag in tags(settings):
        saw(False, evidence(settings))
    saw(True if running() else None, evidence(settings))


def begin():
    """Tag the VM, and roll it back. How that ended is in the settings."""
    global tag
    settings = config()
    if "lock" in settings:
        end("busy", f"the VM is locked ({settings['lock']})")
    if snapshot not in qm("listsnapshot", vm).stdout.split():
        end("permanent", f"the VM has no snapshot {snapshot}")
    tag = "batchreset-" + asked["driver_key"].lower()
    tagged = qm("set", vm, "--tags", ";".join(tags(settings) + [tag]))
    if tagged.returncode != 0:
        end("retry", complaint(tagged))
    say(checkpoint=tag)
    say(progress="rolling back")
    in_time(asked, "retry")
    qm("rollback", vm, snapshot)


def finish():
    """Wait until the rollback has ended, and start the VM."""
    while "lock" in (settings := config()):
        say(progress=f"locked ({settings['lock']})")
        time.sleep(POLL)
    if tag in tags(settings):
        qm("set", vm, "--tags", ";".join(t for t in tags(settings) if t != tag))
        end("retry", "the rollback did not happen")
    if not running() and (started := qm("start", vm)).returncode != 0:
        end("busy", "the VM was rolled back, and does not start: " + complaint(started))
    end("done", evidence=evidence(settings))


if asked["mode"] == "look":
    look()
if not tag:
    begin()
finish()
