/**
 * `npm run bench`: what the gateway costs, against a Worker that does nothing but `fetch(request)`, against hono/proxy and nginx, in
 * one run. Costs are CPU time of the process that answers, since wall-clock time on a shared machine proves nothing, and ratios
 * within a round, since CPU time alone doubles at times.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { createServer } from "node:http";
import { findPackageJSON } from "node:module";
import type { AddressInfo } from "node:net";
import { arch, availableParallelism, cpus, platform, release, totalmem } from "node:os";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import { Command, InvalidArgumentError } from "commander";
import { build } from "esbuild";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { redisServerAvailable, startEmbeddedRedis, startRedisServer } from "../src/dev/redis.ts";
import { measureRows, measureStart, type Row, ratios, summary } from "./measure.ts";
import {
  cpuTimeAvailable,
  folder,
  gatewayCommand,
  nginxVersion,
  type Running,
  startNginx,
  startWorkerd,
} from "./processes.ts";
import { Progress } from "./progress.ts";
import { type Figure, markdownReport, missed, plainReport, type Report } from "./report.ts";

/** What `--only` takes, and what each of them measures. */
const PARTS = {
  gateway: "a gateway of 10 routes without a limiter",
  limiter: "the same with a limit that asks Redis",
  routes: "10,000 routes against 10, for a match and for a 404",
  hono: "hono/proxy",
  nginx: "nginx as a proxy, where it is installed",
  compile: "compiling 10,000 routes",
  bundle: "the bundle of routes/",
  startup: "global scope of routes/ and of 10,000 routes",
} as const;
type Part = keyof typeof PARTS;

const options = new Command("npm run bench --")
  .description("What the gateway costs in CPU time, against a bare fetch(request) Worker")
  .option("--rounds <n>", "how often each row takes its turn", count, 15)
  .option("--requests <n>", "requests in one turn", count, 1_500)
  .option("--only <parts>", "some of the parts, separated by commas (default: all)", partsOf)
  .option("--json", "print JSON")
  .option("--markdown", "print a table for a README")
  .option("--strict", "exit with 1 when a target is missed")
  .addHelpText(
    "after",
    `\nParts:\n${Object.entries(PARTS)
      .map(([name, what]) => `  ${name.padEnd(12)}${what}`)
      .join("\n")}`,
  )
  .showHelpAfterError("(--help shows what is possible)")
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .parse()
  .opts<{ rounds: number; requests: number; only?: Part[]; json?: true; markdown?: true; strict?: true }>();

const { rounds, requests } = options;
const wanted = (part: Part): boolean => options.only?.includes(part) ?? true;
const nginx = nginxVersion();
const realRedis = redisServerAvailable();
const measuresCpu = cpuTimeAvailable();
const notes: string[] = [];
if (!measuresCpu) {
  notes.push(
    "CPU per request and global scope are not measured: they are read from /proc/<pid>/task/*/schedstat, on Linux.",
  );
}
const rowNames = measuresCpu ? rowsWanted() : [];

const progress = new Progress(
  (wanted("compile") ? 3 : 1) +
    2 +
    rowNames.length * (rounds + 1) +
    (wanted("startup") && measuresCpu ? 2 * rounds : 0),
);

const figures: Figure[] = [];
const compiled = await buildWorkers();
if (rowNames.length > 0) figures.push(...(await rowFigures()));
if (wanted("compile")) {
  figures.push({ name: "compile", label: "compiling 10,000 routes", unit: "s", value: compiled.seconds, target: 5 });
}
if (wanted("bundle")) {
  const value = compiled.demoBytes / 1_000;
  figures.push({ name: "bundle", label: "bundle of routes/, gzip", unit: "kB", value, target: 100 });
}
if (wanted("startup") && measuresCpu) figures.push(...(await startFigures()));
progress.end();

const report: Report = {
  date: new Date().toISOString().slice(0, 10),
  machine: `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, ${Math.round(totalmem() / 2 ** 30)} GB, ${platform()} ${release()} ${arch()}`,
  versions: versions(),
  command: ["npm run bench", ...(process.argv.length > 2 ? ["--", ...process.argv.slice(2)] : [])].join(" "),
  method: `median of ${rounds} rounds of ${requests} requests, 16 at a time, rows in random order; ratios to the bare Worker within a round; origin: ${nginx ? "nginx" : "Node"}`,
  notes,
  figures,
};
const print = options.json
  ? (value: Report) => JSON.stringify(value, null, 2)
  : options.markdown
    ? markdownReport
    : plainReport;
process.stdout.write(`${print(report)}\n`);
// Servers and threads of this process would keep it; what it started ends with it.
process.exit(options.strict && figures.some(missed) ? 1 : 0);

/** Which rows the parts need; the bare Worker always, to compare with. */
function rowsWanted(): string[] {
  const names = [
    ...(wanted("gateway") || wanted("routes") ? ["gateway"] : []),
    ...(wanted("limiter") ? ["limiter"] : []),
    ...(wanted("routes") ? ["routes", "miss", "routes-miss"] : []),
    ...(wanted("hono") ? ["hono"] : []),
    ...(wanted("nginx") && nginx ? ["nginx"] : []),
  ];
  if (wanted("nginx") && !nginx) notes.push("nginx is not installed, so there is no row of it.");
  return names.length > 0 ? ["bare", ...names] : [];
}

/** All Workers as `<name>.js` in the folder. */
async function buildWorkers(): Promise<{ seconds: number; demoBytes: number }> {
  await build({
    entryPoints: ["bare", "hono-proxy", "empty"].map((name) => join(import.meta.dirname, "workers", `${name}.ts`)),
    outdir: folder,
    bundle: true,
    minify: true,
    format: "esm",
    conditions: ["workerd", "worker", "browser"],
    target: "es2024",
  });
  const gateway = async (name: string, routes: string) => {
    const out = join(folder, name);
    const said = await gatewayCommand("build", "--json", "--routes", routes, "--out", out);
    progress.step("building");
    await copyFile(join(out, "worker.js"), join(folder, `${name}.js`));
    return JSON.parse(said) as { ms: number; gzipBytes: number };
  };
  const own = (name: string) => join(import.meta.dirname, "routes", `${name}.ts`);
  const { gzipBytes } = await gateway("demo", join(import.meta.dirname, "..", "routes"));
  await gateway("ten", own("ten"));
  await gateway("limited", own("limited"));
  const seconds: number[] = [];
  for (let i = 0; i < (wanted("compile") ? 3 : 1); i++) {
    const { ms } = await gateway("ten-thousand", own("ten-thousand"));
    seconds.push(ms / 1_000);
  }
  return { seconds: summary(seconds).median, demoBytes: gzipBytes };
}

async function rowFigures(): Promise<Figure[]> {
  const rows = await startRows();
  const measured = await measureRows(rows, { rounds, requests }, (what) => progress.step(what));
  await Promise.all(rows.map(({ running }) => running.stop()));
  const values = (name: string) => measured.get(name) as number[];
  const ofBare = (name: string, label: string, target?: number): Figure[] => {
    if (!rowNames.includes(name)) return [];
    const { median: value, quartiles } = summary(ratios(values(name), values("bare")));
    const microseconds = summary(values(name)).median;
    return [{ name, label, unit: "", value, quartiles, microseconds, ...(target !== undefined && { target }) }];
  };
  const ofTen = (name: string, few: string, label: string, target?: number): Figure[] => {
    if (!rowNames.includes(name)) return [];
    const { median: value, quartiles } = summary(ratios(values(name), values(few)));
    return [{ name: `${name}-of-${few}`, label, unit: "", value, quartiles, ...(target !== undefined && { target }) }];
  };
  return [
    ...ofBare("bare", "bare Worker, fetch(request)"),
    ...ofBare("gateway", "gateway: match, jwt, filter, split, headers, record", 1.35),
    ...ofBare("limiter", "the same, and a limit that asks Redis each time", 2.3),
    ...ofBare("routes", "gateway with 10,000 routes"),
    ...ofTen("routes", "gateway", "10,000 routes against 10", 1.03),
    ...ofBare("miss", "404 with 10 routes"),
    ...ofBare("routes-miss", "404 with 10,000 routes"),
    ...ofTen("routes-miss", "miss", "404 with 10,000 routes against 10"),
    ...ofBare("hono", "hono/proxy"),
    ...ofBare("nginx", "nginx, proxy_pass"),
  ];
}

async function startRows(): Promise<Row[]> {
  const { token, jwks } = await issuer();
  const origin = await startOrigin();
  const gatewayBindings = { ORIGIN: origin, ISSUER_JWKS: jwks, REDIS_URL: "http://127.0.0.1:9", REDIS_TOKEN: "unused" };
  const found = requestFor("/v1/orders-500/4711/items?page=2", token);
  const missing = requestFor("/v1/orders-500/4711/nothing?page=2", token);
  const row = async (name: string, running: Promise<Running>, request = found, status = 200): Promise<Row> => ({
    name,
    running: await running,
    request,
    status,
  });
  const worker = (name: string, bindings: Record<string, string>) => startWorkerd({ name, bindings });
  const rows: Record<string, () => Promise<Row>> = {
    bare: () => row("bare", worker("bare", { ORIGIN: origin })),
    gateway: () => row("gateway", worker("ten", gatewayBindings)),
    limiter: async () => row("limiter", worker("limited", { ...gatewayBindings, ...(await startStore()) })),
    routes: () => row("routes", worker("ten-thousand", gatewayBindings)),
    miss: () => row("miss", worker("ten", gatewayBindings), missing, 404),
    "routes-miss": () => row("routes-miss", worker("ten-thousand", gatewayBindings), missing, 404),
    hono: () => row("hono", worker("hono-proxy", { ORIGIN: origin })),
    nginx: () =>
      row(
        "nginx",
        startNginx(
          "proxy",
          `upstream origin { server ${new URL(origin).host}; keepalive 64; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:$PORT;
    location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }`,
        ),
      ),
  };
  return Promise.all(rowNames.map((name) => (rows[name] as () => Promise<Row>)()));
}

/** Ten headers that browsers send, and the token. */
function requestFor(target: string, token: string): string {
  return [
    `GET ${target} HTTP/1.1`,
    "Host: api.example.com",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Accept: application/json",
    "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: https://shop.example.com/account/orders",
    "Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark; consent=1",
    'Sec-CH-UA: "Chromium";v="142", "Not;A=Brand";v="24"',
    'Sec-CH-UA-Platform: "Linux"',
    "Sec-Fetch-Mode: cors",
    "Sec-Fetch-Site: same-site",
    `Authorization: Bearer ${token}`,
    "",
    "",
  ].join("\r\n");
}

async function issuer(): Promise<{ token: string; jwks: string }> {
  const { privateKey, publicKey } = await generateKeyPair("ES256");
  const keys = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: "bench", alg: "ES256", use: "sig" }] });
  const server = createServer((_, response) => response.setHeader("content-type", "application/json").end(keys));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const token = await new SignJWT({ email: "alice@example.com", scope: "orders:read orders:write" })
    .setProtectedHeader({ alg: "ES256", kid: "bench", typ: "at+jwt" })
    .setIssuer("https://login.example.com")
    .setAudience("https://api.example.com")
    .setSubject("user-4711")
    .setIssuedAt()
    .setExpirationTime("2h")
    .sign(privateKey);
  return { token, jwks: `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json` };
}

/** Resolves to its URL. One answer for all paths, with headers of which the gateway takes some away. */
async function startOrigin(): Promise<string> {
  const items = [1, 2, 3, 4].map((id) => ({
    id,
    sku: `KB-${id}00-DE`,
    name: "Mechanical keyboard",
    quantity: id,
    price: "89.90",
  }));
  const body = JSON.stringify({ order: "4711", page: 2, items });
  const headers = {
    "content-type": "application/json",
    "cache-control": "private, max-age=0",
    etag: '"5d8c72a5edda8d6a"',
    "x-powered-by": "Express",
    "x-backend": "orders-7d9f",
  };
  if (nginx) {
    const added = Object.entries(headers)
      .slice(1)
      .map(([name, value]) => `add_header ${name} '${value}';`);
    const { port } = await startNginx(
      "origin",
      `server { listen 127.0.0.1:$PORT; location / { default_type application/json; ${added.join(" ")} return 200 '${body}'; } }`,
    );
    return `http://127.0.0.1:${port}`;
  }
  return `http://127.0.0.1:${await startThread<number>("origin", { headers, body })}`;
}

async function startStore(): Promise<Record<"REDIS_URL" | "REDIS_TOKEN", string>> {
  const { host, port } = await (realRedis ? startRedisServer() : startEmbeddedRedis());
  const token = "bench";
  return { REDIS_URL: await startThread<string>("bridge", { redis: { host, port }, token }), REDIS_TOKEN: token };
}

/** Starts a module of this folder in a thread; resolves to the first thing that it says. */
function startThread<Said>(name: string, workerData: object): Promise<Said> {
  return new Promise((resolve, reject) => {
    new Worker(join(import.meta.dirname, `${name}.ts`), { workerData }).once("message", resolve).once("error", reject);
  });
}

/**
 * Global scope: what workerd spends until it listens, which it does once the module is compiled and evaluated, more than it spends
 * on an empty Worker. workerd itself takes some 17 ms. Beside the empty module lies the measured one as a text that nothing imports,
 * so that reading 4 MB of configuration, which is none of the Worker's work, is on both sides. CPU time of all threads, so V8's
 * helpers count in full.
 */
async function startFigures(): Promise<Figure[]> {
  const figure = async (worker: string, name: string, label: string, target: number): Promise<Figure> => {
    const more = await measureStart(
      () => startWorkerd({ name: worker }),
      () => startWorkerd({ name: "empty", carries: `${worker}.js` }),
      rounds,
      () => progress.step("starting Workers"),
    );
    const { median: value, quartiles } = summary(more);
    return { name, label, unit: "ms", value, quartiles, target };
  };
  return [
    await figure("demo", "startup", "global scope of routes/", 20),
    await figure("ten-thousand", "startup-routes", "global scope with 10,000 routes", 60),
  ];
}

function versions(): string {
  const of = (name: string) => {
    const file = findPackageJSON(name, import.meta.url) as string;
    return `${name} ${(JSON.parse(readFileSync(file, "utf8")) as { version: string }).version}`;
  };
  const redis = realRedis
    ? `redis-server ${/v=([0-9.]+)/.exec(execFileSync("redis-server", ["--version"], { encoding: "utf8" }))?.[1]}`
    : of("js-redis-server");
  return [of("workerd"), `node ${process.versions.node}`, of("hono"), `nginx ${nginx ?? "not installed"}`, redis].join(
    ", ",
  );
}

function count(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError("It is a whole number from 1.");
  return value;
}

function partsOf(text: string): Part[] {
  const names = text.split(",");
  const unknown = names.filter((name) => !Object.hasOwn(PARTS, name));
  if (unknown.length > 0)
    throw new InvalidArgumentError(`There is no ${unknown.join(", ")}; choose from ${Object.keys(PARTS).join(", ")}.`);
  return names as Part[];
}
