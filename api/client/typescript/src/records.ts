import { Follower } from "./follow.js";
import { listPath, pageOf, pathOf, recordOf, type Kind, type Stateful } from "./kind.js";
import type { Repeater } from "./repeat.js";
import type { CallOptions, Filter, Retried } from "./types.js";

/** What jobs and runs have in common. */
export abstract class Records<T extends Stateful, State> {
  /** @internal */
  constructor(
    protected readonly repeater: Repeater,
    protected readonly kind: Kind<T>,
  ) {}

  /** Reads the record. */
  async get(id: string, options: CallOptions = {}): Promise<T> {
    return recordOf(this.kind, await this.repeater.get(pathOf(this.kind, id), { signal: options.signal }));
  }

  /**
   * Waits until it has ended, and returns the last record. It asks with `Prefer: wait`, so that
   * the answer comes at the end. A server that has answered before may go away for any time;
   * what no waiting can repair, such as an ID that does not exist, is an error at once.
   */
  async wait(id: string, options: CallOptions = {}): Promise<T> {
    let last: T | undefined;
    for await (const record of new Follower(this.repeater, this.kind, id, options.signal).records(false)) last = record;
    return last!;
  }

  /**
   * Iterates over the first record and each one that differs, until it has ended; changes that
   * come close together are one. It reads the event stream, reconnects where that was cut, and
   * asks as `wait` does where no stream comes through. It bears with an outage as `wait` does.
   */
  stream(id: string, options: CallOptions = {}): AsyncGenerator<T, void, undefined> {
    return new Follower(this.repeater, this.kind, id, options.signal).records(true);
  }

  /** Cancels what has not begun, and returns the record. It is sent once. */
  cancel(id: string, options: CallOptions = {}): Promise<T> {
    return this.change(id, "cancel", undefined, options);
  }

  /**
   * Tries what is in one of the states again, once all has ended, and returns the record.
   * Without states that is what failed. An `unknown` instance may have been reset already, and
   * is then reset a second time. It is sent once.
   */
  retry(id: string, states: Retried[] = [], options: CallOptions = {}): Promise<T> {
    return this.change(id, "retry", states.length > 0 ? { states } : undefined, options);
  }

  /** Iterates over all of the tenant's that match, newest first. It asks for the next page when the loop has come to it. */
  async *list(filter: Filter<State> = {}): AsyncGenerator<T, void, undefined> {
    const { signal, ...fields } = filter;
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(fields)) {
      for (const one of [value ?? []].flat()) query.append(name, String(one));
    }
    for (;;) {
      const answer = await this.repeater.get(withQuery(listPath(this.kind), query), { signal });
      const { records, next } = pageOf(this.kind, answer);
      yield* records;
      if (!next) return;
      query.set("cursor", next);
    }
  }

  /** Asks for a change, once. */
  protected async change(id: string, what: string, body: object | undefined, options: CallOptions): Promise<T> {
    const answer = await this.repeater.connection.ask({
      method: "POST",
      path: pathOf(this.kind, id, what),
      body: body && JSON.stringify(body),
      signal: options.signal,
    });
    return recordOf(this.kind, answer);
  }
}

/** A path with a query, if there is one. */
export function withQuery(path: string, query: URLSearchParams): string {
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}
