import { Connection } from "./connection.js";
import { Jobs } from "./jobs.js";
import { Repeater, type OnRetry } from "./repeat.js";
import { Runs } from "./runs.js";
import type { CallOptions, Identity } from "./types.js";

/** What a client is made of. */
export interface ClientOptions {
  /** The URL of the service. Otherwise BATCHRESET_SERVER, or http://127.0.0.1:8080. */
  server?: string | undefined;
  /** Otherwise BATCHRESET_TOKEN. */
  token?: string | undefined;
  /** Is called before a request that failed is repeated. */
  onRetry?: OnRetry | undefined;
}

/** Calls one server with one token. */
export class Client {
  /** Batches of up to 32 instances. */
  readonly jobs: Jobs;
  /** Lists of any length. */
  readonly runs: Runs;
  readonly #repeater: Repeater;

  /** Throws a TypeError if server or token cannot be one. Nothing is sent yet. */
  constructor(options: ClientOptions = {}) {
    const server = options.server ?? (environment("BATCHRESET_SERVER") || "http://127.0.0.1:8080");
    const token = options.token ?? environment("BATCHRESET_TOKEN") ?? "";
    this.#repeater = new Repeater(new Connection(server, token), options.onRetry ?? (() => {}));
    this.jobs = new Jobs(this.#repeater);
    this.runs = new Runs(this.#repeater);
  }

  /** Asks whose the token is. */
  async whoami(options: CallOptions = {}): Promise<Identity> {
    const answer = await this.#repeater.get("/v1/whoami", { signal: options.signal });
    const who = answer.data as Identity | undefined;
    if (!who?.token_id || !who.tenant) throw answer.unusable("no token_id or tenant");
    return who;
  }
}

/** A variable of the environment, where there is one. */
function environment(name: string): string | undefined {
  const { process } = globalThis as { process?: { env?: Record<string, string | undefined> } };
  return process?.env?.[name];
}
