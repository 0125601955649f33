export { Client, type ClientOptions } from "./client.js";
export type { components, operations, paths } from "./contract.js";
export { BatchResetError } from "./errors.js";
export type { Jobs } from "./jobs.js";
export type { OnRetry } from "./repeat.js";
export type { Runs } from "./runs.js";
export type * from "./types.js";
