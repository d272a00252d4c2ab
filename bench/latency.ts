/** How long answers take at a pace that leaves the gateway idle most of the time, as an isolate mostly is. */
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { endOfResponse } from "./load.ts";
import { type Row, shuffled, warmUp } from "./measure.ts";

/** Requests per second to each row, and how many of them in a round. */
export interface Pace {
  readonly rate: number;
  readonly rounds: number;
  readonly requests: number;
  /** So many requests to one row, then to another: at that rate a machine cannot serve all rows at once. Default: each by lot. */
  readonly turn?: number;
}

/**
 * Milliseconds until each answer was whole, by row and round. Within a round the rows are asked in the same seconds, each request or turn by lot,
 * since what disturbs one second is gone in the next. Requests begin at times that know nothing of each other (a Poisson process), and
 * not when another has ended: a closed loop would wait for whatever the gateway does after an answer, and count that for the next one.
 */
export async function measureLatency(
  rows: readonly Row[],
  { rate, rounds, requests, turn = 1 }: Pace,
  done: (what: string) => void,
): Promise<Map<string, number[][]>> {
  for (const row of rows) {
    await warmUp(row);
    done("warming up");
  }
  const measured = new Map<string, number[][]>(rows.map(({ name }) => [name, []]));
  for (let round = 1; round <= rounds; round++) {
    const clients = rows.map((row) => new Client(row));
    const turns = shuffled(clients.flatMap((client) => new Array<Client>(requests / turn).fill(client)));
    const order = turns.flatMap((client) => new Array<Client>(turn).fill(client));
    const asked: Promise<void>[] = [];
    let due = performance.now();
    for (const client of order) {
      due -= (Math.log(1 - Math.random()) * 1_000) / (turn === 1 ? rate * rows.length : rate);
      const wait = due - performance.now();
      if (wait > 0) await sleep(wait);
      asked.push(client.ask());
    }
    await Promise.all(asked);
    rows.forEach(({ name }, i) => void measured.get(name)?.push((clients[i] as Client).close()));
    done(`latency, round ${round} of ${rounds}`);
  }
  return measured;
}

/** Below it are 99 of 100. */
export const p99 = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.ceil(values.length * 0.99) - 1] as number;

/** workerd ends connections that are idle for 5 s. */
const IDLE_MS = 2_000;
/** After a stall of the machine all that has become due is asked at once; more connections than that would be the origin's end. */
const MOST_CONNECTIONS = 64;

/** Asks one row over as many connections as it takes. */
class Client {
  readonly #row: Row;
  readonly #bytes: Buffer;
  readonly #idle: Connection[] = [];
  readonly #waiting: (() => void)[] = [];
  readonly #took: number[] = [];
  #underWay = 0;

  constructor(row: Row) {
    this.#row = row;
    this.#bytes = Buffer.from(row.request, "latin1");
  }

  /** Waiting for a connection is a part of what a request takes. */
  async ask(): Promise<void> {
    const due = performance.now();
    if (this.#underWay === MOST_CONNECTIONS) await new Promise<void>((resolve) => void this.#waiting.push(resolve));
    else this.#underWay++;
    const connection = this.#kept() ?? new Connection(this.#row.running.port);
    await connection.ask(this.#bytes, this.#row.status);
    this.#took.push(performance.now() - due);
    this.#idle.push(connection);
    const next = this.#waiting.shift();
    if (next) next();
    else this.#underWay--;
  }

  /** The one used last. Those that only a burst needed lie below, and are gone before the server ends them. */
  #kept(): Connection | undefined {
    const [oldest] = this.#idle;
    if (oldest && performance.now() - oldest.usedAt > IDLE_MS) this.#idle.shift()?.close();
    return this.#idle.pop();
  }

  /** What each request took. */
  close(): number[] {
    for (const connection of this.#idle) connection.close();
    return this.#took;
  }
}

/** Keep-alive, one request at a time. */
class Connection {
  readonly #socket: Socket;
  usedAt = 0;
  #text = "";
  #done: (() => void) | undefined;
  #failed: ((error: Error) => void) | undefined;

  constructor(port: number) {
    this.#socket = connect({ port, host: "127.0.0.1", noDelay: true });
    this.#socket.setEncoding("latin1").on("data", (chunk: string) => {
      this.#text += chunk;
      if (endOfResponse(this.#text) !== undefined) this.#done?.();
    });
    this.#socket.on("error", (error) => this.#failed?.(error));
    this.#socket.on("close", () => this.#failed?.(new Error("a connection ended before its response")));
  }

  async ask(bytes: Uint8Array, status: number): Promise<void> {
    this.#text = "";
    const answered = new Promise<void>((resolve, reject) => {
      this.#done = resolve;
      this.#failed = reject;
    });
    this.#socket.write(bytes);
    await answered;
    this.usedAt = performance.now();
    if (Number(this.#text.slice(9, 12)) !== status) throw new Error(`answered instead of ${status}:\n${this.#text}`);
  }

  close(): void {
    this.#failed = undefined;
    this.#socket.destroy();
  }
}
