#!/usr/bin/env python3
"""A control plane for the http driver. It runs a command for each reset, and another one for each look.

    controlplane.py 'adb -s "$PHONE" …' 'test …'

The first command resets the phone $PHONE, and succeeds when that is done. The second one succeeds if the
phone is in its initial state; what it prints is the evidence. Answers are kept in controlplane.db in this
folder: a call that comes again gets the answer to the first one, also after a restart. LISTEN is the
address (default 127.0.0.1:8090).
"""
import json, os, re, sqlite3, subprocess, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

if len(sys.argv) != 3:
    sys.exit(__doc__)
RESET, LOOK = sys.argv[1:]
BEGUN = "begun"
lock = threading.Lock()
under_way = {}  # key: the lock of whoever works on it
busy = set()  # phones that are being reset
db = sqlite3.connect("controlplane.db", isolation_level=None, check_same_thread=False)
db.execute("PRAGMA synchronous = FULL")
db.execute("CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, answer TEXT)")


def run(command, phone):
    done = subprocess.run(["sh", "-c", command], env={**os.environ, "PHONE": phone}, capture_output=True, text=True)
    return done.returncode == 0, (done.stdout + done.stderr).strip()[:200]


def reset(phone, key):
    """Returns a status and an answer, the same for each call with the same key."""
    key = phone + " " + key
    with lock:
        mine = under_way.setdefault(key, threading.Lock())
    with mine:
        with lock:
            before = db.execute("SELECT answer FROM calls WHERE key = ?", [key]).fetchone()
            if not before:
                db.execute("INSERT INTO calls VALUES (?, ?)", [key, BEGUN])
        if before and before[0] == BEGUN:  # this program was killed in the middle of it
            return 500, {"error_msg": "nobody knows what came of this call"}
        if before:
            return 200, json.loads(before[0])
        busy.add(phone)
        try:
            done, said = run(RESET, phone)
        finally:
            busy.discard(phone)
        answer = {"status": "done"} if done else {"status": "failed", "error_msg": said}
        with lock:
            db.execute("UPDATE calls SET answer = ? WHERE key = ?", [json.dumps(answer), key])
        return 200, answer


class Handler(BaseHTTPRequestHandler):
    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        phone, key = re.fullmatch(r"/phones/([\w.:-]+)/reset", self.path), self.headers.get("Idempotency-Key")
        if not phone or not key:
            return self.answer(400, {"error_msg": "POST /phones/ID/reset with an Idempotency-Key"})
        self.answer(*reset(phone[1], key))

    def do_GET(self):
        phone = re.fullmatch(r"/phones/([\w.:-]+)", self.path)
        if not phone:
            return self.answer(404, {"error_msg": "GET /phones/ID"})
        initial, said = (False, "a reset is under way") if phone[1] in busy else run(LOOK, phone[1])
        self.answer(200, {"initial": initial, "evidence": said})


host, _, port = os.environ.get("LISTEN", "127.0.0.1:8090").rpartition(":")
ThreadingHTTPServer((host, int(port)), Handler).serve_forever()
