import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test, vi } from "vitest";
import { compileRules } from "../../src/seclang/compile.ts";
import { Engine } from "../../src/waf/engine.ts";
import type { RulePack } from "../../src/waf/pack.ts";
import type { WafRequest } from "../../src/waf/request.ts";

const folder = mkdtempSync(join(tmpdir(), "portcullis-rules-"));
afterAll(() => rmSync(folder, { recursive: true }));

function compileText(text: string): RulePack {
  writeFileSync(join(folder, "a.conf"), text);
  const { pack, problems } = compileRules(folder);
  expect(problems).toEqual([]);
  return pack;
}

/** Every rule is asked about everything. */
const unfiltered = (pack: RulePack): Engine =>
  new Engine({
    ...pack,
    prefilter: { ...pack.prefilter, atoms: [], clausesOfWord: pack.prefilter.clausesOfWord.map(() => []) },
  });

const RESTRICTED = "/content-encoding/ /proxy/ /if/";
const NOTING = [
  'SecRule REQUEST_HEADERS_NAMES "@rx ^.*$" "id:1,phase:1,deny,log,capture,t:lowercase,' +
    "setvar:'tx.name_%{tx.0}=/%{tx.0}/',chain\"",
  `SecRule TX:/^name_/ "@within ${RESTRICTED}" "setvar:tx.score=+5"`,
].join("\n");
const request = (rest: Partial<WafRequest>): WafRequest => ({
  method: "GET",
  uri: "/",
  protocol: "HTTP/1.1",
  headers: [["Host", "shop.example.com"]],
  body: "",
  clientAddress: "192.0.2.1",
  ...rest,
});

describe("a chain that writes down what it then looks at", () => {
  const guards = (pack: RulePack) => pack.prefilter.atoms.filter(({ guard }) => guard !== undefined).length;

  test("is asked where that can match, and tells the same", () => {
    const pack = compileText(NOTING);
    expect(guards(pack)).toBe(1);
    const engine = new Engine(pack);
    expect(engine.evaluate(request({ headers: [["Accept", "*/*"]] })).matches).toEqual([]);
    const headers = [
      ["Accept", "*/*"],
      ["Proxy", "a"],
    ] as const;
    expect(engine.evaluate(request({ headers }))).toEqual(unfiltered(pack).evaluate(request({ headers })));
    expect(engine.evaluate(request({ headers })).matches).toMatchObject([{ id: 1, on: [{ name: "TX:name_proxy" }] }]);
  });

  test("is asked where another rule reads by a pattern what it would write", () => {
    const pack = compileText(`${NOTING}\nSecRule TX:/odd_/ "@contains /" "id:2,phase:1,deny,log"`);
    expect(guards(pack)).toBe(1);
    const odd = request({ headers: [["Odd_One", "a"]] });
    expect(new Engine(pack).evaluate(odd)).toEqual(unfiltered(pack).evaluate(odd));
    expect(new Engine(pack).evaluate(odd).matches).toMatchObject([{ id: 2 }]);
  });

  test("is asked always where others read it otherwise, write it, or it does more", () => {
    for (const more of [
      'SecRule TX:name_host "@streq /host/" "id:2,phase:1,deny"',
      'SecRule &TX "@gt 7" "id:2,phase:1,deny"',
      'SecRule ARGS "@streq %{tx.name_host}" "id:2,phase:1,deny"',
      'SecRule ARGS "@streq a" "id:2,phase:1,pass,setvar:\'tx.name_%{ARGS.a}=/proxy/\'"',
      'SecAction "id:2,phase:1,pass,nolog,setvar:tx.name_x=/proxy/"',
    ])
      expect([more, guards(compileText(`${NOTING}\n${more}`))]).toEqual([more, 0]);
    expect(guards(compileText(NOTING.replace("/'", "/',setvar:tx.seen=1")))).toBe(0);
    expect(guards(compileText(NOTING.replace("TX:/", "!TX:name_a|TX:/")))).toBe(0);
  });
});

test("what the prefilter leaves out would not have matched, whatever was seen before", () => {
  const pack = compileText(
    [
      NOTING,
      'SecRule REQUEST_METHOD "!@within GET POST" "id:10,phase:1,pass,log"',
      'SecRule REQUEST_HEADERS:Accept "!@rx ^[a-z/*]+$" "id:11,phase:1,pass,log,t:lowercase"',
      'SecRule REQUEST_HEADERS|REQUEST_HEADERS:X-Name "@rx a.b" "id:12,phase:2,pass,log,capture,chain"',
      'SecRule MATCHED_VAR "!@contains c" "setvar:tx.score=+1"',
      'SecRule REQUEST_COOKIES|REQUEST_HEADERS|!REQUEST_HEADERS:Cookie "@rx ^$" "id:13,phase:2,pass,log"',
      'SecRule REQUEST_COOKIES:/^x/ "@unconditionalMatch" "id:14,phase:1,pass,log,t:sha1,t:hexEncode"',
      'SecRule ARGS|ARGS_NAMES "@pm select union" "id:15,phase:2,pass,log,t:urlDecodeUni,t:base64Decode,multiMatch"',
      'SecRule REQUEST_URI|REQUEST_URI_RAW|ARGS "!@validateByteRange 1-127" "id:16,phase:2,pass,log,t:urlDecodeUni"',
      'SecRule REQBODY_PROCESSOR "!@rx JSON" "id:17,phase:1,pass,log"',
      'SecRule REMOTE_ADDR "@ipMatch 192.0.2.2" "id:19,phase:2,pass,log"',
      'SecRule ARGS:/^x/ "@gt 3" "id:18,phase:2,pass,log,t:length"',
    ].join("\n"),
  );
  const [filtered, asked] = [new Engine(pack), unfiltered(pack)];
  const text = fc.constantFrom("", "a", "aXb", "acb", "x", "*/*", "c2VsZWN0", "select", "UNION%2f", "\xe9", "%c3%a9");
  const name = fc.constantFrom("Accept", "x-name", "Proxy", "IF", "a", "x1", "select", "Host");
  const pair = fc.tuple(name, text);
  const any = fc.record({
    method: fc.constantFrom("GET", "POST", "PUT"),
    headers: fc.array(pair, { maxLength: 4 }),
    cookies: fc.array(pair, { maxLength: 2 }),
    query: fc.array(pair, { maxLength: 3 }),
    body: fc.array(pair, { maxLength: 3 }),
    type: fc.constantFrom("application/json", "application/x-www-form-urlencoded", ""),
  });
  const joined = (pairs: readonly (readonly [string, string])[], by: string) =>
    pairs.map(([key, value]) => `${key}=${value}`).join(by);
  fc.assert(
    fc.property(any, ({ method, headers, cookies, query, body, type }) => {
      const json = JSON.stringify(Object.fromEntries(body));
      const one = request({
        method,
        uri: `/path?${joined(query, "&")}`,
        headers: [...headers, ["Cookie", joined(cookies, "; ")], ["Content-Type", type]],
        body: type === "application/json" ? json : joined(body, "&"),
      });
      // The same once more, and what shares its line or its headers with the last one.
      const others = [
        { ...one, uri: "/other?x1=abcd" },
        { ...one, headers: [["Accept", "a.b"] as const] },
      ];
      for (const each of [one, one, ...others, { ...one, clientAddress: "192.0.2.2" }])
        expect(filtered.evaluate(each)).toEqual(asked.evaluate(each));
    }),
    { numRuns: 500 },
  );
});

test("a rule of several words is found however much was looked at before", () => {
  const pack = compileText('SecRule ARGS "@rx (?:foo|baz)[0-9]+bar" "id:1,phase:2,pass,log"');
  expect(pack.prefilter.atoms.map(({ clauses }) => clauses)).toContain(2);
  // What counts as many looks as 32 bits hold would take minutes to reach: 8 bits instead.
  vi.stubGlobal("Int32Array", Int8Array);
  const engine = new Engine(pack);
  vi.unstubAllGlobals();
  for (let i = 0; i < 300; i++)
    expect(engine.evaluate(request({ uri: `/?a=foo${i}bar` })).matches).toMatchObject([{ id: 1 }]);
});
