import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { exclusionCode, proposals } from "../../src/build/waf-commands.ts";
import { Gateway } from "./gateway.ts";

const RULES = JSON.stringify(join(import.meta.dirname, "..", "seclang", "rules"));
const OWN = mkdtempSync(join(tmpdir(), "portcullis-rules-"));
writeFileSync(
  join(OWN, "statuses.conf"),
  [
    'SecRule ARGS:gone "@streq 1" "id:901,phase:2,deny,status:410,log"',
    'SecRule ARGS:moved "@streq 1" "id:902,phase:2,redirect:https://example.com/,status:403,log"',
    'SecRule RESPONSE_BODY "@contains ORA-" "id:903,phase:4,deny,status:500,log"',
  ].join("\n"),
);
const ROUTES = `
import { api, cluster, env, gateway, route, waf } from "portcullis";
const to = cluster("backend", { ingress: env("BACKEND") });
const rules = ${RULES};
const at = (name, options) => route(name, { path: "/" + name }, { policies: [waf({ rules, ...options })], to });
export default gateway({}, [
  api("shop", {}, [
    at("enforced", {}),
    at("reported", { mode: "report" }),
    at("excluded", { exclude: [{ rule: 10, target: "ARGS:/^q(?:uery)?$/" }] }),
    at("never", { sample: 0 }),
    at("json", { body: { kinds: ["json"] } }),
    at("small", { body: { inspect: 20, tooLarge: "refuse" } }),
    at("answers", { response: true }),
    at("statuses", { response: true, before: [${JSON.stringify(join(OWN, "statuses.conf"))}] }),
  ]),
]);
`;

let backend: Server;
let gateway: Gateway;
const bodies: string[] = [];

beforeAll(async () => {
  backend = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => {
      body += chunk;
    });
    request.on("end", () => {
      bodies.push(body);
      response.setHeader("content-type", "text/plain");
      response.end(request.headers["x-fail"] ? "error ORA-00933 here" : "fine");
    });
  });
  await new Promise<void>((resolve) => backend.listen(0, "127.0.0.1", resolve));
  const { port } = backend.address() as AddressInfo;
  gateway = await Gateway.start({ routes: ROUTES, texts: { BACKEND: `http://127.0.0.1:${port}` } });
});

afterAll(async () => {
  await gateway?.close();
  backend?.close();
  rmSync(OWN, { recursive: true });
});

async function ask(path: string, init?: RequestInit) {
  const answer = await fetch(`http://127.0.0.1:${gateway.port}${path}`, init);
  const text = await answer.text();
  const record = await recordOf(path.split("?", 1)[0] as string);
  return { status: answer.status, text, verdict: record?.policies.find(({ policy }) => policy === "waf"), record };
}

/** The last one for that path, which is written when the answer has gone. */
async function recordOf(path: string) {
  const before = gateway.records.length;
  for (let i = 0; i < 100 && !gateway.records.some((record) => record.path === path); i++)
    await new Promise((resolve) => setTimeout(resolve, 10));
  await new Promise((resolve) => setTimeout(resolve, before === gateway.records.length ? 20 : 0));
  return gateway.records.findLast((record) => record.path === path);
}

const ATTACK = "q=1%20union%20select%20secretvalue";
const form = (body: string, type = "application/x-www-form-urlencoded") => ({
  method: "POST",
  body,
  headers: { "content-type": type },
});

describe("the waf policy, in workerd", () => {
  it("refuses an attack and says nothing of its rules to the client", async () => {
    const { status, text, verdict } = await ask(`/enforced?${ATTACK}`);
    expect(status).toBe(403);
    expect(JSON.parse(text)).toMatchObject({ code: "request-filtered" });
    expect(text).not.toContain("union");
    expect(verdict).toMatchObject({
      verdict: "deny",
      reason: "request-filtered",
      facts: { rules: [{ rule: 10, targets: ["ARGS:q"] }, { rule: 90 }] },
    });
  });

  it("lets ordinary requests and their bodies pass, whole", async () => {
    const long = `note=${"a ".repeat(100_000)}`;
    expect((await ask("/enforced", form(long))).status).toBe(200);
    expect(bodies.at(-1)).toBe(long);
  });

  it("looks into bodies", async () => {
    expect((await ask("/enforced", form(ATTACK))).status).toBe(403);
    expect((await ask("/enforced", form('{"a":{"q":"union select"}}', "application/json"))).status).toBe(403);
  });

  it("reports, and never tells a value", async () => {
    const { status, verdict, record } = await ask(`/reported?${ATTACK}`);
    expect(status).toBe(200);
    expect(verdict).toMatchObject({ verdict: "would-deny" });
    expect(JSON.stringify(record)).not.toContain("secretvalue");
  });

  it("leaves out what is excluded, and what is not sampled", async () => {
    expect((await ask(`/excluded?${ATTACK}`)).status).toBe(200);
    expect((await ask("/excluded?p=union%20select")).status).toBe(403);
    expect((await ask(`/never?${ATTACK}`)).status).toBe(200);
  });

  it("refuses bodies of kinds that the API does not read, and those that are too large to be looked at", async () => {
    expect((await ask("/json", form("{}", "application/json"))).status).toBe(200);
    expect((await ask("/json", form("a=b"))).status).toBe(403);
    expect((await ask("/small", form(`a=${"b".repeat(50)}`))).status).toBe(413);
    expect((await ask("/small", form("a=b"))).status).toBe(200);
  });

  it("holds answers back", async () => {
    expect(await ask("/answers")).toMatchObject({ status: 200, text: "fine", verdict: { verdict: "pass" } });
    const refused = await ask("/answers", { headers: { "x-fail": "1" } });
    expect(refused).toMatchObject({ status: 502, verdict: { verdict: "deny", reason: "response-filtered" } });
    expect(refused.text).not.toContain("ORA-");
  });

  it("answers with the status that a rule names", async () => {
    const gone = await ask("/statuses?gone=1");
    expect(gone.status).toBe(410);
    expect(JSON.parse(gone.text)).toMatchObject({ code: "request-filtered", status: 410 });
    expect(gone.record).toMatchObject({ status: 410, reason: "request-filtered" });
    const answer = await ask("/statuses", { headers: { "x-fail": "1" } });
    expect(answer).toMatchObject({ status: 500, record: { reason: "response-filtered" } });
    const moved = await ask("/statuses?moved=1", { redirect: "manual" });
    expect(moved.status).toBe(302);
  });

  it("gives records from which exclusions are proposed", () => {
    const log = gateway.records
      .filter(({ path }) => path === "/reported")
      .map((record) => JSON.stringify(record))
      .join("\n");
    const found = proposals(log);
    expect(found.proposals[0]).toEqual({
      policy: "waf",
      rule: 10,
      target: "ARGS:q",
      requests: 1,
      routes: ["shop/reported"],
    });
    expect(exclusionCode(found.proposals)).toContain('{ rule: 10, target: "ARGS:q" }, // 1 request to shop/reported');
  });
});
