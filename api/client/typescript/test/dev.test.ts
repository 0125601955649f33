// Against a real service: BATCHRESET_SERVER, BATCHRESET_TOKEN, and as APPROVER another owner's token.
import assert from "node:assert/strict";
import { test as always } from "node:test";
import { BatchResetError, Client } from "batchreset";

const { APPROVER: approverToken, BATCHRESET_TOKEN: token } = process.env;
const test = approverToken ? always : always.skip; // 'make test' starts a service
const client = new Client({ token: token || "none" });
const ids = (prefix: string, n: number): string[] => Array.from({ length: n }, (_, i) => `${prefix}-${i}`);
const unique = `ts-${process.pid}-${Date.now()}`;

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list = [];
  for await (const item of items) list.push(item);
  return list;
}

test("a batch: dry run, submit, wait, stream, list, proof", async () => {
  const batch = { instance_ids: ids(`${unique}-batch`, 3), labels: { by: unique } };
  assert.deepEqual((await client.jobs.dryRun(batch)).map(({ verdict }) => verdict), ["would_reset", "would_reset", "would_reset"]);
  const accepted = await client.jobs.submit(batch, { idempotencyKey: unique });
  assert.deepEqual(accepted.items.map(({ instance_id }) => instance_id), batch.instance_ids);
  assert.deepEqual(await client.jobs.submit(batch, { idempotencyKey: unique }), accepted);

  const streamed = await all(client.jobs.stream(accepted.job_id));
  assert.equal(streamed.at(-1)?.state, "succeeded");
  const job = await client.jobs.wait(accepted.job_id);
  assert.deepEqual(job, streamed.at(-1));
  assert.deepEqual(await client.jobs.get(accepted.job_id), job);
  assert.deepEqual(job.items?.map(({ state }) => state), ["succeeded", "succeeded", "succeeded"]);
  assert.deepEqual((await all(client.jobs.list({ label: [`by=${unique}`], limit: 1 }))).map(({ job_id }) => job_id), [job.job_id]);
  const statement = JSON.parse(Buffer.from((await client.jobs.proof(job.job_id)).split(".")[1]!, "base64url").toString()) as { job_id: string };
  assert.equal(statement.job_id, job.job_id);
});

test("a wait ends when the job does", async () => {
  const { job_id } = await client.jobs.submit({ instance_ids: ids(`${unique}-wait`, 2) });
  assert.equal((await client.jobs.wait(job_id)).state, "succeeded");
});

test("a batch that is cancelled, and tried again", async () => {
  const not_before = new Date(Date.now() + 3_600_000).toISOString();
  const { job_id } = await client.jobs.submit({ instance_ids: ids(`${unique}-cancel`, 2), not_before });
  assert.equal((await client.jobs.cancel(job_id)).state, "cancelled");
  await assert.rejects(client.jobs.cancel(job_id), { status: 409, code: "RESET.0003" });
  await client.jobs.retry(job_id, ["cancelled"]);
  assert.equal((await client.jobs.wait(job_id)).state, "succeeded");
});

test("a run of more than one job: dry run, submit, stream, results, proof", async () => {
  const request = { instance_ids: ids(`${unique}-run`, 70), name: unique, labels: { by: unique } };
  assert.equal((await all(client.runs.dryRun(request))).length, 70);
  const { run_id } = await client.runs.submit(request);
  const last = (await all(client.runs.stream(run_id))).at(-1);
  assert.equal(last?.state, "succeeded");
  assert.deepEqual(await client.runs.wait(run_id), last);
  const rows = await all(client.runs.results(run_id));
  assert.deepEqual(rows.map(({ instance_id }) => instance_id), request.instance_ids);
  assert.equal((await all(client.runs.results(run_id, { state: ["failed", "unknown"] }))).length, 0);
  assert.equal((await all(client.runs.proof(run_id))).length, 72);
  assert.deepEqual((await all(client.runs.list({ label: [`by=${unique}`] }))).map((run) => run.run_id), [run_id]);
});

test("the brakes of a run", async () => {
  const { run_id } = await client.runs.submit({ instance_ids: ids(`${unique}-brakes`, 200), max_parallel: 1 });
  assert.equal((await client.runs.pause(run_id)).state, "paused");
  await assert.rejects(client.runs.pause(run_id), { status: 409, code: "RESET.0003" });
  assert.equal((await client.runs.resume(run_id, { max_failures: "50%" })).max_failures, "50%");
  await client.runs.cancel(run_id);
  const { state, counts } = await client.runs.wait(run_id);
  assert.match(state, /^(partial|cancelled)$/);
  assert(counts.cancelled > 0);
  await client.runs.retry(run_id, ["cancelled"]);
  await client.runs.cancel(run_id);
});

test("a run that others approve, or reject", async () => {
  const approver = new Client({ token: approverToken });
  const one = await client.runs.submit({ instance_ids: ids(`${unique}-approve`, 1), approval: true });
  assert.equal(one.state, "waiting");
  await assert.rejects(approver.runs.approve(one.run_id, { list_sha256: "0".repeat(64), comment: "another list" }), { status: 409 });
  await approver.runs.approve(one.run_id, { list_sha256: one.list_sha256, comment: "checked" });
  assert.equal((await client.runs.wait(one.run_id)).state, "succeeded");
  const two = await client.runs.submit({ instance_ids: ids(`${unique}-reject`, 1), approval: true });
  assert.equal((await approver.runs.reject(two.run_id, { comment: "no" })).state, "rejected");
});

test("what the service refuses", async () => {
  const nobody = "0".repeat(32);
  const refusals: [() => Promise<unknown>, number, string][] = [
    [() => client.jobs.submit({ instance_ids: ["no space"] }), 400, "KOOPHONE.API.1000"],
    [() => client.jobs.submit({ instance_ids: ids("x", 33) }), 400, "KOOPHONE.API.1000"],
    [() => client.jobs.submit({ instance_ids: ["other"] }, { idempotencyKey: unique }), 422, "RESET.0002"],
    [() => client.jobs.get(nobody), 404, "RESET.0001"],
    [() => client.jobs.wait(nobody), 404, "RESET.0001"],
    [() => all(client.runs.stream(nobody)), 404, "RESET.0001"],
    [() => all(client.runs.results(nobody)), 404, "RESET.0001"],
    [() => new Client({ token: "wrong" }).whoami(), 401, "APIGW.0301"],
    [() => new Client({ token: approverToken }).jobs.submit({ instance_ids: ["a"] }), 403, "APIGW.0302"],
  ];
  for (const [call, status, code] of refusals) {
    const error = await call().catch((reason: unknown) => reason);
    assert(error instanceof BatchResetError, `${error}`);
    assert.deepEqual([error.status, error.code, error.uncertain], [status, code, false]);
    assert(error.message && error.requestId);
  }
});

test("whose token it is", async () => {
  assert.deepEqual((await client.whoami()).scopes.includes("submit"), true);
});
