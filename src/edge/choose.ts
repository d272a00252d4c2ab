/** Where a request goes: the arm of a split. */
import { type Exchange, receivedHeader } from "../policies/contract.ts";
import { subscriberOf } from "../table/cidr.ts";
import { chooseArm } from "../table/split.ts";
import type { ArmAction, SplitAction, TableAction, TableArm } from "../table/table.ts";
import { constantTimeEqual } from "./constant-time.ts";
import { cookieValue } from "./request-target.ts";

/**
 * What is done with the request. For a split it notes the arm in the record and in the response header `X-Portcullis-Arm`; a sticky
 * cookie is set where the client has none, on every arm alike, so that a caller's luck is drawn once and not again on each request.
 */
export function chooseAction(
  action: TableAction,
  exchange: Exchange,
  request: Request,
  secret: (reference: SplitAction["override"] & object) => string,
): ArmAction {
  if (action.kind !== "split") return action;
  const { arm, by } = overriddenArm(action, request, secret) ?? stickyArm(action, exchange, request);
  exchange.record.arm = arm.name;
  exchange.record.armBy = by;
  exchange.responseEdits.push({ action: "set", name: "x-portcullis-arm", value: arm.name });
  return arm.action;
}

type Choice = { arm: TableArm; by: string };

/** Header and cookie have been taken out of what origins get, on all routes (upstream-headers.ts): the secret is the gateway's. */
function overriddenArm(
  { arms, override }: SplitAction,
  request: Request,
  secret: (reference: SplitAction["override"] & object) => string,
): Choice | undefined {
  if (!override) return undefined;
  const header = override.header ? request.headers.get(override.header) : null;
  const cookie = override.cookie ? cookieValue(request.headers.get("cookie"), override.cookie) : null;
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

function stickyArm({ arms, salt, sticky }: SplitAction, exchange: Exchange, request: Request): Choice {
  const [key, by] = stickyKey(sticky, exchange, request);
  return { arm: chooseArm(arms, salt, key), by };
}

function stickyKey(sticky: SplitAction["sticky"], exchange: Exchange, request: Request): [key: string, by: string] {
  if (sticky.by === "request") return [String(Math.random()), "request"];
  // All who are anonymous have one subject between them.
  if (sticky.by === "subject" && exchange.caller?.credential) return [exchange.caller.subject, "subject"];
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
  return [`${subscriberOf(exchange.clientAddress)}\n${receivedHeader(exchange, "user-agent") ?? ""}`, "client"];
}
