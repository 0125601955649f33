import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** An answer of a fake server, as testdata/repeats.json describes it. */
export type Step =
  | "ok"
  | { cut: "before" | "headers" | "body" }
  | { status: number; code?: string; headers?: Record<string, string>; elsewhere?: boolean };

/** One of testdata/repeats.json. */
export interface Case {
  name: string;
  call: string;
  answers: Step[];
  requests: number;
  waits: number[];
  error?: { status: number | null; code: string; uncertain: boolean; retry_after?: number };
}

/** The cases that all clients share. */
export function cases(): Case[] {
  const file = new URL("../../testdata/repeats.json", import.meta.url);
  return (JSON.parse(readFileSync(file, "utf8")) as { cases: Case[] }).cases;
}

/** A server on a port of its own. */
export async function serve(listener: RequestListener): Promise<{ url: string; close(): void }> {
  const server: Server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** An answer of the service. */
export function envelope(data: unknown): string {
  return JSON.stringify({ error_code: "0", error_msg: "ok", data });
}

/** Gives one answer; ok has a type and a body. */
export function give(response: ServerResponse, step: Step, ok: { type: string; body: string }, elsewhere: string): void {
  if (step === "ok") {
    response.setHeader("Content-Type", ok.type);
    response.end(ok.body);
  } else if ("cut" in step) {
    if (step.cut === "before") return void response.destroy();
    response.writeHead(200, { "Content-Type": ok.type, "Content-Length": Buffer.byteLength(ok.body) });
    response.flushHeaders();
    if (step.cut === "body") response.write(ok.body.slice(0, ok.body.length / 2));
    setTimeout(() => response.destroy(), 20);
  } else {
    for (const [name, value] of Object.entries(step.headers ?? {})) response.setHeader(name, value);
    if (step.elsewhere) response.setHeader("Location", elsewhere);
    response.statusCode = step.status;
    response.end(step.code ? JSON.stringify({ error_code: step.code, error_msg: "so it is" }) : "<html>");
  }
}

/** Reads the body of a request, so that its answer does not come early. */
export async function bodyOf(request: IncomingMessage): Promise<string> {
  let body = "";
  for await (const piece of request) body += piece;
  return body;
}
