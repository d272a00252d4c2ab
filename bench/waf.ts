/**
 * The waf with a Core Rule Set, blocking at paranoia 1: what it adds to a request over the same route without it, beside what
 * libmodsecurity3 adds in nginx with the same rules, in turns in one run.
 */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { load } from "./load.ts";
import { measureStart, shuffled, summary } from "./measure.ts";
import { cpuTime, folder, gatewayCommand, type Running, startNginx, startWorkerd } from "./processes.ts";
import type { Figure } from "./report.ts";
import { attacked, form, get, json, NUMBER, type WafRequestText } from "./waf-requests.ts";
import { worstOf } from "./waf-worst.ts";

/** Debian's modsecurity-crs. */
export const DEBIAN_RULES = "/usr/share/modsecurity-crs";
const MODULE = "/usr/lib/nginx/modules/ngx_http_modsecurity_module.so";

/** Whether Debian's libnginx-mod-http-modsecurity is there to compare with. */
export const modsecurityAvailable = (): boolean => existsSync(MODULE);

export interface WafBench {
  /** A checkout of the Core Rule Set, or DEBIAN_RULES. */
  readonly rules: string;
  readonly rounds: number;
  readonly requests: number;
  readonly startRounds: number;
  readonly fuzzed: number;
}

interface Kind {
  readonly name: string;
  readonly label: string;
  readonly request: (path: string) => WafRequestText;
  /** Microseconds that the waf may add. */
  readonly target: number;
  /** nginx gets this share of the requests: it takes milliseconds for each. */
  readonly share: number;
  readonly refused?: true;
  /** Else each request has a number of its own, in its path, its session and its body. */
  readonly same?: true;
}

const KINDS: readonly Kind[] = [
  { name: "waf-get", label: "GET with ten headers", request: get, target: 30, share: 0.1 },
  { name: "waf-json-1", label: "POST of 1 KB of JSON", request: (path) => json(path, 65), target: 150, share: 0.02 },
  {
    name: "waf-json-10",
    label: "POST of 10 KB of JSON",
    request: (path) => json(path, 650),
    target: 900,
    share: 0.006,
  },
  { name: "waf-sqli", label: "a refused SQL injection", request: attacked, target: 60, share: 0.1, refused: true },
  { name: "waf-form", label: "POST of a form of ten fields", request: form, target: Number.NaN, share: 0.1 },
  {
    name: "waf-get-again",
    label: "the same GET again and again",
    request: get,
    target: Number.NaN,
    share: 0.1,
    same: true,
  },
];

/** The shortest warm-up after which V8 has compiled what counts. */
const WARM_UP = 4_000;

/** How many steps `measureWaf` has, for the progress bar. */
export const wafSteps = ({ rounds, startRounds }: Pick<WafBench, "rounds" | "startRounds">): number =>
  2 + KINDS.length * (rounds + 1) + 2 * startRounds;

/** `origin` is the URL of what answers everything with 200. */
export async function measureWaf(options: WafBench, origin: string, done: (what: string) => void): Promise<Figure[]> {
  const gzipBytes = await buildWaf(options.rules);
  done("building");
  const worker = await startWorkerd({ name: "waf", bindings: { BACKEND: origin } });
  const nginx = modsecurityAvailable() ? await startModsecurity(options.rules, origin) : undefined;
  const added = await costs(worker, nginx, options, done);
  await Promise.all([worker.stop(), nginx?.stop()]);
  const starting = () => done("starting Workers");
  const scope = await measureStart(
    () => startWorkerd({ name: "waf", bindings: { BACKEND: origin } }),
    () => startWorkerd({ name: "empty", carries: "waf.js" }),
    options.startRounds,
    starting,
  );
  const first = await measureStart(
    () => startedAndAsked("/waf", origin),
    () => startedAndAsked("/plain", origin),
    options.startRounds,
    starting,
  );
  const worst = worstOf(options.rules, options.fuzzed);
  done("fuzzing");
  return [
    ...KINDS.flatMap((kind) => figuresOf(kind, added.get(kind) as Added)),
    figure("waf-worst", `the worst of ${options.fuzzed} fuzzed requests of 8 KB (engine alone)`, "ms", [worst], 20),
    figure("waf-startup", "global scope with the rules", "ms", scope, 60),
    figure("waf-first", "the first request of an isolate, over one without the waf", "ms", first, 30),
    figure("waf-bundle", "bundle with the rules, gzip", "kB", [gzipBytes / 1_000], 400),
  ];
}

interface Added {
  readonly waf: readonly number[];
  readonly modsecurity: readonly number[];
}

function figuresOf({ name, label, target }: Kind, { waf, modsecurity }: Added): Figure[] {
  const own = figure(name, `waf: ${label}`, "µs", waf, Number.isNaN(target) ? undefined : target);
  if (modsecurity.length === 0) return [own];
  const theirs = summary(modsecurity).median;
  return [
    own,
    { name: `${name}-modsecurity`, label: `  nginx + libmodsecurity3: ${label}`, unit: "µs", value: theirs },
    // 50 times less.
    { name: `${name}-of`, label: "  the waf's share of that", unit: "×", value: own.value / theirs, target: 0.02 },
  ];
}

function figure(name: string, label: string, unit: Figure["unit"], values: readonly number[], target?: number): Figure {
  const { median: value, quartiles } = summary(values);
  return {
    name,
    label,
    unit,
    value,
    ...(values.length > 1 && { quartiles }),
    ...(target !== undefined && { target }),
  };
}

/** Microseconds that a request costs more with the rules than without, by kind and round. */
async function costs(
  worker: Running,
  nginx: Running | undefined,
  { rounds, requests }: WafBench,
  done: (what: string) => void,
): Promise<Map<Kind, Added>> {
  const spend = async ({ pid, port }: Running, kind: Kind, path: string, count: number): Promise<number> => {
    const before = cpuTime(pid);
    const status = kind.refused && path === "/waf" ? 403 : 200;
    const varied = !kind.same && { numbered: NUMBER };
    await load({ port, request: kind.request(path), status, count, concurrency: Math.min(8, count), ...varied });
    return (cpuTime(pid) - before) / count / 1_000;
  };
  for (const kind of KINDS) {
    for (const path of ["/waf", "/plain"]) await spend(worker, kind, path, WARM_UP);
    if (nginx) for (const path of ["/waf", "/plain"]) await spend(nginx, kind, path, 4);
    done("warming up");
  }
  const added = new Map(KINDS.map((kind) => [kind, { waf: [] as number[], modsecurity: [] as number[] }]));
  for (let round = 1; round <= rounds; round++) {
    for (const kind of shuffled(KINDS)) {
      const { waf, modsecurity } = added.get(kind) as { waf: number[]; modsecurity: number[] };
      waf.push((await spend(worker, kind, "/waf", requests)) - (await spend(worker, kind, "/plain", requests)));
      const fewer = Math.max(4, Math.round(requests * kind.share));
      if (nginx)
        modsecurity.push((await spend(nginx, kind, "/waf", fewer)) - (await spend(nginx, kind, "/plain", requests)));
      done(`round ${round} of ${rounds}`);
    }
  }
  return added;
}

async function startedAndAsked(path: string, origin: string): Promise<Running> {
  const running = await startWorkerd({ name: "waf", bindings: { BACKEND: origin } });
  await load({ port: running.port, request: get(path), status: 200, count: 1, concurrency: 1 });
  return running;
}

/** Puts `waf.js` into the folder: one route with the waf and one without. Gives its size, compressed. */
async function buildWaf(rules: string): Promise<number> {
  const routes = join(folder, "waf-routes");
  mkdirSync(routes);
  writeFileSync(
    join(routes, "index.ts"),
    `import { api, cluster, env, gateway, route, waf } from "portcullis";
const backend = cluster("backend", { ingress: env("BACKEND") });
export default gateway({}, [
  api("bench", {}, [
    route("waf", { path: "/waf/*" }, { policies: [waf({ rules: ${JSON.stringify(rules)}, paranoia: 1 })], to: backend }),
    route("plain", { path: "/plain/*" }, { to: backend }),
  ]),
]);
`,
  );
  const out = join(folder, "waf");
  const said = await gatewayCommand("build", "--json", "--routes", routes, "--out", out);
  await copyFile(join(out, "worker.js"), join(folder, "waf.js"));
  return (JSON.parse(said) as { gzipBytes: number }).gzipBytes;
}

/** nginx with the same rules for /waf/ and without any for /plain/. */
function startModsecurity(rules: string, origin: string): Promise<Running> {
  const setup = [
    join(rules, "crs-setup.conf"),
    join(rules, "crs-setup.conf.example"),
    "/etc/modsecurity/crs/crs-setup.conf",
  ].find((file) => existsSync(file));
  const config = join(folder, "modsecurity-rules.conf");
  writeFileSync(
    config,
    `SecRuleEngine On
SecRequestBodyAccess On
SecResponseBodyAccess Off
SecAuditEngine Off
SecRule REQUEST_HEADERS:Content-Type "^application/json" "id:200001,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON"
Include ${setup}
Include ${join(rules, "rules")}/*.conf
`,
  );
  return startNginx(
    "modsecurity",
    `upstream origin { server ${new URL(origin).host}; keepalive 64; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:$PORT;
    client_body_buffer_size 1m;
    proxy_http_version 1.1; proxy_set_header Connection "";
    location /waf/ { modsecurity on; modsecurity_rules_file ${config}; proxy_pass http://origin; }
    location / { proxy_pass http://origin; }
  }`,
    `load_module ${MODULE};`,
  );
}
