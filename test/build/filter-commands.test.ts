import { expect, test } from "vitest";
import { testByFilter } from "../../src/build/filter-commands.ts";
import { exclusionCode, parsedRequest, proposals } from "../../src/build/waf-commands.ts";

const tested = (text: string) => testByFilter(parsedRequest(text));

test("without rules `waf test` says what filter would, and on what", () => {
  expect(tested("/?q=1%27%20or%20%271%27=%271")).toEqual({
    refused: true,
    score: 5,
    status: 403,
    rules: [{ id: "sqli-tautology", message: "sqli", on: [{ name: "query:q" }] }],
  });
  expect(tested("/orders?page=2")).toEqual({ refused: false, score: 0, rules: [] });
  expect(tested("/.git/config")).toMatchObject({ refused: false, score: 2, rules: [{ id: "probe" }] });
});

test("it reads a request as it goes over the wire", () => {
  const body = '{"name": "<script>alert(1)</script>"}';
  const request = `POST /orders HTTP/1.1\r\nHost: a.example\r\nUser-Agent: sqlmap/1.7\r\nContent-Type: application/json\r\n\r\n${body}`;
  const { refused, rules } = tested(request);
  expect(refused).toBe(true);
  expect(rules).toContainEqual({ id: "scanner", message: "scanner", on: [{ name: "header:user-agent" }] });
  expect(rules).toContainEqual({ id: "xss-script", message: "xss", on: [{ name: "body:name" }] });
});

test("what the gateway refuses by itself it says so of", () => {
  expect(() => tested("/a%2fb")).toThrow("/a%2fb: the gateway refuses this path itself, as path-encoded-slash");
});

test("`waf tune` proposes for filter too", () => {
  const record = (rules: unknown, policy = "filter", verdict = "would-deny") =>
    JSON.stringify({ v: 1, route: "shop/list", policies: [{ policy, verdict, facts: { score: 5, rules } }] });
  const log = [
    record([{ id: "sqli-union", target: "query:q" }]),
    record([
      { id: "sqli-union", target: "query:q" },
      { id: "method", target: "method" },
    ]),
    record([{ id: "probe", target: "path" }], "filter", "pass"),
    record([{ rule: 942100, targets: ["ARGS:q"] }], "waf"),
    "not a record",
  ].join("\n");
  const found = proposals(log);
  expect(found.records).toBe(3);
  expect(exclusionCode(found.proposals).split("\n")).toEqual([
    "// of waf",
    "exclude: [",
    '  { rule: 942100, target: "ARGS:q" }, // 1 request to shop/list',
    "],",
    "// of filter",
    "exclude: [",
    '  { rule: "sqli-union", target: "query:q" }, // 2 requests to shop/list',
    '  { rule: "method" }, // 1 request to shop/list',
    "],",
  ]);
});
