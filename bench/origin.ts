/** The origin where nginx is not installed: a thread of its own, so that its work is not the client's. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { parentPort, workerData } from "node:worker_threads";

const { headers, body } = workerData as { headers: Record<string, string>; body: string };
const server = createServer((request, response) => {
  request.resume();
  response.writeHead(200, { ...headers, "content-length": Buffer.byteLength(body) }).end(body);
});
server.keepAliveTimeout = 3_600_000;
server.listen(0, "127.0.0.1", () => parentPort?.postMessage((server.address() as AddressInfo).port));
