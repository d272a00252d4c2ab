/** What the stand says when it is up: what runs where, the routes in short, and lines to paste. */
import type { RouteTable, TableAction, TableMatch, TableRoute } from "../table/table.ts";
import { type DemoRequest, tokenCommand } from "./demo-requests.ts";
import type { Paint } from "./paint.ts";

export interface BannerFacts {
  readonly running: readonly (readonly [name: string, address: string, remark: string])[];
  readonly table: RouteTable;
  readonly requests: readonly DemoRequest[];
  readonly paint: Paint;
}

export function bannerText({ running, table, requests, paint }: BannerFacts): string {
  const lines: string[] = [];
  for (const [name, address, remark] of running) {
    lines.push(`  ${paint("bold", name.padEnd(8))} ${address.padEnd(26)} ${paint("dim", remark)}`.trimEnd());
  }
  const secure = (table.listeners ?? []).flatMap(({ protocol }, position) => (protocol === "https" ? position : []));
  if (secure.length > 0 && running[0]) {
    const named = hostBehind(secure, table);
    const command = `curl -i -H "X-Forwarded-Proto: https"${named ? ` -H "Host: ${named}"` : ""} ${running[0][1]}/`;
    lines.push("", paint("dim", "  # the listeners for https, as if TLS had ended in front"), `  ${command}`);
  }
  for (const [hosts, routes] of byHosts(table)) {
    lines.push("", paint("bold", hosts || "any host"));
    const rows = routes.flatMap((route) => route.matches.map((match) => rowOf(route, match, table)));
    const width = Math.max(...rows.map(([path]) => path.length));
    const methodWidth = Math.max(...rows.map(([, methods]) => methods.length));
    for (const [path, methods, to] of rows) {
      lines.push(`  ${path.padEnd(width)}  ${methods.padEnd(methodWidth)}  ${paint("dim", "->")} ${to}`);
    }
  }
  if (requests.length > 0) {
    lines.push("", paint("bold", "Try it, from another terminal in this folder"), "", `  ${tokenCommand}`);
    for (const { shows, command } of requests) lines.push("", paint("dim", `  # ${shows}`), `  ${command}`);
  }
  return `\n${lines.join("\n")}\n`;
}

/** A host that these listeners have, best one of a route; undefined: any. */
function hostBehind(listeners: readonly number[], table: RouteTable): string | undefined {
  const attached = table.routes.filter((route) => route.listeners?.some((one) => listeners.includes(one)) ?? true);
  const own = listeners.flatMap((position) => table.listeners?.[position]?.host ?? []);
  const hosts = [...attached.flatMap(({ hosts }) => hosts), ...own];
  return hosts.find((host) => !host.includes("*")) ?? hosts.find((host) => host !== "*")?.replace("*", "www");
}

function byHosts(table: RouteTable): Map<string, TableRoute[]> {
  const groups = new Map<string, TableRoute[]>();
  for (const route of table.routes) {
    const hosts = route.hosts.join(", ");
    groups.set(hosts, [...(groups.get(hosts) ?? []), route]);
  }
  return groups;
}

function rowOf(route: TableRoute, match: TableMatch, table: RouteTable): [path: string, methods: string, to: string] {
  const { kind, value } = match.path;
  const path = kind === "prefix" ? `${value.replace(/\/$/, "")}/*` : kind === "regex" ? `/${value}/` : value;
  const methods =
    route.websocket && table.gateway.semantics === undefined ? "WebSocket" : (match.methods?.join(" ") ?? "any");
  return [path, methods, targetOf(route.action, table)];
}

function targetOf(action: TableAction, table: RouteTable): string {
  const names = (positions: readonly number[]) => positions.map((position) => table.backends[position]?.name);
  switch (action.kind) {
    case "forward":
      return names(action.backends).join(", else ") || "nothing";
    case "pool": {
      const { levels = [], nearest } = table.pools[action.pool] ?? {};
      const chain = levels.map(({ backends }) => names(backends).join(" | ")).join(", else ");
      return nearest ? `the nearest of ${chain}` : chain;
    }
    case "split": {
      const sum = action.arms.reduce((total, { weight }) => total + weight, 0);
      const share = (weight: number) => `${Math.round((weight / sum) * 1000) / 10} %`;
      return action.arms
        .map(({ name, weight, action }) => `${name} ${share(weight)} ${targetOf(action, table)}`)
        .join("; ");
    }
    case "redirect": {
      const path = !action.path
        ? ""
        : "prefix" in action.path
          ? ` to ${action.path.prefix}/*`
          : ` to ${action.path.full}`;
      return `${action.status}${path}`;
    }
    case "missing":
      return `500: ${action.reason}`;
  }
}
