/** Members of a policy's configuration of which it is known which way is the stricter one. */
import type { PolicyName } from "../table/table.ts";

/**
 * The stricter way: `fewer` of a list (`fewer-or-any`: absent is any), `more` of it, `fewer-names` of an object, a `lower` number
 * (`lower-or-none`: absent is no limit) or a `higher` one, a switch that is `on` or `off`. `same`: no other value is comparable (`same-or-any`:
 * absent is any, `same-or-none`: absent grants nothing).
 */
export type ConfigRules = Readonly<
  Record<
    string,
    | "fewer"
    | "fewer-or-any"
    | "fewer-names"
    | "more"
    | "lower"
    | "lower-or-none"
    | "higher"
    | "on"
    | "off"
    | "same"
    | "same-or-any"
    | "same-or-none"
  >
>;

/** What is weaker in `now`, as phrases. Values of references are names of the environment, so nothing here is a secret. */
export function weakerMembers(
  policy: PolicyName | "gateway",
  before: unknown,
  now: unknown,
  rules: ConfigRules = {},
): string[] {
  const [old, fresh] = [before, now] as [Record<string, unknown>, Record<string, unknown>];
  return Object.entries(rules).flatMap(([name, rule]) => {
    const [a, b] = [old[name], fresh[name]];
    if (JSON.stringify(a) === JSON.stringify(b)) return [];
    switch (rule) {
      case "fewer":
      case "fewer-or-any": {
        if (b === undefined && rule === "fewer-or-any") return [`${policy} takes any ${name}`];
        if (a === undefined && rule === "fewer-or-any") return [];
        const added = beyond(b, a);
        return added.length > 0 ? [`${policy} has more ${name}: ${added.join(", ")}`] : [];
      }
      case "fewer-names": {
        const added = beyond(Object.keys(b ?? {}), Object.keys(a ?? {}));
        return added.length > 0 ? [`${policy} has more ${name}: ${added.join(", ")}`] : [];
      }
      case "more": {
        const gone = beyond(a, b);
        return gone.length > 0 ? [`${policy} has fewer ${name}: ${gone.join(", ")} gone`] : [];
      }
      case "lower":
      case "lower-or-none": {
        const [most, least] = [Number(b ?? Number.POSITIVE_INFINITY), Number(a ?? Number.POSITIVE_INFINITY)];
        return most > least ? [`${policy} has a higher ${name}: ${b ?? "no limit"} instead of ${a}`] : [];
      }
      case "higher":
        return Number(b) < Number(a) ? [`${policy} has a lower ${name}: ${b} instead of ${a}`] : [];
      case "on":
        return a && !b ? [`${policy} has ${name} off`] : [];
      case "off":
        return b && !a ? [`${policy} has ${name} on`] : [];
      case "same-or-any":
        if (b === undefined) return [`${policy} takes any ${name}`];
        return a === undefined ? [] : [`${policy} has another ${name}, which may be a weaker one`];
      case "same-or-none":
        return b === undefined ? [] : [`${policy} has another ${name}, which may be a weaker one`];
      default:
        return [`${policy} has another ${name}, which may be a weaker one`];
    }
  });
}

/** Members of `list` that `other` has not. */
function beyond(list: unknown, other: unknown): string[] {
  const known = new Set(((other as unknown[] | undefined) ?? []).map((one) => JSON.stringify(one)));
  return ((list as unknown[] | undefined) ?? [])
    .filter((one) => !known.has(JSON.stringify(one)))
    .map((one) => (typeof one === "string" ? one : JSON.stringify(one)));
}
