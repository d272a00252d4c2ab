/** Whatever comes in: a module, or problems that say where. Never another exception. */
import { readFile } from "node:fs/promises";
import { transform } from "esbuild";
import fc from "fast-check";
import { expect, it } from "vitest";
import { parseAllDocuments, stringify } from "yaml";
import { ConfigurationRefused } from "../../src/build/problem.ts";
import { convert, type Imported } from "../../src/import/import.ts";
import { GATEWAY } from "./convert.ts";

function imported(text: string, endpoints?: string): Imported | undefined {
  try {
    return convert(
      [{ file: "m.yaml", text }],
      endpoints === undefined ? {} : { endpoints: { file: "e.yaml", text: endpoints } },
    );
  } catch (error) {
    if (!(error instanceof ConfigurationRefused)) throw error;
    expect(error.problems.length).toBeGreaterThan(0);
    for (const { subject, message, fix } of error.problems)
      for (const part of [subject, message, fix]) expect(part).not.toBe("");
    return undefined;
  }
}

it("random text", () => {
  const alphabet = fc.constantFrom(
    ..."abk:-[]{}&*!|>'\"%@`#,? \n\t0",
    "---\n",
    "kind: Gateway\n",
    "<<: ",
    "apiVersion: v1\n",
    "\u2028",
    "\ud800",
  );
  fc.assert(
    fc.property(fc.array(alphabet, { maxLength: 60 }), (parts) => {
      imported(parts.join(""));
      imported(GATEWAY, parts.join(""));
    }),
    { numRuns: 500 },
  );
});

it("random objects of the right kinds", () => {
  const kinds = fc.constantFrom(
    "Gateway",
    "HTTPRoute",
    "GRPCRoute",
    "ReferenceGrant",
    "ListenerSet",
    "Service",
    "Namespace",
    "Other",
  );
  const names = fc.constantFrom(
    "spec",
    "metadata",
    "name",
    "listeners",
    "rules",
    "matches",
    "parentRefs",
    "filters",
    "items",
    "__proto__",
  );
  const object = fc.record({
    apiVersion: fc.constantFrom("gateway.networking.k8s.io/v1", "v1", "x"),
    kind: kinds,
    metadata: fc.oneof(fc.record({ name: fc.string(), namespace: fc.string() }), fc.jsonValue()),
    spec: fc.oneof(fc.dictionary(names, fc.jsonValue()), fc.jsonValue()),
  });
  fc.assert(
    fc.property(fc.array(object, { maxLength: 4 }), (objects) => {
      imported([GATEWAY, ...objects.map((value) => JSON.stringify(value))].join("\n---\n"));
    }),
    { numRuns: 300 },
  );
});

type Json = null | string | number | boolean | Json[] | { [name: string]: Json };

/** Each leaf of `value`, as a function that puts another there. */
function leaves(value: Json, put: (changed: Json) => void = () => {}): ((changed: Json) => void)[] {
  if (typeof value !== "object" || value === null) return [put];
  return [
    put,
    ...Object.entries(value).flatMap(([name, member]) =>
      leaves(member, (changed) => Object.assign(value, { [name]: changed })),
    ),
  ];
}

it("the shop, with anything in the place of some of its values, is a module that parses", async () => {
  const texts = await Promise.all(
    ["gateway.yaml", "routes.yaml", "services.json"].map((file) =>
      readFile(`test/import/fixtures/shop/${file}`, "utf8"),
    ),
  );
  const shop = texts.flatMap((text) => parseAllDocuments(text)).map((document) => document.toJS() as Json);
  const nasty = fc.oneof(
    fc.constantFrom<Json>(
      "",
      "*",
      "a",
      "*.example.com",
      "/",
      "/*",
      "/a{b}",
      "*/",
      "`",
      "\u2028",
      "</script>",
      "\ud800",
      "0s",
      "__proto__",
      "constructor",
    ),
    fc.string({ unit: "binary" }),
    fc.jsonValue() as fc.Arbitrary<Json>,
  );
  const modules: string[] = [];
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(), nasty), { minLength: 1, maxLength: 3 }), (changes) => {
      const changed = structuredClone(shop);
      for (const [at, value] of changes) {
        const places = leaves(changed);
        places[at % places.length]?.(value);
      }
      const result = imported(changed.map((document) => stringify(document)).join("---\n"));
      if (result) modules.push(...[...result.files].flatMap(([file, text]) => (file.endsWith(".ts") ? [text] : [])));
    }),
    { numRuns: 150 },
  );
  expect(modules.length).toBeGreaterThan(100);
  for (const text of new Set(modules)) await transform(text, { loader: "ts", logLevel: "silent" });
});
