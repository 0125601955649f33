import type { components } from "./contract.js";

type Schemas = components["schemas"];

/** What to reset. */
export type Batch = Omit<Schemas["Batch"], "dry_run">;
/** What to reset as a run. */
export type RunRequest = Omit<Schemas["RunRequest"], "dry_run">;
/** How many instances may fail: a number, or a percentage such as `"2%"`. */
export type Budget = Schemas["Budget"];
/** The job status record. */
export type Job = Schemas["Job"];
export type JobState = Schemas["JobState"];
/** One instance within a job. */
export type Item = Schemas["Item"];
export type ItemState = Schemas["ItemState"];
/** How many items are in each state. */
export type Counts = Schemas["Counts"];
/** The record of a run. */
export type Run = Schemas["Run"];
export type RunState = Schemas["RunState"];
/** An instance of a run and what has become of it. */
export type RunResult = Schemas["RunResult"];
/** What a dry run says of an instance of a batch. */
export type Verdict = Schemas["DryRun"]["instances"][number];
/** What a dry run says of an instance of a run. */
export type RunVerdict = Schemas["RunVerdict"];
/** What a server knows of a token. */
export type Identity = Schemas["Identity"];

/** A batch that the service has taken on. */
export interface Accepted {
  job_id: string;
  items: AcceptedItem[];
}

/** One instance of an accepted batch. */
export interface AcceptedItem {
  item_id: string;
  instance_id: string;
}

/** The states of items that can be tried again. */
export type Retried = "failed" | "unknown" | "cancelled";

/** What every call takes. */
export interface CallOptions {
  /** Ends the call, its waits included. It then rejects with the signal's reason, as fetch does. */
  signal?: AbortSignal | undefined;
}

/** What a submit takes. */
export interface SubmitOptions extends CallOptions {
  /**
   * Makes the same request the same job, or run, however often it is submitted: 1 to 255
   * printable characters. Without one, submit makes one up, for its own tries.
   */
  idempotencyKey?: string | undefined;
}

/** Selects among jobs or runs. Without a field, all are meant. */
export interface Filter<State> extends CallOptions {
  state?: State | undefined;
  /** `name=value`, up to 8; all must be there. */
  label?: string[] | undefined;
  /** Only what was created at this time, such as `2026-01-02T00:00:00Z`, or later. */
  since?: string | undefined;
  /** Only what was created before this time. */
  until?: string | undefined;
  /** How many one request asks for, 1 to 100. It does not bound how many there are in all. */
  limit?: number | undefined;
}

/** Selects among jobs. */
export interface JobFilter extends Filter<JobState> {
  /** Only jobs with this instance. */
  instance_id?: string | undefined;
}

/** Selects among runs. */
export type RunFilter = Filter<RunState>;
