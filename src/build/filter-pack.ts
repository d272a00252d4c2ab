/** The rules of `filter` as a rule pack: from policies/filter-rules.ts, by the compiler that reads the waf's rules. */
import { join } from "node:path";
import { SEVERITIES, VARIABLES } from "../policies/filter-inspection.ts";
import { READINGS, type Rule, rules } from "../policies/filter-rules.ts";
import { compileOwnRules } from "../seclang/compile.ts";
import type { SourceRule } from "../seclang/rule-set.ts";
import type { RulePack } from "../waf/pack.ts";
import { type EncodedPack, encodePack } from "../waf/pack-encoding.ts";

let made: RulePack | undefined;
let encoded: EncodedPack | undefined;

/** Made once: it does not depend on the configuration. */
export const filterRules = (): RulePack =>
  (made ??= compileOwnRules(rules.map(sourceOf), { messages: true, patterns: "proven" }));

export const filterPack = (): EncodedPack => (encoded ??= encodePack(filterRules()));

const FILE = join(import.meta.dirname, "..", "policies", "filter-rules.ts");

/** The rule as one of ModSecurity's language says it: `SecRule ARGS_GET|ARGS_POST "@rx ..." "id:1,msg:sqli-union,t:lowercase"`. */
function sourceOf({ id, score, places, reads, pattern }: Rule, at: number): SourceRule {
  const place = { file: FILE, line: 0 };
  const link = {
    ...place,
    operator: { name: "rx", negated: false, argument: pattern.source },
    targets: places.map((one) => VARIABLES[one]),
    transformations: READINGS[reads],
    capture: false,
    multiMatch: false,
    actions: [],
  };
  return {
    ...place,
    kind: "rule",
    id: at + 1,
    phase: 2,
    links: [link],
    tags: [],
    message: id,
    logdata: "",
    severity: SEVERITIES[score],
    log: true,
    disruptive: { name: "pass", value: "" },
  };
}
