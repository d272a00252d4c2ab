/** The shipped routes, compiled once for a test file. */
import { readFileSync } from "node:fs";
import { compileRoutes } from "../../src/build/compile.ts";
import { parseWrangler } from "../../src/build/environment.ts";
import { type AskedRequest, type Explanation, explain, type Subject } from "../../src/explain/explain.ts";

export const shop: Subject = await compileShop();

async function compileShop(): Promise<Subject> {
  const { table, sources } = await compileRoutes({ routes: "routes" });
  return { table, sources, texts: parseWrangler("wrangler.toml", readFileSync("wrangler.toml", "utf8")).vars ?? {} };
}

export const explained = (
  method: string,
  path: string,
  more: Partial<AskedRequest> = {},
  subject = shop,
): Promise<Explanation> =>
  explain(subject, {
    method,
    url: path.startsWith("/") ? `https://api.example.com${path}` : path,
    headers: [],
    client: "203.0.113.7",
    cf: {},
    ...more,
  });
