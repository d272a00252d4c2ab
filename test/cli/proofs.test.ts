/** `gateway prove` and `gateway diff` as scripts and people meet them. */
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { folderOf } from "../build/module.ts";
import { gateway } from "./run.ts";

const MODULE = `import { api, cluster, env, jwt, route } from "portcullis";
const eu = cluster("eu", { ingress: env("EU") });
const token = jwt({ issuer: "https://login.example.com", jwks: "https://login.example.com/keys" });
export default api("shop", { hosts: ["a.example.com"], policies: [token] }, [
  route("all", { path: "/*" }, { to: eu }),
  route("one", { path: "/one" }, { to: eu }),
]);
`;

describe("prove", () => {
  it("tells what leaves requests to what, and what they cost", async () => {
    const folder = await folderOf({ "index.ts": MODULE });
    const { code, out, err } = await gateway(["prove", "--routes", folder]);
    expect([code, err]).toEqual([0, ""]);
    expect(out).toContain(
      'index.ts:5  route "shop/all": leaves some of its requests to "shop/one", such as GET https://a.example.com/one\n',
    );
    expect(out).toMatch(/^ {2}shop\/one {2}4 of 50 subrequests, 3 of 6 at once, 0 KiB held, 65 s$/m);
    expect(out).toMatch(/^proved {2}2 routes, all reachable; 1 remark, table [0-9a-f]{16}, [0-9]+ ms$/m);
  });

  it("--json of one route", async () => {
    const folder = await folderOf({ "index.ts": MODULE });
    const { code, out } = await gateway(["prove", "--routes", folder, "--route", "shop/one", "--json"]);
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({
      ok: true,
      routes: 2,
      findings: [
        {
          kind: "shadowed",
          severity: "note",
          route: "shop/all",
          winner: "shop/one",
          request: "GET https://a.example.com/one",
        },
      ],
      costs: { "shop/one": { subrequests: 4, connections: 3, buffered: 0, time: 65_000 } },
    });
  });

  it("ends with 1 for what nothing reaches, as check does", async () => {
    const text = MODULE.replace('"/one"', '"/one", headers: { "x-a": true }').replace(
      '  route("all"',
      '  route("any", { path: "/one", headers: { "x-a": /.*/ } }, { to: eu }),\n  route("all"',
    );
    const folder = await folderOf({ "index.ts": text });
    const { code, err } = await gateway(["check", "--routes", folder]);
    expect(code).toBe(1);
    expect(err).toContain(
      'index.ts:7  route "shop/one": is never taken: all of its requests go to "shop/any", such as GET https://a.example.com/one -H "x-a: 1"',
    );
  });
});

describe("diff", () => {
  it("compares the routes with a revision, and ends with 1 on what it is told to fail on", async () => {
    const folder = await folderOf({ "routes/index.ts": MODULE });
    const git = (...args: string[]) =>
      promisify(execFile)("git", ["-c", "user.name=a", "-c", "user.email=a@example.com", ...args], { cwd: folder });
    await git("init", "--quiet");
    await git("add", ".");
    await git("commit", "--quiet", "-m", "first");
    const file = join(folder, "routes/index.ts");
    await writeFile(
      file,
      (await readFile(file, "utf8")).replace(", policies: [token]", "").replace('"/one"', '"/one/*"'),
    );
    const [plain, markdown, json] = await Promise.all([
      gateway(["diff", "HEAD", "--fail-on", "weakened"], { cwd: folder }),
      gateway(["diff", "HEAD", "--markdown"], { cwd: folder }),
      gateway(["diff", "HEAD", "--json", "--fail-on", "removed"], { cwd: folder }),
    ]);
    expect([plain.code, plain.err]).toEqual([1, ""]);
    expect(plain.out).toContain(
      'weakened  routes/index.ts:5  route "shop/all": jwt is gone: nothing says who is calling\n            GET https://a.example.com/',
    );
    expect(plain.out).toContain(
      'widened   routes/index.ts:6  route "shop/one": asks for more than it did; "shop/all" answered\n            GET https://a.example.com/one/',
    );
    expect(plain.out).toMatch(
      /HEAD \(2 routes, table [0-9a-f]{16}\) to routes \(2 routes, table [0-9a-f]{16}\): 3 weakened, 1 widened, 1 moved, 2 edited\n$/,
    );
    expect(markdown.code).toBe(0);
    expect(markdown.out).toContain(
      "| **weakened** | `shop/all` | jwt is gone: nothing says who is calling | `GET https://a.example.com/` | `routes/index.ts:5` |\n",
    );
    expect(json.code).toBe(0);
    expect(JSON.parse(json.out)).toMatchObject({ ok: true, failed: [], moves: [{ from: "shop/all", to: "shop/one" }] });
    // The repository is as it was.
    expect((await git("status", "--porcelain")).stdout).toBe(" M routes/index.ts\n");
  });

  it.each([
    [["diff", "nothing-there"], 1, '"nothing-there" is neither a file or folder nor a revision'],
    [["diff", "routes", "--fail-on", "weaker"], 2, "--fail-on takes weakened, added"],
    [["diff"], 2, "missing required argument 'old'"],
  ])("%j ends with %d", async (args, code, text) => {
    const ended = await gateway(args);
    expect(ended.code).toBe(code);
    expect(ended.err).toContain(text);
  });
});
