import { BatchResetError } from "./errors.js";
import { listPath, pathOf, recordOf, type Kind } from "./kind.js";
import { Records, withQuery } from "./records.js";
import type { Repeater } from "./repeat.js";
import type { Budget, CallOptions, ItemState, Run, RunRequest, RunResult, RunState, RunVerdict, SubmitOptions } from "./types.js";

const kind: Kind<Run> = {
  name: "run",
  final: (run) => run.state !== "waiting" && run.state !== "running" && run.state !== "paused",
};
const path = listPath(kind);

/** Lists of any length, each of which is reset as one thing. A run that pauses has not ended: somebody may resume it. */
export class Runs extends Records<Run, RunState> {
  /** @internal */
  constructor(repeater: Repeater) {
    super(repeater, kind);
  }

  /** Makes a run, and returns its record. It is repeated, and fails, as a submit of a batch. */
  submit(request: RunRequest, options: SubmitOptions = {}): Promise<Run> {
    return this.repeater.submit(path, JSON.stringify(request), options.idempotencyKey, (answer) => recordOf(kind, answer), options.signal);
  }

  /** Iterates over what submit would do with each instance now. Nothing is stored. It asks once. */
  dryRun(request: RunRequest, options: CallOptions = {}): AsyncGenerator<RunVerdict, void, undefined> {
    const body = JSON.stringify({ ...request, dry_run: true });
    return this.#rows<RunVerdict>({ method: "POST", path, body, signal: options.signal });
  }

  /** Begins nothing more of a run, and returns its record. What runs goes on to its end. It is sent once. */
  pause(id: string, options: CallOptions = {}): Promise<Run> {
    return this.change(id, "pause", undefined, options);
  }

  /** Goes on with a run that is paused, maybe under a new budget, and returns its record. It is sent once. */
  resume(id: string, options: CallOptions & { max_failures?: Budget } = {}): Promise<Run> {
    const { max_failures } = options;
    return this.change(id, "resume", max_failures === undefined ? undefined : { max_failures }, options);
  }

  /**
   * Approves a run that somebody else has asked for, and returns its record. list_sha256 is
   * that of the list which the caller has seen. It is sent once.
   */
  approve(id: string, decision: { list_sha256: string; comment: string }, options: CallOptions = {}): Promise<Run> {
    return this.change(id, "approve", decision, options);
  }

  /** Ends a run that waits for approval, and returns its record. It is sent once. */
  reject(id: string, decision: { comment: string }, options: CallOptions = {}): Promise<Run> {
    return this.change(id, "reject", decision, options);
  }

  /**
   * Iterates over a row for each instance, in the order of the list, or for those in one of the
   * states. The rows come while the server reads them, so that any number fits. It asks once: a
   * loop that ends without an error has seen every row.
   */
  results(id: string, options: CallOptions & { state?: ItemState[] } = {}): AsyncGenerator<RunResult, void, undefined> {
    const query = new URLSearchParams((options.state ?? []).map((state) => ["state", state]));
    return this.#rows<RunResult>({ method: "GET", path: withQuery(pathOf(kind, id, "results"), query), signal: options.signal });
  }

  /**
   * Iterates over the lines of what became of a run that has ended, signed by the service. They
   * have their line ends: one after the other, they are the proof. After an error, they are
   * none. It asks once.
   */
  async *proof(id: string, options: CallOptions = {}): AsyncGenerator<string, void, undefined> {
    let last = "";
    for await (const line of this.repeater.connection.lines({ method: "GET", path: pathOf(kind, id, "proof"), signal: options.signal })) {
      yield (last = line);
    }
    if (!last.startsWith('{"signature":')) throw new BatchResetError({ message: "no proof that is whole: it has no signature" });
  }

  async *#rows<Row>(request: Parameters<Repeater["connection"]["lines"]>[0]): AsyncGenerator<Row, void, undefined> {
    for await (const line of this.repeater.connection.lines(request)) yield JSON.parse(line) as Row;
  }
}
