import { splitLines } from "./connection.js";
import { firstWait } from "./waits.js";

/** One event of a stream (WHATWG HTML, 9.2.6), what it says about coming back, or a line, comments too. */
export type Event = { id: string; name: string; data: string } | { retry: number } | "line";

/** Reads events, and tells of every line before what it brings. An event that was cut is none. */
export async function* readEvents(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Event, void, undefined> {
  let event = { id: "", name: "", data: "" };
  for await (const ended of splitLines(pieces)) {
    yield "line";
    const line = ended.replace(/\r?\n$/, "");
    if (line === "") {
      if (event.data !== "") yield event;
      event = { id: "", name: "", data: "" };
      continue;
    }
    const [, field, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line)!;
    if (field === "id") event.id = value;
    if (field === "event") event.name = value;
    if (field === "data") event.data += event.data === "" ? value : `\n${value}`;
    if (field === "retry" && /^\d+$/.test(value)) yield { retry: Math.max(firstWait, Math.min(Number(value) / 1000, 60)) };
  }
}
