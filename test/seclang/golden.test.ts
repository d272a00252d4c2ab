import { join } from "node:path";
import { expect, test } from "vitest";
import { compileRules } from "../../src/seclang/compile.ts";

/** A line for each thing that the pack has a number for, and of what is binary its size. */
function readable({ tables, programs, ...pack }: ReturnType<typeof compileRules>["pack"]): string {
  const lines = (list: readonly unknown[]) => list.map((one, i) => `${i} ${JSON.stringify(one)}`);
  const { variables, settings, chains, operators, rules, prefilter } = pack;
  const sections: Readonly<Record<string, readonly string[]>> = {
    variables: lines(Object.entries(variables)),
    settings: lines(Object.entries(settings)),
    chains: lines(chains),
    operators: lines(operators),
    rules: lines(rules),
    "clauses by word": lines(prefilter.clausesOfWord),
    sets: lines(prefilter.sets),
    atoms: lines(prefilter.atoms),
    "words of programs": lines(programs.map(({ length }) => length)),
    "bytes of tables": [String(tables.length)],
  };
  return Object.entries(sections)
    .map(([name, body]) => [`# ${name}`, ...body, ""].join("\n"))
    .join("\n");
}

test("a folder of rules becomes this pack", async () => {
  const { pack, problems, warnings, notes } = compileRules(join(import.meta.dirname, "golden", "rules"), {
    phases: [1, 2, 3, 4],
    messages: true,
  });
  expect([...problems, ...warnings, ...notes]).toEqual([]);
  await expect(readable(pack)).toMatchFileSnapshot("golden/shop.golden");
});
