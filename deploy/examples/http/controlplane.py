#!/usr/bin/env python3
"""A control plane for the http driver. It runs a command for each reset, and another one for each look.

    controlplane.py 'adb -s "$PHONE" …' 'test …'
    batchreset worker --driver http --driver-url 'http://127.0.0.1:8090/phones/{instance_id}/reset' \\
        --driver-look-url 'http://127.0.0.1:8090/phones/{instance_id}' --driver-idempotent

The first command resets the phone $PHONE, and succeeds when that is done. The second one succeeds if the
phone was reset and has not been used since; what it prints is the evidence. A call that comes again gets
the answer to the first one, also after a restart: always start this program with the same STATE, the
folder of its database (default: where it is started). LISTEN is its address (default 127.0.0.1:8090).
"""
import fcntl, json, os, re, sqlite3, subprocess, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PHONE = r"/phones/([A-Za-z0-9_.:-]{1,64})"
BEGUN = "begun"
guard = threading.Lock()  # of db


def run(command, phone, held=()):
    env = {**os.environ, "PHONE": phone}
    done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, errors="replace", pass_fds=held)
    return done.returncode == 0, (done.stdout + done.stderr).strip()[:200]


def lock(phone, wait):
    """Locks a phone. The command holds the lock, too: it outlives this program if the command does."""
    file = open(os.path.join(STATE, "lock-" + phone), "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return file
    except BlockingIOError:
        file.close()


def known(key):
    with guard:
        found = db.execute("SELECT answer FROM calls WHERE key = ?", [key]).fetchone()
    return found[0] if found else None


def reset(phone, key):
    """Returns a status and an answer, the same for each call with the same key."""
    key = phone + " " + key
    mine = lock(phone, wait=known(key) is not None)
    if not mine:
        return 409, {"error_msg": "another reset of this phone is under way"}
    with mine:
        before = known(key)
        if before == BEGUN:  # this program was killed in the middle of it
            return 500, {"error_msg": "nobody knows what came of this call"}
        if before:
            return 200, json.loads(before)
        with guard:
            db.execute("INSERT INTO calls VALUES (?, ?)", [key, BEGUN])
        done, said = run(RESET, phone, [mine.fileno()])
        answer = {"status": "done"} if done else {"status": "failed", "error_msg": said}
        with guard:
            db.execute("UPDATE calls SET answer = ? WHERE key = ?", [json.dumps(answer), key])
        return 200, answer


def look(phone):
    mine = lock(phone, wait=False)
    if not mine:
        return {"initial": False, "evidence": "a reset is under way"}
    with mine:
        initial, said = run(LOOK, phone)
        return {"initial": initial, "evidence": said}


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
        phone, key = re.fullmatch(PHONE + "/reset", self.path), self.headers.get("Idempotency-Key")
        if not phone or not key:
            return self.answer(400, {"error_msg": "POST /phones/ID/reset with an Idempotency-Key"})
        self.answer(*reset(phone[1], key))

    def do_GET(self):
        phone = re.fullmatch(PHONE, self.path)
        self.answer(*((200, look(phone[1])) if phone else (404, {"error_msg": "GET /phones/ID"})))


if len(sys.argv) != 3 or not all(command.strip() for command in sys.argv[1:]):
    sys.exit(__doc__)
RESET, LOOK = sys.argv[1:]
STATE = os.path.abspath(os.environ.get("STATE") or ".")
host, _, port = (os.environ.get("LISTEN") or "127.0.0.1:8090").rpartition(":")
if not host or not port.isdecimal():
    sys.exit("LISTEN must be like 127.0.0.1:8090")
try:
    server = ThreadingHTTPServer((host, int(port)), Handler)
    db = sqlite3.connect(os.path.join(STATE, "controlplane.db"), isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE IF NOT EXISTS calls (key TEXT PRIMARY KEY, answer TEXT)")
except (OSError, OverflowError, sqlite3.Error) as err:
    sys.exit(f"LISTEN {host}:{port}, STATE {STATE}: {err}")
print(f"listening on {host}:{port}, state in {STATE}", flush=True)
server.serve_forever()
