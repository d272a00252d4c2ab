/** A copy of the shipped routes in which somebody has weakened something on each of three APIs. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface WeakenedRoutes {
  readonly path: string;
  remove(): void;
}

const CHANGES: readonly (readonly [file: string, from: string, to: string])[] = [
  // The staff's API is open to every address.
  ["admin.ts", 'ipFilter({ allow: ["10.20.0.0/16", "2001:db8:20::/48"] }), ', ""],
  ["admin.ts", "api, ipFilter, route", "api, route"],
  // Ten times as many orders a minute, and half of the readers on the rewrite.
  ["orders.ts", "limit: 5,", "limit: 50,"],
  ["orders.ts", ".weight(95)", ".weight(50)"],
  ["orders.ts", ".weight(5)", ".weight(50)"],
  // The catalogue is also at its old address, where /api/* redirected.
  [
    "catalog.ts",
    '{ path: "/v1/products/*", methods: ["GET"] }',
    '[{ path: "/v1/products/*", methods: ["GET"] }, { path: "/api/products/*" }]',
  ],
];

export function weakenedRoutes(): WeakenedRoutes {
  const folder = mkdtempSync(join(tmpdir(), "portcullis-weakened-"));
  cpSync("routes", join(folder, "routes"), { recursive: true });
  cpSync("wrangler.toml", join(folder, "wrangler.toml"));
  for (const [name, from, to] of CHANGES) {
    const file = join(folder, "routes", name);
    const text = readFileSync(file, "utf8");
    if (!text.includes(from)) throw new Error(`routes/${name} has no ${from} any more`);
    writeFileSync(file, text.replace(from, to));
  }
  return { path: join(folder, "routes"), remove: () => rmSync(folder, { recursive: true, force: true }) };
}
