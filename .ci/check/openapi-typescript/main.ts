// Submits two instances with openapi-fetch and the types that openapi-typescript makes of
// the contract, and waits for the end of the job.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const [baseUrl, token] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl, headers: { "X-Auth-Token": token } });

const accepted = await client.POST("/v1/instances/batch-reset", {
  params: { header: { "Idempotency-Key": "openapi-typescript" } },
  body: { instance_ids: ["typescript-1", "typescript-2"] },
});
if (!accepted.data || !("task_id" in accepted.data.data)) {
  throw new Error(`not accepted: ${JSON.stringify(accepted.error)}`);
}
const job_id = accepted.data.data.task_id;

let state: components["schemas"]["JobState"];
do {
  const record = await client.GET("/v1/jobs/{job_id}", {
    params: { path: { job_id }, header: { Prefer: "wait=30" } },
  });
  if (!record.data) {
    throw new Error(`no record: ${JSON.stringify(record.error)}`);
  }
  state = record.data.data.state;
} while (state === "pending" || state === "running");
if (state !== "succeeded") {
  throw new Error(`job ${job_id} ${state}`);
}
console.log("openapi-typescript: job", job_id, state);
