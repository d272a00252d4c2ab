/** plan, what a route asks for: its matches as the table has them. */
import type { Match, ValueCondition } from "../config/api.ts";
import type { TableMatch, ValueMatch } from "../table/table.ts";

export function tableMatch({ path = "/*", methods, headers = {}, query = {}, cookies = {} }: Match): TableMatch {
  const conditions = [
    ["headers", valueMatches(headers, true)],
    ["query", valueMatches(query)],
    ["cookies", valueMatches(cookies)],
  ] as const;
  return {
    path:
      typeof path === "object"
        ? { kind: "regex", value: sourceOf(path) }
        : path.endsWith("/*")
          ? { kind: "prefix", value: path.slice(0, -2) || "/" }
          : { kind: "exact", value: path },
    ...(methods && { methods: [...new Set(methods)].sort() }),
    ...Object.fromEntries(conditions.filter(([, matches]) => matches.length > 0)),
  };
}

function valueMatches(conditions: Readonly<Record<string, ValueCondition>>, lowerCase = false): ValueMatch[] {
  return Object.entries(conditions)
    .map(([name, condition]) => ({
      name: lowerCase ? name.toLowerCase() : name,
      ...(typeof condition === "string" && { exact: condition }),
      ...(typeof condition === "object" && { regex: sourceOf(condition, true) }),
    }))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/**
 * A regex as text alone: its flags become a modifier group, which V8 knows. `.` is any character: paths have no line breaks, and in
 * other values (`dots`) there is no line that would end at one.
 */
const sourceOf = ({ source, flags }: RegExp, dots = false): string => {
  const modifiers = `${flags.replace("s", "")}${dots && source.includes(".") ? "s" : ""}`;
  return modifiers === "" ? source : `(?${modifiers}:${source})`;
};
