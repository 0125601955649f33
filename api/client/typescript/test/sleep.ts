import type { TestContext } from "node:test";

interface Clock {
  sleep(seconds: number, signal?: AbortSignal): Promise<void>;
}

/** Keeps a client from waiting, and returns how many seconds it wanted to. */
export function replaceSleep(t: TestContext): number[] {
  const slept: number[] = [];
  const before = clock.sleep;
  clock.sleep = async (seconds, signal) => {
    slept.push(seconds);
    signal?.throwIfAborted();
  };
  t.after(() => (clock.sleep = before));
  return slept;
}

// It is no part of the package's surface.
const { clock } = (await import(new URL("../dist/clock.js", import.meta.url).href)) as { clock: Clock };
