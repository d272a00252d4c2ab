/** What the Worker prints, for a terminal: a line for each decision record, and errors so that they are seen. */
import type { DecisionRecord } from "../policies/contract.ts";
import type { Paint } from "./paint.ts";

/** `GET /v1/orders 200 orders/list eu/orders canary 12 ms`; undefined when `message` is no decision record. */
export function decisionLine(message: string, paint: Paint): string | undefined {
  const record = recordOf(message);
  if (!record) return undefined;
  const { status } = record;
  const attempts = record.attempts.map(({ backend, status, error }, position) =>
    position < record.attempts.length - 1 || error ? `${backend} ${error ?? status}` : backend,
  );
  const doubts = record.policies
    .filter(({ verdict }) => verdict === "would-deny" || verdict === "error")
    .map(({ policy, verdict, reason }) => [verdict, policy, reason].filter(Boolean).join(" "));
  return [
    record.method,
    plain(record.path || "?"),
    paint(status >= 500 ? "red" : status >= 400 ? "yellow" : status >= 300 ? "cyan" : "green", String(status)),
    record.route ?? "-",
    attempts.join(" -> "),
    record.arm,
    record.reason && paint("bold", record.reason),
    record.consumer && paint("dim", record.consumer),
    doubts.length > 0 && paint("magenta", `(${doubts.join(", ")})`),
    paint("dim", `${record.totalMs} ms`),
  ]
    .filter(Boolean)
    .join(" ");
}

/** `health backend=eu/orders healthy=false`: what happened beside or after a request; undefined when `message` is no such line. */
export function eventLine(message: string, paint: Paint): string | undefined {
  const { v, time, event, ...facts } = parse(message) as Record<string, unknown>;
  if (v !== 1 || typeof event !== "string") return undefined;
  const texts = Object.entries(facts).map(
    ([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`,
  );
  return [paint("cyan", event), ...texts].join(" ");
}

/** The error that the gateway logs for a request, on one line with its stack below; undefined when `message` is none. */
export function errorLine(message: string, paint: Paint): string | undefined {
  const { id, error, stack } = parse(message) as { id?: unknown; error?: unknown; stack?: unknown };
  if (typeof error !== "string") return undefined;
  return `${paint("red", "failed")}  request ${id}: ${typeof stack === "string" ? stack : error}`;
}

function recordOf(message: string): DecisionRecord | undefined {
  const record = parse(message) as Partial<DecisionRecord>;
  return record.v === 1 && typeof record.status === "number" ? (record as DecisionRecord) : undefined;
}

function parse(message: string): object {
  if (!message.startsWith("{")) return {};
  try {
    return JSON.parse(message);
  } catch {
    return {};
  }
}

/** A client chose the path; it must not steer the terminal. */
const plain = (text: string): string => text.replace(/[^\x20-\x7e]/g, "?");
