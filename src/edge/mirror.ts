/** Copies of a request for backends whose answers nobody waits for. They cost the client nothing that could be put off. */
import type { TableMirror } from "../table/table.ts";
import type { Attempt } from "./forward.ts";

/** Those of `mirrors` that this request is copied to, unless a body of unknown length turns out too large. */
export function drawMirrors(
  mirrors: readonly TableMirror[],
  { method, headers }: Request,
  random: () => number,
): TableMirror[] {
  if (mirrors.length === 0) return [];
  const stated = Number(headers.get("content-length") ?? 0);
  return mirrors.filter(
    ({ ratio = 1, methods, maxBody }) =>
      (!methods || methods.includes(method)) && stated <= maxBody && (ratio >= 1 || random() < ratio),
  );
}

export const fitting = (mirrors: readonly TableMirror[], body: Uint8Array | null): readonly TableMirror[] =>
  body === null ? mirrors : mirrors.filter(({ maxBody }) => body.byteLength <= maxBody);

// A copy that nobody answers is kept for up to the route's total time, with its body and its request: a quarter of a megabyte at 60 KB
// (measured), of the 128 MB that an isolate has for everything.
const MOST_UNDER_WAY = 100;

/** How many copies are on their way to each cluster. One that does not answer must not fill the memory that the primary needs. */
export class MirrorTraffic {
  readonly #underWay = new Map<string, number>();

  /** Whether one more may go there; if so it is under way until `ended`. */
  begin(cluster: string): boolean {
    const count = this.#underWay.get(cluster) ?? 0;
    if (count >= MOST_UNDER_WAY) return false;
    this.#underWay.set(cluster, count + 1);
    return true;
  }

  ended(cluster: string): void {
    this.#underWay.set(cluster, (this.#underWay.get(cluster) as number) - 1);
  }
}

/**
 * Sends one copy, for at most `patience` milliseconds, once the client's answer is on its way: a turn of the event loop later, so that
 * the connections that the platform allows at once have gone to the primary first. What comes back is not read. Never throws: a
 * mirror that fails is no news for the client.
 */
export async function sendMirror(
  prepare: () => Attempt | Promise<Attempt>,
  method: string,
  body: Uint8Array | null,
  patience: number,
): Promise<void> {
  try {
    await scheduler.wait(0);
    const { url, ingress, headers } = await prepare();
    const response = await ingress.fetch(url, {
      method,
      headers,
      body,
      redirect: "manual",
      signal: AbortSignal.timeout(patience),
    });
    await response.body?.cancel();
  } catch {
    // The cluster's own monitoring tells.
  }
}
