/** A log as a busy gateway of the shop writes it: decision records, made up but of the right shape and size. */

import { once } from "node:events";
import { createWriteStream } from "node:fs";

/** Writes `lines` records of the table `table` into `file`. The same each time. */
export async function writeRecords(file: string, lines: number, table: string): Promise<void> {
  const out = createWriteStream(file);
  let state = 42;
  const random = (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const start = Date.parse("2026-11-28T10:00:00Z");
  for (let i = 0; i < lines; ) {
    let text = "";
    for (const end = Math.min(lines, i + 2_000); i < end; i++)
      text += `${JSON.stringify(record(random, start + i * 3, table))}\n`;
    if (!out.write(text)) await once(out, "drain");
  }
  out.end();
  await once(out, "close");
}

function record(random: (below: number) => number, time: number, table: string): object {
  const client = random(50) === 0 ? `10.20.0.${random(250)}` : `203.0.${random(120)}.${random(250)}`;
  const base = { v: 1, time: new Date(time).toISOString(), id: `0b5b4ca7-eab0-4e66-99de-${random(2 ** 31)}`, table };
  const rest = { upstreamMs: 3, totalMs: 5 };
  const sent = (route: string, backend: string, more: object) => ({
    ...base,
    host: "api.example.com",
    client,
    route,
    ...more,
    attempts: [{ backend, region: "weur", status: 200, ms: 3 }],
    status: 200,
    backend,
    ...rest,
  });
  const caller = {
    subject: `https://login.example.com|user-${random(20_000)}`,
    consumer: random(3) === 0 ? "warehouse" : "storefront",
    credential: { kind: "jwt" },
  };
  const filter = { policy: "filter", verdict: "pass" };
  const known = [
    { policy: "jwt", verdict: "pass", facts: { kid: "k1" } },
    { policy: "scopes", verdict: "pass" },
  ];
  switch (random(8)) {
    case 0: {
      const policies = [...known, { policy: "rateLimit", verdict: "pass" }, filter];
      const key = `limit:orders/create:default:5/1m:consumer=${caller.consumer}`;
      const limits = [{ name: "default", key, remaining: 4, reset: time + 60_000 }];
      return sent("orders/create", "eu/orders", { method: "POST", path: "/v1/orders", policies, ...caller, limits });
    }
    case 1:
    case 2: {
      const arm = { arm: random(20) === 0 ? "canary" : "stable", armBy: "subject" };
      const path = `/v1/orders/${random(1_000_000)}`;
      return sent("orders/read", "eu/orders", { method: "GET", path, policies: [...known, filter], ...caller, ...arm });
    }
    case 3: {
      const policies = [{ policy: "ipFilter", verdict: "deny", reason: "address-denied" }];
      const own = { ...base, method: "GET", host: "api.example.com", path: "/admin/users", client, policies };
      return {
        ...own,
        attempts: [],
        status: 403,
        reason: "address-denied",
        route: "admin/all",
        upstreamMs: 0,
        totalMs: 0,
      };
    }
    case 4: {
      const policies = [{ policy: "rateLimit", verdict: "pass" }, filter];
      return sent("catalog/search", "eu/search", { method: "GET", path: "/v1/search", policies });
    }
    default: {
      const policies = [{ policy: "rateLimit", verdict: "pass" }, filter];
      return sent("catalog/products", "eu/catalog", {
        method: "GET",
        path: `/v1/products/${random(50_000)}`,
        policies,
      });
    }
  }
}
