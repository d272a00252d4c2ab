/** How long answers take at a pace that leaves the gateway idle most of the time, as an isolate mostly is. */
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { endOfResponse } from "./load.ts";
import { type Row, shuffled, warmUp } from "./measure.ts";

/** Requests per second to each row. An isolate that gets more is rare, and each costs it well below a millisecond. */
export const RATE = 100;

/**
 * Milliseconds until each answer was whole, by row and round. Within a round the rows are asked in the same seconds, each request by lot,
 * since what disturbs one second is gone in the next. Requests begin at times that know nothing of each other (a Poisson process), and
 * not when another has ended: a closed loop would wait for whatever the gateway does after an answer, and count that for the next one.
 */
export async function measureLatency(
  rows: readonly Row[],
  { rounds, requests }: { rounds: number; requests: number },
  done: (what: string) => void,
): Promise<Map<string, number[][]>> {
  for (const row of rows) {
    await warmUp(row);
    done("warming up");
  }
  const measured = new Map<string, number[][]>(rows.map(({ name }) => [name, []]));
  for (let round = 1; round <= rounds; round++) {
    const clients = rows.map((row) => new Client(row));
    const order = shuffled(clients.flatMap((client) => new Array<Client>(requests).fill(client)));
    const asked: Promise<void>[] = [];
    let due = performance.now();
    for (const client of order) {
      due -= (Math.log(1 - Math.random()) * 1_000) / (RATE * rows.length);
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

/** Asks one row over as many connections as it takes. */
class Client {
  readonly #row: Row;
  readonly #bytes: Buffer;
  readonly #idle: Connection[] = [];
  readonly #took: number[] = [];

  constructor(row: Row) {
    this.#row = row;
    this.#bytes = Buffer.from(row.request, "latin1");
  }

  async ask(): Promise<void> {
    const connection = this.#idle.pop() ?? new Connection(this.#row.running.port);
    this.#took.push(await connection.ask(this.#bytes, this.#row.status));
    this.#idle.push(connection);
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

  /** Milliseconds. */
  async ask(bytes: Uint8Array, status: number): Promise<number> {
    const started = performance.now();
    this.#text = "";
    const answered = new Promise<void>((resolve, reject) => {
      this.#done = resolve;
      this.#failed = reject;
    });
    this.#socket.write(bytes);
    await answered;
    const took = performance.now() - started;
    if (Number(this.#text.slice(9, 12)) !== status) throw new Error(`answered instead of ${status}:\n${this.#text}`);
    return took;
  }

  close(): void {
    this.#failed = undefined;
    this.#socket.destroy();
  }
}
