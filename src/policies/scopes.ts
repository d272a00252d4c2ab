import { z } from "zod";
import { declaredAt } from "../config/declaration.ts";
import type { Deciding, PolicyDeclaration } from "../config/policy.ts";
import type { PolicyName } from "../table/table.ts";
import { callerMissing, challenge } from "./authentication.ts";
import { SCOPE_TOKEN } from "./claims.ts";
import { type CompileContext, type PolicyRun, pass, refuse } from "./contract.ts";

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

const BEARER: ReadonlySet<PolicyName> = new Set<PolicyName>(["jwt", "oidc", "introspection"]);

export const run: PolicyRun<ScopesConfig> = ({ all, any }, _runtime, mode) => {
  const wanted = [...new Set([...all, ...any])].join(" ");
  return (c, next) => {
    const exchange = c.get("exchange");
    const answer = decide();
    return answer ? Promise.resolve(answer) : next();

    function decide(): Response | undefined {
      const { caller } = exchange;
      const held = caller?.scopes ?? [];
      const missing = all.filter((scope) => !held.includes(scope));
      const lacksAny = any.length > 0 && !any.some((scope) => held.includes(scope));
      if (caller && missing.length === 0 && !lacksAny) {
        pass(exchange, "scopes");
        return undefined;
      }
      if (!caller?.credential) return refuse(exchange, "scopes", mode, ...callerMissing(exchange));
      const lacking = { missing, ...(lacksAny && { missingAnyOf: any }) };
      // Scopes are OAuth's, and so is the way to ask for more of them; a key or a certificate would not get them by asking.
      const bearer = BEARER.has(caller.credential.kind);
      return refuse(exchange, "scopes", mode, "scope-missing", {
        members: lacking,
        ...(bearer && {
          headers: {
            "www-authenticate": challenge(exchange, "Bearer", { error: "insufficient_scope", scope: wanted }),
          },
        }),
        facts: lacking,
      });
    }
  };
};
