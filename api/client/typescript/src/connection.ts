import { Limit } from "./clock.js";
import { BatchResetError } from "./errors.js";
import { randomID } from "./random.js";
import { parseRetryAfter } from "./waits.js";

/** How many seconds a whole answer may take. */
const requestTime = 30;
/** How many seconds a streamed answer may be silent. The server says something every 15 s. */
const silence = 45;
/** Far above a record of 100 items with the longest messages. */
const maxAnswer = 8 << 20;

/** What is asked. */
export interface Request {
  method: "GET" | "POST";
  /** The path, with a slash in front, and the query. */
  path: string;
  headers?: Record<string, string>;
  /** JSON. */
  body?: string | undefined;
  signal?: AbortSignal | undefined;
}

/** What came back for one request. */
export class Answer {
  /** Of the envelope, or the whole body if that is signed; none with a 304. */
  data: unknown;

  constructor(
    readonly url: string,
    readonly requestId: string,
    readonly status: number,
    readonly headers: Headers,
  ) {}

  /** The error for an answer that is not what the contract says: "the server answered 200 with …". */
  unusable(what: string): BatchResetError {
    const answered = this.status === 0 ? "answered" : `answered ${this.status}`;
    return this.failure("", `${this.url} ${answered} with ${what}`);
  }

  failure(code: string, message: string): BatchResetError {
    const { status, requestId } = this;
    return new BatchResetError({ status, code, message, requestId, retryAfter: parseRetryAfter(this.headers) });
  }

  /** Whether the body comes as it is, without an envelope, because the service has signed it. */
  get signed(): boolean {
    return this.status === 200 && this.headers.get("Content-Type") === "application/jose";
  }

  /** The media type, without parameters. */
  get type(): string {
    return (this.headers.get("Content-Type") ?? "").split(";")[0]!.trim().toLowerCase();
  }
}

/** Sends single requests to one server with one token. */
export class Connection {
  /** Whether the service has answered: tells its outage from an address where there is none. */
  reached = false;
  readonly #server: string;
  readonly #token: string;

  constructor(server: string, token: string) {
    this.#server = checkServer(server);
    this.#token = checkToken(token);
  }

  /** Asks for an answer that comes as a whole. */
  async ask(request: Request): Promise<Answer> {
    const limit = new Limit(requestTime, request.signal);
    try {
      const { answer, body } = await this.open(request, limit);
      return await this.#read(request, answer, body);
    } finally {
      limit.end();
    }
  }

  /** Asks for the lines of an answer without an envelope. They have their line ends. */
  async *lines(request: Request): AsyncGenerator<string, void, undefined> {
    const limit = new Limit(silence, request.signal);
    try {
      const { answer, body } = await this.open(request, limit);
      if (answer.status !== 200 || answer.type !== "application/jsonl") {
        await this.#read(request, answer, body);
        throw answer.unusable("no lines");
      }
      this.reached = true;
      for await (const line of splitLines(this.pieces(request, body, limit, silence))) {
        if (!line.endsWith("\n")) throw this.#lost(" that is whole", new Error("a line broke off"));
        yield line;
      }
    } finally {
      limit.end();
    }
  }

  /** Sends a request and returns the head of its answer. */
  async open(request: Request, limit: Limit): Promise<{ answer: Answer; body: Response }> {
    const id = await randomID();
    const url = this.#server + request.path;
    let body: Response;
    try {
      body = await fetch(url, {
        method: request.method,
        headers: {
          ...request.headers,
          "X-Auth-Token": this.#token,
          "X-Request-Id": id,
          ...(request.body !== undefined && { "Content-Type": "application/json" }),
        },
        ...(request.body !== undefined && { body: request.body }),
        // It would carry the token, and maybe the batch, to somewhere that nobody named.
        redirect: "manual",
        cache: "no-store",
        credentials: "omit",
        signal: limit.signal,
      });
    } catch (error) {
      request.signal?.throwIfAborted();
      throw this.#lost("", error);
    }
    const answer = new Answer(url.split("?")[0]!, body.headers.get("X-Request-Id") ?? id, body.status, body.headers);
    return { answer, body };
  }

  /** The pieces of a body. With a limit, each may take so many seconds to come. */
  async *pieces(request: Request, body: Response, limit?: Limit, seconds = 0): AsyncGenerator<Uint8Array, void, undefined> {
    const reader = body.body?.getReader();
    for (;;) {
      let piece;
      try {
        piece = await reader?.read();
      } catch (error) {
        request.signal?.throwIfAborted();
        throw this.#lost(" that is whole", error);
      }
      limit?.pause();
      if (!piece?.value) return;
      yield piece.value;
      limit?.restart(seconds);
    }
  }

  async #read(request: Request, answer: Answer, body: Response): Promise<Answer> {
    const decoder = new TextDecoder();
    let text = "";
    let size = 0;
    for await (const piece of this.pieces(request, body)) {
      if ((size += piece.length) > maxAnswer) throw answer.unusable(`more than ${maxAnswer} bytes`);
      text += decoder.decode(piece, { stream: true });
    }
    text += decoder.decode();
    if (answer.status === 304) return answer;
    if (answer.signed) {
      this.reached = true;
      answer.data = text;
      return answer;
    }
    if (body.type === "opaqueredirect" || (answer.status >= 300 && answer.status < 400)) {
      const to = answer.headers.get("Location") ?? "somewhere";
      throw answer.unusable(`a redirect to ${to}; if that is the right server, name it`);
    }
    if (text === "") throw answer.unusable("nothing, which the service never does");
    const envelope = parseEnvelope(text);
    if (!envelope) throw answer.unusable(`something that the service does not say: ${text.slice(0, 120)}`);
    if (answer.status < 500) this.reached = true;
    if (envelope.error_code !== "0" || answer.status >= 300) throw answer.failure(envelope.error_code, envelope.error_msg ?? "");
    answer.data = envelope.data;
    return answer;
  }

  #lost(what: string, error: unknown): BatchResetError {
    return new BatchResetError({
      message: `no answer from ${this.#server}${what}: ${reasonOf(error)}`,
      cause: error,
      sent: !neverConnected(error),
    });
  }
}

/** Splits text into lines with their ends; the last may lack one. */
export async function* splitLines(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const piece of pieces) {
    const lines = (rest + decoder.decode(piece, { stream: true })).split("\n");
    rest = lines.pop()!;
    for (const line of lines) yield `${line}\n`;
  }
  rest += decoder.decode();
  if (rest !== "") yield rest;
}

interface Envelope {
  error_code: string;
  error_msg?: string;
  data?: unknown;
}

function parseEnvelope(text: string): Envelope | undefined {
  try {
    const envelope = JSON.parse(text) as Envelope | null;
    if (typeof envelope?.error_code === "string" && envelope.error_code !== "") return envelope;
  } catch {
    // another site's page, or half an answer
  }
  return undefined;
}

interface SystemError {
  message?: string;
  code?: string;
  syscall?: string;
  cause?: SystemError;
  errors?: SystemError[];
}

/** fetch says "fetch failed", and Node why in its cause. */
function reasonOf(error: unknown): string {
  const { cause, message } = error as SystemError;
  return cause?.message || cause?.code || message || String(error);
}

/** What Node says of a server that cannot be reached in time, or whose certificate is not good. */
const noConnection = /^(UND_ERR_CONNECT_TIMEOUT$|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|ERR_TLS_CERT_)/;

/** Whether there was no connection that a request could go over. Only Node tells. */
function neverConnected(error: unknown): boolean {
  const never = (cause: SystemError | undefined): boolean =>
    cause?.syscall === "connect" || cause?.syscall === "getaddrinfo" || noConnection.test(cause?.code ?? "");
  const { cause } = error as SystemError;
  return cause?.errors ? cause.errors.every(never) : never(cause);
}

function checkServer(server: string): string {
  let url: URL;
  try {
    url = new URL(server);
  } catch {
    throw new TypeError(`server ${JSON.stringify(server.slice(0, 200))} is not a URL such as http://127.0.0.1:8080`);
  }
  if ((url.protocol !== "http:" && url.protocol !== "https:") || !server.includes("://")) {
    throw new TypeError(`server ${JSON.stringify(server.slice(0, 200))} is not a URL such as http://127.0.0.1:8080`);
  }
  if (url.username || url.password) throw new TypeError("server has a user name or a password, which fetch does not send");
  if (url.search || url.hash) throw new TypeError(`server ${url.href} has a query or a fragment`);
  return url.href.replace(/\/+$/, "");
}

function checkToken(token: string): string {
  if (token === "") throw new TypeError("token is empty: give one, or set BATCHRESET_TOKEN");
  if (!/^[!-~]+$/.test(token)) throw new TypeError("token has spaces or other characters that no token has");
  return token;
}
