/** What is different between two tables, in terms of requests: who is answered by what now, and what holds them back less. */
import type { PolicyName, RouteTable, TableAction, TablePool, TableRoute } from "../table/table.ts";
import { placesOf, TableRequests } from "./answers.ts";
import { policiesOf } from "./callers.ts";
import { meeting } from "./meeting.ts";
import { difference, type ExampleRequest, exampleOf, intersection, type RequestSet } from "./request-set.ts";
import { type Step, unwatched } from "./step.ts";
import { weakenings } from "./weakening.ts";
import { weakerMembers } from "./weaker-members.ts";

/** How the requests that one route asks for have changed. */
export interface RouteChange {
  readonly route: string;
  readonly change: "added" | "removed" | "narrowed" | "widened";
  /** One that is asked for in one table and not in the other; absent: it could not be told within limits. */
  readonly example?: ExampleRequest;
  /** Of the example in the other table: before, or for what is gone now; absent: nobody. */
  readonly other?: string;
}

/** Requests of one route that another one answers now. */
export interface Move {
  readonly from: string;
  readonly to: string;
  readonly example: ExampleRequest;
}

export interface TableWeakening {
  /** `*`: settings of the gateway, and invariants. */
  readonly route: string;
  readonly policy: PolicyName | "gateway" | "invariants";
  readonly message: string;
  /** Only requests that this other route answered before are held back less; absent: all of the route's. */
  readonly from?: string;
  /** A request that is held back less. */
  readonly example?: ExampleRequest;
}

/** A route that does something else with its requests. */
export interface Edit {
  readonly route: string;
  /** Members of the route that are others: `action`, `policies`, `timeouts`. */
  readonly members: readonly string[];
}

export interface TableDiff {
  readonly changes: readonly RouteChange[];
  readonly moves: readonly Move[];
  readonly weakenings: readonly TableWeakening[];
  readonly edited: readonly Edit[];
  /** Pairs of routes of which too many meet to compare them all. */
  readonly uncompared: number;
}

export function diffTables(before: RouteTable, now: RouteTable, step: Step = unwatched): TableDiff {
  return new Diff(before, now).result(step);
}

/** Of one route so many others are compared. */
const MOST_OTHERS = 200;
const MOST_STEPS = 100;

class Diff {
  readonly #old: TableRequests;
  readonly #new: TableRequests;
  readonly #changes: RouteChange[] = [];
  readonly #moves = new Map<string, Move>();
  readonly #weakenings: TableWeakening[] = [];
  readonly #edited: Edit[] = [];
  #uncompared = 0;

  constructor(before: RouteTable, now: RouteTable) {
    this.#old = new TableRequests(before, placesOf(now));
    this.#new = new TableRequests(now, placesOf(before));
  }

  result(step: Step): TableDiff {
    const { table: before } = this.#old;
    const { table: now } = this.#new;
    this.#weakenings.push(...weakerGateway(before, now));
    const wholly = !sameRules(before, now);
    const total = before.routes.length + now.routes.length;
    for (const [number, route] of before.routes.entries()) {
      step("comparing routes", number, total);
      const position = this.#new.positionOf(route.id);
      const other = position === undefined ? undefined : (now.routes[position] as TableRoute);
      if (!other) this.#gone(route);
      else this.#both(route, other);
      if (!other || wholly || askedFor(before, route) !== askedFor(now, other)) this.#movesFrom(route);
    }
    for (const [number, route] of now.routes.entries()) {
      step("comparing routes", before.routes.length + number, total);
      const position = this.#old.positionOf(route.id);
      const other = position === undefined ? undefined : (before.routes[position] as TableRoute);
      if (!other) this.#added(route);
      if (!other || wholly || askedFor(before, other) !== askedFor(now, route)) this.#movesTo(route);
    }
    for (const move of this.#moves.values()) this.#weakened(move);
    return {
      changes: this.#changes,
      moves: [...this.#moves.values()],
      weakenings: this.#weakenings,
      edited: this.#edited,
      uncompared: this.#uncompared,
    };
  }

  #gone(route: TableRoute): void {
    const answer = this.#old.answer(this.#old.positionOf(route.id) as number);
    this.#change(route.id, "removed", answer.kind === "answers" ? answer.example : "search", this.#new);
  }

  #added(route: TableRoute): void {
    const answer = this.#new.answer(this.#new.positionOf(route.id) as number);
    this.#change(route.id, "added", answer.kind === "answers" ? answer.example : "search", this.#old);
  }

  #both(old: TableRoute, now: TableRoute): void {
    const [before, after] = [this.#old.table, this.#new.table];
    if (askedFor(before, old) !== askedFor(after, now) || listenersOf(before) !== listenersOf(after)) {
      const [a, b] = [this.#requests(this.#old, old), this.#requests(this.#new, now)];
      this.#change(old.id, "narrowed", exampleOf(difference(a, b), this.#old.universe), this.#new);
      this.#change(old.id, "widened", exampleOf(difference(b, a), this.#new.universe), this.#old);
    }
    const [was, is] = [policiesOf(before, old), policiesOf(after, now)];
    if (JSON.stringify(was) !== JSON.stringify(is)) {
      const found = weakenings(was, is);
      const answer = found.length > 0 ? this.#new.answer(this.#new.positionOf(old.id) as number) : undefined;
      const example = answer?.kind === "answers" ? { example: answer.example } : {};
      this.#weakenings.push(...found.map((one) => ({ route: old.id, ...one, ...example })));
    }
    const [did, does] = [doneWith(before, old), doneWith(after, now)];
    const members = Object.keys({ ...did, ...does }).filter(
      (name) => JSON.stringify(did[name]) !== JSON.stringify(does[name]),
    );
    if (members.length > 0) this.#edited.push({ route: old.id, members });
  }

  #change(
    route: string,
    change: RouteChange["change"],
    example: ReturnType<typeof exampleOf>,
    others: TableRequests,
  ): void {
    if (example === "empty") return;
    if (typeof example === "string") {
      this.#changes.push({ route, change });
      return;
    }
    const other = others.routeFor(example)?.id;
    this.#changes.push({ route, change, example, ...(other !== undefined && { other }) });
  }

  #requests(space: TableRequests, { id }: TableRoute): RequestSet {
    return space.requestsOf(space.positionOf(id) as number);
  }

  /** Which of its requests others answer now. */
  #movesFrom(old: TableRoute): void {
    for (const to of this.#meeting(this.#new, old)) this.#compare(old, to);
  }

  #movesTo(now: TableRoute): void {
    for (const from of this.#meeting(this.#old, now)) this.#compare(from, now);
  }

  /** Routes of the other table that ask for some of the same requests. */
  #meeting(space: TableRequests, { hosts, matches }: TableRoute): TableRoute[] {
    const found = new Set<TableRoute>();
    for (const { path } of matches)
      for (const [position] of meeting(space.index, hosts, path)) found.add(space.table.routes[position] as TableRoute);
    if (found.size > MOST_OTHERS) this.#uncompared += found.size - MOST_OTHERS;
    return [...found].slice(0, MOST_OTHERS);
  }

  #compare(from: TableRoute, to: TableRoute): void {
    const key = `${from.id} ${to.id}`;
    if (from.id === to.id || this.#moves.has(key)) return;
    const example = this.#moved(from, to);
    if (example) this.#moves.set(key, { from: from.id, to: to.id, example });
  }

  /** A request that the one answered before and the other answers now. */
  #moved(from: TableRoute, to: TableRoute): ExampleRequest | undefined {
    // Who is more specific than one match of a route need not be so than another.
    for (const term of intersection(this.#requests(this.#old, from), this.#requests(this.#new, to))) {
      const none = [...term.none];
      for (let step = 0; ; step++) {
        const example = exampleOf([{ all: term.all, none }], this.#new.universe);
        if (typeof example === "string") break;
        const taken = this.#old.takenFrom(from.id, example) ?? this.#new.takenFrom(to.id, example);
        if (!taken) return example;
        if (step === MOST_STEPS) {
          this.#uncompared++;
          break;
        }
        none.push(taken);
      }
    }
    return undefined;
  }

  #weakened({ from, to, example }: Move): void {
    const [before, now] = [this.#old.table, this.#new.table];
    const old = before.routes[this.#old.positionOf(from) as number] as TableRoute;
    const fresh = now.routes[this.#new.positionOf(to) as number] as TableRoute;
    for (const { policy, message } of weakenings(policiesOf(before, old), policiesOf(now, fresh)))
      this.#weakenings.push({ route: to, policy, message, from, example });
  }
}

/** All that decides which requests a route asks for, and how it stands to others. */
const askedFor = (table: RouteTable, { hosts, matches, listeners }: TableRoute): string =>
  JSON.stringify([hosts, matches, listeners?.map((position) => table.listeners?.[position])]);

const listenersOf = (table: RouteTable): string => JSON.stringify(table.listeners ?? []);

/** Whether both tables read requests and order routes alike, so that only routes that have changed can matter. */
function sameRules(before: RouteTable, now: RouteTable): boolean {
  const known = new Set(now.routes.map(({ id }) => id));
  const old = new Set(before.routes.map(({ id }) => id));
  const order = ({ routes }: RouteTable, others: ReadonlySet<string>) =>
    routes
      .filter(({ id, order }) => order !== undefined && others.has(id))
      .toSorted((a, b) => (a.order as number) - (b.order as number))
      .map(({ id }) => id)
      .join();
  return (
    listenersOf(before) === listenersOf(now) &&
    before.gateway.semantics === now.gateway.semantics &&
    before.gateway.escapedSlashes === now.gateway.escapedSlashes &&
    order(before, known) === order(now, old)
  );
}

/** What becomes of a request of the route, with everything that the table has elsewhere put in. */
function doneWith(table: RouteTable, route: TableRoute): Record<string, unknown> {
  const { id: _id, api: _api, hosts: _hosts, matches: _matches, listeners: _listeners, order: _order, ...rest } = route;
  const backend = (position: number) => table.backends[position];
  const placed = (action: TableAction): unknown => {
    if (action.kind === "split")
      return { ...action, arms: action.arms.map((arm) => ({ ...arm, action: placed(arm.action) })) };
    if (action.kind === "forward") return action.backends.map(backend);
    if (action.kind !== "pool") return action;
    const { levels, ...pool } = table.pools[action.pool] as TablePool;
    return { ...pool, levels: levels.map((level) => ({ ...level, backends: level.backends.map(backend) })) };
  };
  return {
    ...rest,
    action: placed(rest.action),
    policies: policiesOf(table, route),
    mirrors: rest.mirrors?.map((mirror) => ({ ...mirror, backend: backend(mirror.backend) })),
  };
}

/** Settings that hold for all requests. */
function weakerGateway(before: RouteTable, now: RouteTable): TableWeakening[] {
  const messages = weakerMembers("gateway", before.gateway, now.gateway, {
    trustedProxies: "fewer",
    maxUrl: "lower",
    maxBody: "lower",
    assertion: "on",
  });
  if (before.gateway.escapedSlashes === "refuse" && now.gateway.escapedSlashes === "keep")
    messages.push("gateway keeps escaped slashes, which it refused");
  if (before.gateway.forwardedFor === "overwrite" && now.gateway.forwardedFor === "append")
    messages.push("gateway appends to X-Forwarded-For, so that origins see what clients put there");
  for (const [name, cluster] of Object.entries(now.clusters)) {
    const old = before.clusters[name];
    if (old?.assertion && !cluster.assertion) messages.push(`cluster ${name} gets no assertion`);
    if (old?.certificate && !cluster.certificate) messages.push(`cluster ${name} is shown no certificate`);
  }
  const rulesOf = ({ policies }: RouteTable) => policies.filter(({ policy }) => policy === "authorize");
  const asked = JSON.stringify([rulesOf(before), rulesOf(now)]);
  for (const [name, { groups = [], plan, metadata }] of Object.entries(now.consumers)) {
    const old = before.consumers[name];
    // Limits that go by plans are told of each route; which plan somebody has is of no route.
    if (old && old.plan !== plan)
      messages.push(
        `consumer ${name} has ${plan ? `the plan ${plan}` : "no plan"} instead of ${old.plan ?? "none"}, with other limits`,
      );
    const fresh = groups.filter((group) => !old?.groups?.includes(group));
    if (old && fresh.length > 0) messages.push(`consumer ${name} is in more groups: ${fresh.join(", ")}`);
    const left = old?.groups?.filter((group) => !groups.includes(group)) ?? [];
    if (left.length > 0 && asked.includes('"of":"groups"'))
      messages.push(`consumer ${name} is no longer in groups by which rules may refuse it: ${left.join(", ")}`);
    if (old && asked.includes('"of":"metadata"') && JSON.stringify(old.metadata) !== JSON.stringify(metadata))
      messages.push(`consumer ${name} has other metadata, by which rules may allow more`);
  }
  return messages.map((message) => ({ route: "*", policy: "gateway", message }));
}
