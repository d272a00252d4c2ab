/** What a policy leaves out of a pack: the rules, by their places in it. */
import type { PackExclusion } from "../waf/engine.ts";
import type { PackRule, RulePack } from "../waf/pack.ts";
import type { CompiledRules } from "./compile.ts";
import { idRanges } from "./rule-set.ts";
import { Malformed, parseTarget } from "./rule-text.ts";

export interface Exclusion {
  readonly rule?: number | string;
  readonly tag?: string;
  readonly target?: string;
}

/** What is wrong with it, as a text for people, when it leaves nothing out. */
export function exclusionsOf(
  { rule, tag, target }: Exclusion,
  { pack, catalog }: CompiledRules,
): PackExclusion | string {
  try {
    const ids = rule === undefined ? undefined : idRanges([String(rule)]);
    const known = [...catalog.values()].filter(
      ({ id, tags }) => (!ids || ids(id)) && (tag === undefined || tags.includes(tag)),
    );
    if (known.length === 0) return `there is no rule ${rule ?? `with the tag ${tag}`}`;
    const places = new Set(known.map(({ id }) => id));
    const rules = pack.rules.flatMap(({ id }, place) => (places.has(id) ? [place] : []));
    return { rules, ...(target !== undefined && { target: parseTarget(target) }) };
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    return error.message;
  }
}

type BodyKind = "form" | "multipart" | "json" | "xml";

const OF_MULTIPART = /^(?:FILES|MULTIPART_)/;

/** The places of rules that only bodies of other kinds can trigger. */
export function prunedFor(kinds: readonly BodyKind[], pack: RulePack): number[] {
  const gone = (collection: string) =>
    (collection === "XML" && !kinds.includes("xml")) || (OF_MULTIPART.test(collection) && !kinds.includes("multipart"));
  return pack.rules.flatMap((rule, place) => (triggersOnlyOn(rule, gone) ? [place] : []));
}

const triggersOnlyOn = ({ links }: PackRule, gone: (collection: string) => boolean): boolean =>
  links.some(
    ({ operator, targets }) =>
      operator !== undefined &&
      targets.length > 0 &&
      targets.every(({ collection, count }) => gone(collection) && !count),
  );
