import { load } from "./load.ts";
import { pace } from "./pace.ts";
import { cpuTime, type Running } from "./processes.ts";

/** One thing to measure. */
export interface Row {
  readonly name: string;
  readonly running: Running;
  readonly request: string;
  readonly status: number;
}

/** V8 goes on optimising for long: a gateway costs a tenth less after 15,000 requests than after 1,000, and hardly less after that. */
const WARM_UP = 15_000;
/** Connections, each with one request at a time. */
export const CONCURRENCY = 16;
/** What a process does after its last response (logging, collecting garbage) is its own work, and not the next one's. */
const SETTLE_MS = 10;

/**
 * Microseconds of CPU per request, by row and round. Neighbours and the host make the same code cost twice as much a second later, so
 * the rows take turns within short rounds, in a new order each time, and are compared within a round.
 */
export async function measureRows(
  rows: readonly Row[],
  { rounds, requests }: { rounds: number; requests: number },
  done: (what: string) => void,
): Promise<Map<string, number[]>> {
  const send = ({ running, request, status }: Row, count: number) =>
    load({ port: running.port, request, status, count, concurrency: CONCURRENCY });
  for (const row of rows) {
    await send(row, WARM_UP);
    done("warming up");
  }
  const measured = new Map<string, number[]>(rows.map(({ name }) => [name, []]));
  for (let round = 1; round <= rounds; round++) {
    for (const row of shuffled(rows)) {
      const before = cpuTime(row.running.pid);
      await send(row, requests);
      await settle();
      measured.get(row.name)?.push((cpuTime(row.running.pid) - before) / requests / 1_000);
      done(`round ${round} of ${rounds}`);
    }
  }
  return measured;
}

/** Requests a second, and in one turn, where latencies are measured. */
export const PACE = { rate: 1_000, count: 500 };

/** The 99th percentile of latencies at a steady rate, in milliseconds, by row and round; rows take turns as above. */
export async function measureLatencies(
  rows: readonly Row[],
  rounds: number,
  done: (what: string) => void,
): Promise<Map<string, number[]>> {
  const measured = new Map<string, number[]>(rows.map(({ name }) => [name, []]));
  for (let round = 1; round <= rounds; round++) {
    for (const { name, running, request, status } of shuffled(rows)) {
      const took = await pace({ port: running.port, request, status, ...PACE });
      measured.get(name)?.push(took.sort((a, b) => a - b)[Math.floor(took.length * 0.99)] as number);
      done(`pace, round ${round} of ${rounds}`);
    }
  }
  return measured;
}

/**
 * Milliseconds of CPU until a process listens, more than another needs: by round, like the rows. `start` starts one and leaves it to
 * be stopped here.
 */
export async function measureStart(
  start: () => Promise<Running>,
  startBaseline: () => Promise<Running>,
  rounds: number,
  done: () => void,
): Promise<number[]> {
  const once = async (starting: () => Promise<Running>) => {
    const running = await starting();
    const used = cpuTime(running.pid) / 1e6;
    await running.stop();
    return used;
  };
  const more: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? [start, startBaseline] : [startBaseline, start];
    const [first, second] = [await once(order[0] as typeof start), await once(order[1] as typeof start)];
    more.push(round % 2 === 0 ? first - second : second - first);
    done();
  }
  return more;
}

export interface Summary {
  readonly median: number;
  readonly quartiles: readonly [number, number];
}

export function summary(values: readonly number[]): Summary {
  const sorted = values.toSorted((a, b) => a - b);
  // Between two values where the rank falls between them.
  const quantile = (share: number) => {
    const rank = share * (sorted.length - 1);
    const low = sorted[Math.floor(rank)] as number;
    return low + ((sorted[Math.ceil(rank)] as number) - low) * (rank % 1);
  };
  return { median: quantile(0.5), quartiles: [quantile(0.25), quantile(0.75)] };
}

export const ratios = (values: readonly number[], base: readonly number[]): number[] =>
  values.map((value, round) => value / (base[round] as number));

function shuffled<T>(list: readonly T[]): T[] {
  const order = [...list];
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [order[i], order[j]] = [order[j] as T, order[i] as T];
  }
  return order;
}

const settle = () => new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
