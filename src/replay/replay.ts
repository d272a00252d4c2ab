/** A log, once by each of two tables: which requests they would treat otherwise, and how. Nothing is kept but counts and examples. */
import type { RouteTable, TableRoute } from "../table/table.ts";
import type { LoggedRequest } from "./logged.ts";
import { isWeaker, type Outcome, Outcomes } from "./outcome.ts";
import { nameOf, type RoutedBoth, Router, routeBoth } from "./routing.ts";

export type ChangeKind = "route" | "verdict" | "limit" | "arm" | "target";

/** Requests for which the same changes in the same way. */
export interface ChangeGroup {
  readonly kind: ChangeKind;
  /** The old and the new route; the same but for changes of the route itself. */
  readonly routes: readonly [old: string, fresh: string];
  readonly old: string;
  readonly new: string;
  /** More is let through, or less is asked, than before. */
  readonly weakened: boolean;
  count: number;
  /** Of these, how many only may change: it depends on what the log does not tell. */
  uncertain: number;
  readonly example: Example;
}

export interface Example {
  readonly line: number;
  readonly method: string;
  /** Without the query, which may hold secrets. */
  readonly url: string;
  readonly client: string;
  readonly consumer?: string;
}

export interface ReplayReport {
  readonly requests: number;
  readonly changed: number;
  /** Of those that changed, how many only may. */
  readonly uncertain: number;
  readonly weakened: number;
  /** Lines that are no request's, and were not understood. */
  readonly unread: number;
  /** The first and the last time, in milliseconds since the epoch; undefined: no line has one. */
  readonly span: readonly [first: number, last: number] | undefined;
  /** The largest first. */
  readonly groups: readonly ChangeGroup[];
  /** Changes of which no group is kept, since there were too many kinds. */
  readonly ungrouped: number;
  /** Requests whose record is of neither table. */
  readonly foreign: number;
}

const MOST_GROUPS = 10_000;
const NOTHING: Outcome = { verdict: "", limits: "", hourly: Number.POSITIVE_INFINITY, arm: "", target: "" };

export class Replay {
  readonly #routers: readonly [Router, Router];
  readonly #outcomes: readonly [Outcomes, Outcomes];
  readonly #groups = new Map<string, ChangeGroup>();
  /** Of pairs of routes, whether they do the same. */
  readonly #same = new Map<TableRoute, Map<TableRoute, boolean>>();
  readonly #shared: boolean;
  #requests = 0;
  #changed = 0;
  #uncertain = 0;
  #weakened = 0;
  #ungrouped = 0;
  #foreign = 0;
  #first = Number.POSITIVE_INFINITY;
  #last = 0;
  unread = 0;

  constructor(old: RouteTable, fresh: RouteTable) {
    this.#routers = [new Router(old), new Router(fresh)];
    this.#outcomes = [new Outcomes(old), new Outcomes(fresh)];
    // What two routes count together depends on both.
    this.#shared = [old, fresh].some(({ policies }) =>
      policies.some(
        ({ policy, config }) => policy === "rateLimit" && (config as { shared?: string }).shared !== undefined,
      ),
    );
  }

  add(request: LoggedRequest, line: number): void {
    this.#requests++;
    if (request.time > 0) {
      this.#first = Math.min(this.#first, request.time);
      this.#last = Math.max(this.#last, request.time);
    }
    const { record } = request;
    if (record && this.#routers.every(({ table }) => table.id !== record.table)) this.#foreign++;
    const [before, after] = this.#routers;
    const routed = routeBoth(before, after, request);
    const { old, new: fresh } = routed;
    if (typeof old !== "string" && typeof fresh !== "string" && this.#isSame(old, fresh)) return;
    const evidence = typeof old === "string" ? new Map() : this.#outcomes[0].evidence(old, request);
    const outcome = (at: 0 | 1, route: TableRoute | string) =>
      typeof route === "string" ? NOTHING : this.#outcomes[at].of(route, request, evidence);
    this.#compare(request, line, routed, outcome(0, old), outcome(1, fresh));
  }

  report(): ReplayReport {
    return {
      requests: this.#requests,
      changed: this.#changed,
      uncertain: this.#uncertain,
      weakened: this.#weakened,
      unread: this.unread,
      span: this.#last > 0 ? [this.#first, this.#last] : undefined,
      groups: [...this.#groups.values()].sort((a, b) => Number(b.weakened) - Number(a.weakened) || b.count - a.count),
      ungrouped: this.#ungrouped,
      foreign: this.#foreign,
    };
  }

  #isSame(old: TableRoute, fresh: TableRoute): boolean {
    if (this.#shared) return false;
    let known = this.#same.get(old);
    if (!known) this.#same.set(old, (known = new Map()));
    let same = known.get(fresh);
    if (same === undefined) {
      same = this.#outcomes[0].signature(old) === this.#outcomes[1].signature(fresh);
      known.set(fresh, same);
    }
    return same;
  }

  #compare(request: LoggedRequest, line: number, routed: RoutedBoth, old: Outcome, fresh: Outcome): void {
    const routes = [nameOf(routed.old), nameOf(routed.new)] as const;
    const uncertain = !routed.certain;
    let [changed, weakened] = [false, false];
    const note = (kind: ChangeKind, before: string, after: string, weaker = false) => {
      changed = true;
      weakened ||= weaker;
      this.#group({ kind, routes, old: before, new: after, weakened: weaker }, uncertain, request, line);
    };
    const moved = routes[0] !== routes[1];
    if (moved) note("route", ...routes);
    if (typeof routed.old !== "string" && typeof routed.new !== "string") {
      if (old.verdict !== fresh.verdict)
        note("verdict", old.verdict, fresh.verdict, isWeaker(old.verdict, fresh.verdict));
      const looser = fresh.hourly > old.hourly;
      // Of another route limits, arms and backends are others, which goes without saying unless it lets more through.
      if (old.limits !== fresh.limits && (looser || !moved))
        note("limit", old.limits || "none", fresh.limits || "none", looser);
      if (!moved && old.arm !== fresh.arm) note("arm", old.arm || "none", fresh.arm || "none");
      else if (!moved && old.target !== fresh.target) note("target", old.target, fresh.target);
    }
    if (!changed) return;
    this.#changed++;
    if (uncertain) this.#uncertain++;
    if (weakened) this.#weakened++;
  }

  #group(
    change: Pick<ChangeGroup, "kind" | "routes" | "old" | "new" | "weakened">,
    uncertain: boolean,
    { method, url, client, record }: LoggedRequest,
    line: number,
  ): void {
    const key = `${change.kind}\n${change.routes.join("\n")}\n${change.old}\n${change.new}`;
    const known = this.#groups.get(key);
    if (known) {
      known.count++;
      if (uncertain) known.uncertain++;
    } else if (this.#groups.size >= MOST_GROUPS) this.#ungrouped++;
    else {
      const consumer = record?.consumer;
      const plain = url.split(/[?#]/, 1)[0] as string;
      const example = { line, method, url: plain, client, ...(consumer !== undefined && { consumer }) };
      this.#groups.set(key, { ...change, count: 1, uncertain: uncertain ? 1 : 0, example });
    }
  }
}
