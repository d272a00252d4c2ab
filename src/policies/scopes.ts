import { z } from "zod";
import { declaredAt } from "../config/declaration.ts";
import type { Deciding, PolicyDeclaration } from "../config/policy.ts";
import { type CompileContext, type PolicyRun, pass, refuse } from "./contract.ts";
import { challenge, SCOPE_TOKEN } from "./jwt.ts";

export interface ScopesOptions extends Deciding {
  /** The token needs each of these. */
  readonly all?: readonly string[];
  /** And, where given, at least one of these. */
  readonly any?: readonly string[];
}

/**
 * Lets callers through by the scopes of their token: `scopes("orders:read")`, `scopes("a", "b")` for both, or
 * `scopes({ any: ["a", "b"] })`. 403 `scope-missing` otherwise; 401 `token-missing` where no policy found a caller.
 */
export function scopes(...given: readonly [ScopesOptions] | readonly [string, ...string[]]): PolicyDeclaration {
  const [first] = given;
  const options = typeof first === "object" ? first : { all: given };
  return { kind: "policy", policy: "scopes", options: { ...options }, declaredAt: declaredAt(scopes) };
}

export const schema = () =>
  z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    all: z.array(z.string()).min(1).optional(),
    any: z.array(z.string()).min(1).optional(),
  });

export interface ScopesConfig {
  readonly all: readonly string[];
  readonly any: readonly string[];
}

export function compile({ all = [], any = [] }: ScopesOptions, context: CompileContext): ScopesConfig {
  if (all.length + any.length === 0)
    context.problem("scopes names no scope", 'name at least one: scopes("orders:read")');
  for (const scope of [...all, ...any]) {
    if (!SCOPE_TOKEN.test(scope)) {
      context.problem(
        `"${scope}" is no scope`,
        'write one scope per text, of visible ASCII without spaces, " and \\ (RFC 6749, 3.3)',
      );
    }
  }
  const distinct = (list: readonly string[]) => [...new Set(list)].sort();
  return { all: distinct(all), any: distinct(any) };
}

export const run: PolicyRun<ScopesConfig> = ({ all, any }, _runtime, mode) => {
  const wanted = [...new Set([...all, ...any])].join(" ");
  return (c, next) => {
    const exchange = c.get("exchange");
    const answer = decide();
    return answer ? Promise.resolve(answer) : next();

    function decide(): Response | undefined {
      if (!exchange.caller) {
        return refuse(exchange, "scopes", mode, "token-missing", {
          headers: { "www-authenticate": challenge(exchange) },
        });
      }
      const { scopes } = exchange.caller;
      const missing = all.filter((scope) => !scopes.includes(scope));
      const lacksAny = any.length > 0 && !any.some((scope) => scopes.includes(scope));
      if (missing.length === 0 && !lacksAny) {
        pass(exchange, "scopes");
        return undefined;
      }
      const lacking = { missing, ...(lacksAny && { missingAnyOf: any }) };
      return refuse(exchange, "scopes", mode, "scope-missing", {
        members: lacking,
        headers: { "www-authenticate": challenge(exchange, { error: "insufficient_scope", scope: wanted }) },
        facts: lacking,
      });
    }
  };
};
