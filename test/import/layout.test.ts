/** The printer against biome itself: modules of the shapes that the importer writes, of random names and lengths. */
import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import fc from "fast-check";
import { expect, inject, it } from "vitest";
import {
  type Call,
  type Code,
  type Constant,
  call,
  constant,
  method,
  printModule,
  properties,
} from "../../src/import/code.ts";
import { folderOf } from "../build/module.ts";

const run = promisify(execFile);

const name = fc.stringMatching(/^[a-z]{1,14}(?:-[a-z]{1,14}){0,3}$/);
const text = fc.oneof(name, fc.string({ maxLength: 90 }));
/** Of all lengths. */
const named = (from: string) =>
  fc.constantFrom(
    ...Array.from({ length: 40 }, (_, length) => {
      const made: Constant = constant(from);
      made.identifier = `${from[2]}${"x".repeat(length)}`;
      return made;
    }),
  );
const backend = named("./clusters.ts");

const headers = fc
  .array(fc.tuple(fc.stringMatching(/^[A-Za-z][A-Za-z-]{0,20}$/), text), { minLength: 1, maxLength: 4 })
  .map((entries) => properties(entries));
const changes = fc
  .record({ remove: fc.array(name, { minLength: 1, maxLength: 3 }), set: headers, add: headers }, { requiredKeys: [] })
  .map((members) => properties(members));
const filters = fc
  .record({ headers: changes.map((request) => properties({ request })) })
  .map((members) => properties(members));
const path = name.map((value) => `/${value}/*`);
const redirect = fc
  .record(
    { status: fc.constant(301), host: name, path: path.map((full) => properties({ full })) },
    { requiredKeys: [] },
  )
  .map((members) => call("redirect", properties(members)));
const arm = fc.oneof(
  backend,
  fc.tuple(backend, filters).map(([to, own]) => method(to, "with", own)),
  redirect,
  text.map((reason) => call("missing", reason)),
);
const target: fc.Arbitrary<Code> = fc.oneof(
  arm,
  fc
    .array(fc.tuple(name, arm, fc.nat(1000)), { minLength: 2, maxLength: 4 })
    .map((arms) =>
      call(
        "split",
        properties(arms.map(([key, to, weight]): [string, Call] => [key, method(to as Constant, "weight", weight)])),
        properties({ sticky: "request" }),
      ),
    ),
);
const short = fc.constantFrom(properties({ path: "/a" }), properties({ path: "/b/*", methods: ["GET"] }));
const long = fc
  .record(
    { path: fc.oneof(path, fc.constant(/\/v[0-9]+\/status/)), methods: fc.constant(["GET"]), headers, query: headers },
    { requiredKeys: ["path"] },
  )
  .map((members) => properties(members));
const match = fc.oneof(short, long);
const mirror = fc
  .tuple(backend, fc.nat(100))
  .map(([to, percent]) => call("mirror", to, properties({ percent, methods: "any" })));
const options = fc
  .record(
    {
      policies: fc.array(
        changes.map((request) => call("headers", properties({ request }))),
        { minLength: 1, maxLength: 2 },
      ),
      rewrite: path.map((prefix) => properties({ path: properties({ prefix }) })),
      mirrors: fc.array(mirror, { minLength: 1, maxLength: 2 }),
      to: target,
      timeouts: fc.constant(properties({ firstByte: "5s", total: "20s" })),
      retry: fc.constant(properties({ attempts: 2, on: [502, 503, "connection", "timeout"], methods: "any" })),
    },
    { requiredKeys: ["to"] },
  )
  .map((members) => properties(members));
const route = fc
  .tuple(name, fc.oneof(match, fc.array(match, { minLength: 2, maxLength: 4 })), options)
  .map(([id, matches, rest]) => ({
    kind: "commented" as const,
    lines: ["rules[0]"],
    code: call("route", id, matches, rest),
  }));
const api = fc
  .tuple(
    name,
    fc
      .record(
        {
          hosts: fc.array(name, { minLength: 1, maxLength: 6 }),
          listeners: fc.array(named("./listeners.ts"), { minLength: 1 }),
        },
        { requiredKeys: [] },
      )
      .map((members) => properties(members)),
    fc.array(route, { minLength: 1, maxLength: 3 }),
  )
  .map((args) => call("api", ...args));
const cluster = fc
  .tuple(name, name, fc.option(path, { nil: undefined }))
  .map(([id, url, services]) =>
    call(
      "cluster",
      id,
      properties({ ingress: call("env", "A", `https://${url}`), services: services && properties({ path: services }) }),
    ),
  );
const index = fc
  .tuple(
    fc.array(named("./listeners.ts"), { minLength: 1, maxLength: 6 }),
    fc.array(named("./apis.ts"), { maxLength: 12 }),
  )
  .map(([listeners, apis]) => call("gateway", properties({ semantics: "gateway-api", listeners }), apis));

it("what it prints is what biome prints", async () => {
  const folder = await folderOf({});
  const { formatter, javascript } = JSON.parse(await readFile("biome.json", "utf8"));
  await writeFile(join(folder, "biome.json"), JSON.stringify({ formatter, javascript }));
  await mkdir(join(folder, "modules"));
  // All in one run of biome, since it is the start that takes time.
  const seed = inject("fuzzSeed");
  const values = fc.sample(fc.oneof(api, cluster, index), { numRuns: 300, seed });
  for (const [position, value] of values.entries())
    await writeFile(join(folder, `modules/${position}.ts`), printModule([{ exports: "default", value }]));
  const biome = join(process.cwd(), "node_modules/.bin/biome");
  const { stderr } = await run(biome, ["format", "--max-diagnostics=2", "modules"], { cwd: folder }).catch(
    (error) => error,
  );
  expect(stderr, `seed ${seed}`).toBe("");
});
