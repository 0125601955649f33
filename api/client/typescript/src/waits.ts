const day = 24 * 60 * 60;

/** How often a request is sent, at most, to a server that does not answer, or with a 5xx. */
export const maxTries = 4;
/** How many seconds all waits of one read may take together. */
export const patience = 60;
/** The shortest and the longest wait, in seconds, if the server does not ask for more. */
export const firstWait = 0.2;
const longestWait = 2;

/** How many seconds to wait after the nth (from 1) time in vain. */
export function backoff(n: number): number {
  return Math.min(longestWait, firstWait * 2 ** (n - 1));
}

/** A wait that is up to a quarter longer, so that callers who were turned away together do not come back together. */
export function spread(seconds: number): number {
  return seconds * (1 + Math.random() / 4);
}

/** Reads a Retry-After header in either form, a time by the clock of who sent it; in seconds, 0 if there is none. */
export function parseRetryAfter(headers: Headers): number {
  const value = headers.get("Retry-After") ?? "";
  if (/^[+-]?\d+$/.test(value)) return Math.max(0, Math.min(Number(value), day));
  const at = parseDate(value);
  if (Number.isNaN(at)) return 0;
  const sent = parseDate(headers.get("Date") ?? "");
  const now = Number.isNaN(sent) ? Date.now() : sent;
  return Math.max(0, Math.min((at - now) / 1000, day));
}

/** A date of HTTP, in milliseconds; NaN if it is none. Date.parse alone takes a year for one. */
function parseDate(text: string): number {
  return / GMT$/.test(text) ? Date.parse(text) : NaN;
}
