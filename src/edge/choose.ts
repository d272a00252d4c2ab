/** Where a request goes: the arm of a split and its backends. */
import type { Exchange } from "../policies/contract.ts";
import { subscriberOf } from "../table/cidr.ts";
import { chooseArm } from "../table/split.ts";
import type { ForwardAction, SplitAction } from "../table/table.ts";
import { constantTimeEqual } from "./constant-time.ts";
import { cookieValue } from "./request-target.ts";

/**
 * Positions in the table's backends, the first to be asked first. For a split it notes the arm in the record and in the response
 * header `X-Portcullis-Arm`; a sticky cookie is set where the client has none, on every arm alike, so that a caller's luck is drawn
 * once and not again on each request.
 */
export function chooseBackends(
  action: ForwardAction | SplitAction,
  exchange: Exchange,
  request: Request,
  secret: (reference: SplitAction["override"] & object) => string,
): readonly number[] {
  if (action.kind === "forward") return action.backends;
  const { arm, by } = overriddenArm(action, exchange, request, secret) ?? stickyArm(action, exchange, request);
  exchange.record.arm = arm.name;
  exchange.record.armBy = by;
  exchange.responseEdits.push({ action: "set", name: "x-portcullis-arm", value: arm.name });
  return arm.backends;
}

type Choice = { arm: SplitAction["arms"][number]; by: string };

function overriddenArm(
  { arms, override }: SplitAction,
  exchange: Exchange,
  request: Request,
  secret: (reference: SplitAction["override"] & object) => string,
): Choice | undefined {
  if (!override) return undefined;
  const header = override.header ? request.headers.get(override.header) : null;
  const cookies = request.headers.get("cookie");
  const cookie = override.cookie ? cookieValue(cookies, override.cookie) : null;
  // The secret is the gateway's: no origin gets to see it.
  if (override.header) exchange.upstream.delete(override.header);
  if (override.cookie && cookie !== null) withoutCookie(exchange.upstream, cookies as string, override.cookie);
  for (const [wish, by] of [
    [header, "override-header"],
    [cookie, "override-cookie"],
  ] as const) {
    if (wish === null) continue;
    const colon = wish.indexOf(":");
    const arm = arms.find(({ name }) => name === wish.slice(0, colon));
    if (colon > 0 && constantTimeEqual(wish.slice(colon + 1), secret(override)) && arm) return { arm, by };
  }
  return undefined;
}

function withoutCookie(headers: Headers, cookies: string, name: string): void {
  const kept = cookies.split(";").filter((pair) => pair.slice(0, pair.indexOf("=")).trim() !== name);
  if (kept.length === 0) headers.delete("cookie");
  else headers.set("cookie", kept.join(";").trim());
}

function stickyArm({ arms, salt, sticky }: SplitAction, exchange: Exchange, request: Request): Choice {
  const [key, by] = stickyKey(sticky, exchange, request);
  return { arm: chooseArm(arms, salt, key), by };
}

function stickyKey(sticky: SplitAction["sticky"], exchange: Exchange, request: Request): [key: string, by: string] {
  if (sticky.by === "subject" && exchange.caller) return [exchange.caller.subject, "subject"];
  if (sticky.by === "header") {
    const value = request.headers.get(sticky.name);
    if (value) return [value, "header"];
  }
  if (sticky.by === "cookie") {
    const value = cookieValue(request.headers.get("cookie"), sticky.name);
    if (value && /^[\w-]{8,64}$/.test(value)) return [value, "cookie"];
    const fresh = crypto.randomUUID();
    const secure = exchange.scheme === "https" ? "; Secure" : "";
    exchange.responseEdits.push({
      action: "add",
      name: "set-cookie",
      value: `${sticky.name}=${fresh}; Path=/; Max-Age=${sticky.maxAge}; HttpOnly; SameSite=Lax${secure}`,
    });
    return [fresh, "new-cookie"];
  }
  return [`${subscriberOf(exchange.clientAddress)}\n${request.headers.get("user-agent") ?? ""}`, "client"];
}
