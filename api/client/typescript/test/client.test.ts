import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { BatchResetError, Client, type JobFilter } from "batchreset";
import { bodyOf, envelope, serve } from "./fake.js";

const id = "0123456789abcdef0123456789abcdef";
const job = { job_id: id, state: "running" };

/** A client of a server that gives one answer, and the requests that came. */
async function answered(t: TestContext, body: string, head: { status?: number; headers?: Record<string, string> } = {}) {
  const seen: { url: string; body: string; headers: NodeJS.Dict<string | string[]> }[] = [];
  const server = await serve(async (request, response) => {
    seen.push({ url: request.url!, headers: request.headers, body: await bodyOf(request) });
    response.writeHead(head.status ?? 200, { "Content-Type": "application/json", ...head.headers }).end(body);
  });
  t.after(() => server.close());
  return { client: new Client({ server: `${server.url}/prefix/`, token: "t" }), seen };
}

for (const [server, token, want] of [
  ["127.0.0.1:8080", "t", /is not a URL such as/],
  ["redis://127.0.0.1", "t", /is not a URL such as/],
  ["http:///", "t", /is not a URL such as/],
  ["http://user:geheim@a", "t", /^server has a user name/],
  ["http://a/?b=c", "t", /has a query/],
  ["http://a", "", /token is empty/],
  ["http://a", "x\r\nHost: b", /token has spaces/],
] as const) {
  test(`a client of ${JSON.stringify(server)} with the token ${JSON.stringify(token)} is refused`, () => {
    assert.throws(() => new Client({ server, token }), { name: "TypeError", message: want });
  });
}

test("server and token come from the environment", async (t) => {
  t.after(() => ["BATCHRESET_SERVER", "BATCHRESET_TOKEN"].forEach((name) => delete process.env[name]));
  process.env.BATCHRESET_TOKEN = "from-the-environment";
  const server = await serve((request, response) => response.end(envelope({ ...job, job_id: request.headers["x-auth-token"] })));
  t.after(() => server.close());
  process.env.BATCHRESET_SERVER = server.url;
  assert.equal((await new Client().jobs.get(id)).job_id, "from-the-environment");
});

test("paths keep the server's, and IDs are escaped", async (t) => {
  const { client, seen } = await answered(t, envelope(job));
  await client.jobs.get("../a b");
  assert.equal(seen[0]!.url, "/prefix/v1/jobs/..%2Fa%20b");
  for (const no of ["", ".", ".."]) await assert.rejects(client.jobs.cancel(no), { name: "TypeError" });
  assert.equal(seen.length, 1);
});

test("bodies have the names of the contract", async (t) => {
  const { client, seen } = await answered(t, envelope({ run_id: id, state: "running" }));
  await client.runs.submit({ instance_ids: ["a"], max_failures: "2%", canary: 1 }, { idempotencyKey: 'a"\\b' });
  await client.runs.pause(id);
  await client.runs.resume(id, { max_failures: 0 });
  await client.runs.retry(id, ["unknown"]);
  await client.runs.approve(id, { list_sha256: "0", comment: "fine" });
  await client.runs.reject(id, { comment: "no" });
  await client.runs.cancel(id);
  assert.deepEqual(
    seen.map(({ url, body }) => [url.replace(`/prefix/v1/runs/${id}/`, ""), body]),
    [
      ["/prefix/v1/runs", '{"instance_ids":["a"],"max_failures":"2%","canary":1}'],
      ["pause", ""],
      ["resume", '{"max_failures":0}'],
      ["retry", '{"states":["unknown"]}'],
      ["approve", '{"list_sha256":"0","comment":"fine"}'],
      ["reject", '{"comment":"no"}'],
      ["cancel", ""],
    ],
  );
  assert.equal(seen[0]!.headers["idempotency-key"], '"a\\"\\\\b"');
});

test("a list goes on at its cursor, with the same filters", async (t) => {
  const urls: string[] = [];
  const server = await serve((request, response) => {
    const last = urls.push(request.url!) === 3;
    response.end(envelope({ jobs: urls.length === 2 ? [] : [job], ...(!last && { next_cursor: `c/${urls.length}` }) }));
  });
  t.after(() => server.close());
  const found = [];
  const client = new Client({ server: server.url, token: "t" });
  const filter: JobFilter = { state: "running", label: ["a=b&c", "d=e"], since: "2026-01-02T00:00:00Z", limit: 1 };
  for await (const one of client.jobs.list(filter)) found.push(one);
  assert.equal(found.length, 2);
  const query = "state=running&label=a%3Db%26c&label=d%3De&since=2026-01-02T00%3A00%3A00Z&limit=1";
  assert.deepEqual(urls, [`/v1/jobs?${query}`, `/v1/jobs?${query}&cursor=c%2F1`, `/v1/jobs?${query}&cursor=c%2F2`]);
});

for (const [what, body, status, want] of [
  ["an error has the server's code, sentence and request", '{"error_code":"RESET.0003","error_msg":"it has ended"}', 409, "BatchResetError: RESET.0003: it has ended (HTTP 409, request R1)"],
  ["an error code in a 200 is an error", '{"error_code":"RESET.0001","error_msg":"no job"}', 200, /RESET.0001: no job/],
  ["control characters do not reach a terminal", '{"error_code":"X.1","error_msg":"a\\u001b[2Jb\\nc\\u202ed"}', 400, /a\?\[2Jb c\?d/],
  ["another service's JSON is no answer", '{"status":"fine"}', 200, /answered 200 with something that the service does not say/],
  ["half of an answer is none", envelope(job).slice(0, -9), 200, /something that the service does not say/],
  ["nothing is no answer", "", 200, /answered 200 with nothing/],
  ["a huge answer is not read to its end", "x".repeat((8 << 20) + 1), 200, /more than 8388608 bytes/],
  ["missing data is an error", '{"error_code":"0","error_msg":"ok"}', 200, /data that cannot be read/],
  ["a record without a state is an error", envelope({ job_id: id }), 200, /without job_id or state/],
] as const) {
  test(what, async (t) => {
    const { client } = await answered(t, body, { status, headers: { "X-Request-Id": "R1" } });
    const error = await client.jobs.get(id).catch((reason: unknown) => reason);
    assert(error instanceof BatchResetError);
    if (typeof want === "string") assert.equal(`${error}`, want);
    else assert.match(`${error}`, want);
    assert.deepEqual([error.status, error.requestId], [status, "R1"]);
  });
}

test("a dry run that an older service takes for a submit is an error", async (t) => {
  const { client, seen } = await answered(t, envelope({ task_id: id, cmd_jobs: [] }));
  await assert.rejects(client.jobs.dryRun({ instance_ids: ["a"] }), /does not know dry_run/);
  assert.deepEqual(seen.map(({ body }) => body), ['{"instance_ids":["a"],"dry_run":true}']);
});

test("a proof of a run that lost its end is none", async (t) => {
  const { client } = await answered(t, '{"version":1}\n', { headers: { "Content-Type": "application/jsonl" } });
  await assert.rejects(async () => {
    for await (const line of client.runs.proof(id)) assert.equal(line, '{"version":1}\n');
  }, /it has no signature/);
});

test("an abort while a submit is under way leaves it uncertain, and one before does not", async (t) => {
  const abort = new AbortController();
  const server = await serve(() => abort.abort(new Error("enough")));
  t.after(() => server.close());
  const client = new Client({ server: server.url, token: "t" });
  const submit = () => client.jobs.submit({ instance_ids: ["a"] }, { signal: abort.signal });
  await assert.rejects(submit(), { name: "BatchResetError", uncertain: true, message: /interrupted: Error: enough; it may have been accepted/ });
  await assert.rejects(submit(), /^Error: enough$/);
});

test("an abort ends the wait after a 429", async (t) => {
  const { client, seen } = await answered(t, '{"error_code":"APIGW.0308","error_msg":"too many"}', { status: 429, headers: { "Retry-After": "60" } });
  await assert.rejects(client.jobs.submit({ instance_ids: ["a"] }, { signal: AbortSignal.timeout(100) }), { name: "TimeoutError" });
  assert.equal(seen.length, 1);
});
