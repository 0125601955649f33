import { clock, Limit } from "./clock.js";
import type { Answer } from "./connection.js";
import { BatchResetError } from "./errors.js";
import { readEvents } from "./events.js";
import { idOf, pathOf, recordOf, type Kind, type Stateful } from "./kind.js";
import type { Repeater } from "./repeat.js";
import { backoff, parseRetryAfter, spread } from "./waits.js";

/** How many seconds the server may keep a request, where there is no stream. */
const longPoll = 10;
/** How many streams in a row may bring nothing at all before they are given up: something on the way keeps them back. */
const maxSilent = 2;
/** How many seconds a stream may take to begin (the server sends the record at once), and how long it may be silent then. */
const firstLine = 5;
const nextLine = 45;
/** After how many seconds to come back to a stream that was cut, unless the server says. */
const reconnect = 2;

/** Follows one record until it is final. */
export class Follower<T extends Stateful> {
  #last: T | undefined;
  #etag = "";
  /** Of the stream that was read last: whether anything came, and after how many seconds to come back. */
  #heard = false;
  #again = reconnect;

  constructor(
    readonly repeater: Repeater,
    readonly kind: Kind<T>,
    readonly id: string,
    readonly signal: AbortSignal | undefined,
  ) {}

  /**
   * Yields the first record and each one that differs. It reads the event stream unless it is
   * told not to, goes on where a stream was cut, and asks instead, with Prefer: wait, where no
   * stream comes through.
   */
  async *records(streams: boolean): AsyncGenerator<T, void, undefined> {
    let quiet = 0;
    for (let silent = streams ? 0 : maxSilent; ; ) {
      if (silent < maxSilent) {
        yield* this.#stream();
        if (this.#ended) return;
        silent++;
        if (this.#heard) {
          silent = 0;
          await clock.sleep(spread(this.#again), this.signal);
        }
      }

      const ask = silent >= maxSilent;
      const began = performance.now();
      const answer = await this.repeater.outlast(() => this.#look(ask), this.signal);
      quiet++;
      if (answer.status !== 304 || !this.#etag) {
        quiet = 1;
        if (this.#take(recordOf(this.kind, answer), answer.headers.get("ETag") ?? "")) yield this.#last!;
      }
      if (this.#ended) return;
      if (ask && performance.now() - began < longPoll * 1000) {
        await clock.sleep(spread(parseRetryAfter(answer.headers) || backoff(quiet)), this.signal); // it did not wait
      }
    }
  }

  get #ended(): boolean {
    return this.#last !== undefined && this.kind.final(this.#last);
  }

  /** Keeps a record, and says whether it is another one. */
  #take(record: T, etag: string): boolean {
    if (etag !== "" && etag === this.#etag) return false;
    this.#last = record;
    this.#etag = etag;
    return true;
  }

  /** Reads the record unless it is still the same. With ask it may take a while, if it is not final. */
  #look(ask: boolean): Promise<Answer> {
    const headers = {
      ...(this.#etag && { "If-None-Match": this.#etag }),
      ...(ask && { Prefer: `wait=${longPoll}` }),
    };
    return this.repeater.get(pathOf(this.kind, this.id), { headers, signal: this.signal });
  }

  /** Reads one stream to its end. Why it ended does not matter: a look at the record tells. */
  async *#stream(): AsyncGenerator<T, void, undefined> {
    this.#heard = false;
    this.#again = reconnect;
    const { connection } = this.repeater;
    const headers = {
      Accept: "text/event-stream",
      ...(this.#etag && { "Last-Event-ID": this.#etag.replaceAll('"', "") }),
    };
    const request = { method: "GET", path: pathOf(this.kind, this.id, "events"), headers, signal: this.signal } as const;
    const limit = new Limit(firstLine, this.signal);
    try {
      const { answer, body } = await connection.open(request, limit);
      if (answer.status !== 200 || answer.type !== "text/event-stream") return;
      for await (const event of readEvents(connection.pieces(request, body, limit, nextLine))) {
        if (event === "line") {
          this.#heard = true;
          connection.reached = true;
        } else if ("retry" in event) {
          this.#again = event.retry;
        } else if (event.name === this.kind.name) {
          const record = this.#parse(event.data);
          if (record && this.#take(record, `"${event.id}"`)) yield record;
        }
      }
    } catch (error) {
      if (!(error instanceof BatchResetError)) throw error;
    } finally {
      limit.end();
    }
  }

  #parse(data: string): T | undefined {
    try {
      const record = JSON.parse(data) as T;
      if (idOf(this.kind, record) === this.id && record.state) return record;
    } catch {
      // not the service's
    }
    return undefined;
  }
}
