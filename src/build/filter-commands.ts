/** What `waf test` says without rules: what `filter` would. */
import { binaryOf } from "../policies/binary.ts";
import { compile } from "../policies/filter.ts";
import { armed, Inspection } from "../policies/filter-inspection.ts";
import { rules } from "../policies/filter-rules.ts";
import { normalisePath } from "../table/path.ts";
import type { WafRequest } from "../waf/request.ts";
import { filterRules } from "./filter-pack.ts";
import type { WafTested } from "./waf-commands.ts";

const CATEGORIES: ReadonlyMap<string, string> = new Map(rules.map(({ id, category }) => [id, category]));

/** With its default options. Throws an Error for a path that the gateway refuses before any policy. */
export function testByFilter(request: WafRequest): WafTested {
  const config = compile({}, { problem: () => {} });
  const inspection = new Inspection(armed(filterRules()), config);
  const headers = new Headers(request.headers.map(([name, value]): [string, string] => [name, value]));
  const { pathname, search } = new URL(request.uri, "http://localhost");
  const normal = normalisePath(pathname);
  if (normal.refused) throw new Error(`${pathname}: the gateway refuses this path itself, as ${normal.refused}`);
  inspection.head(request.method, { path: normal.path, search, received: [...headers] });
  const format = request.body !== "" && inspection.bodyFormat(headers);
  if (format && config.body)
    inspection.body(binaryOf(Buffer.from(request.body, "latin1").subarray(0, config.body.inspect)), format);
  const refused = inspection.score >= config.threshold;
  return {
    refused,
    score: inspection.score,
    ...(refused && { status: 403 }),
    rules: (inspection.facts()?.rules ?? []).map(({ id, target }) => ({
      id,
      message: CATEGORIES.get(id) ?? "protocol",
      on: [{ name: target }],
    })),
  };
}
