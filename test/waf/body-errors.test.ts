import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { compileRules } from "../../src/seclang/compile.ts";
import { Engine } from "../../src/waf/engine.ts";
import type { Verdict } from "../../src/waf/request.ts";
import { CRS_RULES, isThere } from "../real-parts.ts";

const folder = mkdtempSync(join(tmpdir(), "portcullis-rules-"));
afterAll(() => rmSync(folder, { recursive: true }));
// Like those with which ModSecurity comes, which are no part of the Core Rule Set; the last one looks at what was read nevertheless.
writeFileSync(
  join(folder, "a.conf"),
  [
    'SecRule REQBODY_ERROR "!@eq 0" "id:200002,phase:2,deny,status:400,log,logdata:\'%{REQBODY_ERROR_MSG}\'"',
    'SecRule MULTIPART_STRICT_ERROR "!@eq 0" "id:200003,phase:2,deny,status:400,log"',
    'SecRule MULTIPART_UNMATCHED_BOUNDARY "@eq 1" "id:200004,phase:2,deny,status:400,log"',
    'SecRule REQBODY_PROCESSOR_ERROR "@eq 1" "id:200010,phase:2,pass,log"',
    'SecRule URLENCODED_ERROR "@eq 1" "id:200011,phase:2,pass,log"',
    'SecRule ARGS|XML:/*|FILES "@contains attack" "id:1,phase:2,pass,log"',
  ].join("\n"),
);
const { pack, problems } = compileRules(folder, { messages: true, settings: { engine: "detection-only" } });
const engine = new Engine(pack);

const posted = (to: Engine, type: string, body: string): Verdict =>
  to.evaluate({
    method: "POST",
    uri: "/",
    protocol: "HTTP/1.1",
    headers: [
      ["Host", "shop.example.com"],
      ["User-Agent", "test"],
      ["Accept", "*/*"],
      ["Content-Type", type],
      ["Content-Length", String(body.length)],
    ],
    body,
    clientAddress: "192.0.2.1",
  });
const matched = (type: string, body: string): number[] =>
  posted(engine, type, body)
    .matches.map(({ id }) => id)
    .sort((a, b) => a - b);

const BOUNDARY = "multipart/form-data; boundary=frontier";
const part = (headers: string, content: string) => `--frontier\r\n${headers}\r\n\r\n${content}\r\n`;
const FIELD = 'Content-Disposition: form-data; name="a"';

describe("a body that is not what it says", () => {
  it("is none of these", () => {
    expect(problems).toEqual([]);
    expect(matched("application/json", '{"a":"b"}')).toEqual([]);
    expect(matched("text/xml", "<a>b</a>")).toEqual([]);
    expect(matched(BOUNDARY, `${part(FIELD, "b")}--frontier--\r\n`)).toEqual([]);
    expect(matched("application/x-www-form-urlencoded", "a=b")).toEqual([]);
    expect(matched("text/plain", "{")).toEqual([]);
  });

  it.each([
    ["JSON that ends early", "application/json", '{"a":"attack"', [1, 200002, 200010]],
    ["JSON with more behind it", "application/json", '{"a":"attack"} {', [1, 200002, 200010]],
    ["JSON by another name", "application/problem+json; charset=utf-8", "{a:1}", [200002, 200010]],
    ["XML that is not well-formed", "text/xml", "<a><b>attack</a>", [1, 200002, 200010]],
    ["XML that declares entities", "application/xml", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', [200002, 200010]],
    ["multipart without an end", BOUNDARY, part(FIELD, "attack"), [1, 200002, 200003, 200010]],
    ["multipart without a boundary", "multipart/form-data", part(FIELD, "b"), [200002, 200003, 200010]],
    ["multipart with a folded header", BOUNDARY, `${part(`${FIELD};\r\n x=y`, "b")}--frontier--\r\n`, [200003]],
    ["multipart with a line like a boundary", BOUNDARY, `${part(FIELD, "--other")}--frontier--\r\n`, [200004]],
    [
      "multipart with more behind a boundary",
      BOUNDARY,
      `${part(FIELD, "--frontiers")}--frontier--\r\n`,
      [200002, 200003, 200004, 200010],
    ],
    ["a form with half an escape", "application/x-www-form-urlencoded", "a=attack%2", [1, 200011]],
  ] as const)("%s", (_, type, body, rules) => {
    expect(matched(type, body)).toEqual(rules);
  });

  it("is refused with the rule's status, and the reason tells nothing of its values", () => {
    const { matches, interruption } = posted(engine, "application/json", '{"a":"secret"');
    expect(interruption).toMatchObject({ rule: 200002, status: 400, phase: 2 });
    const [{ data = "" } = {}] = matches;
    expect(data).toMatch(/^JSON: .+/);
    expect(data).not.toContain("secret");
  });
});

describe("a request that cannot be read as a whole, where the folder has no rule for it", () => {
  const bare = mkdtempSync(join(tmpdir(), "portcullis-rules-"));
  afterAll(() => rmSync(bare, { recursive: true }));
  writeFileSync(join(bare, "a.conf"), 'SecRule ARGS|XML:/* "@contains attack" "id:1,phase:2,deny,log"');
  const judge = new Engine(compileRules(bare, { messages: true }).pack);
  const FORM = "application/x-www-form-urlencoded";
  const refused = { rule: 200002, status: 400 };

  it.each([
    ["more elements than are read", "application/json", `[${"1,".repeat(1000)}"attack"]`],
    ["deeper than is read", "application/json", `${"[".repeat(513)}"attack"${"]".repeat(513)}`],
    ["what only lenient readers read", "application/json", '{"a":1,/**/"b":"attack"}'],
    ["more fields than are read", FORM, `${"a=1&".repeat(1000)}a=attack`],
    ["more parts than are read", BOUNDARY, `${part(FIELD, "b").repeat(1000)}${part(FIELD, "attack")}--frontier--\r\n`],
    ["XML that is deeper", "text/xml", `${"<a>".repeat(513)}attack${"</a>".repeat(513)}`],
  ])("is refused: %s", (_, type, body) => {
    expect(posted(judge, type, body).interruption).toMatchObject(refused);
  });

  it("is refused for its query, too", () => {
    const asking = (uri: string, rest = {}) =>
      judge.evaluate({
        ...{ method: "GET", uri, protocol: "HTTP/1.1", headers: [], body: "", clientAddress: "192.0.2.1" },
        ...rest,
      });
    const uri = `/?${"a&".repeat(1000)}a=attack`;
    expect(asking(uri).interruption).toMatchObject(refused);
    const headers = [["Content-Type", FORM]];
    expect(asking(uri, { headers, body: "a=b", truncated: true }).interruption).toMatchObject(refused);
    expect(asking(`/?${"a&".repeat(999)}a=b`).interruption).toBeUndefined();
  });

  it("is not what was cut off at the limit", () => {
    for (const [type, body] of [
      ["application/json", '{"a":"b'],
      ["text/xml", "<a>b"],
      [BOUNDARY, part(FIELD, "b")],
    ] as const) {
      const headers = [["Content-Type", type]] as const;
      const cut = { method: "POST", uri: "/", protocol: "HTTP/1.1", headers, body, clientAddress: "", truncated: true };
      expect(judge.evaluate(cut).matches).toEqual([]);
      expect(engine.evaluate(cut).matches).toEqual([]);
    }
  });

  it("is left to a rule of the folder that asks for it", () => {
    writeFileSync(join(bare, "a.conf"), 'SecRule REQBODY_ERROR "!@eq 0" "id:5,phase:2,pass,log"');
    const { pack } = compileRules(bare);
    expect(pack.rules.map(({ id }) => id)).toEqual([5]);
  });
});

describe.skipIf(!isThere("modsecurity-crs", existsSync(CRS_RULES)))("the Core Rule Set", () => {
  const crs = new Engine(compileRules(CRS_RULES, { paranoia: 1, settings: { engine: "detection-only" } }).pack);
  const ids = (type: string, body: string) => posted(crs, type, body).matches.map(({ id }) => id);
  const file = (name: string) =>
    `${part(`Content-Disposition: form-data; name="f"; filename="${name}"`, "x")}--frontier--\r\n`;

  it("judges names of files, types of content, and what was read before an error", () => {
    expect(ids(BOUNDARY, file("a.txt"))).toEqual([]);
    expect(ids(BOUNDARY, file("a;b.txt"))).toContain(920120);
    expect(ids("application/x-unknown", "a")).toContain(920420);
    expect(ids("application/json", `{"a":"1' or '1'='1`)).toEqual([200002]);
    expect(ids("application/json", `{"a":"1' or '1'='1","b"`)).toContain(942100);
  });
});
