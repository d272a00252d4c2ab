import { describe, expect, it } from "vitest";
import { answerTo } from "./backend.ts";
import { faultOf, type Outcome } from "./judge.ts";
import { parseRequest } from "./parse.ts";
import { bytesOf, rawRequest } from "./request.ts";
import { escaped } from "./wire.ts";

describe("a request as go-ftw sends it", () => {
  it("has headers by name, Connection, and for a form its type, its escapes and its length", () => {
    const input = {
      method: "POST",
      uri: "/post",
      headers: { "User-Agent": "test", Host: "localhost" },
      data: "a=<b>&c d=e",
    };
    expect(rawRequest(input)).toBe(
      "POST /post HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\n" +
        "Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\nContent-Length: 15\r\n\r\na=%3Cb%3E&c+d=e",
    );
  });

  it("leaves a form as it is that is escaped already", () => {
    expect(rawRequest({ method: "POST", data: "a=%3Cb>" })).toMatch(/\r\n\r\na=%3Cb>$/);
  });

  it("adds nothing where the test says so, under either name", () => {
    for (const input of [{ autocomplete_headers: false }, { stop_magic: true }])
      expect(rawRequest({ ...input, method: "POST", data: "<" })).toBe("POST / HTTP/1.1\r\n\r\n<");
  });

  it("ends the lines of multipart bodies in CRLF", () => {
    const headers = { "Content-Type": "multipart/form-data; boundary=b" };
    expect(rawRequest({ headers, data: "--b\n\r\nx" })).toMatch(/\r\n\r\n--b\r\n\r\nx$/);
  });

  it("is UTF-8, repeats what a template repeats, and may be given whole", () => {
    expect(rawRequest({ uri: "/é", autocomplete_headers: false })).toContain("/\xc3\xa9");
    expect(rawRequest({ autocomplete_headers: false, data: 'a{{ "1" | repeat 3 }}' })).toMatch(/\r\n\r\na111$/);
    expect(rawRequest({ encoded_request: btoa("GET / HTTP/1.0\r\n\r\n") })).toBe("GET / HTTP/1.0\r\n\r\n");
  });
});

describe("what workerd refuses by itself", () => {
  it("is escaped in the target of a request line, and only there", () => {
    const rest = 'X: "<>"\r\n\r\n<a>';
    expect(escaped(`GET /?a=<"> HTTP/1.1\r\n${rest}`)).toBe(`GET /?a=%3C%22%3E HTTP/1.1\r\n${rest}`);
    expect(escaped(`GET /?a=< b HTTP/1.1\r\n${rest}`)).toBe(`GET /?a=< b HTTP/1.1\r\n${rest}`);
  });
});

describe("a raw request as a server reads it", () => {
  const host = "Host: localhost\r\n";
  it("has its parts", () => {
    const raw = `POST /a?b HTTP/1.1\r\n${host}X: 1\r\nx:  2 \r\nContent-Length: 3\r\n\r\nabcdef`;
    const { request, refused } = parseRequest(raw);
    expect(refused).toBeUndefined();
    expect(request).toMatchObject({ method: "POST", uri: "/a?b", protocol: "HTTP/1.1", body: "abc" });
    expect(request.headers).toEqual([
      ["Host", "localhost"],
      ["X", "1, 2"],
      ["Content-Length", "3"],
    ]);
  });

  it("has its chunks put together, and no Content-Length beside them", () => {
    const raw = `POST / HTTP/1.1\r\n${host}Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n`;
    const { request } = parseRequest(raw);
    expect(request.body).toBe("abcde");
    expect(request.headers.map(([name]) => name)).toEqual(["Host", "Transfer-Encoding"]);
  });

  it.each([
    [`\tGET / HTTP/1.1\r\n${host}`, 400],
    [`GET /a b HTTP/1.1\r\n${host}`, 400],
    [`GET /#a HTTP/1.1\r\n${host}`, 400],
    [`GET \\ HTTP/1.1\r\n${host}`, 400],
    [`GET / HTTP/0.8\r\n${host}`, 400],
    [`CONNECT example.com HTTP/1.1\r\n${host}`, 400],
    ["GET / HTTP/1.1\r\n", 400],
    ["GET / HTTP/1.1\r\nHost: a%00\r\n", 400],
    [`GET / HTTP/1.1\r\n${host}Content-Length: 1x\r\n`, 400],
    [`GET / HTTP/1.1\r\n${host}A: b\rC: d\r\n`, 400],
    [`GET / \r\n${host}`, "no answer"],
    [`POST / HTTP/1.1\r\n${host}Content-Length: 5\r\n`, "no answer"],
    [`CONNECT example.com:443 HTTP/1.1\r\n${host}`, undefined],
    [`|GET / HTTP/1.0\r\n`, undefined],
  ])("%j is refused with %s", (head, refused) => {
    expect(parseRequest(`${head}\r\n`).refused).toBe(refused);
  });
});

describe("a stage", () => {
  const outcome: Outcome = {
    status: 200,
    matches: [{ id: 942_100, on: [{ name: "ARGS:q", value: "a\nb", captured: "b" }], message: "SQL" }],
    judged: true,
  };
  const nothing = { ids: [], noIds: [], statuses: [] };
  it.each([
    [nothing, outcome, undefined],
    [{ ...nothing, ids: [942_100] }, outcome, undefined],
    [{ ...nothing, ids: [942_100, 1] }, outcome, "rule 1 did not match"],
    [
      { ...nothing, ids: [1] },
      { status: 400, matches: [], judged: false },
      "rule 1 did not match (refused with 400 before the rules saw it)",
    ],
    [{ ...nothing, noIds: [942_100] }, outcome, "rule 942100 matched"],
    [{ ...nothing, statuses: [403, 200] }, outcome, undefined],
    [{ ...nothing, statuses: [403, 404] }, outcome, "status 200, 403 or 404 was expected"],
    [{ ...nothing, match: /Data: b found within ARGS:q: a\\nb \[id "942100"\] \[msg "SQL"\]/ }, outcome, undefined],
    [{ ...nothing, match: /other/ }, outcome, "the log has nothing like other"],
    [{ ...nothing, noMatch: /ARGS/ }, outcome, "the log has something like ARGS"],
    [nothing, { matches: [], judged: false }, "no answer"],
    [{ ...nothing, ids: [1], error: true }, { matches: [], judged: false }, undefined],
    [{ ...nothing, error: true }, outcome, "answered 200, not at all was expected"],
  ])("%# passes or says why not", (expected, came, fault) => {
    expect(faultOf(expected, came)).toBe(fault);
  });
});

describe("the backend", () => {
  it("answers as it is asked to, with a type that it guesses", () => {
    const reflect = (spec: object) => answerTo("POST", "/reflect", bytesOf(JSON.stringify(spec)));
    expect(answerTo("GET", "/reflect", "")).toEqual({ status: 200, headers: [], body: "" });
    expect(reflect({ status: 500, body: "é" })).toMatchObject({ status: 500, body: "\xc3\xa9" });
    expect(reflect({ encodedBody: btoa("a\0b") }).headers).toEqual([["Content-Type", "application/octet-stream"]]);
    expect(reflect({ body: " <html>" }).headers).toEqual([["Content-Type", "text/html; charset=utf-8"]]);
    expect(reflect({ body: "error" }).headers).toEqual([["Content-Type", "text/plain; charset=utf-8"]]);
    expect(reflect({ headers: { "content-type": "a/b" }, body: "x" }).headers).toEqual([["content-type", "a/b"]]);
    expect(answerTo("POST", "/reflect", "{").status).toBe(400);
  });
});
