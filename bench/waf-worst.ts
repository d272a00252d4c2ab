/** The dearest of many requests that are made to be dear: what no load test finds. */
import { compileRules } from "../src/seclang/compile.ts";
import { Engine } from "../src/waf/engine.ts";
import type { WafRequest } from "../src/waf/request.ts";

const BYTES = 8_192;
const AGAIN = 8;

/** What regexes repeat, and what attacks are made of. */
const PUMPS = [
  ..."\n<> '\"();,&=+-*/\\#@$%|{}[]!?.:~^_`a0\t\0\xe9",
  "../",
  "/*",
  "*/",
  "--",
  "<script",
  "select ",
  "union ",
  "alter ",
  "or ",
  "and 1=",
  "cmd ",
  "$(",
  "${",
  "%0a",
  "%u00",
  "&#x",
  "\\u00",
  "0x",
  "http://",
  "on",
  '="',
  "ls ;",
  "{{",
  "x=1&",
  "\r\n",
  "<!--",
  "' or '",
  "char(",
  "concat(",
  "data:",
  "php://",
  "__proto__",
];

/**
 * Milliseconds of the dearest of `count`. What is dear once is asked again, as V8 compiles and collects in between and other processes
 * take their turns; the least counts. By the clock, as the CPU time of a thread is told in ticks of 4 ms on many machines.
 */
export function worstOf(rules: string, count: number): number {
  const { pack, problems } = compileRules(rules, { paranoia: 1 });
  if (problems.length > 0) throw new Error(`${rules} has rules that cannot be compiled, see gateway waf compile`);
  const engine = new Engine(pack);
  const random = generator(20_261_128);
  let worst = 0;
  for (let i = 0; i < count; i++) {
    const request = fuzzed(random);
    let cost = timeOf(engine, request);
    for (let again = 0; again < AGAIN && cost > worst; again++) cost = Math.min(cost, timeOf(engine, request));
    worst = Math.max(worst, cost);
  }
  return worst;
}

function timeOf(engine: Engine, request: WafRequest): number {
  const before = performance.now();
  engine.evaluate(request);
  return performance.now() - before;
}

function fuzzed(random: () => number): WafRequest {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const parts = Array.from({ length: 1 + Math.floor(random() * 4) }, () => pick(PUMPS));
  let text = "";
  // Either one thing over and over, or a mixture.
  if (random() < 0.5) text = parts.join("").repeat(BYTES);
  else while (text.length < BYTES) text += pick(parts).repeat(1 + Math.floor(random() * 40));
  text = text.slice(0, BYTES);
  const target = text.replace(
    /[^!-~]|[%#&+"<>]/g,
    (character) => `%${character.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
  const headers: [string, string][] = [
    ["Host", "api.example.com"],
    ["Accept", "*/*"],
    ["User-Agent", "fuzz"],
  ];
  const post = (type: string, body: string): WafRequest => ({
    method: "POST",
    uri: "/v1/orders",
    protocol: "HTTP/1.1",
    headers: [...headers, ["Content-Type", type], ["Content-Length", String(body.length)]],
    body,
    clientAddress: "192.0.2.1",
  });
  const ask = (uri: string, more: [string, string][] = []): WafRequest => ({
    method: "GET",
    uri,
    protocol: "HTTP/1.1",
    headers: [...headers, ...more],
    body: "",
    clientAddress: "192.0.2.1",
  });
  const header = text.replace(/[\r\n\0]/g, " ");
  switch (Math.floor(random() * 7)) {
    case 0:
      return ask(`/v1/orders?q=${target.slice(0, BYTES)}`);
    case 1:
      return post("application/x-www-form-urlencoded", `q=${target.slice(0, BYTES)}`);
    case 2:
      return post("application/json", JSON.stringify({ q: text }));
    case 3:
      return post("application/x-www-form-urlencoded", text);
    case 4:
      return ask("/v1/orders", [[pick(["Referer", "Cookie", "X-Filename", "Accept-Language"]), header]]);
    case 5:
      return post("text/xml", `<a b="${text.replace(/["<&]/g, "")}">${text}</a>`);
    default:
      return ask(`/${target.slice(0, BYTES)}`);
  }
}

/** The same numbers in each run (Mulberry32). */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
