/** The stages without a gateway: each raw request is parsed as a server would, and the compiled engine is asked about it. */
import { Engine } from "../../../src/waf/engine.ts";
import type { WafResponse } from "../../../src/waf/request.ts";
import { answerTo } from "./backend.ts";
import type { Outcome } from "./judge.ts";
import { parseRequest } from "./parse.ts";
import { compiledRules } from "./rules.ts";
import type { Stage } from "./stages.ts";

/** Outcomes in the order of `stages`. Throws an Error that lists what cannot be compiled. */
export function directly(stages: readonly Stage[], rules: string, onStage: (name: string) => void): Outcome[] {
  const { pack } = compiledRules(rules, { messages: true });
  const engine = new Engine(pack);
  return stages.map(({ name, request: raw }) => {
    const { request, refused, unread = false } = parseRequest(raw);
    onStage(name);
    if (unread) return { status: 400, matches: [], judged: false };
    const answer = refused === undefined ? answerTo(request.method, request.uri, request.body) : undefined;
    const response: WafResponse = answer ?? { status: 400, headers: [] };
    const verdict = engine.evaluate(request, response);
    const status = refused === "no answer" ? undefined : response.status;
    return {
      ...(status !== undefined && { status }),
      matches: verdict.matches.map(({ id, on, message = "", data = "" }) => ({ id, on, message, data })),
      judged: true,
    };
  });
}
