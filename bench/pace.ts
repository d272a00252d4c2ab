import { connect, type Socket } from "node:net";
import { endOfResponse, statusOf } from "./load.ts";

export interface Pace {
  readonly port: number;
  /** The request as it goes over the wire. */
  readonly request: string;
  readonly count: number;
  /** Requests a second, whether the ones before are answered or not. */
  readonly rate: number;
  /** Every response must have it. */
  readonly status: number;
}

/** More requests than that under way are no steady rate any more. Those wait, and their waiting counts. */
const CONNECTIONS = 64;

/**
 * Sends requests at a steady rate over keep-alive connections, and gives the milliseconds that each took from the
 * time it was due. So what the server holds up counts for the requests behind it as well.
 */
export function pace({ port, request, count, rate, status }: Pace): Promise<number[]> {
  const bytes = Buffer.from(request, "latin1");
  const took: number[] = [];
  const idle: Socket[] = [];
  const started = performance.now();
  let sent = 0;
  return new Promise((resolve, reject) => {
    const all = new Set<Socket>();
    const dueAt = new Map<Socket, number>();
    const end = (finish: () => void) => {
      clearInterval(clock);
      for (const socket of all) socket.destroy();
      finish();
    };
    const open = (): Socket => {
      const socket = connect({ port, host: "127.0.0.1", noDelay: true });
      let text = "";
      all.add(socket);
      socket.setEncoding("latin1").on("data", (chunk: string) => {
        text += chunk;
        const length = endOfResponse(text);
        if (length === undefined) return;
        if (statusOf(text) !== status) end(() => reject(new Error(`answered ${text.slice(0, length)}`)));
        text = text.slice(length);
        took.push(performance.now() - (dueAt.get(socket) as number));
        idle.push(socket);
        if (took.length === count) end(() => resolve(took));
      });
      socket.on("error", (error) => end(() => reject(error)));
      return socket;
    };
    const clock = setInterval(() => {
      for (let due = started + (sent * 1_000) / rate; due <= performance.now() && sent < count; due += 1_000 / rate) {
        const socket = idle.pop() ?? (all.size < CONNECTIONS ? open() : undefined);
        if (!socket) return;
        dueAt.set(socket, due);
        socket.write(bytes);
        sent += 1;
      }
    }, 1);
  });
}
