#!/usr/bin/env python3
"""Resets an Android phone over adb with Test Harness Mode (Android 10 and later), which wipes all
data, keeps the adb keys and skips the setup screens.

The address is the phone's serial, as `adb devices` shows it, or host:port of one on the network. Settings: look: true, env: [HOME].

How it knows: before the wipe it leaves a mark in /data/local/tmp, which a wipe takes away with all
other data. The checkpoint says that the mark was there, and in which boot, at what uptime.
"""

import json
import time

from protocol import complaint, end, in_time, request, saw, say, tool

SETTLE = 300  # a phone that still runs after so many seconds will not wipe itself any more
POLL = 0.5

asked = request()
serial, key = asked["address"] or asked["instance_id"], asked["driver_key"]
before = json.loads(asked["checkpoint"] or "null")
if not key.isalnum():
    end("permanent", "the driver key is no file name")
mark = f"/data/local/tmp/batchreset.{key}"


def shell(command):
    return tool("adb", "-s", serial, "shell", command)


def troubles():
    """Why adb does not reach the phone, or nothing. One on the network is called again: adb's server gives
    up a minute after the phone has gone, and a wipe takes longer."""
    got = tool("adb", "-s", serial, "get-state")
    if got.stdout.strip() != "device" and ":" in serial:
        if "offline" in got.stderr:
            tool("adb", "disconnect", serial)  # or it counts as connected
        tool("adb", "connect", serial)
        got = tool("adb", "-s", serial, "get-state")
    return "" if got.stdout.strip() == "device" else (got.stderr.strip() or got.stdout).split("\n")[0]


def boot():
    """The ID of the present boot, and its uptime in seconds."""
    words = shell("cat /proc/sys/kernel/random/boot_id /proc/uptime").stdout.split()
    return {"boot": words[0], "uptime": float(words[1])} if len(words) == 3 else None


def state():
    """Away, booting, new (the mark is gone), old (it is there and stays), or wiping (it may go)."""
    if troubles():
        return "away"
    if shell("getprop sys.boot_completed").stdout.strip() != "1":
        return "booting"
    found = shell(f"if [ -e {mark} ]; then echo old; else echo new; fi").stdout.strip()
    now = boot()
    if now is None or found not in ("old", "new"):
        return "away"
    if found == "old" and now["boot"] == before["boot"] and now["uptime"] < before["uptime"] + SETTLE:
        return "wiping"
    return found


def evidence(now):
    there = "gone" if now == "new" else "still there"
    return f"adb shell: {mark}, from before the wipe in boot {before['boot']}, is {there}"


def look():
    if before is None:
        saw(None, "no earlier run has left a mark to look for")
    now = state()
    if now == "away":
        end("unreachable", f"adb does not reach {serial}")
    if now in ("old", "new"):
        saw(now == "new", evidence(now))
    saw(None, f"the phone is {now}")


def begin():
    """Leave the mark, and tell the phone to wipe itself."""
    global before
    if trouble := troubles():
        end("unreachable", f"adb does not reach {serial}: {trouble}")
    before = boot()
    if before is None or shell("getprop sys.boot_completed").stdout.strip() != "1":
        end("unreachable", f"{serial} has not booted")
    if shell(f"echo > {mark} && sync").returncode != 0:
        end("retry", f"{mark} could not be written")
    say(checkpoint=json.dumps(before))
    in_time(asked, "retry")
    told = shell("cmd testharness enable")
    if "lock screen" in told.stderr or "Can't find service" in told.stdout + told.stderr:
        shell(f"rm {mark}")
        end("permanent", "the phone refuses: " + complaint(told))


def watch():
    """Wait until the phone is back. However the command ended: the connection may have gone first."""
    last = ""
    while (now := state()) != "new":
        if now == "old":
            shell(f"rm {mark}")
            end("retry", "the phone has kept its data")
        if now != last:
            say(progress=now)
            last = now
        time.sleep(POLL)
    end("done", evidence=evidence("new"))


if asked["mode"] == "look":
    look()
if before is None:
    begin()
watch()
