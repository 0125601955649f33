import type { Answer } from "./connection.js";
import type { components } from "./contract.js";
import { pathOf, type Kind } from "./kind.js";
import { Records } from "./records.js";
import type { Repeater } from "./repeat.js";
import type { Accepted, Batch, CallOptions, Job, JobFilter, JobState, SubmitOptions, Verdict } from "./types.js";

const path = "/v1/instances/batch-reset";

const kind: Kind<Job> = {
  name: "job",
  final: (job) => job.state !== "pending" && job.state !== "running",
};

/** Batches of up to 32 instances. */
export class Jobs extends Records<Job, JobState> {
  /** @internal */
  constructor(repeater: Repeater) {
    super(repeater, kind);
  }

  /**
   * Posts one batch. After a 429, for as long as the signal lets it, and after an answer that
   * was lost, a few times, it sends the batch again, under the same key, so that it becomes one
   * job. An error says that nothing was accepted, unless it is `uncertain`; so is an abort
   * while the request was under way.
   */
  submit(batch: Batch, options: SubmitOptions = {}): Promise<Accepted> {
    return this.repeater.submit(path, JSON.stringify(batch), options.idempotencyKey, accepted, options.signal);
  }

  /** Asks what submit would do with each instance now. Nothing is stored. */
  async dryRun(batch: Batch, options: CallOptions = {}): Promise<Verdict[]> {
    const body = JSON.stringify({ ...batch, dry_run: true });
    const answer = await this.repeater.try({ method: "POST", path, body, signal: options.signal });
    const data = answer.data as Partial<components["schemas"]["DryRun"]> | undefined;
    if (!data?.dry_run) throw answer.unusable("it does not know dry_run: the instances are being reset");
    if (!data.instances?.length) throw answer.unusable("no instances");
    return data.instances;
  }

  override list(filter: JobFilter = {}): AsyncGenerator<Job, void, undefined> {
    return super.list(filter);
  }

  /** Returns what became of a job that has ended, signed by the service: a JWS in compact form. */
  async proof(id: string, options: CallOptions = {}): Promise<string> {
    const headers = { Accept: "application/jose" };
    const answer = await this.repeater.get(pathOf(kind, id, "proof"), { headers, signal: options.signal });
    if (!answer.signed || !answer.data) throw answer.unusable("no proof");
    return answer.data as string;
  }
}

/** Reads the answer to a batch. KooPhone calls a job a task, and an item a job. */
function accepted(answer: Answer): Accepted {
  const data = answer.data as Partial<components["schemas"]["Accepted"]> | null | undefined;
  if (!data?.task_id) throw answer.unusable("no task_id");
  const items = (data.cmd_jobs ?? []).map(({ instance_id, job_id }) => ({ item_id: job_id, instance_id }));
  return { job_id: data.task_id, items };
}
