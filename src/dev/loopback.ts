/** Servers of the stand: on loopback, each on a free port unless it is told one. */
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";

/** The port that `server` now listens on. Rejects when `port` is taken. */
export async function listen(server: Server, port = 0): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => {
      server.off("error", reject);
      resolve();
    });
  });
  return (server.address() as AddressInfo).port;
}

/** Drops whoever is still connected. */
export async function close(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeAllConnections();
  await closed;
}
