/** The way to Redis, in a thread of its own, so that its work is not the client's. */
import { parentPort, workerData } from "node:worker_threads";
import { startUpstashBridge } from "../src/dev/upstash-bridge.ts";

const { url } = await startUpstashBridge(workerData);
parentPort?.postMessage(url);
