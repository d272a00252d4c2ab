/**
 * Chains that write each value into a variable of its own, named after it, and then look at all of these for one within a list, as the
 * Core Rule Set's 920450 does with the names of headers. Written down for each request they are its dearest rule (15 µs of 60); whether
 * one is within the list can be asked of the values themselves, and the chain be left alone where none is.
 */
import type { PackOperator, PackRule, Template } from "../waf/pack.ts";

/** What must match on a value of the rule's first link for the rule to matter at all; undefined: there is nothing of the kind. */
export function guardOf(
  rule: PackRule,
  rules: readonly PackRule[],
  operators: readonly PackOperator[],
  variables: Iterable<string>,
): PackOperator | undefined {
  const [noting, looking] = rule.links;
  if (noting?.operator === undefined || looking?.operator === undefined) return undefined;
  const [set] = noting.actions;
  const [target] = looking.targets;
  const list = operators[looking.operator];
  if (operators[noting.operator]?.op !== "unconditionalMatch" || !noting.capture || noting.negated) return undefined;
  if (noting.actions.length !== 1 || set?.do !== "set" || noting.multiMatch) return undefined;
  if (list?.op !== "within" || typeof list.argument !== "string" || looking.negated) return undefined;
  if (looking.targets.length !== 1 || target?.count || target?.except || looking.chain !== 0) return undefined;
  const name = around(set.name);
  const value = around(set.value);
  if (!name || !value || name[1] !== "" || !/^tx\.[a-z0-9_]+$/.test(name[0])) return undefined;
  if (target?.collection !== "TX" || target.pattern?.source !== `^${name[0].slice("tx.".length)}`) return undefined;
  for (const variable of variables) if (variable.startsWith(name[0])) return undefined;
  const readers = readersOf(
    name[0],
    rules.filter((other) => other !== rule),
    operators,
  );
  const [before, after] = value;
  return readers && { op: "notedWithin", argument: list.argument, before, after, as: name[0].slice(3), readers };
}

/** What stands before and after TX.0, and nothing else. */
function around(template: Template): readonly [string, string] | undefined {
  if (typeof template === "string") return undefined;
  const at = template.findIndex((part) => typeof part !== "string" && part.variable === "tx.0");
  const texts = template.filter((part) => typeof part === "string");
  if (at === -1 || texts.length !== template.length - 1) return undefined;
  return [texts.slice(0, at).join(""), texts.slice(at).join("")];
}

/** Programs of the patterns by which these rules may read variables whose name begins like that; undefined: one does so otherwise. */
function readersOf(
  prefix: string,
  rules: readonly PackRule[],
  operators: readonly PackOperator[],
): number[] | undefined {
  const readers: number[] = [];
  const isRead = (template: Template | undefined): boolean =>
    typeof template === "object" &&
    template.some((part) => typeof part !== "string" && part.variable.startsWith(prefix));
  const mayBe = (name: Template): boolean => {
    const begun = typeof name === "string" ? name : typeof name[0] === "string" ? name[0] : "";
    return begun.startsWith(prefix) || (typeof name !== "string" && prefix.startsWith(begun));
  };
  for (const { links, message, data, disrupt } of rules) {
    if (isRead(message) || isRead(data) || (disrupt?.action === "redirect" && isRead(disrupt.location)))
      return undefined;
    for (const { operator, targets, actions } of links) {
      const asked = operator === undefined ? undefined : operators[operator];
      if (asked && "argument" in asked && isRead(asked.argument)) return undefined;
      for (const { collection, name, pattern } of targets) {
        if (collection !== "TX") continue;
        if (name === undefined && typeof pattern?.program !== "number") return undefined;
        if (name !== undefined && `tx.${name}`.startsWith(prefix)) return undefined;
        if (typeof pattern?.program === "number") readers.push(pattern.program);
      }
      for (const action of actions) {
        if (!("name" in action)) continue;
        if (mayBe(action.name) || ("value" in action && isRead(action.value))) return undefined;
      }
    }
  }
  return [...new Set(readers)];
}
