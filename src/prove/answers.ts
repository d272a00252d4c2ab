/**
 * Which requests a route answers: those that it matches and that no other one takes from it. Who takes a request is asked of the
 * matcher that the edge runs; the algebra only finds the next request to ask about. So an example is never wrong, and that there is
 * none is known when the routes found on the way leave nothing.
 */
import { commonHost, indexListeners } from "../table/listener.ts";
import { indexMatches, Matcher, type MatchIndex, type MatchResult } from "../table/match.ts";
import type { RouteTable, TableMatch, TableRoute } from "../table/table.ts";
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
import type { Condition } from "./value-set.ts";

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
  | { readonly kind: "unknown" };

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

const ASKED = "access-control-request-method";

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

  /** A preflight is for the route that would answer the request that it asks about, if that route knows CORS (edge/gateway.ts). */
  #preflight(example: ExampleRequest): MatchResult | undefined {
    const request = matchRequestOf(example);
    const method = request.method === "OPTIONS" && request.header("origin") !== null ? request.header(ASKED) : null;
    if (method === null) return undefined;
    const found = this.#matcher.match({ ...request, method });
    if (found.kind !== "route") return undefined;
    const { policies } = this.table.routes[found.route] as TableRoute;
    return policies.some((position) => this.table.policies[position]?.policy === "cors") ? found : undefined;
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
    let known = true;
    for (const number of match === undefined ? matches.keys() : [match]) {
      for (const spot of this.spotsOf(route)) {
        const own: RequestSet = [this.#term(route, number, spot)];
        for (const term of within ? intersection(own, within) : own) {
          const answer = this.#inTerm(term, route, match);
          if (answer.kind === "answers") return answer;
          if (answer.kind === "unknown") known = false;
          else taken.push(...answer.taken);
        }
      }
    }
    return known ? { kind: "never", taken } : { kind: "unknown" };
  }

  #inTerm({ all, none }: Term, route: number, match: number | undefined): Answer {
    const taken: Taken[] = [];
    const beaten: Box[] = [];
    while (taken.length < MOST_COMPETITORS) {
      const example = exampleOf([{ all, none: [...none, ...beaten] }], this.universe);
      if (example === "unknown") return { kind: "unknown" };
      if (example === "empty") return { kind: "never", taken };
      const found = this.match(example);
      // The example is in a match of this route, so some route has it; of preflights no box says which ones the other one takes.
      if (found.kind !== "route" || (found.route !== route && this.#preflight(example))) return { kind: "unknown" };
      if (found.route === route && (match === undefined || found.match === match))
        return { kind: "answers", example, match: found.match };
      taken.push({ example, route: found.route, match: found.match });
      beaten.push(this.#takenBy(found.route, found.match, example));
    }
    return { kind: "unknown" };
  }

  /**
   * Requests that the match takes as it takes this one, from the same other match. HEAD is by itself: among equally specific paths a
   * route for HEAD goes before one for GET, which otherwise comes first.
   */
  #takenBy(route: number, match: number, { place, host, method }: ExampleRequest): Box {
    const { hosts } = this.table.routes[route] as TableRoute;
    const nearest = hosts
      .filter((one) => commonHost(host, one) === host)
      .reduce((narrow, one) => (commonHost(narrow, one) === one ? one : narrow), "*");
    const { methods = this.universe.methods, ...rest } = this.boxOf(route, match);
    return {
      ...rest,
      place,
      host: nearest,
      methods: method === "HEAD" ? ["HEAD"] : methods.filter((one) => one !== "HEAD"),
    };
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

export const conditionsOf = ({ headers = [], query = [], cookies = [] }: Omit<TableMatch, "path">): Condition[] => [
  ...headers.map((one): Condition => ({ ...one, of: "header" })),
  ...query.map((one): Condition => ({ ...one, of: "query" })),
  ...cookies.map((one): Condition => ({ ...one, of: "cookie" })),
];
