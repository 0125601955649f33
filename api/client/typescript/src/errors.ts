/** What a {@link BatchResetError} knows. */
export interface Failure {
  message: string;
  status?: number | undefined;
  code?: string;
  requestId?: string | undefined;
  retryAfter?: number;
  /** Whether the request may have reached a server; yes unless said otherwise. */
  sent?: boolean;
  uncertain?: boolean;
  cause?: unknown;
}

/** Everything that can go wrong with a request, but for an abort of the caller's own. */
export class BatchResetError extends Error {
  override readonly name = "BatchResetError";
  /** The HTTP status. Undefined: no whole answer came. 0: a redirect, which browsers hide. */
  readonly status: number | undefined;
  /** The API's `error_code`. Empty: the answer was none of the service's. */
  readonly code: string;
  /** What the service, and its log, call the request. Undefined: no answer came. */
  readonly requestId: string | undefined;
  /** How many seconds the server wants us to wait, or 0. */
  readonly retryAfter: number;
  /**
   * Whether the batch, or run, may have been accepted all the same. Look at the lists of jobs
   * or runs before you send it under another key: that could reset a phone twice.
   */
  readonly uncertain: boolean;
  /** @internal */
  readonly sent: boolean;

  /** @internal */
  constructor(failure: Failure) {
    super(printable(failure.message), { cause: failure.cause });
    this.status = failure.status;
    this.code = printable(failure.code ?? "");
    this.requestId = failure.requestId && printable(failure.requestId);
    this.retryAfter = failure.retryAfter ?? 0;
    this.uncertain = failure.uncertain ?? false;
    this.sent = failure.sent ?? true;
  }

  /** A line for people: code, message, status and request. */
  override toString(): string {
    const code = this.code && `${this.code}: `;
    const answer = this.status === undefined ? "" : ` (HTTP ${this.status}, request ${this.requestId})`;
    return `${this.name}: ${code}${this.message}${answer}`;
  }
}

/** Whether nothing was accepted for certain. A 5xx does not say so: a proxy may have lost track. */
export function refused(error: BatchResetError): boolean {
  const { status, code } = error;
  if (status === undefined) return false;
  return status === 0 || (status >= 300 && status < 500) || code === "APIGW.0613" || code === "RESET.0006";
}

/** Whether the server wants less of us. */
export function tooMany(error: BatchResetError): boolean {
  return error.status === 429;
}

/** Whether it may go away by itself: no answer, or a server that is overloaded or broken. */
export function passing(error: unknown): boolean {
  if (!(error instanceof BatchResetError)) return false;
  return error.status === undefined || error.status >= 500 || tooMany(error);
}

/** The same error, which now says that the request may have been accepted. */
export function asUncertain(error: unknown): BatchResetError {
  if (error instanceof BatchResetError && error.uncertain) return error;
  const known = error instanceof BatchResetError ? error : new BatchResetError({ message: `interrupted: ${String(error)}` });
  const { status, code, requestId, retryAfter } = known;
  const message = `${known.message}; it may have been accepted all the same: look before you send it again`;
  return new BatchResetError({ message, status, code, requestId, retryAfter, uncertain: true, cause: error });
}

/** Makes text from elsewhere fit for one line on a terminal. */
export function printable(text: string): string {
  return text.replace(/\s/gu, " ").replace(/\p{C}/gu, "?");
}
