import { z } from "zod";
import type { Condition, Operand, Rule } from "../config/condition.ts";
import { declaredAt } from "../config/declaration.ts";
import type { Deciding, PolicyDeclaration } from "../config/policy.ts";
import { parseRange } from "../table/cidr.ts";
import { callerMissing } from "./authentication.ts";
import { type Quantifier, testOf } from "./condition.ts";
import { type CompileContext, type PolicyRun, pass, refuse } from "./contract.ts";

export interface AuthorizeOptions extends Deciding {
  readonly rules: readonly Rule[];
}

/**
 * Lets requests through by rules: `authorize(allow("staff", when(caller.groups.has("staff"))), deny("abroad", ...))`. A `deny` that
 * holds refuses, else an `allow` that holds lets pass, else the request is refused; the order of the list means nothing. 403
 * `access-denied`; 401 where the rules ask who is calling and nobody is known.
 */
export function authorize(...given: readonly [AuthorizeOptions] | readonly Rule[]): PolicyDeclaration {
  const [first] = given;
  const options = typeof first === "object" && first !== null && "rules" in first ? first : { rules: given };
  return { kind: "policy", policy: "authorize", options: { ...options }, declaredAt: declaredAt(authorize) };
}

export const schema = () => {
  const texts = z.array(z.string()).min(1);
  const named = (...kinds: string[]) => z.strictObject({ of: z.enum(kinds), name: z.string().min(1) });
  const operand = z.union([
    z.strictObject({
      of: z.enum(
        "method path host scheme consumer plan subject scopes groups credential address country continent region asn botScore".split(
          " ",
        ),
      ),
    }),
    named("header", "query", "cookie", "param", "claim", "metadata"),
  ]);
  const literal = z.union([z.string(), z.number(), z.boolean()]);
  const condition: z.ZodType = z.lazy(() =>
    z.union(
      [
        z.strictObject({ all: z.array(condition).min(1) }),
        z.strictObject({ any: z.array(condition).min(1) }),
        z.strictObject({ not: condition }),
        z.strictObject({ value: operand, is: z.array(z.union([literal, z.strictObject({ value: operand })])).min(1) }),
        ...["has", "startsWith", "endsWith", "contains", "fits", "within"].map((name) =>
          z.strictObject({ value: operand, [name]: texts }),
        ),
        z.strictObject({ value: operand, atLeast: z.number() }),
        z.strictObject({ value: operand, atMost: z.number() }),
        z.strictObject({ value: operand, exists: z.literal(true) }),
        z.strictObject({
          time: z.strictObject({
            from: z.unknown(),
            until: z.unknown(),
            days: z.array(z.int()).optional(),
            zone: z.string(),
          }),
        }),
      ],
      'is no condition, such as caller.groups.has("staff")',
    ),
  );
  return z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    rules: z
      .array(
        z
          .custom((value) => isRule(value), 'must be allow("name", ...) or deny("name", ...)')
          .pipe(z.strictObject({ effect: z.string(), name: z.string().min(1).max(64), condition })),
      )
      .min(1, "must have a rule: allow(...)"),
  });
};

const isRule = (value: unknown): boolean =>
  ["allow", "deny"].includes((value as { effect?: string } | null | undefined)?.effect ?? "");

export interface AuthorizeConfig {
  /** Sorted by name. */
  readonly deny: readonly RuleConfig[];
  readonly allow: readonly RuleConfig[];
  /** Whether a rule goes by who is calling. */
  readonly asksCaller: boolean;
}

interface RuleConfig {
  readonly name: string;
  readonly condition: Condition;
}

/** Operands that tell of who is calling, and of nobody nothing. */
export const OF_CALLER: ReadonlySet<Operand["of"]> = new Set<Operand["of"]>([
  "consumer",
  "plan",
  "subject",
  "scopes",
  "groups",
  "credential",
  "claim",
  "metadata",
]);

export function compile({ rules }: AuthorizeOptions, context: CompileContext): AuthorizeConfig {
  if (new Set(rules.map(({ name }) => name)).size < rules.length)
    context.problem("two rules have the same name", "name each rule differently: records go by the name");
  if (!rules.some(({ effect }) => effect === "allow"))
    context.problem(
      "authorize allows nothing, so it refuses everything",
      'add an allow(...), such as allow("others", ...)',
    );
  for (const { name, condition } of rules) checkCondition(condition, `rule "${name}"`, context);
  const of = (wanted: Rule["effect"]) =>
    rules
      .filter(({ effect }) => effect === wanted)
      .map(({ name, condition }) => ({ name, condition }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  const operands = rules.flatMap(({ condition }) => operandsOf(condition));
  return { deny: of("deny"), allow: of("allow"), asksCaller: operands.some(({ of }) => OF_CALLER.has(of)) };
}

/** What the shape does not tell. */
function checkCondition(condition: Condition, subject: string, context: CompileContext): void {
  for (const one of partsOf(condition)) {
    if ("time" in one) {
      const { from, until, zone } = one.time;
      if (!Number.isFinite(from) || !Number.isFinite(until) || from === until)
        context.problem(`${subject} has no time of day`, 'write it as clock.between("08:00", "18:00")');
      if (!isZone(zone))
        context.problem(`${subject} is in the zone "${zone}"`, 'name it as the IANA does: "Europe/Berlin"');
    }
    if ("within" in one) {
      for (const range of one.within) {
        if (!parseRange(range))
          context.problem(
            `${subject}: "${range}" is no address or CIDR range`,
            "write it as 10.0.0.0/8 or 2001:db8::/32",
          );
      }
    }
    if ("fits" in one) {
      for (const pattern of one.fits) {
        const plain = pattern.replace(/\/\{\*\*\}$/, "").replace(/\/\{\*\}(?=\/|$)/g, "");
        if (!pattern.startsWith("/") || /[{}*]/.test(plain)) {
          const fix = 'write "/v1/{*}/items", or "/v1/{**}" for all that follows';
          context.problem(`${subject}: "${pattern}" is no pattern of a path`, fix);
        }
      }
    }
  }
}

function partsOf(condition: Condition): Condition[] {
  if ("all" in condition) return condition.all.flatMap(partsOf);
  if ("any" in condition) return condition.any.flatMap(partsOf);
  return "not" in condition ? partsOf(condition.not) : [condition];
}

/** Every value that the condition goes by. */
export const operandsOf = (condition: Condition): Operand[] =>
  partsOf(condition).flatMap((one) =>
    "value" in one
      ? [one.value, ...("is" in one ? one.is.flatMap((other) => (typeof other === "object" ? [other.value] : [])) : [])]
      : [],
  );

function isZone(zone: string): boolean {
  try {
    return new Intl.DateTimeFormat("en-US", { timeZone: zone }) !== undefined;
  } catch {
    return false;
  }
}

export const run: PolicyRun<AuthorizeConfig> = (config, runtime, mode) => {
  const ready = (rules: readonly RuleConfig[], quantifier: Quantifier) =>
    rules.map(({ name, condition }) => ({ name, test: testOf(condition, quantifier) }));
  const [denied, allowed] = [ready(config.deny, "some"), ready(config.allow, "every")];

  return (c, next) => {
    const exchange = c.get("exchange");
    const situation = { exchange, request: c.req.raw, now: runtime.now() };
    const denying = denied.find(({ test }) => test(situation) === true);
    const allowing = denying ? undefined : allowed.find(({ test }) => test(situation) === true);
    if (allowing) {
      pass(exchange, "authorize", { rule: allowing.name });
      return next();
    }
    const facts = { rule: denying?.name ?? "none" };
    // Who is known by no credential may be another one with one.
    const unknown = !denying && config.asksCaller && !exchange.caller?.credential;
    const [code, extras] = unknown ? callerMissing(exchange) : (["access-denied", {}] as const);
    const answer = refuse(exchange, "authorize", mode, code, { ...extras, facts });
    return answer ? Promise.resolve(answer) : next();
  };
};
