/** Invariants as a routes folder has them: what check says of those that hold, that do not, and that mean nothing. */
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { compileRoutes } from "../../src/build/compile.ts";
import { diff, diffText } from "../../src/build/diff.ts";
import type { ConfigurationRefused, Problem } from "../../src/build/problem.ts";
import { type Files, folderOf, PRELUDE, problemsOf } from "./module.ts";

const NAMES =
  "import { allow, anonymous, authorize, backend, caller, every, filter, forwardAuth, ipFilter, jwt, no, rateLimit, request, route, scopes, waf } from 'portcullis';\n";

/** Where the build says what: `file:line subject: message`. */
async function told(routes: string, invariants: string): Promise<string[]> {
  const files: Files = {
    "index.ts": `${PRELUDE.replace("import {", "import { allOf, anonymous, forwardAuth, waf,")}${routes}`,
    "rules/deny.conf": 'SecRule ARGS "@contains x" "id:1,phase:2,deny"',
    "invariants.ts": `${NAMES}export default [\n${invariants}\n];`,
  };
  const problems = await problemsOf(files);
  return problems.map(
    ({ file, line, subject, message }) => `${file}:${line} ${subject}: ${message.replace(/\/tmp\/routes-\w+\//g, "")}`,
  );
}

const admin = (policies: string, more = "") => `export default api("shop", { hosts: ["a.example.com"] }, [
  route("admin", { path: "/admin/*" }, { policies: [${policies}], to: eu.service("admin") }),
  ${more}
]);`;

describe("an invariant", () => {
  it.each([
    [
      'every(route).under("/admin").requires(scopes("admin"), ipFilter)',
      'token, scopes("admin", "more"), ipFilter({ allow: ["10.0.0.0/8"] })',
    ],
    ['every(route).requires(ipFilter({ allow: ["10.0.0.0/8"] }))', 'ipFilter({ allow: ["10.1.0.0/16"] })'],
    ["every(route).requires(jwt)", "token"],
    ["every(route).requires(jwt)", "allOf(token, apiKey({}))"],
    ["every(route).denies(anonymous)", "token"],
    ["every(route).denies(anonymous)", 'jwt({ issuer: "https://a", jwks: "https://a", optional: true }), scopes("a")'],
    [
      "every(route).denies(anonymous)",
      'jwt({ issuer: "https://a", jwks: "https://a", optional: true }), authorize(allow("staff", caller.groups.has("staff")))',
    ],
    ["no(route).with(rateLimit)", "token"],
    ['every(route).under("/admin/{id}/*").under("/admin/").under("/").requires(jwt)', "token"],
    ['no(route).reaches(backend("admin")).without(jwt)', "token"],
    // Nobody takes what another route answers.
    [
      'every(route).under("/admin/open").denies(anonymous)',
      "",
      'route("open", { path: "/admin/open/*" }, { policies: [token], to: eu })',
    ],
  ])("%s holds for policies [%s]", async (invariant, policies, more = "") => {
    // An API key needs a store, which is not what this is about.
    const routes = admin(policies, more).replace("export default", "const shop =");
    const gateway = `${routes}\nexport default gateway({ store: { url: env("U"), token: secret("T") } }, [shop]);`;
    expect(await told(gateway, invariant)).toEqual([]);
  });

  it.each([
    [
      'every(route).under("/admin").requires(scopes("admin"))',
      "token",
      "it has no scopes, as for GET https://a.example.com/admin",
    ],
    [
      'every(route).under("/admin/users").requires(scopes("admin"))',
      'token, scopes("a")',
      "it does not ask for the scope admin, as for GET https://a.example.com/admin/users",
    ],
    [
      'every(route).taking("DELETE").requires(jwt)',
      "",
      "it lets requests through without jwt, as for DELETE https://a.example.com/admin",
    ],
    [
      "every(route).requires(jwt)",
      'jwt({ issuer: "https://a", jwks: "https://a", optional: true })',
      "it lets requests through that show nothing to jwt, as for GET https://a.example.com/admin",
    ],
    [
      "every(route).requires(jwt)",
      'jwt({ issuer: "https://a", jwks: "https://a", mode: "report" })',
      "it has jwt in report mode, as for GET https://a.example.com/admin",
    ],
    [
      'every(route).requires(ipFilter({ allow: ["10.0.0.0/8"] }))',
      'ipFilter({ allow: ["10.0.0.0/8", "192.0.2.0/24"] })',
      'it lets the address 192.0.2.0 through, which ipFilter({"allow":["10.0.0.0/8"]}) does not, as for GET https://a.example.com/admin',
    ],
    [
      "every(route).denies(anonymous)",
      "anyOf(token, anonymous())",
      "it lets requests in without a credential by anonymous(), so that a request without a credential gets through, as for GET https://a.example.com/admin",
    ],
    [
      "every(route).denies(anonymous)",
      'forwardAuth({ url: "https://a", subjectFrom: "x-s", scopesFrom: "x-c" }), scopes("a")',
      "it lets the service that forwardAuth asks decide, so that a request without a credential gets through, as for GET https://a.example.com/admin",
    ],
    [
      'no(route).reaches(backend("eu/admin")).without(filter)',
      "token",
      "it has no filter, as for GET https://a.example.com/admin",
    ],
    ["no(route).with(jwt)", "token", "it has jwt, as for GET https://a.example.com/admin"],
    [
      "no(route).with(anonymous)",
      "anyOf(token, anonymous())",
      "it has anonymous, as for GET https://a.example.com/admin",
    ],
    [
      "every(route).requires(waf)",
      'waf({ rules: "./rules", sample: 10 })',
      "it has a waf that looks at 10 of 100 requests, as for GET https://a.example.com/admin",
    ],
  ])("%s is broken by policies [%s]", async (invariant, policies, why) => {
    // The route's own line, then that of the invariant.
    expect(await told(admin(policies), invariant)).toEqual([
      `index.ts:8 route "shop/admin": breaks ${invariant.replaceAll("'", '"').replace(/ipFilter\(\{ allow: (\[[^\]]*\]) \}\)/, 'ipFilter({"allow":$1})')} (invariants.ts:3): ${why}`,
    ]);
  });

  it.each([
    ['every(route).under("admin").requires(jwt)', 'is about "admin", which is no path'],
    ['every(route).under("/api/../admin").requires(jwt)', 'is about "/api/../admin", which no request has as its path'],
    ['every(route).under("/%61dmin").requires(jwt)', 'is about "/%61dmin", which no request has as its path'],
    ['every(route).under("/a%2fb").requires(jwt)', 'is about "/a%2fb", which no request has as its path'],
    ['every(route).on("A.example.com").requires(jwt)', 'is about "A.example.com", which is no host'],
    ['every(route).taking("get" as never).requires(jwt)', 'is about "get", which is no method'],
    ['every(route).of("shops").requires(jwt)', 'is about "shops", which is no API'],
    ['every(route).except("shop/admins").requires(jwt)', 'excepts "shop/admins", which is no route'],
    ['no(route).reaches(backend("payments")).without(filter)', 'is about the backend "payments", which there is not'],
    ["every(route).requires()", "names no policy"],
    ["every(route).requires(route as never)", "names something that is no policy"],
    ["every(route).denies(jwt)", "denies jwt, which is nobody"],
    [
      "every(route).requires(rateLimit({ limit: 5, window: '1m' }))",
      "compares the options of rateLimit, which it cannot",
    ],
  ])("%s is no invariant", async (invariant, message) => {
    expect(await told(admin("token"), invariant)).toEqual([`invariants.ts:3 invariant: ${message}`]);
  });

  it("may stand in a folder", async () => {
    const problems = await problemsOf({
      "index.ts": PRELUDE + admin(""),
      "invariants/index.ts": `${NAMES}export default [every(route).requires(jwt)];`,
    });
    expect(problems.map(({ message }) => message)).toEqual([expect.stringContaining("/invariants/index.ts:2)")]);
  });

  it("is not held by a waf whose own rules switch it off, which is refused", async () => {
    for (const [engine, mode] of [
      ["DetectionOnly", "enforce"],
      ["Off", "report"],
    ]) {
      const routes = admin(`waf({ rules: "./rules", before: ["engine.conf"], mode: "${mode}" })`);
      const problems = await problemsOf({
        "index.ts": `${PRELUDE.replace("import {", "import { waf,")}${routes}`,
        "engine.conf": `SecRuleEngine ${engine}`,
        "rules/deny.conf": 'SecRule ARGS "@contains x" "id:1,phase:2,deny"',
      });
      expect(problems.map(({ subject, message }) => `${subject}: ${message}`)).toEqual([
        `policy waf: refuses nothing: its rules have SecRuleEngine ${engine}`,
      ]);
    }
  });

  it("counts a route as one that it means where a regex cannot be reasoned about", async () => {
    const routes = `export default api("shop", {}, [route("odd", { path: /\\/a\\/(?!b)[0-9]/ }, { to: eu })]);`;
    expect(await told(routes, 'every(route).under("/a").requires(jwt)')).toEqual([
      expect.stringContaining(
        "it lets requests through without jwt, as for requests that could not be told, since a regex with lookaround",
      ),
    ]);
    expect(await told(routes, 'every(route).under("/a").denies(anonymous)')).toHaveLength(1);
  });

  it("must be a claim", async () => {
    expect(await told(admin("token"), 'every(route).under("/admin") as never')).toEqual([
      "invariants.ts:1 invariants: number 1 of the list is an object, no invariant",
    ]);
  });
});

describe("a deliberately weakened copy of routes/", async () => {
  const folder = await weakened();
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it("is caught by check", async () => {
    const problems: readonly Problem[] = await compileRoutes({ routes: folder }).then(
      () => [],
      (error) => (error as ConfigurationRefused).problems,
    );
    expect(problems.map(({ message }) => message.replace(/ \(.*?\):/, ":"))).toEqual([
      expect.stringMatching(
        /^breaks every\(route\)\.under\("\/admin"\).*: it has no scopes, as for GET https:\/\/api\.example\.com\/admin$/,
      ),
      expect.stringMatching(
        /^breaks no\(route\)\.reaches\(backend\("orders"\)\).*: it has scopes in report mode, as for GET https:\/\/api\.example\.com\/v1\/orders$/,
      ),
    ]);
  });

  it("is caught by diff", async () => {
    const report = await diff(["routes", folder], { routes: "routes", failOn: ["weakened"] });
    expect(report.failed).toEqual(["weakened"]);
    expect(report.weakenings.map(({ route, message }) => `${route}: ${message}`)).toEqual([
      "admin/all: scopes is gone",
      "orders/create: lets 50 in 60 s through instead of 5 in 60 s",
      "orders/list: scopes only reports",
    ]);
  });

  it("is caught by diff also in what its invariants no longer ask for", async () => {
    const looser = await folderOf({});
    await cp("routes", looser, { recursive: true });
    await writeFile(join(looser, "invariants.ts"), "export default [];");
    const report = await diff(["routes", looser], { routes: "routes", failOn: ["weakened"] });
    expect(report.failed).toEqual(["weakened"]);
    expect(new Set(report.weakenings.map(({ route, policy }) => `${route} ${policy}`))).toEqual(
      new Set(["* invariants"]),
    );
    expect(diffText(report, process.stdout)).toContain("invariants.ts: nothing asks for every(route)");
    const meant = 'import { acknowledge } from "portcullis";\nexport default [acknowledge("*", "invariants", "a")];';
    await writeFile(join(looser, "invariants.ts"), meant);
    expect((await diff(["routes", looser], { routes: "routes", failOn: ["weakened"] })).failed).toEqual([]);
  });

  it("passes when every weakening is acknowledged, once", async () => {
    const meant = join(folder, "invariants.ts");
    const names = [
      'acknowledge("admin/all", scopes, "a")',
      'acknowledge("orders/create", rateLimit, "b")',
      'acknowledge("orders/list", scopes, "c")',
      'acknowledge("*", "invariants", "d")',
    ];
    await writeFile(meant, `import { acknowledge, rateLimit, scopes } from "portcullis";\nexport default [${names}];`);
    const options = { routes: "routes", failOn: ["weakened"] } as const;
    expect((await diff(["routes", folder], options)).failed).toEqual([]);
    // What is acknowledged already allows nothing new.
    const further = await folderOf({});
    await cp(folder, further, { recursive: true });
    const orders = join(further, "orders.ts");
    await writeFile(orders, (await readFile(orders, "utf8")).replace("limit: 50", "limit: 500"));
    expect((await diff([folder, further], options)).failed).toEqual(["weakened"]);
  });

  async function weakened(): Promise<string> {
    const copy = await mkdtemp(join(tmpdir(), "weakened-"));
    await cp("routes", copy, { recursive: true });
    const change = async (file: string, from: string, to: string) => {
      const text = await readFile(join(copy, file), "utf8");
      expect(text).toContain(from);
      await writeFile(join(copy, file), text.replace(from, to));
    };
    await change("admin.ts", 'policies: [scopes("admin")], ', "");
    await change("admin.ts", ", scopes }", " }");
    await change("orders.ts", "limit: 5,", "limit: 50,");
    await change("orders.ts", 'scopes("orders:read")', 'scopes({ all: ["orders:read"], mode: "report" })');
    return copy;
  }
});
