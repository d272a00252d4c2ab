import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { constantTimeEqual } from "../../src/edge/constant-time.ts";
import { redirectLocation } from "../../src/edge/redirect.ts";
import { cookieValue, readTarget } from "../../src/edge/request-target.ts";
import { replacePrefix } from "../../src/edge/rewrite.ts";
import { gatewayHeaders } from "../../src/table/gateway-headers.ts";

const read = (url: string) => readTarget(url, 200, {});

describe("readTarget", () => {
  it("takes the wire's URL apart without deciding what it means", () => {
    expect(read("http://API.Example.com:8787/a//b/%7e?q=%zz&r=/../")).toEqual({
      scheme: "http",
      host: "api.example.com",
      authority: "API.Example.com:8787",
      path: "/a/b/~",
      search: "?q=%zz&r=/../",
    });
    expect(read("https://h?x=/y")).toMatchObject({ path: "/", search: "?x=/y" });
    expect(read("http://127.0.0.1:8787/")).toMatchObject({ host: "127.0.0.1" });
    expect(read("http://h2.example.com/")).toMatchObject({ host: "h2.example.com" });
    expect(read("https://h./")).toMatchObject({ host: "h" });
    expect(read("https://[2001:db8::1]:8443/")).toMatchObject({
      host: "[2001:db8::1]",
      authority: "[2001:db8::1]:8443",
    });
  });

  it.each([
    ["http://a b@x/../", "host-invalid"],
    ["http://user@h/", "host-invalid"],
    ["http://a.example, b.example/x", "host-invalid"],
    ["http://a.example*", "host-invalid"],
    ["http:///x", "host-invalid"],
    ["http://h:99999/", "host-invalid"],
    ["http://127.1/", "host-invalid"],
    ["http://0x7f.1/", "host-invalid"],
    ["http://2130706433/", "host-invalid"],
    ["http://1.2.3.4.5/", "host-invalid"],
    ["http://[:::]/", "host-invalid"],
    ["http://[1.2.3]/", "host-invalid"],
    ["http://h/%00", "path-control-character"],
    ["http://h/?a=\n", "bad-request"],
    [`http://h/${"x".repeat(200)}`, "url-too-long"],
  ])("%j is refused: %s", (url, refused) => expect(read(url)).toMatchObject({ refused }));

  it("never throws", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 80 }), (rest) => {
        const target = read(`http://${rest}`);
        expect("refused" in target || target.path.startsWith("/")).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("cookieValue", () => {
  it.each([
    ["a=1; b=2", "b", "2"],
    ["ab=1; b=2", "b", "2"],
    ['b="q"', "b", "q"],
    ["b=x=y", "b", "x=y"],
    ["b", "b", null],
    [null, "b", null],
  ])("%j, %s: %j", (header, name, value) => expect(cookieValue(header, name)).toBe(value));
});

describe("redirects", () => {
  const prefix = (value: string) => ({ kind: "prefix", value }) as const;
  // The table in the Gateway API's type comment of ReplacePrefixMatch, all of its rows.
  it.each([
    ["/foo/bar", "/foo", "/xyz", "/xyz/bar"],
    ["/foo/bar", "/foo", "/xyz/", "/xyz/bar"],
    ["/foo/bar", "/foo/", "/xyz", "/xyz/bar"],
    ["/foo/bar", "/foo/", "/xyz/", "/xyz/bar"],
    ["/foo", "/foo", "/xyz", "/xyz"],
    ["/foo/", "/foo", "/xyz", "/xyz/"],
    ["/foo/bar", "/foo", "", "/bar"],
    ["/foo/", "/foo", "", "/"],
    ["/foo", "/foo", "", "/"],
    ["/foo/", "/foo", "/", "/"],
    ["/foo", "/foo", "/", "/"],
    ["/x", "/", "/y", "/y/x"],
  ])("%s, prefix %s by %j: %s", (path, matched, replacement, expected) => {
    expect(replacePrefix(path, prefix(matched), replacement)).toBe(expected);
  });

  const target = { scheme: "http", host: "h", authority: "h:8080", path: "/api/x", search: "?y=1" };
  it.each([
    [{ path: { prefix: "/v1" } }, "http://h:8080/v1/x?y=1"],
    [{ scheme: "https" as const }, "https://h/api/x?y=1"],
    [{ scheme: "https" as const, port: 8443 }, "https://h:8443/api/x?y=1"],
    [{ host: "other" }, "http://other/api/x?y=1"],
    [{ port: 80 }, "http://h/api/x?y=1"],
    [{ path: { full: "/gone" } }, "http://h:8080/gone?y=1"],
  ])("%j: %s", (action, location) => {
    expect(redirectLocation({ kind: "redirect", status: 308, ...action }, target, prefix("/api"))).toBe(location);
  });
});

describe("what the client may not say", () => {
  const isStripped = gatewayHeaders(["x-user-id"]);
  it.each([
    "x-user-id",
    "x_user_id",
    "x-user_id",
    "x-consumer-anything",
    "x_consumer_name",
    "x-portcullis-assertion",
    "x-forwarded-for",
    "x_forwarded_host",
    "forwarded",
    "x-original-url",
    "te",
    "connection",
    "cf-connecting-ip",
  ])("%s", (name) => expect(isStripped(name)).toBe(true));
  it.each(["x-user", "authorization", "cookie", "accept-encoding", "x-custom_name", "traceparent"])("but %s", (name) =>
    expect(isStripped(name)).toBe(false),
  );
});

it("constantTimeEqual is equality", () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), (a, b) => {
      expect(constantTimeEqual(a, b)).toBe(a === b);
      expect(constantTimeEqual(a, a)).toBe(true);
    }),
  );
});
