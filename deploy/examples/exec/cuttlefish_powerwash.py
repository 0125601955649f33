#!/usr/bin/env python3
"""Resets a Cuttlefish phone: powerwash_cvd stops it, throws away what was written to its disks,
starts it and waits until it has booted.

The address is the number of the instance (launch_cvd --instance_nums). Settings: repeatable: true,
if nobody uses a phone before its item has ended, and env: [HOME]. The tool cannot tell whether a
phone is as new, so there is no look.
"""

from protocol import complaint, end, in_time, request, tool

asked = request()
number = asked["address"]
if not (number.isascii() and number.isdigit()):
    end("permanent", f"the address must be the number of a Cuttlefish instance, not {number!r}")

in_time(asked, "retry")
washed = tool("powerwash_cvd", f"--instance_num={number}")
if washed.returncode == 0:
    end("done", evidence=f"powerwash_cvd --instance_num={number} waited for the boot")
# It may have failed before the wipe or after it.
end("unknown", complaint(washed))
