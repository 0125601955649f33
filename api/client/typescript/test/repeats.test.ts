import assert from "node:assert/strict";
import type { IncomingHttpHeaders } from "node:http";
import { test } from "node:test";
import { BatchResetError, Client } from "batchreset";
import { bodyOf, cases, envelope, give, serve } from "./fake.js";
import { replaceSleep } from "./sleep.js";

const id = "0123456789abcdef0123456789abcdef";
const job = { type: "application/json", body: envelope({ job_id: id, state: "succeeded" }) };
const run = { type: "application/json", body: envelope({ run_id: id, state: "succeeded" }) };
const batch = { instance_ids: ["a"] };

async function drain(rows: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of rows);
}

/** Each call, and what it is answered. */
const calls: Record<string, { call(client: Client): Promise<unknown>; ok: { type: string; body: string } }> = {
  get: { call: (c) => c.jobs.get(id), ok: job },
  list: { call: (c) => drain(c.jobs.list()), ok: { ...job, body: envelope({ jobs: [] }) } },
  whoami: { call: (c) => c.whoami(), ok: { ...job, body: envelope({ token_id: "t", tenant: "acme" }) } },
  proof: { call: (c) => c.jobs.proof(id), ok: { type: "application/jose", body: "a.b.c" } },
  submit: { call: (c) => c.jobs.submit(batch), ok: { ...job, body: envelope({ task_id: id, cmd_jobs: [] }) } },
  dry_run: { call: (c) => c.jobs.dryRun(batch), ok: { ...job, body: envelope({ dry_run: true, instances: [{ instance_id: "a", verdict: "busy" }] }) } },
  cancel: { call: (c) => c.jobs.cancel(id), ok: job },
  retry: { call: (c) => c.jobs.retry(id), ok: job },
  run_submit: { call: (c) => c.runs.submit(batch), ok: run },
  pause: { call: (c) => c.runs.pause(id), ok: run },
  approve: { call: (c) => c.runs.approve(id, { list_sha256: "0", comment: "fine" }), ok: run },
  results: { call: (c) => drain(c.runs.results(id)), ok: { type: "application/jsonl", body: '{"instance_id":"a"}\n{"instance_id":"b"}\n' } },
  run_proof: { call: (c) => drain(c.runs.proof(id)), ok: { type: "application/jsonl", body: '{"version":1}\n{"signature":"s"}\n' } },
};

for (const { name, call, answers, requests, waits, error: wanted } of cases()) {
  test(name, async (t) => {
    const { call: ask, ok } = calls[call]!;
    const seen: IncomingHttpHeaders[] = [];
    const elsewhere: string[] = [];
    const other = await serve((request, response) => {
      elsewhere.push(request.url!);
      response.end(ok.body);
    });
    const server = await serve(async (request, response) => {
      const n = Math.min(seen.push(request.headers), answers.length) - 1;
      await bodyOf(request);
      give(response, answers[n]!, ok, `${other.url}/x`);
    });
    t.after(() => [server, other].forEach((one) => one.close()));
    if (answers.length === 0) server.close();
    const slept = replaceSleep(t);

    const told: unknown[] = [];
    const client = new Client({ server: server.url, token: "secret", onRetry: (error) => told.push(error) });
    const error = await ask(client).then(
      () => undefined,
      (error: unknown) => error,
    );
    if (wanted) {
      assert(error instanceof BatchResetError, `${error}`);
      assert.deepEqual(
        { status: error.status ?? null, code: error.code, uncertain: error.uncertain, retry_after: error.retryAfter },
        { retry_after: 0, ...wanted },
      );
      assert(!`${error}`.includes("secret"));
    } else {
      assert.equal(error, undefined);
    }
    assert.equal(seen.length, requests);
    assert.equal(told.length, waits.length);
    assert.equal(slept.length, waits.length, `${slept}`);
    slept.forEach((wait, i) => assert(wait >= waits[i]! - 1e-9 && wait <= waits[i]! * 1.25 + 1e-9, `wait ${i} is ${wait}`));
    assert.deepEqual(elsewhere, []);
    assert.equal(new Set(seen.map((headers) => headers["x-request-id"])).size, requests);
    const keys = new Set(seen.map((headers) => headers["idempotency-key"]));
    if (call.endsWith("submit") && requests > 0) {
      assert.equal(keys.size, 1);
      assert.match(`${[...keys]}`, /^"[0-9a-f]{32}"$/);
    } else if (requests > 0) {
      assert.deepEqual([...keys], [undefined]);
    }
    for (const headers of seen) assert.equal(headers["x-auth-token"], "secret");
  });
}
