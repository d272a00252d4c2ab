import { type ChildProcess, execFile, fork, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { Agent, get } from "node:http";
import { type AddressInfo, connect, createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { tokenCommand } from "../../src/dev/demo-requests.ts";
import { startStand } from "../../src/dev/stand.ts";
import { isThere } from "../real-parts.ts";
import type { StandMessage } from "./stand-process.ts";

const hasCurl = isThere("curl", spawnSync("curl", ["--version"]).status === 0);

/** What a test waits for before it fails; a machine that runs all tests at once is slow. */
const PATIENCE = 15_000;

let folder: string;
let standProcess: ChildProcess;
let stand: Extract<StandMessage, { url: string }>;
const lines: string[] = [];

beforeAll(async () => {
  await mkdir(".portcullis", { recursive: true });
  folder = await mkdtemp(".portcullis/test-");
  await cp("routes", join(folder, "routes"), { recursive: true });
  await cp("wrangler.toml", join(folder, "wrangler.toml"));
  stand = await new Promise((resolve, reject) => {
    standProcess = fork("test/dev/stand-process.ts", [join(folder, "routes"), join(folder, "out")], {
      // Regular expressions are no JSON.
      serialization: "advanced",
    });
    standProcess.on("exit", (code) => reject(new Error(`the stand ended with ${code}: ${lines.join("\n")}`)));
    standProcess.on("message", (message: StandMessage) => {
      if ("line" in message) lines.push(message.line);
      else resolve(message);
    });
  });
});

afterAll(async () => {
  standProcess?.disconnect();
  if (standProcess?.exitCode === null) await once(standProcess, "exit");
  await rm(folder, { recursive: true, force: true });
});

const agent = new Agent({ keepAlive: true });

interface Answer {
  readonly status: number;
  readonly location: string | undefined;
  readonly body: string;
}

function ask(path: string, using: Agent | false = agent): Promise<Answer> {
  return new Promise((resolve, reject) => {
    get(`${stand.url}${path}`, { agent: using }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (chunk) => (body += chunk));
      response.on("end", () =>
        resolve({ status: response.statusCode as number, location: response.headers.location, body }),
      );
      response.on("error", reject);
    }).on("error", reject);
  });
}

async function edit(file: string, from: string | RegExp, to: string): Promise<void> {
  const path = join(folder, "routes", file);
  const before = await readFile(path, "utf8");
  const after = before.replace(from, to);
  expect(after).not.toBe(before);
  await writeFile(path, after);
}

/** Resolves with the milliseconds that it took; fails after `within`. */
async function until(holds: () => boolean | Promise<boolean>, within: number): Promise<number> {
  const began = performance.now();
  while (!(await holds())) {
    const waited = performance.now() - began;
    if (waited > within) throw new Error(`not so after ${Math.round(waited)} ms; the log says:\n${lines.join("\n")}`);
    await wait(10);
  }
  return performance.now() - began;
}

describe("the requests that the banner shows", () => {
  it.skipIf(!hasCurl)("do what it says", { timeout: 60_000 }, async () => {
    const shell = (command: string, env: NodeJS.ProcessEnv = {}) =>
      new Promise<string>((resolve) => {
        // What is shown may end with an error by design: the WebSocket is cut off by curl's own time limit.
        execFile("sh", ["-c", command], { env: { ...process.env, ...env } }, (_, stdout) => resolve(stdout));
      });
    const token = (await shell(`${tokenCommand}; echo "$TOKEN"`)).trim();
    expect(token).toMatch(/^[\w-]+\.[\w-]+\.[\w-]+$/);
    expect(stand.requests.length).toBeGreaterThan(10);
    for (const { shows, command, expect: expected } of stand.requests) {
      const output = await shell(command, { TOKEN: token });
      for (const part of expected) expect(output, `${shows}\n${command}`).toMatch(part);
      expect(stand.banner).toContain(`  # ${shows}\n  ${command}\n`);
    }
    const answered = (pattern: RegExp) => expect(lines).toContainEqual(expect.stringMatching(pattern));
    answered(/^GET \/v1\/orders 200 orders\/list eu\/orders-next canary storefront \d+ ms$/);
    answered(/^GET \/v1\/products 200 catalog\/products eu\/catalog 503 -> us\/catalog \d+ ms$/);
    answered(/^GET \/v1\/search 403 catalog\/search request-filtered \d+ ms$/);
  });
});

describe("an edit", () => {
  it("is served, and no request fails meanwhile", async () => {
    const seen: number[] = [];
    let asking = true;
    const loop = async (using: Agent | false) => {
      while (asking) seen.push((await ask("/api/products", using)).status);
    };
    const loops = [loop(agent), loop(agent), loop(false)];
    const times: number[] = [];
    for (const [from, to] of [
      [308, 307],
      [307, 301],
      [301, 308],
    ] as const) {
      await until(() => seen.length > 10, PATIENCE);
      seen.length = 0;
      await edit("legacy.ts", `status: ${from}`, `status: ${to}`);
      times.push(await until(() => seen.includes(to), PATIENCE));
      // Each request was answered, first by the one version, then by the other.
      await wait(50);
      expect(new Set(seen)).toEqual(new Set([from, to]));
      expect(seen.slice(seen.indexOf(to) + loops.length)).not.toContain(from);
    }
    asking = false;
    await Promise.all(loops);
    console.log(`served after ${times.map((time) => Math.round(time)).join(", ")} ms`);
  });

  it("leaves alone what has begun: a WebSocket, and a request that waits for its answer", async () => {
    const socket = new WebSocket(`${stand.url.replace("http", "ws")}/v1/feed`);
    const messages: string[] = [];
    socket.on("message", (data) => messages.push(String(data)));
    await until(() => socket.readyState === WebSocket.OPEN, PATIENCE);
    const slow = ask("/v1/products?delay=3000");
    await edit("legacy.ts", "status: 308", "status: 307");
    await until(async () => (await ask("/api/x")).status === 307, PATIENCE);
    socket.send("still there?");
    await until(() => messages.includes("still there?"), PATIENCE);
    expect(await slow).toMatchObject({ status: 200 });
    await until(() => messages.some((message) => message.includes('"stock"')), PATIENCE);
    socket.close();
    await until(() => socket.readyState === WebSocket.CLOSED, PATIENCE);
  });

  it("is seen in a file that was missing, in a folder that is new", async () => {
    lines.length = 0;
    await edit(
      "index.ts",
      'import admin from "./admin.ts";',
      'import admin from "./admin.ts";\nimport docs from "./more/docs.ts";',
    );
    await edit("index.ts", "[catalog,", "[docs, catalog,");
    await until(() => lines.some((line) => line.includes('Could not resolve "./more/docs.ts"')), PATIENCE);
    await mkdir(join(folder, "routes", "more"));
    // The folder comes first and is looked into; the file comes when that is done.
    await wait(1_000);
    const docs = join(folder, "routes", "more", "docs.ts");
    await writeFile(
      docs,
      `import { api, redirect, route } from "portcullis";
       export default api("docs", {}, [route("all", { path: "/docs/*" }, { to: redirect({ path: { full: "/v1" } }) })]);`,
    );
    await until(async () => (await ask("/docs/x")).location?.endsWith("/v1") ?? false, PATIENCE);
    await writeFile(docs, (await readFile(docs, "utf8")).replace('"/v1"', '"/v2"'));
    await until(async () => (await ask("/docs/x")).location?.endsWith("/v2") ?? false, PATIENCE);
  });

  it("of .dev.vars reaches the Worker", async () => {
    await writeFile(join(folder, ".dev.vars"), "DEBUG_KEY=from-dev-vars\n");
    const debugged = async () => {
      const response = await fetch(`${stand.url}/api/x`, {
        headers: { "x-portcullis-debug": "from-dev-vars" },
        redirect: "manual",
      });
      await response.body?.cancel();
      return response.headers.has("x-portcullis-record");
    };
    await until(debugged, PATIENCE);
  });
});

describe("health checks", () => {
  it("run at once, though nothing but Cloudflare runs cron triggers", async () => {
    const wrangler = join(folder, "wrangler.toml");
    await writeFile(wrangler, `${await readFile(wrangler, "utf8")}\n[triggers]\ncrons = ["* * * * *"]\n`);
    lines.length = 0;
    const eu = 'services: { path: "/{service}" }';
    const health = 'health: { path: "/nowhere", unhealthy: 1 }';
    await edit("clusters.ts", eu, `${eu}, ${health}`);
    await until(() => lines.some((line) => /^health backend=eu\S* healthy=false$/.test(line)), PATIENCE);
    await edit("clusters.ts", `, ${health}`, "");
    await until(() => lines.filter((line) => line.includes("reloaded")).length === 2, PATIENCE);
  });
});

describe("a mistake", () => {
  it("is told with file, line and fix while the last good version serves, and can be corrected", async () => {
    lines.length = 0;
    await edit("legacy.ts", 'path: "/api/*"', 'path: "api/*"');
    await until(() => lines.some((line) => line.includes("not reloaded")), PATIENCE);
    const log = lines.join("\n");
    const line = (await readFile(join(folder, "routes", "legacy.ts"), "utf8"))
      .split("\n")
      .findIndex((text) => text.includes('"moved"'));
    expect(log).toContain(`${folder}/routes/legacy.ts:${line + 1}`);
    expect(log).toContain("fix: ");
    expect((await ask("/api/x")).status).toBe(307);

    lines.length = 0;
    await edit("legacy.ts", 'path: "api/*"', 'path: "/api/*');
    await until(() => lines.some((text) => text.includes("not reloaded")), PATIENCE);
    expect(lines.join("\n")).toContain(`${folder}/routes/legacy.ts:${line + 1}`);
    expect(await ask("/api/x")).toMatchObject({ status: 307 });

    await edit("legacy.ts", 'path: "/api/*', 'path: "/api/*"');
    await until(() => lines.some((text) => text.includes("corrected")), PATIENCE);
    await edit("legacy.ts", "status: 307", "status: 301");
    await until(async () => (await ask("/api/x")).status === 301, PATIENCE);
  });
});

describe("starting", () => {
  it("names a taken port and the way around it", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await until(() => server.listening, PATIENCE);
    const { port } = server.address() as AddressInfo;
    await expect(startStand({ routes: "routes", port, log: () => {} })).rejects.toThrow(
      `port ${port} is taken; stop what listens there, or choose another with --port`,
    );
    server.close();
  });

  it("refuses routes that are wrong, and leaves nothing running", async () => {
    const broken = join(folder, "broken.ts");
    await writeFile(broken, `import { api } from "portcullis";\nexport default api("x", {}, "none");\n`);
    await expect(
      startStand({ routes: broken, port: 0, out: join(folder, "out-broken"), log: () => {} }),
    ).rejects.toThrow("broken.ts:2");
  });
});

it("listeners for https are reached as if TLS had ended in front", async () => {
  const routes = join(folder, "listeners.ts");
  await writeFile(
    routes,
    `import { api, gateway, listener, redirect, route } from "portcullis";
const web = listener("web", { port: 80, protocol: "http" });
const shop = listener("shop", { port: 443, protocol: "https", host: "*.example.com" });
export default gateway({ semantics: "gateway-api", listeners: [web, shop] }, [
  api("moved", { listeners: [web] }, [route("all", { path: "/*" }, { to: redirect({ scheme: "https", status: 301 }) })]),
  api("shop", { listeners: [shop] }, [route("all", { path: "/*" }, { to: redirect({ path: { full: "/inside" }, status: 302 }) })]),
]);`,
  );
  const own = await startStand({ routes, port: 0, out: join(folder, "out-listeners"), log: () => {} });
  try {
    const { port } = own;
    const asked = async (headers: Record<string, string>) => {
      const [response] = await once(get({ host: "127.0.0.1", port, path: "/x", headers, agent: false }), "response");
      response.resume();
      return [response.statusCode, response.headers.location];
    };
    expect(await asked({ Host: "www.example.com" })).toEqual([301, "https://www.example.com/x"]);
    const secure = { Host: "www.example.com", "X-Forwarded-Proto": "https" };
    expect(await asked(secure)).toEqual([302, "https://www.example.com/inside"]);
    expect(own.banner).toContain(`curl -i -H "X-Forwarded-Proto: https" -H "Host: www.example.com" ${own.url}/`);
  } finally {
    await own.close();
  }
});

describe.skipIf(process.platform !== "linux")("gateway dev", () => {
  let child: ChildProcess | undefined;
  afterEach(() => child?.kill("SIGKILL"));

  it.each(["SIGINT", "SIGTERM"] as const)("ends on %s with all that it started", async (signal) => {
    let output = "";
    child = spawn(process.execPath, ["src/cli.ts", "dev", "--port", "0", "--json"], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    child.stderr?.on("data", (chunk) => (output += chunk));
    const records: string[] = [];
    child.stdout?.on("data", (chunk) => records.push(...String(chunk).trim().split("\n")));
    await until(() => /gateway +http:\S+/.test(output), PATIENCE);
    const url = /gateway +(http:\S+)/.exec(output)?.[1] as string;
    const processes = await descendants(child.pid as number);
    expect(processes.length).toBeGreaterThanOrEqual(3);
    await fetch(`${url}/api/x`, { redirect: "manual" });
    await until(() => records.length > 0, PATIENCE);
    expect(JSON.parse(records[0] as string)).toMatchObject({ v: 1, path: "/api/x", status: 308 });

    child.kill(signal);
    await until(() => child?.exitCode !== null, PATIENCE);
    expect(child.exitCode).toBe(0);
    await until(async () => (await Promise.all(processes.map(isAlive))).every((alive) => !alive), PATIENCE);
    await expect(reachable(Number(new URL(url).port))).resolves.toBe(false);
  });
});

async function descendants(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8").catch(() => "");
  const children = text.split(" ").filter(Boolean).map(Number);
  return [...children, ...(await Promise.all(children.map(descendants))).flat()];
}

const isAlive = (pid: number): Promise<boolean> =>
  readFile(`/proc/${pid}/stat`, "utf8").then(
    (stat) => !/\) Z /.test(stat),
    () => false,
  );

function reachable(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });
}
