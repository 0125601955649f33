import type { Answer } from "./connection.js";

/** What every record has. */
export interface Stateful {
  state: string;
}

/** A kind of record. */
export interface Kind<T> {
  /** What paths, IDs and events call it. */
  readonly name: "job" | "run";
  final(record: T): boolean;
}

/** The path of a record, or of what is below it. */
export function pathOf<T>(kind: Kind<T>, id: string, below = ""): string {
  // A URL would lose these, and be another operation's.
  if (id === "" || id === "." || id === "..") throw new TypeError(`${JSON.stringify(id)} is not the ID of a ${kind.name}`);
  return `${listPath(kind)}/${encodeURIComponent(id)}${below && `/${below}`}`;
}

/** The path of the list of such records. */
export function listPath<T>(kind: Kind<T>): string {
  return `/v1/${kind.name}s`;
}

/** The ID that a record has; undefined if it is none. */
export function idOf<T>(kind: Kind<T>, record: T): unknown {
  return (record as Record<string, unknown> | null | undefined)?.[`${kind.name}_id`];
}

/** Reads the record in an answer. */
export function recordOf<T extends Stateful>(kind: Kind<T>, answer: Answer): T {
  if (typeof answer.data !== "object" || answer.data === null) throw answer.unusable("data that cannot be read");
  return checked(kind, answer, answer.data as T);
}

/** Reads the records, and where there are more, in a page of a list. */
export function pageOf<T extends Stateful>(kind: Kind<T>, answer: Answer): { records: T[]; next: string | undefined } {
  const page = answer.data as ({ next_cursor?: string } & Record<string, unknown>) | null | undefined;
  const records = page?.[`${kind.name}s`];
  if (!Array.isArray(records)) throw answer.unusable(`no list of ${kind.name}s`);
  return { records: records.map((record: T) => checked(kind, answer, record)), next: page?.next_cursor };
}

function checked<T extends Stateful>(kind: Kind<T>, answer: Answer, record: T): T {
  if (!idOf(kind, record) || !record.state) throw answer.unusable(`a record without ${kind.name}_id or state`);
  return record;
}
