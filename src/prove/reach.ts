/** Routes that no request reaches, those that others take requests from, and those that only their names part. */
import { type Candidate, compareMatches, type MatchNode } from "../table/match.ts";
import type { TableMatch, TableRoute } from "../table/table.ts";
import type { Answer, TableRequests, Taken } from "./answers.ts";
import { DOUBTS } from "./doubt.ts";
import type { Finding, Severity } from "./finding.ts";
import { meeting } from "./meeting.ts";
import { exampleOf, intersection, setOf, shownRequest } from "./request-set.ts";
import { type Step, unwatched } from "./step.ts";

/** In one message. */
const MOST_NAMED = 5;
const PART = "part them by path, method, header or query, or take one out";

export function unreachable(space: TableRequests, step: Step = unwatched): Finding[] {
  const { routes, gateway } = space.table;
  // By the Gateway API such routes are accepted, and the older one answers (HTTPRouteRule.matches).
  const severity: Severity = gateway.semantics === "gateway-api" ? "warning" : "error";
  return routes.flatMap((route, position): Finding[] => {
    step("looking for what nothing reaches", position, routes.length);
    const answers = route.matches.map((_, match) => space.answer(position, undefined, match));
    if (answers.every(({ kind }) => kind === "never")) {
      const taken = answers.flatMap((answer) => (answer as Extract<Answer, { kind: "never" }>).taken);
      return [{ kind: "unreachable", severity, route: route.id, ...neverBecause(space, route, taken) }];
    }
    return answers.flatMap((answer, match): Finding[] => {
      const which = `match ${match + 1} of ${route.matches.length}, ${shownMatch(route.matches[match] as TableMatch)},`;
      if (answer.kind === "unknown") {
        const { because, fix } = DOUBTS[answer.because];
        const message = `${which} may be unreachable: it could not be decided, since ${because}`;
        return [{ kind: "unknown", severity: "note", route: route.id, message, fix }];
      }
      if (answer.kind !== "never") return [];
      const others = answer.taken.filter((one) => one.route !== position);
      if (others.length === 0 && answer.taken.length > 0) {
        const message = `${which} adds nothing to the route's others`;
        return [{ kind: "redundant", severity: "note", route: route.id, message, fix: "take it out" }];
      }
      const because = neverBecause(space, route, others);
      return [
        {
          kind: "unreachable",
          severity: "warning",
          route: route.id,
          ...because,
          message: `${which} ${because.message}`,
        },
      ];
    });
  });
}

function neverBecause(space: TableRequests, { id }: TableRoute, taken: readonly Taken[]) {
  const [first] = taken.filter(({ route }) => space.table.routes[route]?.id !== id);
  if (!first) {
    const fix = "correct hosts, listeners or path, or take it out";
    return { message: "is never taken: no request can be for it", fix };
  }
  const winner = (space.table.routes[first.route] as TableRoute).id;
  const all = [...new Set(taken.map(({ route }) => (space.table.routes[route] as TableRoute).id))].filter(
    (one) => one !== id,
  );
  const named = all.slice(0, MOST_NAMED).map((one) => `"${one}"`);
  const by = [named.join(", "), ...(all.length > MOST_NAMED ? [`and ${all.length - MOST_NAMED} others`] : [])].join(
    " ",
  );
  const message = `is never taken: all of its requests go to ${by}, such as ${shownRequest(first.example)}`;
  return { message, fix: PART, example: first.example, winner };
}

/** `GET,POST /v1/orders`, with `…` where there are conditions. */
function shownMatch({ path, methods, headers, query, cookies }: TableMatch): string {
  const shown = path.kind === "prefix" ? `${path.value.replace(/\/$/, "")}/*` : path.value;
  return [methods?.join(), shown, headers || query || cookies ? "…" : undefined].filter(Boolean).join(" ");
}

/** Others that are listed for one route. */
const MOST_LISTED = 20;
const MOST_ASKED = 500;

/** Which routes take requests that a route asks for too, with one of them: for most pairs what specificity is there for. */
export function shadowed(space: TableRequests, step: Step = unwatched): Finding[] {
  const { routes } = space.table;
  return routes.flatMap((route, position): Finding[] => {
    step("looking for what leaves requests to others", position, routes.length);
    const winners = new Map<number, Finding>();
    let asked = 0;
    let unasked = 0;
    for (const [match, { path, methods }] of route.matches.entries()) {
      for (const [other, otherMatch] of meeting(space.index, route.hosts, path)) {
        if (other === position || winners.has(other)) continue;
        const those = routes[other]?.matches[otherMatch]?.methods;
        if (methods && those && !methods.some((one) => those.includes(one) || one === "GET" || one === "HEAD"))
          continue;
        if (winners.size >= MOST_LISTED || ++asked > MOST_ASKED) {
          unasked++;
          continue;
        }
        const example = exampleOf(
          intersection(space.requestsOf(position, match), space.requestsOf(other, otherMatch)),
          space.universe,
        );
        if (typeof example === "string") continue;
        const found = space.match(example);
        if (found.kind !== "route" || found.route === position || winners.has(found.route)) continue;
        const winner = (routes[found.route] as TableRoute).id;
        winners.set(found.route, {
          kind: "shadowed",
          severity: "note",
          route: route.id,
          message: `leaves some of its requests to "${winner}", such as ${shownRequest(example)}`,
          fix: "nothing, if that is what was meant",
          example,
          winner,
        });
      }
    }
    const found = [...winners.values()];
    const last = found.pop();
    return last ? [...found, { ...last, ...(unasked > 0 && { more: unasked }) }] : [];
  });
}

/** Hosts at which a route answers nothing, though it does at others. */
export function lostHosts(space: TableRequests, step: Step = unwatched): Finding[] {
  const { routes } = space.table;
  return routes.flatMap((route, position): Finding[] => {
    step("looking for hosts that are lost", position, routes.length);
    if (route.hosts.length === 1 || space.answer(position).kind !== "answers") return [];
    return route.hosts.flatMap((host): Finding[] => {
      const answer = space.answer(position, setOf({ host }));
      if (answer.kind !== "never") return [];
      const because = neverBecause(space, route, answer.taken);
      return [
        { kind: "shadowed", severity: "note", route: route.id, ...because, message: `at ${host} ${because.message}` },
      ];
    });
  });
}

/** Pairs of one node that are looked at: more than that nobody declares by hand. */
const MOST_PAIRS = 5_000;

/** Matches that meet, and that nothing but the routes' names puts in order (docs/matching.md, rule 7). */
export function ties(space: TableRequests, step: Step = unwatched): Finding[] {
  const findings = new Map<string, Finding>();
  const { routes } = space.table;
  for (const [number, tree] of space.index.paths.entries()) {
    step("looking for what only names part", number, space.index.paths.length);
    for (const list of listsIn(tree)) {
      for (const [first, second] of equalPairs(space, list)) {
        const [winner, loser] = [routes[first[0]] as TableRoute, routes[second[0]] as TableRoute];
        const key = `${winner.id} ${loser.id}`;
        if (winner === loser || winner.order !== undefined || findings.has(key)) continue;
        const answer = space.answer(first[0], space.requestsOf(second[0], second[1]), first[1]);
        if (answer.kind !== "answers") continue;
        const message = `is as specific as "${winner.id}", which takes what both match only because its name comes first: ${shownRequest(answer.example)}`;
        const fix = "give one of them a condition more, such as the other's header, or another path";
        findings.set(key, {
          kind: "tie",
          severity: "warning",
          route: loser.id,
          message,
          fix,
          example: answer.example,
          winner: winner.id,
        });
      }
    }
  }
  return [...findings.values()];
}

function* listsIn(node: MatchNode): Generator<readonly Candidate[]> {
  for (const list of [node.e, node.x, node.r]) if (list && list.length > 1) yield list;
  for (const child of Object.values(node.s ?? {})) yield* listsIn(child);
  if (node.p) yield* listsIn(node.p);
}

/** Of a list in order of precedence the pairs that are equal in it, without those that two values of one thing keep apart. */
function* equalPairs(space: TableRequests, list: readonly Candidate[]): Generator<readonly [Candidate, Candidate]> {
  const matchOf = ([route, match]: Candidate) => (space.table.routes[route] as TableRoute).matches[match] as TableMatch;
  let pairs = 0;
  const groups = Map.groupBy(list, (candidate) => {
    const { path, methods, headers = [], query = [], cookies = [] } = matchOf(candidate);
    const length = path.kind === "regex" ? path.value.length : 0;
    return [length, methods !== undefined, headers.length, query.length, cookies.length].join();
  });
  for (const group of groups.values()) {
    for (const alike of apart(group.map((candidate) => [candidate, matchOf(candidate)] as const))) {
      for (const [i, [first, match]] of alike.entries()) {
        for (const [second, other] of alike.slice(i + 1)) {
          if (++pairs > MOST_PAIRS) return;
          if (match.methods && other.methods && !match.methods.some((one) => other.methods?.includes(one))) continue;
          if (compareMatches(match, other) === 0) yield [first, second];
        }
      }
    }
  }
}

type Alike = readonly (readonly [Candidate, TableMatch])[];

/** Groups of which no two meet: a header, parameter or cookie of which all name a value parts those of different values. */
function apart(group: Alike): Alike[] {
  if (group.length < 2) return [];
  const [, first] = group[0] as Alike[number];
  for (const part of ["headers", "query", "cookies"] as const) {
    for (const { name } of first[part] ?? []) {
      const exact = (match: TableMatch) => match[part]?.find((one) => one.name === name)?.exact;
      const byValue = Map.groupBy(group, ([, match]) => exact(match));
      if (byValue.size > 1 && !byValue.has(undefined)) return [...byValue.values()].flatMap(apart);
    }
  }
  return [group];
}
