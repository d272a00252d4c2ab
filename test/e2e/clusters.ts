/** Clusters side by side, each a real nginx in front of a service of its own, and the gateway in front of them all. */
import { randomBytes } from "node:crypto";
import { exportJWK, generateKeyPair } from "jose";
import { onTestFinished } from "vitest";
import { type Answer, type Asking, ask, open } from "./client.ts";
import { Gateway, type GatewayParts } from "./gateway.ts";
import { Ingress } from "./ingress.ts";
import { type Handler, Origin } from "./origin.ts";

export interface Cluster {
  readonly ingress: Ingress;
  readonly origin: Origin;
}

/**
 * Each cluster's ingress is in the variable with the cluster's name in upper case, its service without an ingress in `<NAME>_SERVICE`;
 * ASSERTION_KEY is a key to sign with.
 */
export class Clusters<Name extends string> {
  readonly gateway: Gateway;
  readonly #clusters: Readonly<Record<Name, Cluster>>;

  private constructor(gateway: Gateway, clusters: Readonly<Record<Name, Cluster>>) {
    this.gateway = gateway;
    this.#clusters = clusters;
  }

  static async start<Name extends string>(
    names: readonly Name[],
    routes: string,
    { texts: more, ...options }: Partial<Pick<GatewayParts, "inspected" | "texts">> = {},
  ): Promise<Clusters<Name>> {
    const started = await Promise.all(
      names.map(async (name) => {
        const origin = await Origin.start(name);
        return [name, { origin, ingress: await Ingress.start(name, { hosts: { "127.0.0.1": origin.port } }) }] as const;
      }),
    );
    const { privateKey } = await generateKeyPair("ES256", { extractable: true });
    const texts = {
      ...Object.fromEntries(
        started.flatMap(([name, { ingress, origin }]) => [
          [name.toUpperCase(), ingress.url],
          [`${name.toUpperCase()}_SERVICE`, `http://127.0.0.1:${origin.port}`],
        ]),
      ),
      ASSERTION_KEY: JSON.stringify({ ...(await exportJWK(privateKey)), kid: "assertion-1", alg: "ES256" }),
      ...more,
    };
    const gateway = await Gateway.start({ routes, texts, cf: true, ...options });
    return new Clusters(gateway, Object.fromEntries(started) as Record<Name, Cluster>);
  }

  get names(): Name[] {
    return Object.keys(this.#clusters) as Name[];
  }

  at(name: Name): Cluster {
    return this.#clusters[name];
  }

  ask(path: string, asking?: Asking): Promise<Answer> {
    return ask(this.gateway.port, path, asking);
  }

  /** A request whose response is read as it comes, and which is gone after the test. */
  open(path: string, asking?: Asking): ReturnType<typeof open> {
    const opened = open(this.gateway.port, path, asking);
    opened.sent.on("error", () => {});
    opened.response.catch(() => {});
    onTestFinished(() => void opened.sent.destroy());
    return opened;
  }

  /** Until the test is over, `handler` answers on this path in the clusters of these names; in all of them by default. */
  answer(path: string, handler: Handler, names: readonly Name[] = this.names): void {
    for (const name of names) {
      const { origin } = this.at(name);
      origin.on(path, handler);
      onTestFinished(() => origin.off(path));
    }
  }

  /** How many requests for `path` have reached each cluster's service. */
  arrived(path: string): Record<Name, number> {
    const counts = this.names.map((name) => [name, this.at(name).origin.arrivedAt(path).length]);
    return Object.fromEntries(counts) as Record<Name, number>;
  }

  /** How many have reached any of them. */
  allArrived(path: string): number {
    return this.names.reduce((sum, name) => sum + this.arrived(path)[name], 0);
  }

  /** Gone at once; back when that is called, at the latest when the test is over. */
  async kill(name: Name): Promise<() => Promise<void>> {
    const { ingress } = this.at(name);
    await ingress.kill();
    let back: Promise<void> | undefined;
    const revive = () => (back ??= ingress.start());
    onTestFinished(revive);
    return revive;
  }

  async close(): Promise<void> {
    await this.gateway.close();
    for (const name of this.names) await Promise.all([this.at(name).ingress.close(), this.at(name).origin.close()]);
  }
}

/** Answers with this status and nothing else. */
export const status =
  (code: number, headers: Record<string, string> = {}): Handler =>
  (request, response) => {
    request.resume();
    response.writeHead(code, headers).end(`${code}`);
  };

/** So many bytes that no filter takes offence at: random ones look like an attack now and then. */
export const harmless = (bytes: number): Buffer => randomBytes(bytes).map((byte) => 97 + (byte % 16)) as Buffer;

/** A new path below `prefix`, so that no test counts another's requests. */
export const pathBelow = (prefix: string): string => `${prefix}/${randomBytes(6).toString("hex")}`;

/** `work` by `clients` at once, each beginning anew until it has been done `count` times in all. */
export async function inParallel(clients: number, count: number, work: (n: number) => Promise<unknown>): Promise<void> {
  let begun = 0;
  const client = async () => {
    while (begun < count) await work(begun++);
  };
  await Promise.all(Array.from({ length: clients }, client));
}
