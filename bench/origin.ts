/** An origin that takes its time, or stands in for nginx: a thread of its own, so that its work is not the client's. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { parentPort, workerData } from "node:worker_threads";

export interface OriginOptions {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** Milliseconds before it answers. Default: none. */
  readonly delay?: number;
}

const { headers, body, delay } = workerData as OriginOptions;
const server = createServer((request, response) => {
  request.resume();
  const answer = () => response.writeHead(200, { ...headers, "content-length": Buffer.byteLength(body) }).end(body);
  if (delay) setTimeout(answer, delay);
  else answer();
});
server.keepAliveTimeout = 3_600_000;
server.listen(0, "127.0.0.1", () => parentPort?.postMessage((server.address() as AddressInfo).port));
