import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { filterRules } from "../../src/build/filter-pack.ts";
import { VARIABLES } from "../../src/policies/filter-inspection.ts";
import { operatorOf } from "../../src/waf/operate.ts";
import type { PackOperator } from "../../src/waf/pack.ts";
import { SingleRules } from "../../src/waf/single-rules.ts";
import { transformations, triggers } from "../../src/waf/transformations.ts";

const pack = filterRules();
const rules = new SingleRules(pack, (packed: PackOperator) => operatorOf(packed, [], () => false), {
  apply: transformations,
  triggers,
});
const reading = rules.reading(VARIABLES.query, false);
const [tells, tellsInQuery] = rules.gates(
  [VARIABLES.query],
  [
    { separators: "", escapes: "" },
    { separators: "=&", escapes: "%+" },
  ],
);

/** Beginnings and endings of what the rules look for. */
const pieces = fc.constantFrom(
  ..."' or 1=1--|<script>|on|load=|alert(|union|select 1,|; cat /etc/passwd|../|..\\|{{7*7}}|$(id)|169.254.169.254|__proto__|\\u003c|&lt;|%27|name|42|a b".split(
    "|",
  ),
);
const values = fc.array(pieces, { maxLength: 6 }).map((all) => all.join(""));

test("one rule alone has to be asked about every value, and looks at User-Agents", () => {
  const always = pack.prefilter.atoms.filter(({ clauses, masks }) => clauses + masks.length === 0);
  expect(always.map(({ rule }) => pack.rules[rule]?.message)).toEqual(["scanner"]);
});

describe("a gate", () => {
  test("dismisses nothing that a rule matches", () => {
    fc.assert(
      fc.property(values, (value) => {
        if (rules.look(reading, value).length > 0) expect(tells?.(value)).toBe(true);
      }),
      { numRuns: 3000 },
    );
  });

  test("dismisses nothing of which a part matches", () => {
    const plain = values.map((value) => value.replace(/[=&]/g, ""));
    fc.assert(
      fc.property(fc.array(fc.tuple(plain, plain), { maxLength: 4 }), (pairs) => {
        const query = pairs.map(([name, value]) => `${name}=${value}`).join("&");
        if (pairs.some(([, value]) => rules.look(reading, value).length > 0)) expect(tellsInQuery?.(query)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });

  test.each(["42", "Beverly Smith", "2026-11-28T10:00:00Z", "a_b.c-d", "-created"])("dismisses %s", (value) => {
    expect(tells?.(value.replaceAll(" ", "_"))).toBe(false);
  });

  test.each(["page=2&sort=-created&fields=id,name,total", "q=shirt"])("dismisses the query %s as a whole", (query) => {
    expect(tellsInQuery?.(query)).toBe(false);
  });
});
