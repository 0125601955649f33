import { clock } from "./clock.js";
import type { Answer, Connection, Request } from "./connection.js";
import { asUncertain, BatchResetError, passing, refused, tooMany } from "./errors.js";
import { randomID } from "./random.js";
import { backoff, maxTries, patience, spread } from "./waits.js";

/** Is told of a request that failed, and how many seconds at least pass before it is repeated. */
export type OnRetry = (error: BatchResetError, wait: number) => void;

/** Repeats requests where that can help, as "How clients repeat" in api/README.md says. */
export class Repeater {
  constructor(
    readonly connection: Connection,
    readonly onRetry: OnRetry,
  ) {}

  /** Reads, and repeats where that can help. */
  get(path: string, options: Pick<Request, "headers" | "signal"> = {}): Promise<Answer> {
    return this.#repeat(
      () => this.connection.ask({ ...options, method: "GET", path }),
      (tries, waited, error) => {
        if (waited > patience) return false;
        if (tooMany(error)) return true;
        if (error.status !== undefined && error.status < 500) return false;
        return tries < maxTries;
      },
      options.signal,
    );
  }

  /** Asks what changes nothing, and repeats only after a 429, for as long as the signal lets it. */
  try(request: Request): Promise<Answer> {
    return this.#repeat(() => this.connection.ask(request), (_tries, _waited, error) => tooMany(error), request.signal);
  }

  /**
   * Posts a body under a key, which it makes up if there is none, until take understands an
   * answer. After a failure nothing was accepted, unless that is uncertain.
   */
  async submit<T>(path: string, body: string, key: string | undefined, take: (answer: Answer) => T, signal: AbortSignal | undefined): Promise<T> {
    const quoted = `"${(key || (await randomID())).replace(/["\\]/g, "\\$&")}"`;
    let uncertain = false; // since a try before
    const once = async (): Promise<T> => {
      signal?.throwIfAborted();
      try {
        return take(await this.connection.ask({ method: "POST", path, headers: { "Idempotency-Key": quoted }, body, signal }));
      } catch (error) {
        uncertain ||= !(error instanceof BatchResetError) || (error.sent && !refused(error));
        throw uncertain ? asUncertain(error) : error;
      }
    };
    try {
      return await this.#repeat(once, (tries, _waited, error) => tooMany(error) || (uncertain && !refused(error) && tries < maxTries), signal);
    } catch (error) {
      throw uncertain ? asUncertain(error) : error; // a wait may have been interrupted
    }
  }

  /**
   * Asks until there is an answer of the service. One that has answered this client before may
   * go away for any time; what no waiting can repair is an error at once.
   */
  async outlast<T>(ask: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    return this.#repeat(ask, (_tries, _waited, error) => this.connection.reached && passing(error), signal);
  }

  async #repeat<T>(
    once: () => Promise<T>,
    again: (tries: number, waited: number, error: BatchResetError) => boolean,
    signal: AbortSignal | undefined,
  ): Promise<T> {
    let waited = 0;
    for (let tries = 1; ; tries++) {
      try {
        return await once();
      } catch (error) {
        if (!(error instanceof BatchResetError) || signal?.aborted) throw error;
        const wait = Math.max(backoff(tries), error.retryAfter);
        waited += wait;
        if (!again(tries, waited, error)) throw error;
        this.onRetry(error, wait);
        await clock.sleep(spread(wait), signal);
      }
    }
  }
}
