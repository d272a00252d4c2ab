/**
 * `npm run bench`: what the gateway costs, against a Worker that does nothing but `fetch(request)`, against hono/proxy and nginx, in
 * one run. Costs are CPU time of the process that answers, since wall-clock time on a shared machine proves nothing, and ratios
 * within a round, since CPU time alone doubles at times.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { findPackageJSON } from "node:module";
import { arch, availableParallelism, cpus, loadavg, platform, release, totalmem } from "node:os";
import { join, resolve } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { build } from "esbuild";
import { redisServerAvailable } from "../src/dev/redis.ts";
import { measureExplain, measureReplay } from "./commands.ts";
import { measureKeyCheck } from "./key-check.ts";
import { measureLatency, type Pace, p99 } from "./latency.ts";
import { CONCURRENCY, measureRows, measureStart, ratios, summary } from "./measure.ts";
import { cpuTimeAvailable, folder, gatewayCommand, nginxVersion, startWorkerd } from "./processes.ts";
import { Progress } from "./progress.ts";
import { PROOF_STEPS, proofFigures } from "./proofs.ts";
import { measureReload } from "./reload.ts";
import { type Figure, markdownReport, missed, plainReport, type Report } from "./report.ts";
import { DISTANCE, type RowName, startOrigin, startRows } from "./rows.ts";
import { DEBIAN_RULES, measureWaf, modsecurityAvailable, wafSteps } from "./waf.ts";

/** What `--only` takes, and what each of them measures. */
const PARTS = {
  gateway: "a gateway of 10 routes without a limiter",
  limiter: "the same with a limit that asks Redis",
  resilience: "retries, breaker, outlier detection, cap, health and balancing, all idle, against the same without",
  mirror: "what a mirror adds to the latency of its primary",
  leased: "the same with a leased limit, against the gateway without one",
  latency: "what all of that, with a leased limit, adds to the latency of 1,000 requests per second",
  routes: "10,000 routes against 10, for a match and for a 404",
  hono: "hono/proxy",
  nginx: "nginx as a proxy, where it is installed",
  compile: "compiling 10,000 routes",
  bundle: "the bundle of routes/",
  startup: "global scope of routes/ and of 10,000 routes",
  waf: "a Core Rule Set: per request, beside nginx with libmodsecurity3; worst case, start and size",
  key: "the check of an API key that the isolate knows",
  proofs: "proofs over 1,000 and 10,000 routes that meet, and the diff of two tables",
  explain: "gateway explain as a process, and gateway replay of a million lines",
  reload: "from saving a file of routes/ to the first answer by it, at the stand of npm start",
} as const;
type Part = keyof typeof PARTS;

/** A compilation and a start take seconds, and vary less than requests do. */
const COMPILATIONS = 3;
const START_ROUNDS = 15;
/** The 99th of 100 is only known from many; a round takes ten seconds. An isolate that gets more than 100 a second is rare. */
const MIRROR_PACE = { rate: 100, rounds: 12, requests: 1_000 };
/** Rounds of half a second for each row: what disturbs the machine meanwhile is in few of them. */
const LEASED_PACE = { rate: 1_000, rounds: 40, requests: 500, turn: 500 };
/** At which a machine of two cores, which also runs who asks and who is asked, is idle half of the time. */
const IDLE_PACE = { rate: 250, rounds: 12, requests: 500 };

const options = new Command("npm run bench --")
  .description("What the gateway costs in CPU time, against a bare fetch(request) Worker")
  .option("--rounds <n>", "how often each row takes its turn", count, 40)
  .option("--requests <n>", "requests in one turn", count, 500)
  .option("--only <parts>", "some of the parts, separated by commas (default: all)", partsOf)
  .option("--crs <dir>", "the rules of the part waf", DEBIAN_RULES)
  .option("--fuzzed <n>", "fuzzed requests of the part waf", count, 10_000)
  .option("--json", "print JSON")
  .option("--markdown", "print a table for a README")
  .option("--strict", "exit with 1 when a target is missed or could not be measured")
  .addHelpText(
    "after",
    `\nParts:\n${Object.entries(PARTS)
      .map(([name, what]) => `  ${name.padEnd(12)}${what}`)
      .join("\n")}`,
  )
  .showHelpAfterError("(--help shows what is possible)")
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .parse()
  .opts<{
    rounds: number;
    requests: number;
    crs: string;
    fuzzed: number;
    only?: Part[];
    json?: true;
    markdown?: true;
    strict?: true;
  }>();

const { rounds, requests } = options;
const wanted = (...parts: Part[]): boolean => !options.only || parts.some((part) => options.only?.includes(part));
const nginx = nginxVersion();
const realRedis = redisServerAvailable();
const measuresCpu = cpuTimeAvailable();
const notes = [
  "The bare Worker does `fetch(new Request(origin + path, request))`. Each process has verified the token before it is measured; no request is refused by the limit; records are written, to /dev/null.",
];
const [load = 0] = loadavg();
if (load > availableParallelism() / 4)
  notes.push(
    `The machine had other work, load average ${load.toFixed(1)} at the start: these are no figures to quote.`,
  );
if (!measuresCpu)
  notes.push(
    "CPU per request and global scope are not measured: they come from /proc/<pid>/task/*/schedstat, which is Linux's.",
  );
if (!nginx) notes.push("nginx is not installed: there is no row of it, and the origin is a Node server.");

const rowNames = measuresCpu ? rowsWanted() : [];
const workers = workersWanted();
const startRounds = wanted("startup") && measuresCpu ? Math.min(rounds, START_ROUNDS) : 0;
const atMost = (pace: Pace): Pace => ({ ...pace, rounds: Math.min(rounds, pace.rounds) });
const paces = { mirror: atMost(MIRROR_PACE), latency: atMost(LEASED_PACE), idle: atMost(IDLE_PACE) };
const latencyRows = {
  mirror: ["far", "far-again", "mirrored"],
  latency: ["bare", "leased"],
  idle: ["bare", "leased"],
} as const;
const latencySteps = (["mirror", "latency", "idle"] as const).reduce(
  (sum, part) => sum + (wanted(part === "idle" ? "latency" : part) ? latencyRows[part].length + paces[part].rounds : 0),
  0,
);
const keyRounds = wanted("key") && measuresCpu ? Math.min(rounds, START_ROUNDS) : 0;
const explainRounds = wanted("explain") ? Math.min(rounds, START_ROUNDS) : 0;
const reloadRounds = wanted("reload") ? Math.min(rounds, START_ROUNDS) : 0;
const commandSteps = explainRounds > 0 ? explainRounds + 1 : 0;
const wafBench = wanted("waf") && measuresCpu && existsSync(options.crs) ? wafOptions() : undefined;
const progress = new Progress(
  workers.length +
    rowNames.length * (rounds + 1) +
    latencySteps +
    commandSteps +
    reloadRounds +
    2 * startRounds +
    (wanted("proofs") ? PROOF_STEPS : 0) +
    (wafBench ? wafSteps(wafBench) : 0),
);

const built = await buildWorkers();
const figures: Figure[] = rowNames.length > 0 ? await rowFigures() : [];
if (wanted("latency")) figures.push(...(await leasedLatency()));
if (wanted("mirror")) figures.push(...(await mirrorLatency()));
if (wanted("compile")) {
  const value = summary(built.flatMap(({ name, ms }) => (name === "ten-thousand" ? [ms / 1_000] : []))).median;
  figures.push({ name: "compile", label: "compiling 10,000 routes", unit: "s", value, target: 5 });
}
if (wanted("bundle")) {
  const value = (built.find(({ name }) => name === "demo")?.gzipBytes as number) / 1_000;
  figures.push({ name: "bundle", label: "bundle of routes/, gzip", unit: "kB", value, target: 100 });
}
if (startRounds > 0) figures.push(...(await startFigures()));
if (wafBench)
  figures.push(...(await measureWaf(wafBench, await startOrigin(nginx !== undefined), (what) => progress.step(what))));
if (keyRounds > 0) {
  const { median: value, quartiles } = await measureKeyCheck(keyRounds);
  figures.push({ name: "key", label: "check of a known API key", unit: "µs", value, quartiles, target: 5 });
}
if (wanted("proofs")) figures.push(...proofFigures((what) => progress.step(what)));
if (explainRounds > 0) figures.push(...(await commandFigures()));
if (reloadRounds > 0) {
  const { median: value, quartiles } = summary(
    await measureReload(reloadRounds, () => progress.step("editing a file")),
  );
  figures.push({ name: "reload", label: "an edit is served after", unit: "ms", value, quartiles, target: 2_000 });
}
progress.end();

const report: Report = {
  date: new Date().toISOString().slice(0, 10),
  machine: `${cpus()[0]?.model.trim()}, ${availableParallelism()} cores, ${Math.round(totalmem() / 2 ** 30)} GB, ${platform()} ${release()} ${arch()}`,
  versions: versions(),
  command: ["npm run bench", ...(process.argv.length > 2 ? ["--", ...process.argv.slice(2)] : [])].join(" "),
  method: `medians of ${rounds} rounds of ${requests} requests, ${CONCURRENCY} at a time, in random order; ratios are taken within a round`,
  notes,
  figures,
};
const text = options.json
  ? JSON.stringify(report, null, 2)
  : options.markdown
    ? markdownReport(report)
    : plainReport(report);
// Servers and threads would keep this process; what it has started ends with it.
const unmeasured =
  !measuresCpu && wanted("gateway", "limiter", "leased", "resilience", "routes", "startup", "key", "waf");
process.stdout.write(`${text}\n`, () => process.exit(options.strict && (unmeasured || figures.some(missed)) ? 1 : 0));

function wafOptions() {
  notes.push(
    `The waf runs the rules of ${options.crs}, blocking at paranoia 1; its figures are what it adds to a request over the same route without it.`,
  );
  if (!modsecurityAvailable()) notes.push("libnginx-mod-http-modsecurity is not installed: the waf stands alone.");
  const { requests, fuzzed } = options;
  return { rules: resolve(options.crs), rounds, requests, fuzzed, startRounds: Math.min(rounds, START_ROUNDS) };
}

/** Which rows the parts need; the bare Worker always, to compare with. */
function rowsWanted(): RowName[] {
  const names: RowName[] = [];
  if (wanted("gateway", "routes", "resilience", "leased")) names.push("gateway");
  if (wanted("resilience")) names.push("resilient");
  if (wanted("limiter")) names.push("limiter");
  if (wanted("leased")) names.push("leased");
  if (wanted("routes")) names.push("routes", "miss", "routes-miss");
  if (wanted("hono")) names.push("hono");
  if (wanted("nginx") && nginx) names.push("nginx");
  return names.length > 0 ? ["bare", ...names] : [];
}

/** Which gateways are to be built, the last one as often as its compile time is measured. */
function workersWanted(): string[] {
  const names: string[] = [];
  if (wanted("bundle", "startup")) names.push("demo");
  if (wanted("gateway", "routes", "resilience", "mirror", "leased")) names.push("ten");
  if (wanted("mirror")) names.push("mirrored");
  if (wanted("resilience")) names.push("resilient");
  if (wanted("limiter")) names.push("limited");
  if (wanted("leased", "latency")) names.push("leased");
  if (wanted("compile")) names.push(...new Array<string>(COMPILATIONS).fill("ten-thousand"));
  else if (wanted("routes", "startup")) names.push("ten-thousand");
  return names;
}

/** Puts `<name>.js` of all Workers into the folder. */
async function buildWorkers(): Promise<{ name: string; ms: number; gzipBytes: number }[]> {
  await build({
    entryPoints: ["bare", "hono-proxy", "empty", "key-check"].map((name) =>
      join(import.meta.dirname, "workers", `${name}.ts`),
    ),
    outdir: folder,
    bundle: true,
    minify: true,
    format: "esm",
    conditions: ["workerd", "worker", "browser"],
    target: "es2024",
  });
  const all = [];
  for (const name of workers) {
    const routes =
      name === "demo" ? join(import.meta.dirname, "..", "routes") : join(import.meta.dirname, "routes", `${name}.ts`);
    const out = join(folder, name);
    const said = await gatewayCommand("build", "--json", "--routes", routes, "--out", out);
    await copyFile(join(out, "worker.js"), join(folder, `${name}.js`));
    all.push({ name, ...(JSON.parse(said) as { ms: number; gzipBytes: number }) });
    progress.step("building");
  }
  return all;
}

async function rowFigures(): Promise<Figure[]> {
  const rows = await startRows(rowNames, nginx !== undefined);
  const measured = await measureRows(rows, { rounds, requests }, (what) => progress.step(what));
  await Promise.all(rows.map(({ running }) => running.stop()));
  const values = (name: RowName) => measured.get(name) as number[];
  const ofBare = (name: RowName, label: string, target?: number): Figure[] => {
    if (!rowNames.includes(name)) return [];
    const { median: value, quartiles } = summary(ratios(values(name), values("bare")));
    const microseconds = summary(values(name)).median;
    return [{ name, label, unit: "×", value, quartiles, microseconds, ...(target !== undefined && { target }) }];
  };
  const ofOther = (name: RowName, other: RowName, label: string, target?: number): Figure[] => {
    if (!rowNames.includes(name)) return [];
    const { median: value, quartiles } = summary(ratios(values(name), values(other)));
    return [
      { name: `${name}-of-${other}`, label, unit: "×", value, quartiles, ...(target !== undefined && { target }) },
    ];
  };
  return [
    ...ofBare("bare", "bare Worker, fetch(request)"),
    ...ofBare("gateway", "gateway: match, jwt, filter, split, headers, record", 1.35),
    ...ofBare("limiter", "the same and a limit, which asks Redis each time", 2.3),
    ...ofBare("leased", "the same and a leased limit", 1.4),
    ...ofOther("leased", "gateway", "a leased limit against none", 1.05),
    ...ofBare("resilient", "gateway with retries, breaker, outliers, cap, health, balancing, all idle"),
    ...ofOther("resilient", "gateway", "all of that against the same without", 1.05),
    ...ofBare("routes", "gateway with 10,000 routes"),
    ...ofOther("routes", "gateway", "10,000 routes against 10", 1.03),
    ...ofBare("miss", "404 with 10 routes"),
    ...ofBare("routes-miss", "404 with 10,000 routes"),
    ...ofOther("routes-miss", "miss", "404 with 10,000 routes against 10"),
    ...ofBare("hono", "hono/proxy"),
    ...ofBare("nginx", "nginx, proxy_pass"),
  ];
}

/**
 * Milliseconds below which 99 of 100 answers were, by round. Time, where all other figures are CPU: that is what a client would notice.
 * So it wants a quiet machine; at its limit, twice the work is twice the time.
 */
async function p99s(names: readonly RowName[], pace: Pace): Promise<number[][]> {
  const rows = await startRows(names, nginx !== undefined);
  const measured = await measureLatency(rows, pace, (what) => progress.step(what));
  await Promise.all(rows.map(({ running }) => running.stop()));
  return names.map((name) => (measured.get(name) as number[][]).map(p99));
}

function milliseconds(name: string, label: string, values: readonly number[], target?: number): Figure {
  const { median: value, quartiles } = summary(values);
  return { name, label, unit: "ms", value, quartiles, ...(target !== undefined && { target }) };
}

/** The limit's key is warm, and each isolate's first block is fetched before. */
async function leasedLatency(): Promise<Figure[]> {
  notes.push(
    `Added latency is that of the gateway with a leased limit against the bare Worker, at ${LEASED_PACE.rate} requests per second each by turns, in ${paces.latency.rounds} rounds of ${LEASED_PACE.requests} requests, and at ${IDLE_PACE.rate} by lot, in ${paces.idle.rounds} rounds; the median of the rounds counts. Where an isolate, which has one thread, is near its most requests per second, that is the time in its queue.`,
  );
  const figures = [];
  for (const part of ["latency", "idle"] as const) {
    const pace = paces[part];
    const [bare = [], leased = []] = await p99s(latencyRows[part], pace);
    const added = leased.map((value, round) => value - (bare[round] as number));
    figures.push(
      milliseconds(`bare-p99-${pace.rate}`, `bare Worker at ${pace.rate} requests/s, p99 of latency`, bare),
      milliseconds(`leased-p99-${pace.rate}`, "gateway with a leased limit, p99 of latency", leased),
      milliseconds(`leased-p99-added-${pace.rate}`, "p99 that it adds", added, part === "latency" ? 2 : undefined),
    );
  }
  return figures;
}

async function mirrorLatency(): Promise<Figure[]> {
  const [far = [], again = [], mirrored = []] = await p99s(latencyRows.mirror, paces.mirror);
  const ofFar = (name: RowName, label: string, values: readonly number[], target?: number): Figure => {
    const { median: value, quartiles } = summary(ratios(values, far));
    return { name: `${name}-p99-of-far`, label, unit: "×", value, quartiles, ...(target !== undefined && { target }) };
  };
  notes.push(
    `Latency with a mirror is measured at ${MIRROR_PACE.rate} requests per second, before an origin that answers after ${DISTANCE} ms, in ${paces.mirror.rounds} rounds of ${MIRROR_PACE.requests} requests.`,
  );
  return [
    milliseconds("far-p99", `gateway before an origin at ${DISTANCE} ms, p99 of latency`, far),
    milliseconds("mirrored-p99", "the same with a mirror for every request, p99 of latency", mirrored),
    // How far the machine lets two of the same differ: what the next one is to be held against.
    ofFar("far-again", "p99 of the same without a mirror against itself", again),
    ofFar("mirrored", "p99 with a mirror against without", mirrored, 1.05),
  ];
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
      startRounds,
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

/** A person waits for the whole of it, so the targets are wall-clock times; on a busy machine only the CPU time says something. */
async function commandFigures(): Promise<Figure[]> {
  const taken = await measureExplain(explainRounds, () => progress.step("explaining"));
  const explain = (of: "wall" | "cpu") => {
    const { median: value, quartiles } = summary(taken.map((one) => one[of]));
    return { unit: "ms" as const, value, quartiles };
  };
  progress.step("replaying");
  const { wall, cpu } = await measureReplay();
  return [
    { name: "explain", label: "gateway explain, a process", ...explain("wall"), target: 300 },
    { name: "explain-cpu", label: "its CPU time", ...explain("cpu") },
    { name: "replay", label: "gateway replay, a million lines", unit: "s", value: wall / 1_000, target: 60 },
    { name: "replay-cpu", label: "its CPU time", unit: "s", value: cpu / 1_000 },
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
