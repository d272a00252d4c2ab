/**
 * Which requests a route answers: those that it matches and that no other one takes from it. Who takes a request is asked of the
 * matcher that the edge runs; the algebra only finds the next request to ask about. So an example is never wrong, and that there is
 * none is known when the routes found on the way leave nothing.
 */
import { commonHost, indexListeners } from "../table/listener.ts";
import { indexMatches, Matcher, type MatchIndex, type MatchResult } from "../table/match.ts";
import { askedMethod, knowsCors, preflightMatch } from "../table/preflight.ts";
import type { RouteTable, TableMatch, TableRoute } from "../table/table.ts";
import type { Doubt } from "./doubt.ts";
import { meeting } from "./meeting.ts";
import {
  type Box,
  type ExampleRequest,
  exampleOf,
  intersection,
  matchRequestOf,
  type RequestSet,
  type Term,
  type Universe,
} from "./request-set.ts";
import { type Condition, literally } from "./value-set.ts";

/** A request that another route takes. */
export interface Taken {
  readonly example: ExampleRequest;
  readonly route: number;
  readonly match: number;
}

export type Answer =
  | { readonly kind: "answers"; readonly example: ExampleRequest; readonly match: number }
  /** `taken`: by whom, the first one first; empty: no request fits at all. */
  | { readonly kind: "never"; readonly taken: readonly Taken[] }
  | { readonly kind: "unknown"; readonly because: Doubt };

/** A place of the listener index and a host in it; `narrower` hosts belong to other listeners. */
interface Spot {
  readonly place: string;
  readonly host: string;
  readonly narrower: readonly string[];
}

// Those that can come in at all: the gateway refuses CONNECT, TRACE and TRACK (edge/gateway.ts), and workerd knows no others.
const METHODS =
  "GET POST PUT PATCH DELETE HEAD OPTIONS QUERY PURGE PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK SEARCH ACL REPORT MKACTIVITY CHECKOUT MERGE MSEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE".split(
    " ",
  );
const UNSENT = new Set(["CONNECT", "TRACE", "TRACK"]);

/** Routes that are asked about one after the other before the answer is that it is not known. */
const MOST_COMPETITORS = 300;

/** What `answer` looks for. */
interface Search {
  readonly route: number;
  readonly match: number | undefined;
  /** Requests that were asked about. */
  asked: number;
}

export class TableRequests {
  readonly table: RouteTable;
  readonly index: MatchIndex;
  readonly universe: Universe;
  readonly #matcher: Matcher;
  readonly #positions: ReadonlyMap<string, number>;

  /** `places`: of other tables that it is compared with, whose listeners may tell more places apart. */
  constructor(table: RouteTable, places: readonly string[] = []) {
    this.table = table;
    this.index = indexMatches(table.routes, table.listeners);
    this.#matcher = new Matcher(table.routes, this.index, table.gateway.semantics);
    this.#positions = new Map(table.routes.map(({ id }, position) => [id, position]));
    const named = table.routes.flatMap(({ matches }) => matches.flatMap(({ methods = [] }) => methods));
    this.universe = {
      methods: [...new Set([...METHODS, ...named])].filter((method) => !UNSENT.has(method)),
      places: [...new Set([...placesOf(table), ...places])],
      escapedSlashes: table.gateway.escapedSlashes,
    };
  }

  positionOf(id: string): number | undefined {
    return this.#positions.get(id);
  }

  match(example: ExampleRequest): MatchResult {
    return this.#preflight(example) ?? this.#matcher.match(matchRequestOf(example));
  }

  #preflight(example: ExampleRequest): MatchResult | undefined {
    return preflightMatch(this.table, this.#matcher, matchRequestOf(example));
  }

  /** The route that answers, or undefined for none. */
  routeFor(example: ExampleRequest): TableRoute | undefined {
    const found = this.match(example);
    return found.kind === "route" ? this.table.routes[found.route] : undefined;
  }

  /** If another route answers the example, the requests that it takes in the same way; undefined: the route answers it itself. */
  takenFrom(id: string, example: ExampleRequest): Box | undefined {
    const found = this.match(example);
    if (found.kind !== "route" || this.table.routes[found.route]?.id === id) return undefined;
    return this.#takenBy(found.route, found.match, example);
  }

  /** What the route, or one of its matches, asks for; whoever answers it. */
  requestsOf(route: number, match?: number): RequestSet {
    const { matches } = this.table.routes[route] as TableRoute;
    const numbers = match === undefined ? [...matches.keys()] : [match];
    return numbers.flatMap((number) => this.spotsOf(route).map((spot) => this.#term(route, number, spot)));
  }

  /** A request, among those of `within` if given, that the route answers by this match, or by any of them. */
  answer(route: number, within?: RequestSet, match?: number): Answer {
    const { matches } = this.table.routes[route] as TableRoute;
    const taken: Taken[] = [];
    let doubt: Doubt | undefined;
    for (const number of match === undefined ? matches.keys() : [match]) {
      for (const spot of this.spotsOf(route)) {
        const own: RequestSet = [this.#term(route, number, spot)];
        for (const term of within ? intersection(own, within) : own) {
          const answer = this.#inTerm(term, { route, match, asked: 0 });
          if (answer.kind === "answers") return answer;
          if (answer.kind === "unknown") doubt ??= answer.because;
          else taken.push(...answer.taken);
        }
      }
    }
    return doubt ? { kind: "unknown", because: doubt } : { kind: "never", taken };
  }

  /** `within`: matches, `route match`, among whose preflights it looks. */
  #inTerm({ all, none }: Term, search: Search, within: readonly string[] = []): Answer {
    const taken: Taken[] = [];
    const beaten: Box[] = [];
    while (search.asked++ < MOST_COMPETITORS) {
      const example = exampleOf([{ all, none: [...none, ...beaten] }], this.universe);
      if (example === "empty") return { kind: "never", taken };
      if (typeof example === "string") return { kind: "unknown", because: example };
      const preflight = this.#preflight(example);
      const found = preflight ?? this.#matcher.match(matchRequestOf(example));
      // The example is in a match of this route, so some route has it.
      if (found.kind !== "route") return { kind: "unknown", because: "search" };
      if (found.route === search.route && (search.match === undefined || found.match === search.match))
        return { kind: "answers", example, match: found.match };
      taken.push({ example, route: found.route, match: found.match });
      if (!preflight) {
        beaten.push(this.#takenBy(found.route, found.match, example));
        continue;
      }
      const key = `${found.route} ${found.match}`;
      const box = this.#preflightsTakenBy(found.route, found.match, example);
      for (const other of within.includes(key) ? [] : this.#leavingPreflights(found.route, found.match)) {
        const term = { all: [...all, box, other], none: [...none, ...beaten] };
        const answer = this.#inTerm(term, search, [...within, key]);
        if (answer.kind !== "never") return answer;
        taken.push(...answer.taken);
      }
      beaten.push(box);
    }
    return { kind: "unknown", because: "search" };
  }

  /**
   * Requests that the match takes as it takes this one, from the same other match. HEAD is by itself: among equally specific paths a
   * route for HEAD goes before one for GET, which otherwise comes first.
   */
  #takenBy(route: number, match: number, { place, host, method }: ExampleRequest): Box {
    const { methods = this.universe.methods, ...rest } = this.boxOf(route, match);
    return {
      ...rest,
      place,
      host: this.#nearestHost(route, host),
      methods: method === "HEAD" ? ["HEAD"] : methods.filter((one) => one !== "HEAD"),
    };
  }

  #nearestHost(route: number, host: string): string {
    return (this.table.routes[route] as TableRoute).hosts
      .filter((one) => commonHost(host, one) === host)
      .reduce((narrow, one) => (commonHost(narrow, one) === one ? one : narrow), "*");
  }

  /**
   * Preflights that ask about requests that the match takes as it takes the one that this one asks about. Of these the route answers
   * none, but for those about requests of a match that goes before that one and knows no CORS (#leavingPreflights).
   */
  #preflightsTakenBy(route: number, match: number, example: ExampleRequest): Box {
    const asked = askedMethod(matchRequestOf(example));
    const { methods, ...rest } = this.boxOf(route, match);
    const alike = asked === "HEAD" ? "HEAD" : methods ? oneOf(methods.filter((one) => one !== "HEAD")) : ANY_BUT_HEAD;
    return asPreflights({ ...rest, place: example.place, host: this.#nearestHost(route, example.host) }, alike);
  }

  /** Of matches that this one meets and that know no CORS: preflights that ask about their requests are answered as other requests are. */
  *#leavingPreflights(route: number, match: number): Generator<Box> {
    const { hosts, matches } = this.table.routes[route] as TableRoute;
    for (const [other, otherMatch] of meeting(this.index, hosts, (matches[match] as TableMatch).path)) {
      if (knowsCors(this.table, this.table.routes[other] as TableRoute)) continue;
      const { methods, ...rest } = this.boxOf(other, otherMatch);
      for (const { place, host } of this.spotsOf(other))
        yield asPreflights({ ...rest, place, host }, methods && oneOf(methods));
    }
  }

  /** The match without place and host, with HEAD where GET answers that. */
  boxOf(route: number, match: number): Box {
    const { path, methods, ...conditions } = (this.table.routes[route] as TableRoute).matches[match] as TableMatch;
    const byGet = methods?.includes("GET") && this.table.gateway.semantics !== "gateway-api";
    return {
      path,
      ...(methods && { methods: byGet && !methods.includes("HEAD") ? [...methods, "HEAD"] : methods }),
      conditions: conditionsOf(conditions),
    };
  }

  #term(route: number, match: number, { place, host, narrower }: Spot): Term {
    return {
      all: [{ ...this.boxOf(route, match), place, host }],
      none: narrower.map((host) => ({ place, host })),
    };
  }

  /** Where the route can be asked for. */
  spotsOf(route: number): Spot[] {
    const { hosts: declared, listeners: own } = this.table.routes[route] as TableRoute;
    const { listeners } = this.index;
    // An example says more with the public name than with localhost or an address.
    const isPublic = (host: string) => /\.[a-z]/.test(host);
    const hosts = declared.toSorted((a, b) => Number(isPublic(b)) - Number(isPublic(a)));
    const { places } = this.universe;
    if (!listeners) return places.flatMap((place) => hosts.map((host) => ({ place, host, narrower: [] })));
    return places.flatMap((place) => {
      // As the matcher has it: a port that no listener has is the scheme's own.
      const byHost = listeners.places[place] ?? listeners.places[place.split(":")[0] as string] ?? {};
      return Object.entries(byHost).flatMap(([listened, set]) => {
        if (own && !listeners.sets[set]?.some((one) => own.includes(one))) return [];
        const narrower = Object.keys(byHost).filter((one) => one !== listened && commonHost(one, listened) === one);
        return hosts.flatMap((host) => {
          const common = commonHost(host, listened);
          return common === undefined ? [] : [{ place, host: common, narrower }];
        });
      });
    });
  }
}

/** Where requests of the table come in, as far as it tells that apart. Without listeners it does not. */
export const placesOf = ({ listeners }: RouteTable): string[] =>
  listeners ? Object.keys(indexListeners(listeners).places) : ["https"];

/** Preflights that ask about requests of the box, with a method of that regex; undefined: with any. */
const asPreflights = (box: Omit<Box, "methods">, regex?: string): Box => ({
  ...box,
  methods: ["OPTIONS"],
  conditions: [
    ...(box.conditions ?? []),
    { of: "header", name: "origin" },
    { of: "header", name: ASKED, ...(regex !== undefined && { regex }) },
  ],
});

const ASKED = "access-control-request-method";
const oneOf = (methods: readonly string[]): string => methods.map(literally).join("|");
// Without lookahead, which is beyond automata.
const ANY_BUT_HEAD = "(?s:[^H].*|H|H[^E].*|HE|HE[^A].*|HEA|HEA[^D].*|HEAD.+|)";

export const conditionsOf = ({ headers = [], query = [], cookies = [] }: Omit<TableMatch, "path">): Condition[] => [
  ...headers.map((one): Condition => ({ ...one, of: "header" })),
  ...query.map((one): Condition => ({ ...one, of: "query" })),
  ...cookies.map((one): Condition => ({ ...one, of: "cookie" })),
];
