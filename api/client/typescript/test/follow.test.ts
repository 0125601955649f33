import assert from "node:assert/strict";
import type { IncomingMessage, ServerResponse } from "node:http";
import { test, type TestContext } from "node:test";
import { BatchResetError, Client, type Job } from "batchreset";
import { envelope, serve } from "./fake.js";
import { replaceSleep } from "./sleep.js";

const id = "0123456789abcdef0123456789abcdef";
const running = { job_id: id, state: "running" };
const done = { job_id: id, state: "succeeded" };

type Handler = (response: ServerResponse, request: IncomingMessage) => void;

const event = (tag: string, record: object): string => `id: ${tag}\nevent: job\ndata: ${JSON.stringify(record)}\n\n`;
const record = (data: object, tag = "", retryAfter = ""): Handler => (response) => {
  if (tag) response.setHeader("ETag", tag);
  if (retryAfter) response.setHeader("Retry-After", retryAfter);
  response.end(envelope(data));
};
const unchanged: Handler = (response) => response.writeHead(304).end();
const failed: Handler = (response) => response.writeHead(500).end('{"error_code":"KOOPHONE.API.9999","error_msg":"internal"}');
const noStream: Handler = (response) => response.writeHead(404).end("<html>");

/** A service whose streams, and whose looks, are answered in turn; the last again and again. */
async function service(t: TestContext, { streams = [noStream], looks = [unchanged] }: { streams?: Handler[]; looks?: Handler[] }) {
  const seen = { streams: [] as IncomingMessage[], looks: [] as IncomingMessage[] };
  const server = await serve((request, response) => {
    const [list, handlers] = request.url!.endsWith("/events") ? [seen.streams, streams] : [seen.looks, looks];
    const handler = handlers[Math.min(list.push(request), handlers.length) - 1]!;
    if (list === seen.streams && handler !== noStream) response.setHeader("Content-Type", "text/event-stream; charset=utf-8");
    handler(response, request);
  });
  t.after(() => server.close());
  return { client: new Client({ server: server.url, token: "t" }), slept: replaceSleep(t), ...seen };
}

async function states(jobs: AsyncIterable<Job>): Promise<string> {
  const all = [];
  for await (const job of jobs) all.push(job.state);
  return all.join(" ");
}

test("a stream is read to its end, and nothing is asked", async (t) => {
  const text = `retry: 2000\n\n${event("1", running)}:\r\n\r\nevent: news\ndata: {}\n\n${event("2", done)}`;
  const s = await service(t, { streams: [(response) => response.end(text)] });
  assert.equal(await states(s.client.jobs.stream(id)), "running succeeded");
  assert.deepEqual([s.streams.length, s.looks.length, s.slept.length], [1, 0, 0]);
});

for (const [where, cut] of [
  ["between two events", ""],
  ["in the middle of an event", event("2", done).slice(0, -20)],
  ["before the end of an event", event("2", done).slice(0, -1)],
]) {
  test(`a stream that was cut ${where} goes on`, async (t) => {
    const s = await service(t, {
      streams: [
        (response) => {
          response.write(`retry: 3000\n\n${event("1", running)}${cut}`);
          setTimeout(() => response.destroy(), 50);
        },
        (response) => response.end(event("2", done)),
      ],
    });
    assert.equal(await states(s.client.jobs.stream(id)), "running succeeded");
    assert.deepEqual(s.streams.map((request) => request.headers["last-event-id"]), [undefined, "1"]);
    assert.deepEqual(s.looks.map((request) => request.headers["if-none-match"]), ['"1"']);
    assert(s.slept.length === 1 && s.slept[0]! >= 3 && s.slept[0]! <= 3.75, `${s.slept}`);
  });
}

test("the end is found that fell between two streams", async (t) => {
  const s = await service(t, { streams: [(response) => response.end(event("1", running))], looks: [record(done, '"2"')] });
  assert.equal(await states(s.client.jobs.stream(id)), "running succeeded");
  assert.equal(s.streams.length, 1);
});

test("a stream that is silent is given up, twice, and then it asks", async (t) => {
  const silent: Handler = () => {};
  const s = await service(t, { streams: [silent], looks: [record(running, '"1"'), unchanged, unchanged, record(done, '"2"')] });
  assert.equal(await states(s.client.jobs.stream(id)), "running succeeded");
  assert.equal(s.streams.length, 2);
  assert.deepEqual(s.looks.map((request) => request.headers.prefer), [undefined, "wait=10", "wait=10", "wait=10"]);
});

test("wait asks as often as the server suggests, and only for what is new", async (t) => {
  const s = await service(t, { looks: [record(running, '"1"', "7"), unchanged, record(done, '"2"')] });
  assert.equal((await s.client.jobs.wait(id)).state, "succeeded");
  assert.equal(s.streams.length, 0);
  assert.deepEqual(s.looks.map((request) => request.headers.prefer), ["wait=10", "wait=10", "wait=10"]);
  assert.deepEqual(s.looks.map((request) => request.headers["if-none-match"]), [undefined, '"1"', '"1"']);
  assert(s.slept.length === 2 && s.slept[0]! >= 7 && s.slept[1]! >= 0.4 && s.slept[1]! <= 0.5, `${s.slept}`);
});

test("wait outlasts a server that has answered before", async (t) => {
  const s = await service(t, { looks: [record(running, '"1"', "1"), ...Array<Handler>(30).fill(failed), record(done, '"2"')] });
  assert.equal((await s.client.jobs.wait(id)).state, "succeeded");
});

test("wait gives up on a server that never answered", async (t) => {
  const s = await service(t, { looks: [failed] });
  await assert.rejects(s.client.jobs.wait(id), { name: "BatchResetError", status: 500 });
  assert.equal(s.looks.length, 4);
});

test("what no waiting can repair is an error at once", async (t) => {
  const gone: Handler = (response) => response.writeHead(404).end('{"error_code":"RESET.0001","error_msg":"there is no job"}');
  const s = await service(t, { looks: [record(running, '"1"', "1"), gone] });
  await assert.rejects(states(s.client.jobs.stream(id)), { code: "RESET.0001", message: "there is no job" });
});

test("a stream whose token was revoked ends with the error of a look", async (t) => {
  const revoked = '{"error_code":"APIGW.0307","error_msg":"revoked"}';
  const s = await service(t, {
    streams: [(response) => response.end(`${event("1", running)}event: error\ndata: ${revoked}\n\n`)],
    looks: [(response) => response.writeHead(401).end(revoked)],
  });
  await assert.rejects(states(s.client.jobs.stream(id)), { status: 401, code: "APIGW.0307" });
});

test("an abort ends a stream, and closes its connection", async (t) => {
  const abort = new AbortController();
  let closed = (_: unknown): void => {};
  const ended = new Promise((resolve) => (closed = resolve));
  const s = await service(t, {
    streams: [
      (response) => {
        response.on("close", closed);
        response.write(event("1", running));
      },
    ],
  });
  const told: string[] = [];
  await assert.rejects(async () => {
    for await (const job of s.client.jobs.stream(id, { signal: abort.signal })) {
      told.push(job.state);
      setTimeout(() => abort.abort(new Error("enough")), 20);
    }
  }, /^Error: enough$/);
  await ended;
  assert.deepEqual(told, ["running"]);
});

test("a loop that is left closes the connection", async (t) => {
  let closed = (_: unknown): void => {};
  const ended = new Promise((resolve) => (closed = resolve));
  const s = await service(t, {
    streams: [
      (response) => {
        response.on("close", closed);
        response.write(event("1", running));
      },
    ],
  });
  for await (const job of s.client.jobs.stream(id)) {
    assert.equal(job.state, "running");
    break;
  }
  await ended;
});

test("a wait that is aborted while it waits for an answer rejects with the reason", async (t) => {
  const s = await service(t, { looks: [() => {}] });
  const error = await s.client.jobs.wait(id, { signal: AbortSignal.timeout(50) }).catch((reason: unknown) => reason);
  assert(error instanceof DOMException && error.name === "TimeoutError", `${error}`);
  assert(!(error instanceof BatchResetError));
});
