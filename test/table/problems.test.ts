import { expect, it } from "vitest";
import documented from "../../docs/errors.md?raw";
import { problemResponse, problems } from "../../src/table/problems.ts";

it("every code is documented with its status, and nothing else is", () => {
  const rows = [...documented.matchAll(/^\| `([a-z-]+)` \| ([0-9]{3}) \|/gm)].map(
    ([, code, status]) => `${code} ${status}`,
  );
  expect(rows.sort()).toEqual(
    Object.entries(problems)
      .map(([code, [status]]) => `${code} ${status}`)
      .sort(),
  );
});

it("is a problem document of RFC 9457", async () => {
  const response = problemResponse("scope-missing", "id-1", {
    detail: "d",
    members: { missing: ["a"] },
    headers: { "x-y": "z" },
  });
  expect(response.status).toBe(403);
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  expect(response.headers.get("x-y")).toBe("z");
  expect(await response.json()).toEqual({
    type: "urn:portcullis:problem:scope-missing",
    title: "The token lacks a scope",
    status: 403,
    code: "scope-missing",
    detail: "d",
    missing: ["a"],
    instance: "urn:portcullis:request:id-1",
  });
});
