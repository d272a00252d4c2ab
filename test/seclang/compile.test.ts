import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { type CompileOptions, compileRules } from "../../src/seclang/compile.ts";
import { exclusionsOf, prunedFor } from "../../src/seclang/exclusions.ts";
import { Engine } from "../../src/waf/engine.ts";
import { decodePack, encodePack } from "../../src/waf/pack-encoding.ts";
import type { WafRequest } from "../../src/waf/request.ts";

const RULES = join(import.meta.dirname, "rules");
const compiled = compileRules(RULES);
const engine = new Engine(compiled.pack);
const ids = (verdict: { matches: readonly { id: number }[] }) => verdict.matches.map(({ id }) => id);

const request = (uri: string, rest: Partial<WafRequest> = {}): WafRequest => ({
  method: "GET",
  uri,
  protocol: "HTTP/1.1",
  headers: [["Host", "shop.example.com"]],
  body: "",
  clientAddress: "192.0.2.1",
  ...rest,
});

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

/** The rules of one file, with its name in problems as `a.conf`. */
function compileText(text: string, options: CompileOptions = {}) {
  const folder = mkdtempSync(join(tmpdir(), "portcullis-rules-"));
  folders.push(folder);
  writeFileSync(join(folder, "a.conf"), text);
  return compileRules(folder, options);
}

const faults = (text: string, options?: CompileOptions) =>
  compileText(text, options).problems.map(({ line, rule, message }) => `${line} ${rule ?? "-"} ${message}`);

describe("folding", () => {
  it("leaves rules out that the configuration decides, and keeps what the request decides", () => {
    expect(compiled.problems).toEqual([]);
    expect(compiled.pack.rules.map(({ id }) => id)).toEqual([11, 12, 200002, 10, 13, 90]);
    expect(compiled.pack.variables).toEqual({ "tx.score": "0" });
  });

  it("finds rules of a higher level when the configuration asks for it", () => {
    const strict = compileRules(RULES, { variables: { level: "2" } });
    // The rules' own action comes later, and sets it again.
    expect(strict.pack.rules.map(({ id }) => id)).not.toContain(4);
    const text =
      'SecRule TX:level "@lt 2" "id:3,phase:2,pass,nolog,skipAfter:END"\nSecRule ARGS "@contains a" "id:4,phase:2,deny"\nSecMarker END';
    const ids = (level: string) => compileText(text, { variables: { level } }).pack.rules.map(({ id }) => id);
    expect(ids("2")).toEqual([200002, 4]);
    expect(ids("1")).toEqual([200002]);
  });

  it("does not take for certain what stands behind a skip that depends on the request", () => {
    const { pack } = compileText(
      [
        'SecRule REQUEST_METHOD "@streq GET" "id:1,phase:1,pass,nolog,skipAfter:HERE"',
        'SecAction "id:2,phase:1,pass,nolog,setvar:tx.seen=1"',
        "SecMarker HERE",
        'SecRule TX:seen "@eq 1" "id:3,phase:1,deny,log"',
      ].join("\n"),
    );
    const asked = new Engine(pack);
    expect(asked.evaluate(request("/")).interruption).toBeUndefined();
    expect(asked.evaluate(request("/", { method: "POST" })).interruption).toMatchObject({ rule: 3 });
  });

  it("refuses a configuration with which a rule would refuse everything", () => {
    expect(faults('SecRule &TX:setup "@eq 0" "id:7,phase:1,deny,msg:\'No setup\'"')).toEqual([
      "1 7 with this configuration it refuses every request: No setup",
    ]);
  });
});

describe("what cannot be compiled", () => {
  const text = [
    'SecRule REMOTE_ADDR "@rbl dns.example.com" "id:1,phase:1,deny"',
    'SecRule ARGS "@rx (" "id:2,phase:2,deny"',
    'SecRule NOTHING "@rx a" "id:3,phase:2,deny"',
    'SecRule ARGS "@rx a" "id:4,phase:2,deny,t:rot13"',
    'SecRule ARGS "@rx a" "id:5,phase:2,exec:/bin/true"',
    "SecFrobnicate On",
    'SecRule ARGS "@rx a" "id:6,phase:2,deny"',
  ].join("\n");

  it("is told with line and rule", () => {
    expect(faults('SecRule ARGS "@rx a" "id:1,phase:2,deny" t:none')[0]).toContain("SecRule takes variables");
    expect(faults('SecAction "id:1,phase:2,pass" log')[0]).toContain("SecAction takes actions");
    const told = faults(text);
    expect(told.map((fault) => fault.split(" ").slice(0, 2).join(" ")).sort()).toEqual([
      "1 1",
      "2 2",
      "3 3",
      "4 4",
      "5 5",
      "6 -",
    ]);
    expect(told.join("\n")).toContain("@rbl is not supported");
    expect(told.join("\n")).toContain("t:rot13 is not known");
  });

  it("is a status that refuses nothing", () => {
    expect(faults('SecRule ARGS "@rx a" "id:1,phase:2,deny,status:200"')).toEqual([
      "1 1 deny answers with a status from 400 to 599, not 200",
    ]);
  });

  it("is a selector that only backtracking could run", () => {
    const told = faults(
      [
        'SecRule ARGS:/a(?=b)/ "@rx a" "id:1,phase:2,deny"',
        'SecRule ARGS|!ARGS:/(a)\\1/ "@rx a" "id:2,phase:2,deny"',
        'SecRule ARGS:/(/ "@rx a" "id:3,phase:2,deny"',
        'SecAction "id:4,phase:1,pass,ctl:ruleRemoveTargetById=1;ARGS:/(?<!a)b/"',
      ].join("\n"),
    );
    expect(told.map((fault) => fault.split(":", 1)[0])).toEqual([
      "1 1 the selector /a(?=b)/ does not run in linear time",
      "2 2 the selector /(a)\\1/ does not run in linear time",
      "3 3 the selector /(/ is no regular expression",
      "4 4 the selector /(?<!a)b/ does not run in linear time",
    ]);
    const exclusion = exclusionsOf({ rule: 10, target: "ARGS:/(?!id)/" }, compiled);
    expect(exclusion).toContain("does not run in linear time");
  });

  it("is left out and listed when that is allowed", () => {
    const { problems, warnings, pack } = compileText(text, { allowUnsupported: true });
    expect(problems).toEqual([]);
    expect(warnings).toHaveLength(6);
    expect(pack.rules.map(({ id }) => id)).toEqual([200002, 6]);
  });
});

describe("what means less here", () => {
  const notes = (text: string, options?: CompileOptions) =>
    compileText(text, options).notes.map(({ line, rule, message }) => `${line} ${rule} ${message}`);

  it("is noted with line and rule, where the configuration leaves it in", () => {
    const text = [
      'SecAction "id:1,phase:1,pass,nolog,initcol:ip=%{REMOTE_ADDR},initcol:global=global"',
      'SecRule REQUEST_METHOD "@streq POST" "id:2,phase:1,pass,nolog,setvar:ip.posts=+1,expirevar:ip.posts=60"',
      'SecRule IP:posts "@gt 10" "id:3,phase:1,deny"',
      'SecRule TX:counts "@eq 1" "id:4,phase:1,pass,nolog,setsid:%{REQUEST_COOKIES.id}"',
      'SecRule ARGS:a "@streq b" "id:5,phase:2,pass,nolog,setvar:tx.seen=1"',
      'SecAction "id:6,phase:5,pass,nolog,setvar:ip.requests=+1"',
      "SecAction \"id:7,phase:5,pass,log,msg:'Done'\"",
    ].join("\n");
    expect(notes(text)).toEqual([
      "1 1 initcol does nothing here",
      "2 2 expirevar does nothing here, and what is in IP is forgotten when the request ends",
      "3 3 what is in IP is forgotten when the request ends",
      "6 6 phase 5, which only logs, is not run",
    ]);
    expect(notes(text, { variables: { counts: "1" } })).toContain("4 4 setsid does nothing here");
  });

  it("a marker that is not there", () => {
    const text = `SecRule ARGS "@rx a" "id:1,phase:2,pass,skipAfter:END-OF-ALL"
SecRule ARGS "@rx b" "id:2,phase:2,pass,skipAfter:END"
SecRule ARGS "@rx c" "id:3,phase:2,deny"
SecMarker END`;
    expect(notes(text)).toEqual([
      "1 1 skipAfter:END-OF-ALL skips the rest of the phase, as no SecMarker has that name",
    ]);
  });
});

describe("the engine", () => {
  it("passes what no rule matches", () => {
    expect(engine.evaluate(request("/?q=red+shoes"))).toEqual({ matches: [], scores: {} });
  });

  it("scores, and refuses from the threshold on", () => {
    const verdict = engine.evaluate(request("/?q=1%20UNION%20%20SELECT%202"));
    expect(ids(verdict)).toEqual([10, 90]);
    expect(verdict.matches[0]?.on).toEqual([{ name: "ARGS:q", value: "1 UNION SELECT 2" }]);
    expect(verdict.scores).toEqual({ score: 5 });
    expect(verdict.interruption).toEqual({ rule: 90, phase: 2, action: "deny", status: 403 });
  });

  it("leaves out what the rule, and what the policy, leaves out", () => {
    expect(ids(engine.evaluate(request("/?note=union%20select")))).toEqual([]);
    const exclusion = exclusionsOf({ tag: "attack-sqli", target: "ARGS:q" }, compiled);
    if (typeof exclusion === "string") throw new Error(exclusion);
    const look = (uri: string) => {
      const transaction = engine.begin(request(uri), { exclusions: [exclusion] });
      transaction.requestHead();
      transaction.requestBody();
      return ids(transaction.verdict());
    };
    expect(look("/?q=union%20select")).toEqual([]);
    expect(look("/?p=union%20select")).toEqual([10, 90]);
    expect(exclusionsOf({ rule: 4711 }, compiled)).toBe("there is no rule 4711");
  });

  it("selects members by a regex, however long a client makes their names", () => {
    const { pack, problems } = compileText(
      [
        'SecRule ARGS:/^(?:x+x+)+Y$/|!ARGS:/-ok$/ "@contains a" "id:1,phase:2,pass,log"',
        'SecRule REQUEST_METHOD "@streq POST" "id:2,phase:1,pass,nolog,ctl:ruleRemoveTargetById=3;ARGS:/^tokens?$/"',
        'SecRule ARGS "@contains a" "id:3,phase:2,pass,log"',
      ].join("\n"),
    );
    expect(problems).toEqual([]);
    const asked = new Engine(pack);
    expect(ids(asked.evaluate(request("/?XXY=a&xx-ok=a")))).toEqual([1, 3]);
    expect(ids(asked.evaluate(request("/?Token=a")))).toEqual([3]);
    expect(ids(asked.evaluate(request("/?Token=a", { method: "POST" })))).toEqual([]);
    const started = performance.now();
    expect(ids(asked.evaluate(request(`/?${"x".repeat(50_000)}=a`)))).toEqual([3]);
    // Backtracking would not end.
    expect(performance.now() - started).toBeLessThan(1_000);
  });

  it("finds phrases of a file in any case, and ends in phase 1", () => {
    const headers: [string, string][] = [["User-Agent", "a Worse Scanner"]];
    expect(engine.evaluate(request("/", { headers })).interruption).toMatchObject({ rule: 11, phase: 1 });
    // A value that matched nothing is remembered; one that matched is asked about each time.
    expect(engine.evaluate(request("/", { headers })).interruption).toMatchObject({ rule: 11 });
  });

  it("finds an injection that has words alone", () => {
    const { pack } = compileText('SecRule ARGS "@detectSQLi" "id:1,phase:2,deny"');
    const asked = new Engine(pack);
    for (const value of ["1e0union select 1", "1 UNION\0select 1", "1 order by 5", "1' or 1=1 --"])
      expect(ids(asked.evaluate(request(`/?q=${encodeURIComponent(value)}`))), value).toEqual([1]);
    expect(ids(asked.evaluate(request("/?q=the%20order%20of%20things&note=a%20credit%20union%2C%20or%20two")))).toEqual(
      [],
    );
  });

  it("needs all links of a chain", () => {
    const post = (value: string) => request("/", { method: "POST", headers: [["X-Secret", value]] });
    expect(ids(engine.evaluate(post("abc")))).toEqual([12, 90]);
    expect(ids(engine.evaluate(post("bc")))).toEqual([]);
  });

  it("tells all and refuses nothing in detection only", () => {
    const transaction = engine.begin(request("/?q=union%20select", { headers: [["User-Agent", "badscanner"]] }), {
      detectionOnly: true,
    });
    transaction.requestHead();
    transaction.requestBody();
    expect(ids(transaction.verdict())).toEqual([11, 10, 90]);
    expect(transaction.interruption).toMatchObject({ rule: 11 });
  });

  it("looks at answers where the pack has rules for them", () => {
    const { pack } = compileRules(RULES, { phases: [1, 2, 3, 4] });
    const verdict = new Engine(pack).evaluate(request("/"), { status: 500, headers: [], body: "error ORA-00933 near" });
    expect(verdict.interruption).toMatchObject({ rule: 91, phase: 4 });
  });

  it("is the same after its way through the bundle", () => {
    const { json, bytes } = encodePack(compiled.pack);
    const decoded = decodePack(json, Buffer.from(bytes).toString("latin1"));
    expect(decoded).toEqual(compiled.pack);
  });

  it("drops rules that only other bodies can trigger", () => {
    expect(prunedFor(["json"], compiled.pack).map((place) => compiled.pack.rules[place]?.id)).toEqual([13]);
    expect(prunedFor(["multipart"], compiled.pack)).toEqual([]);
  });
});
