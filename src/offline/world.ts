/**
 * What a gateway in this process has around it, in place of the network, the time and the log; and the parts of the Workers runtime
 * that Node lacks. The edge's code calls the runtime's globals, so these are what is replaced, and only for what runs within
 * `inWorld`: everything else in the process keeps its own.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import type { Clock, Timer } from "./clock.ts";
import { IdentityStream, LenientRequest, readsAtLeast } from "./runtime.ts";

export interface World {
  readonly clock: Clock;
  /** Every request of the gateway's to anybody but a binding. */
  fetch(url: string, init: RequestInit): Promise<Response>;
  /** A line that the gateway prints. */
  log(line: string): void;
}

const worlds = new AsyncLocalStorage<World>();

/** Runs `work`, and all that follows from it, in `world`. */
export function inWorld<Result>(world: World, work: () => Result): Result {
  install();
  return worlds.run(world, work);
}

/** Runs what is not the gateway's, such as a test's own code that the gateway calls, where this process' own globals are. */
export const outside = <Result>(work: () => Result): Result => worlds.exit(work);

let installed = false;

function install(): void {
  if (installed) return;
  installed = true;
  const { fetch, setTimeout, clearTimeout } = globalThis;
  const { now } = Date;
  const { log, error } = console;
  const workerd = globalThis as unknown as Record<string, unknown>;
  workerd.IdentityTransformStream ??= IdentityStream;
  workerd.FixedLengthStream ??= IdentityStream;
  workerd.scheduler ??= {};
  const { scheduler } = workerd as { scheduler: { wait?: (milliseconds: number) => Promise<void> } };
  const wait = scheduler.wait?.bind(scheduler);
  const set = (callback: () => void, milliseconds = 0, ...rest: []) =>
    worlds.getStore()?.clock.setTimeout(callback, milliseconds) ?? setTimeout(callback, milliseconds, ...rest);
  // With what hangs on the function, such as what util.promisify makes of it.
  Object.defineProperties(set, Object.getOwnPropertyDescriptors(setTimeout));
  Object.assign(globalThis, {
    Request: LenientRequest,
    fetch: (input: string | URL | Request, init: RequestInit = {}) =>
      worlds.getStore()?.fetch(String(input), init) ?? fetch(input, init),
    setTimeout: set,
    clearTimeout: (timer: NodeJS.Timeout | Timer | null | undefined) => {
      if (timer && "fire" in timer) timer.stop();
      else clearTimeout(timer ?? undefined);
    },
  });
  scheduler.wait = (milliseconds) => {
    const world = worlds.getStore();
    if (world) return world.clock.wait(milliseconds);
    return wait?.(milliseconds) ?? new Promise((resolve) => setTimeout(resolve, milliseconds));
  };
  Date.now = () => worlds.getStore()?.clock.now() ?? now();
  const { getReader } = ReadableStream.prototype;
  ReadableStream.prototype.getReader = function (this: ReadableStream, options?: ReadableStreamGetReaderOptions) {
    const reader = getReader.call(this, options as undefined);
    return options?.mode === "byob" && worlds.getStore() ? readsAtLeast(reader as never) : reader;
  } as typeof getReader;
  const spoken = (own: (...said: unknown[]) => void) =>
    function (this: unknown, ...said: unknown[]) {
      const world = worlds.getStore();
      if (world) world.log(String(said[0]));
      else own.apply(this, said);
    };
  console.log = spoken(log);
  console.error = spoken(error);
}
