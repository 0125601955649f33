/** Time, which tests replace. */
export const clock = {
  /** Waits so many seconds. Rejects with the signal's reason once that is aborted. */
  sleep(seconds: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const abort = (): void => {
        clearTimeout(timer);
        reject(signal?.reason);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", abort);
        resolve();
      }, seconds * 1000);
      signal?.addEventListener("abort", abort, { once: true });
    });
  },
};

/** Aborts a request when its caller does, or when nothing comes of it for too long. */
export class Limit {
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #stop = (): void => this.#controller.abort(this.#outer?.reason);
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** A limit that lets so many seconds pass, until it is told otherwise. */
  constructor(seconds: number, outer?: AbortSignal) {
    this.#outer = outer;
    outer?.throwIfAborted();
    outer?.addEventListener("abort", this.#stop, { once: true });
    this.restart(seconds);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Lets so many seconds pass from now on. */
  restart(seconds: number): void {
    this.pause();
    this.#timer = setTimeout(() => this.#controller.abort(new Error(`it took longer than ${seconds} s`)), seconds * 1000);
  }

  /** Lets any time pass. */
  pause(): void {
    clearTimeout(this.#timer);
  }

  /** Ends it, and a connection that is still in use. */
  end(): void {
    this.pause();
    this.#outer?.removeEventListener("abort", this.#stop);
    this.#controller.abort();
  }
}
