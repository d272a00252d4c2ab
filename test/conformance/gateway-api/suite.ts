/** The whole run: which gateways the cases need, building those, and putting the cases to them. */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocket } from "ws";
import { type Case, type ConformanceTest, readTests, SHIPPED } from "./cases.ts";
import { build, DeploymentFailed, Gateway } from "./deployment.ts";
import { EchoOrigin, type ServicePort } from "./echo.ts";
import { exchange, SCHEME_HEADER, type WireRequest } from "./exchange.ts";
import { copyWithout, type ObjectName, readServices } from "./manifests.ts";
import { isTimed, type Outcome, probe, type Subject } from "./probe.ts";

export interface SuiteOptions {
  /** Folders; default: those in the repository. */
  readonly cases?: string;
  readonly manifests?: string;
  /** Of the tests' names, or parts of them. Default: all. */
  readonly only?: readonly string[];
  /** Everything that is made on the way stays there. Default: a temporary folder that goes. */
  readonly keep?: string;
  /** Called before the first step with their number, and after each of them with what was done. */
  onStart?(steps: number): void;
  onStep?(what: string): void;
}

export interface CaseResult {
  readonly case: Case;
  /** What is wrong; undefined: it passed. */
  readonly fault: string | undefined;
  /** At which step: the commands, the start of the Worker, or its answer. */
  readonly stage: "import" | "build" | "start" | "answer";
  readonly tries: number;
  readonly ms: number;
}

export interface TestResult {
  readonly test: ConformanceTest;
  readonly cases: readonly CaseResult[];
}

/** One Gateway of one test's manifests, and the cases that are for it as it then is. */
interface Deployment {
  readonly test: ConformanceTest;
  readonly gateway: string;
  /** Of one test, two deployments differ in the Gateway or in what is deleted before. */
  readonly deleted?: ObjectName;
  readonly cases: Case[];
  readonly folder: string;
}

/** The tests of the options, in the order of their files. Throws when `only` names none. */
export function testsOf({ cases, only }: Pick<SuiteOptions, "cases" | "only">): ConformanceTest[] {
  const tests = readTests(cases);
  if (!only) return tests;
  const wanted = tests.filter(({ name }) => only.some((part) => name.toLowerCase().includes(part.toLowerCase())));
  if (wanted.length > 0) return wanted;
  throw new Error(`no test is named ${only.join(" or ")}; there are ${tests.map(({ name }) => name).join(", ")}`);
}

/** Never rejects for a gateway that fails: each case then has what it failed on. */
export async function runSuite(options: SuiteOptions = {}): Promise<TestResult[]> {
  const tests = testsOf(options);
  const folder = options.keep ?? (await mkdtemp(join(tmpdir(), "portcullis-conformance-")));
  await mkdir(folder, { recursive: true });
  const manifestsOf = manifestFinder(options.manifests);
  const origins = await startOrigins(readServices([...new Set(tests.flatMap(manifestsOf))]));
  try {
    const deployments = tests.flatMap((test) => deploymentsOf(test, folder));
    options.onStart?.(deployments.length + tests.reduce((sum, { cases }) => sum + cases.length, 0));
    const results = new Map<Case, CaseResult>();

    const ready: Deployment[] = [];
    await inParallel(deployments, availableParallelism(), async (deployment) => {
      const failed = await buildOf(deployment, manifestsOf(deployment.test)).catch(asFault);
      options.onStep?.(`building ${deployment.test.name}`);
      if (!failed) ready.push(deployment);
      else for (const tested of deployment.cases) settle(tested, deployment, { ...failed, tries: 0, ms: 0 });
    });

    // What is about time comes last and finds the machine idle; being a matter of waiting, it all goes on at once.
    const timed = ready.filter(({ cases }) => cases.some(isTimed));
    const others = ready.filter((deployment) => !timed.includes(deployment));
    await inParallel(others, availableParallelism(), (deployment) => probeAll(deployment));
    await inParallel(timed, timed.length, (deployment) => probeAll(deployment));

    return tests.map((test) => ({
      test,
      cases: test.cases.map((tested) => results.get(tested) as CaseResult),
    }));

    function settle(tested: Case, { test }: Deployment, result: Omit<CaseResult, "case">): void {
      results.set(tested, { case: tested, ...result });
      options.onStep?.(test.name);
    }

    async function probeAll(deployment: Deployment): Promise<void> {
      let gateway: Gateway;
      try {
        gateway = await Gateway.start(deployment.folder, servedIn(manifestsOf(deployment.test)));
      } catch (error) {
        for (const tested of deployment.cases) settle(tested, deployment, { ...asFault(error), tries: 0, ms: 0 });
        return;
      }
      const subject = subjectOn(gateway, origins);
      for (const tested of deployment.cases) {
        const started = performance.now();
        const outcome: Outcome = await probe(tested, subject);
        const ms = Math.round(performance.now() - started);
        settle(tested, deployment, { ...outcome, stage: "answer", ms });
      }
      await gateway.close();
      if (options.keep) await writeFile(join(deployment.folder, "gateway.log"), gateway.log());
    }
  } finally {
    await Promise.all(origins.map((origin) => origin.close()));
    if (!options.keep) await rm(folder, { recursive: true, force: true });
  }

  function servedIn(manifests: readonly string[]): EchoOrigin[] {
    const names = new Set(readServices(manifests).map(nameOf));
    return origins.filter(({ served }) => names.has(nameOf(served)));
  }
}

const nameOf = ({ namespace, service, port }: ServicePort): string => `${namespace}/${service}:${port}`;

const startOrigins = (services: readonly ServicePort[]) =>
  Promise.all(services.map((served) => EchoOrigin.start(served)));

/** Gives a test's files, the base first, which is the repository's own where a folder has none. */
function manifestFinder(folder = join(SHIPPED, "manifests")): (test: ConformanceTest) => string[] {
  const own = join(folder, "base", "manifests.yaml");
  const base = existsSync(own) ? own : join(SHIPPED, "manifests", "base", "manifests.yaml");
  return ({ manifests }) => [base, ...manifests.map((name) => join(folder, name))];
}

function deploymentsOf(test: ConformanceTest, folder: string): Deployment[] {
  const groups = Map.groupBy(test.cases, ({ gateway, precondition }) =>
    JSON.stringify([`${gateway.namespace}/${gateway.name}`, precondition]),
  );
  return [...groups.values()].map((cases, i) => {
    const { gateway, precondition } = cases[0] as Case;
    const deleted = precondition?.delete as ObjectName | undefined;
    return {
      test,
      gateway: `${gateway.namespace}/${gateway.name}`,
      ...(deleted && { deleted }),
      cases,
      folder: join(folder, `${test.name}${groups.size > 1 ? `-${i + 1}` : ""}`),
    };
  });
}

async function buildOf(
  { gateway, deleted, cases, folder }: Deployment,
  manifests: readonly string[],
): Promise<undefined> {
  const conditions = Object.keys(cases[0]?.precondition ?? {}).filter((name) => name !== "delete");
  if (conditions.length > 0) throw new DeploymentFailed("import", `no such precondition is known: ${conditions}`);
  let files = manifests;
  if (deleted) {
    await mkdir(folder, { recursive: true });
    files = manifests.map((file, i) => join(folder, `${i}-${basename(file)}`));
    const found = manifests.map((file, i) => copyWithout(file, deleted, files[i] as string));
    if (!found.includes(true)) {
      const { kind, namespace, name } = deleted;
      throw new DeploymentFailed("import", `${kind} ${namespace}/${name}, to be deleted, is not in the manifests`);
    }
  }
  await build(gateway, files, readServices(files), folder);
}

function asFault(error: unknown): { stage: CaseResult["stage"]; fault: string } {
  if (error instanceof DeploymentFailed) return { stage: error.stage, fault: error.message };
  throw error;
}

/** A running gateway, with all origins that may be behind it. */
export function subjectOn(gateway: Gateway, origins: readonly EchoOrigin[]): Subject {
  return {
    send: (request) => exchange(gateway.port, request),
    converse: (request, messages) => converse(gateway.port, request, messages),
    arrivals: (namespace, service, target) =>
      origins
        .filter(({ served }) => served.namespace === namespace && served.service === service)
        .reduce((sum, origin) => sum + origin.arrivals(target), 0),
    pause: (milliseconds) => sleep(milliseconds),
  };
}

async function converse(
  port: number,
  { host, scheme, target, headers }: WireRequest,
  messages: readonly (string | Buffer)[],
): Promise<(string | Buffer)[]> {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${target}`, {
    headers: { Host: host, [SCHEME_HEADER]: scheme, ...headers },
    handshakeTimeout: 5_000,
  });
  const came: (string | Buffer)[] = [];
  try {
    await new Promise<void>((resolve, reject) => {
      const next = () => {
        const message = messages[came.length];
        if (message === undefined) resolve();
        else socket.send(message);
      };
      socket.on("open", next);
      socket.on("message", (data, binary) => {
        came.push(binary ? (data as Buffer) : String(data));
        next();
      });
      socket.on("error", reject);
      socket.on("close", () => reject(new Error(`the WebSocket closed after ${came.length} messages`)));
      setTimeout(() => reject(new Error(`message ${came.length + 1} did not come back within 5 s`)), 5_000).unref();
    });
  } finally {
    socket.terminate();
  }
  return came;
}

async function inParallel<T>(items: readonly T[], limit: number, work: (item: T) => Promise<void>): Promise<void> {
  const rest = [...items];
  const worker = async () => {
    for (let item = rest.shift(); item !== undefined; item = rest.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
}
