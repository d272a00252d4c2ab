import { describe, expect, test } from "vitest";
import type { Caller } from "../../src/policies/contract.ts";
import { compile, run, type ScopesOptions, schema, scopes } from "../../src/policies/scopes.ts";
import type { PolicyMode } from "../../src/table/table.ts";
import { compileContext, type PolicyResult, runPolicy } from "./exchange.ts";

const caller = (...held: string[]): Caller => ({
  subject: "issuer|user",
  scopes: held,
  claims: {},
  credential: { kind: "jwt" },
});

function ask(options: ScopesOptions, who?: Caller, mode: PolicyMode = "enforce"): Promise<PolicyResult> {
  const config = compile(options, compileContext());
  const request = new Request("https://api.example.com/v1/orders");
  return runPolicy(run, config, request, { mode, exchange: who ? { caller: who } : {} });
}

test.each<[ScopesOptions, string[], boolean]>([
  [{ all: ["a"] }, ["a"], true],
  [{ all: ["a"] }, ["b", "a", "c"], true],
  [{ all: ["a", "b"] }, ["a", "b"], true],
  [{ all: ["a", "b"] }, ["a"], false],
  [{ all: ["a"] }, [], false],
  [{ all: ["a"] }, ["A"], false],
  [{ all: ["orders"] }, ["orders:read"], false],
  [{ all: ["orders:read"] }, ["orders"], false],
  [{ any: ["a", "b"] }, ["b"], true],
  [{ any: ["a", "b"] }, ["c"], false],
  [{ all: ["a"], any: ["b", "c"] }, ["a", "c"], true],
  [{ all: ["a"], any: ["b", "c"] }, ["a"], false],
  [{ all: ["a"], any: ["b", "c"] }, ["b", "c"], false],
])("%j with the scopes %j passes: %s", async (options, held, passes) => {
  const { response, passed, exchange } = await ask(options, caller(...held));
  expect([passed, response.status]).toEqual([passes, passes ? 200 : 403]);
  expect(exchange.record.policies).toEqual([
    passes
      ? { policy: "scopes", verdict: "pass" }
      : { policy: "scopes", verdict: "deny", reason: "scope-missing", facts: expect.anything() },
  ]);
});

test("a refusal says what is missing, to people and to OAuth clients (RFC 6750, 3.1)", async () => {
  const { response } = await ask({ all: ["b", "a", "b"], any: ["d", "c"] }, caller("a"));
  expect(response.headers.get("www-authenticate")).toBe(
    'Bearer realm="orders", error="insufficient_scope", scope="a b c d"',
  );
  expect(await response.json()).toMatchObject({
    status: 403,
    code: "scope-missing",
    missing: ["b"],
    missingAnyOf: ["c", "d"],
  });
  const { response: other } = await ask({ all: ["b"], any: ["a"] }, caller("a"));
  const problem = await other.json();
  expect(problem).toMatchObject({ missing: ["b"] });
  expect(problem).not.toHaveProperty("missingAnyOf");
});

test("without a caller the answer is 401, as to a request without a token", async () => {
  const { response, passed, exchange } = await ask({ all: ["a"] });
  expect([passed, response.status]).toEqual([false, 401]);
  expect(response.headers.get("www-authenticate")).toBe('Bearer realm="orders"');
  expect(await response.json()).toMatchObject({ code: "token-missing" });
  expect(exchange.record.reason).toBe("token-missing");
});

test("the anonymous consumer is asked for what the policy before wants", async () => {
  const { credential: _, ...anonymous } = caller();
  const challenge = 'ApiKey realm="orders"';
  const config = compile({ all: ["a"] }, compileContext());
  const request = new Request("https://api.example.com/v1/orders");
  const { response } = await runPolicy(run, config, request, { exchange: { caller: anonymous, challenge } });
  expect([response.status, response.headers.get("www-authenticate")]).toEqual([401, challenge]);
  expect(await response.json()).toMatchObject({ code: "credentials-missing" });
});

test("report lets both pass and records what it would have done", async () => {
  for (const [who, reason] of [
    [undefined, "token-missing"],
    [caller(), "scope-missing"],
  ] as const) {
    const { passed, exchange } = await ask({ all: ["a"] }, who, "report");
    expect(passed).toBe(true);
    expect(exchange.record.policies).toEqual([expect.objectContaining({ verdict: "would-deny", reason })]);
  }
});

describe("the builder", () => {
  test("takes scopes, which are all needed, or options", () => {
    expect(scopes("a").options).toEqual({ all: ["a"] });
    expect(scopes("a", "b").options).toEqual({ all: ["a", "b"] });
    expect(scopes({ any: ["a"], mode: "report" }).options).toEqual({ any: ["a"], mode: "report" });
    for (const declared of [scopes("a"), scopes("a", "b"), scopes({ any: ["a"] })]) {
      expect(declared).toMatchObject({ kind: "policy", policy: "scopes" });
      expect(schema().safeParse(declared.options).success).toBe(true);
      expect(declared.declaredAt.stack?.split("\n")[1]).toContain("scopes.test.ts");
    }
  });

  test("refuses other shapes", () => {
    for (const options of [{ all: [] }, { any: [] }, { all: "a" }, { all: [1] }, { some: ["a"] }, { mode: "maybe" }]) {
      expect([options, schema().safeParse(options).success]).toEqual([options, false]);
    }
  });

  test("reports what is no scope, and that there is none", () => {
    const problemsOf = (options: ScopesOptions) => {
      const context = compileContext();
      compile(options, context);
      return context.problems;
    };
    expect(problemsOf({ all: ["orders:read", "https://api.example/x", "!"], any: ["a~b"] })).toEqual([]);
    expect(problemsOf({})).toEqual([expect.stringContaining("names no scope")]);
    for (const bad of ["", "a b", 'a"', "a\\b", "é", "a\n"]) {
      expect(problemsOf({ any: [bad] })).toEqual([expect.stringContaining("is no scope")]);
    }
  });

  test("makes the same JSON of the same scopes in another order", () => {
    const one = compile({ all: ["b", "a"] }, compileContext());
    expect(one).toEqual(compile({ all: ["a", "b", "a"] }, compileContext()));
  });
});
