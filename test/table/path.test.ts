import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { normalisePath } from "../../src/table/path.ts";

describe("normalisePath", () => {
  it.each([
    ["/", "/"],
    ["/v1/orders", "/v1/orders"],
    ["/v1/orders/", "/v1/orders/"],
    ["/a//b///c", "/a/b/c"],
    ["//a", "/a"],
    ["/a/./b", "/a/b"],
    ["/a/../b", "/b"],
    ["/a/b/..", "/a/"],
    ["/a/b/.", "/a/b/"],
    ["/a/%2e%2E/b", "/b"],
    ["/%41%7e%2D", "/A~-"],
    ["/caf%c3%a9", "/caf%C3%A9"],
    ["/café", "/caf%C3%A9"],
    ["/a b", "/a%20b"],
    ["/%25", "/%25"],
    ["/%252e%252e/x", "/%252e%252e/x"],
    ["/a;v=1/b", "/a;v=1/b"],
    ["/.../x", "/.../x"],
    ["/..a/x", "/..a/x"],
    ["/a/..//b", "/b"],
    ["/😀", "/%F0%9F%98%80"],
  ])("%s is %s", (raw, path) => expect(normalisePath(raw)).toEqual({ path }));

  it.each([
    ["/..", "path-traversal"],
    ["/a/../../b", "path-traversal"],
    ["/%2e%2e/%2e%2e/etc/passwd", "path-traversal"],
    ["/a/..;/admin", "path-traversal"],
    ["/a/.;x/admin", "path-traversal"],
    ["/a/%2e%2e;x=y/admin", "path-traversal"],
    ["/a%2fb", "path-encoded-slash"],
    ["/a%2Fb", "path-encoded-slash"],
    ["/a%5cb", "path-encoded-slash"],
    ["/a\\b", "path-encoded-slash"],
    ["/a%00", "path-control-character"],
    ["/a%0d%0aSet-Cookie:x", "path-control-character"],
    ["/a%7f", "path-control-character"],
    ["/a\tb", "path-control-character"],
    ["/%", "path-escape-invalid"],
    ["/%2", "path-escape-invalid"],
    ["/%zz", "path-escape-invalid"],
    ["/%c0%af", "path-escape-invalid"],
    ["/%ff", "path-escape-invalid"],
    ["/%ed%a0%80", "path-escape-invalid"],
    ["/\ud800", "path-escape-invalid"],
  ])("%j is refused: %s", (raw, refused) => expect(normalisePath(raw)).toEqual({ refused }));

  it("keeps escaped slashes where the gateway is told to, as characters of their segment", () => {
    expect(normalisePath("/a%2fb/..", { escapedSlashes: "keep" })).toEqual({ path: "/" });
    expect(normalisePath("/a%2fb/c%5C", { escapedSlashes: "keep" })).toEqual({ path: "/a%2Fb/c%5C" });
    for (const climbing of ["/a/..%2f..%2fb", "/a/x%2f..", "/a/%2e%2e%5cb;x=1", "/a/.%2fb"]) {
      expect(normalisePath(climbing, { escapedSlashes: "keep" })).toEqual({ refused: "path-traversal" });
    }
    expect(normalisePath("/a/..x%2f..y", { escapedSlashes: "keep" })).toEqual({ path: "/a/..x%2F..y" });
  });

  const piece = fc.oneof(
    fc.constantFrom(
      "/",
      "//",
      ".",
      "..",
      "%2e",
      "%2E",
      "%2f",
      "%5c",
      "%00",
      "%41",
      "%c3%a9",
      "%",
      "%zz",
      ";",
      "\\",
      "a",
      "~",
    ),
    fc.string({ unit: "binary", maxLength: 3 }),
  );
  const anyPath = fc.array(piece, { maxLength: 12 }).map((pieces) => `/${pieces.join("")}`);

  it("never throws, and what it accepts is normal already, has no dot segments and no empty ones", () => {
    fc.assert(
      fc.property(
        anyPath,
        fc.constantFrom("refuse", "keep") as fc.Arbitrary<"refuse" | "keep">,
        (raw, escapedSlashes) => {
          const result = normalisePath(raw, { escapedSlashes });
          if (result.refused) return;
          expect(normalisePath(result.path, { escapedSlashes })).toEqual({ path: result.path });
          expect(result.path).toMatch(/^\/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-F]{2})*$/);
          expect(result.path).not.toMatch(/\/\/|\/\.{1,2}(?:\/|$)/);
        },
      ),
      { numRuns: 3_000 },
    );
  });

  it("means by a path what a WHATWG URL parser, as origins have it, means by it", () => {
    fc.assert(
      fc.property(anyPath, (raw) => {
        const result = normalisePath(raw);
        if (result.refused) return;
        // Neither moves when the other reads it.
        expect(new URL(`http://h${result.path}`).pathname).toBe(result.path);
      }),
      { numRuns: 3_000 },
    );
  });
});
