import { connect, type Socket } from "node:net";

export interface Load {
  readonly port: number;
  /** The request as it goes over the wire. */
  readonly request: string;
  readonly count: number;
  /** Connections, each with one request at a time. */
  readonly concurrency: number;
  /** Every response must have it. */
  readonly status: number;
  /** Digits in the request in whose place each one that is sent has a number of its own. */
  readonly numbered?: string;
}

let numbers = 0;

/** Gives the request to send, again and again. */
function requests(request: string, numbered: string | undefined): () => Uint8Array {
  const bytes = Buffer.from(request, "latin1");
  if (numbered === undefined) return () => bytes;
  const places: number[] = [];
  for (let at = bytes.indexOf(numbered); at !== -1; at = bytes.indexOf(numbered, at + 1)) places.push(at);
  return () => {
    const own = Buffer.from(bytes);
    const number = String(++numbers).padStart(numbered.length, "0");
    for (const at of places) own.write(number, at, "latin1");
    return own;
  };
}

/**
 * Sends `count` requests over keep-alive connections. Raw sockets, because of the client's own cost: with node:http the client is
 * slower than workerd, which then sleeps and wakes for each request, and that share of its time hides what the Workers cost.
 *
 * Rejects at the first response of another status, and when a connection ends.
 */
export function load({ port, request, count, concurrency, status, numbered }: Load): Promise<void> {
  const nextRequest = requests(request, numbered);
  return new Promise((resolve, reject) => {
    let sent = 0;
    let answered = 0;
    const sockets: Socket[] = [];
    const fail = (error: Error) => {
      reject(error);
      for (const socket of sockets) socket.destroy();
    };
    for (let i = 0; i < concurrency; i++) {
      const socket = connect({ port, host: "127.0.0.1", noDelay: true });
      let text = "";
      let waiting = true;
      const next = () => {
        waiting = sent < count;
        if (waiting) {
          sent++;
          socket.write(nextRequest());
        } else socket.end();
      };
      socket.setEncoding("latin1").on("connect", next);
      socket.on("data", (chunk: string) => {
        text += chunk;
        const end = endOfResponse(text);
        if (end === undefined) return;
        const got = Number(text.slice(9, 12));
        if (got !== status) return fail(new Error(`answered ${got} instead of ${status}:\n${text.slice(0, end)}`));
        text = text.slice(end);
        if (++answered === count) resolve();
        next();
      });
      socket.on("error", fail);
      socket.on("close", () => {
        if (waiting) fail(new Error(`a connection ended after ${answered} of ${count} responses`));
      });
      sockets.push(socket);
    }
  });
}

/** Where the response that `text` begins with ends (RFC 9112, 6.3), or undefined while it is not whole. */
export function endOfResponse(text: string): number | undefined {
  const head = text.indexOf("\r\n\r\n");
  if (head === -1) return undefined;
  const fields = text.slice(0, head);
  const length = /\r\ncontent-length: *([0-9]+)/i.exec(fields)?.[1];
  if (length !== undefined) return text.length >= head + 4 + Number(length) ? head + 4 + Number(length) : undefined;
  if (!/\r\ntransfer-encoding: *chunked/i.test(fields)) return head + 4;
  const last = text.indexOf("\r\n0\r\n\r\n", head + 2);
  return last === -1 ? undefined : last + 7;
}
