#!/usr/bin/env python3
"""Resets a phone that is a pod of a StatefulSet: deletes its volume claims and the pod, and waits
until the StatefulSet has made new ones and the pod is ready.

The address is namespace/pod. Settings: look: true, and env: [HOME], [KUBECONFIG] or, within the
cluster, [KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT]. It needs the verbs get and delete on
pods and persistentvolumeclaims. The readiness probe must say when the phone has booted.

How it knows: the checkpoint has the UIDs of the old pod and claims. Every deletion names the UID,
so that a late or repeated one never meets what is new.
"""

import json
import re
import time

from protocol import complaint, end, in_time, request, saw, say, tool

POLL = 0.5

asked = request()
if not re.fullmatch(r"[a-z0-9-]+/[a-z0-9.-]+", asked["address"]):
    end("permanent", f"the address must be namespace/pod, not {asked['address']!r}")
namespace, name = asked["address"].split("/")
before = json.loads(asked["checkpoint"] or "null")


def kubectl(*argv, stdin=""):
    return tool("kubectl", "--request-timeout=20s", *argv, stdin=stdin)


def get(kind, name):
    """An object, or None if there is none."""
    got = kubectl("get", kind, name, "--namespace", namespace, "--ignore-not-found", "--output=json")
    if got.returncode != 0:
        end("unreachable", complaint(got))
    return json.loads(got.stdout) if got.stdout.strip() else None


def uid(thing):
    return thing["metadata"]["uid"] if thing else None


def leaving(thing):
    return "deletionTimestamp" in thing["metadata"]


def delete(kind, thing):
    path = f"/api/v1/namespaces/{namespace}/{kind}/{thing['metadata']['name']}"
    only = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid(thing)}}
    gone = kubectl("delete", "--raw", path, "--filename=-", stdin=json.dumps(only))
    if gone.returncode != 0 and not re.search("NotFound|not found|Conflict|precondition", gone.stderr):
        end("unreachable", complaint(gone))


def present():
    """What there is now: the pod, the claims by name, and those of them that are old."""
    pod, claims = get("pod", name), {claim: get("pvc", claim) for claim in before["claims"]}
    return pod, claims, [claim for claim, old in before["claims"].items() if uid(claims[claim]) == old]


def fresh(pod, claims, old):
    """Whether all is new, and the phone has booted."""
    ready = pod and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
    return ready and not leaving(pod) and uid(pod) != before["pod"] and all(claims.values()) and not old


def evidence(pod, claims):
    made = [f"claim {claim} {uid(thing)}" for claim, thing in claims.items() if thing]
    return f"kubectl get: pod {uid(pod)} (before: {before['pod']}), " + ", ".join(made)


def look():
    if before is None:
        saw(None, "no earlier run has left the UIDs to look for")
    pod, claims, old = present()
    if fresh(pod, claims, old):
        saw(True, evidence(pod, claims))
    untouched = pod and uid(pod) == before["pod"] and not leaving(pod) and len(old) == len(before["claims"])
    if untouched and not any(leaving(claims[claim]) for claim in old):
        saw(False, evidence(pod, claims))
    saw(None, "the pod or its claims are on their way")


def begin():
    """Find out what belongs to the phone, and to nobody else."""
    global before
    pod = get("pod", name)
    if pod is None:
        end("retry", f"there is no pod {asked['address']}")
    if not any(o["kind"] == "StatefulSet" and o.get("controller") for o in pod["metadata"].get("ownerReferences", [])):
        end("permanent", "the pod is of no StatefulSet: nobody would make a new one")
    volumes = pod["spec"]["volumes"]
    claims = [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]
    shared = [claim for claim in claims if not claim.endswith("-" + name)]
    if shared:
        end("permanent", f"the claim {shared[0]} is not this pod's own, and may hold other phones")
    if not claims and not any("emptyDir" in v for v in volumes):
        end("permanent", "the pod has no volume to wipe")
    before = {"pod": uid(pod), "claims": {claim: uid(get("pvc", claim)) for claim in claims}}
    if not all(before["claims"].values()):
        end("retry", "a claim of the pod does not exist yet")
    say(checkpoint=json.dumps(before))


def replace():
    """Delete what is old until all is new. A claim lives as long as a pod has it, and a new pod may
    take an old claim before that has gone: then the pod has to go once more."""
    last = ""
    while True:
        pod, claims, old = present()
        if fresh(pod, claims, old):
            end("done", evidence=evidence(pod, claims))
        in_time(asked, "unknown")
        for claim in old:
            if not leaving(claims[claim]):
                delete("persistentvolumeclaims", claims[claim])
        if pod and not leaving(pod) and (old or uid(pod) == before["pod"]):
            delete("pods", pod)
        now = f"{len(old)} old claims, pod {'old' if uid(pod) == before['pod'] else 'new' if pod else 'away'}"
        if now != last:
            say(progress=now)
            last = now
        time.sleep(POLL)


if asked["mode"] == "look":
    look()
if before is None:
    begin()
replace()
