import { existsSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { compileRules } from "../../src/seclang/compile.ts";
import { Engine } from "../../src/waf/engine.ts";
import type { WafRequest } from "../../src/waf/request.ts";
import { isThere } from "../real-parts.ts";
import { scripts, sqlInjections } from "./corpus/attacks.ts";
import { ordinary, refusedByPatterns } from "./corpus/ordinary.ts";

const RULES = "/usr/share/modsecurity-crs/rules";
const DETECTORS = new Set([941100, 941101, 942100, 942101]);

const latin1 = (text: string) => Buffer.from(text, "utf8").toString("latin1");
const BROWSER = ordinary.agents?.[0] as string;

function get(uri: string, headers: Readonly<Record<string, string>> = {}): WafRequest {
  const all = { host: "api.example.com", "user-agent": BROWSER, accept: "application/json", ...headers };
  return {
    method: "GET",
    uri,
    protocol: "HTTP/1.1",
    headers: Object.entries(all),
    body: "",
    clientAddress: "192.0.2.1",
  };
}

function post(type: string, body: string): WafRequest {
  const head = get("/v1/notes", { "content-type": type, "content-length": String(body.length) });
  return { ...head, method: "POST", body };
}

const encoded = (value: string) => encodeURIComponent(value).replaceAll("'", "%27");

/** The requests that carry such a value. */
function carriers(kind: string, value: string): Record<string, WafRequest> {
  if (kind === "agents") return { "User-Agent": get("/", { "user-agent": value }) };
  if (kind === "cookies") return { Cookie: get("/", { cookie: latin1(value) }) };
  if (kind === "json") return { body: post("application/json", latin1(value)) };
  return {
    query: get(`/v1/search?q=${encoded(value)}`),
    form: post("application/x-www-form-urlencoded", `note=${encoded(value)}&x=1`),
    JSON: post("application/json", latin1(JSON.stringify({ note: value, tags: [value] }))),
    multipart: post(
      "multipart/form-data; boundary=b0undary",
      `--b0undary\r\nContent-Disposition: form-data; name="note"\r\n\r\n${latin1(value)}\r\n--b0undary--\r\n`,
    ),
  };
}

describe.skipIf(!isThere("modsecurity-crs", existsSync(RULES)))("the Core Rule Set 3.3.4 at paranoia 1", () => {
  const { pack } = compileRules(RULES, { paranoia: 1 });
  const engine = new Engine(pack);
  const matched = (request: WafRequest) => engine.evaluate(request).matches.map(({ id }) => id);

  test.each(Object.entries(ordinary))("lets ordinary %s pass", (kind, values) => {
    const refused: string[] = [];
    for (const value of values) {
      for (const [carrier, request] of Object.entries(carriers(kind, value))) {
        const { interruption, matches } = engine.evaluate(request);
        if (interruption) refused.push(`${JSON.stringify(value)} in ${carrier}: ${matches.map(({ id }) => id)}`);
      }
    }
    expect(refused).toEqual([]);
  });

  test("what its patterns refuse, the detectors leave alone", () => {
    for (const value of refusedByPatterns) {
      for (const request of Object.values(carriers("", value))) {
        expect(
          matched(request).filter((id) => DETECTORS.has(id)),
          value,
        ).toEqual([]);
      }
    }
  });

  test("refuses attacks, wherever they are", () => {
    const passed: string[] = [];
    for (const value of [...sqlInjections, ...scripts]) {
      for (const [carrier, request] of Object.entries(carriers("", value))) {
        if (!engine.evaluate(request).interruption) passed.push(`${JSON.stringify(value)} in ${carrier}`);
      }
    }
    expect(passed).toEqual([]);
  });
});
