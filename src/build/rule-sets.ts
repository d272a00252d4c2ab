/** The rules of wafs: compiled once for all policies that want them alike, and told of with their place in the rules' own files. */
import { createHash } from "node:crypto";
import { dirname, resolve } from "node:path";
import type { PolicyDeclaration } from "../config/policy.ts";
import type { CompiledRuleSet } from "../policies/contract.ts";
import type { WafOptions } from "../policies/waf.ts";
import { type CompiledRules, compileRules } from "../seclang/compile.ts";
import { exclusionsOf, prunedFor } from "../seclang/exclusions.ts";
import { type EncodedPack, encodePack } from "../waf/pack-encoding.ts";
import type { Problems } from "./problem.ts";

interface Built {
  readonly id: string;
  readonly compiled: CompiledRules;
}

export class RuleSets {
  readonly packs = new Map<string, EncodedPack>();
  /** All files of rules that were read. */
  readonly files = new Set<string>();
  readonly #built = new Map<string, Built | undefined>();

  /** Undefined when there are problems, which are told. */
  compile(options: WafOptions, declared: PolicyDeclaration, problems: Problems): CompiledRuleSet | undefined {
    const folder = dirname(problems.locate(declared.declaredAt)?.file ?? ".");
    const { rules, setup, before = [], after = [], paranoia, detection, threshold, response, variables = {} } = options;
    const asked = {
      ...(setup !== undefined && { setup: resolve(folder, setup) }),
      before: before.map((file) => resolve(folder, file)),
      after: after.map((file) => resolve(folder, file)),
      ...(paranoia !== undefined && { paranoia }),
      ...(detection !== undefined && { detection }),
      ...(threshold !== undefined && { threshold }),
      ...(typeof response === "object" &&
        response.threshold !== undefined && { responseThreshold: response.threshold }),
      variables: Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, String(value)])),
      phases: response ? ([1, 2, 3, 4] as const) : ([1, 2] as const),
      ...(response && { settings: { responseBody: true } }),
      ...(options.allowUnsupported && { allowUnsupported: true }),
    };
    const key = JSON.stringify([resolve(folder, rules), asked]);
    if (!this.#built.has(key)) this.#built.set(key, this.#build(resolve(folder, rules), asked, problems));
    const built = this.#built.get(key);
    if (!built) return undefined;
    const { pack } = built.compiled;
    const { engine } = pack.settings;
    // As modsecurity.conf-recommended has it. The policy says whether it decides, so that prove and diff know.
    if (engine === "off" || (engine === "detection-only" && (options.mode ?? "enforce") === "enforce"))
      problems.add(
        declared,
        "policy waf",
        `refuses nothing: its rules have SecRuleEngine ${engine === "off" ? "Off" : "DetectionOnly"}`,
        'take that line out, and say mode: "report" or "off" where it is meant',
      );
    const exclusions = (options.exclude ?? []).flatMap((exclusion) => {
      const found = exclusionsOf(exclusion, built.compiled);
      if (typeof found === "string")
        problems.add(declared, "policy waf", found, "correct the exclusion, or take it out");
      return typeof found === "string" ? [] : [found];
    });
    const kinds = options.body ? options.body.kinds : undefined;
    const pruned = kinds ? prunedFor(kinds, pack) : [];
    return {
      id: built.id,
      exclusions: [...(pruned.length > 0 ? [{ rules: pruned }] : []), ...exclusions],
      responseBodyLimit: pack.settings.responseBodyLimit,
    };
  }

  #build(folder: string, asked: Parameters<typeof compileRules>[1], problems: Problems): Built | undefined {
    const compiled = compileRules(folder, asked);
    for (const file of compiled.files) this.files.add(file);
    for (const { file, line, rule, message, fix } of compiled.problems)
      problems.addAt(file, line, rule === undefined ? "rules" : `rule ${rule}`, message, fix);
    if (compiled.problems.length > 0) return undefined;
    const encoded = encodePack(compiled.pack);
    const id = createHash("sha256").update(encoded.json).update(encoded.bytes).digest("hex").slice(0, 12);
    this.packs.set(id, encoded);
    return { id, compiled };
  }
}
