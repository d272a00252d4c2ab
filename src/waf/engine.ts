/**
 * The engine: a rule pack, ready to judge requests. `begin` gives a transaction, whose phases are run as the request comes in; `evaluate`
 * runs them all for a request that is there as a whole. Pure: it does no I/O and waits for nothing.
 */
import { NUMBER_OF, OF_HEADERS, OF_LINE, type Variable } from "./collections.ts";
import { LinearRegex } from "./linear-regex.ts";
import { type Operator, operatorOf } from "./operate.ts";
import type { PackAtom, PackPattern, PackRule, PackTarget, RulePack } from "./pack.ts";
import { type Found, type Group, Prefilter } from "./prefilter.ts";
import type { Phase, Verdict, WafRequest, WafResponse } from "./request.ts";
import { Transaction } from "./transaction.ts";
import { transformations, triggers } from "./transformations.ts";

export interface EngineOptions {
  /** Rules are asked to the end, and nothing is refused. Default: what the pack says. */
  readonly detectionOnly?: boolean;
  /** Beside what the pack has taken out itself. Default: none. */
  readonly exclusions?: readonly PackExclusion[];
}

/** Rules, by their places in the pack, that are not asked: at all, or about one target. */
export interface PackExclusion {
  readonly rules: readonly number[];
  readonly target?: PackTarget;
}

/** The groups of one collection. */
export interface CollectionGroups {
  /** The collection's number (collections.ts). */
  readonly number: number;
  /** Where the like of its values may come again in other requests: what was found at each place of it in the last one. */
  readonly before: SeenPlace[] | undefined;
  /** For members that have no group by their name. */
  readonly all: Group | undefined;
  /** Those that look at all members, and those that look at the ones of this name. */
  readonly byName: ReadonlyMap<string, Group> | undefined;
  /** More, for those that a pattern fits. */
  readonly byPattern: readonly { readonly pattern: LinearRegex; readonly group: Group }[];
}

/**
 * Collections that depend on the same part of the request's head, and what was found in them in the last request: services send the
 * same headers with each, and ask for the same things again. To see that it is the same takes less memory than to look at it, which is
 * what counts in a Worker, where everything else that a request needs stands in the caches in between (measured there: 20 µs for a
 * second look at a request, 100 for the first).
 */
export interface HeadPart {
  readonly collections: readonly CollectionGroups[];
  readonly isSame: (request: WafRequest, last: WafRequest) => boolean;
  last: { readonly request: WafRequest; readonly hits: readonly RuleHit[] } | undefined;
}

/** A value that a rule's first link matches on. */
export interface Hit {
  readonly target: PackTarget;
  readonly variable: Variable;
  /** Transformed. */
  readonly value: string;
}

export type RuleHit = readonly [rule: number, hit: Hit];

const sameLine = (a: WafRequest, b: WafRequest): boolean =>
  a.uri === b.uri && a.method === b.method && a.protocol === b.protocol && a.clientAddress === b.clientAddress;

function sameHeaders({ headers: a }: WafRequest, { headers: b }: WafRequest): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) {
    const [name, value] = a[i] as readonly [string, string];
    const [other, others] = b[i] as readonly [string, string];
    if (name !== other || value !== others) return false;
  }
  return true;
}

/** A client sends the same headers in the same order, so that most values are told from the last one faster than they are found. */
export interface SeenPlace {
  readonly key: string;
  readonly value: string;
  readonly group: Group;
  readonly found: readonly Found[];
}

/** Names, what is asked for, and what a client sends with each of its requests. Not what people write into forms. */
const RECURRING =
  /^(?:REMOTE_ADDR|REQBODY_PROCESSOR|REQUEST_BODY_LENGTH|REMOTE_HOST|SERVER_NAME|REQUEST_HEADERS|REQUEST_HEADERS_NAMES|REQUEST_COOKIES|REQUEST_COOKIES_NAMES|REQUEST_METHOD|REQUEST_PROTOCOL|REQUEST_LINE|REQUEST_URI|REQUEST_URI_RAW|QUERY_STRING|ARGS_GET|REQUEST_FILENAME|REQUEST_BASENAME|ARGS_NAMES|ARGS_GET_NAMES|ARGS_POST_NAMES|FILES_NAMES)$/;

/** Has the headers that rules are asked about whatever is in them. */
const ORDINARY: WafRequest = {
  method: "POST",
  uri: "/path/file.txt?name=some+value&number=1",
  protocol: "HTTP/1.1",
  headers: [
    ["host", "www.example.com"],
    ["user-agent", "Mozilla/5.0 (X11; Linux x86_64)"],
    ["accept", "text/html,application/json;q=0.9,*/*;q=0.8"],
    ["accept-encoding", "gzip, deflate, br"],
    ["accept-language", "en"],
    ["cookie", "session=0123456789abcdef"],
    ["referer", "https://www.example.com/path"],
    ["content-type", "application/json"],
    ["content-length", "16"],
  ],
  body: '{"name":"value"}',
  clientAddress: "192.0.2.1",
};

export class Engine {
  readonly pack: RulePack;
  readonly prefilter: Prefilter;
  readonly #options: EngineOptions;
  /** By phase: where its rules begin in the pack, and where they end. */
  readonly ranges: ReadonlyMap<Phase, readonly [from: number, to: number]>;
  /** Of what is known from the start, and stays: looked at once, for all phases. */
  readonly head: readonly HeadPart[];
  readonly groups: ReadonlyMap<Phase, readonly CollectionGroups[]>;
  /** By rule: whether the prefilter finds it; and whether it finds only that the rule is to be asked. */
  readonly filtered: readonly boolean[];
  readonly guarded: readonly boolean[];
  readonly #operators: (Operator | undefined)[] = [];
  readonly #names = new Map<string, readonly string[]>();
  /** Of the pack's own targets: to make one takes longer than to look it up. */
  readonly #fullNames: ReadonlyMap<PackTarget, string>;
  readonly #patterns = new Map<string, LinearRegex>();

  constructor(pack: RulePack, options: EngineOptions = {}) {
    this.pack = pack;
    this.#options = options;
    this.prefilter = new Prefilter(pack, (place) => this.operator(place), { apply: transformations, triggers });
    const filtered = new Set(pack.prefilter.atoms.map(({ rule }) => rule));
    this.filtered = pack.rules.map((_, rule) => filtered.has(rule));
    const guarded = new Set(pack.prefilter.atoms.flatMap(({ rule, guard }) => (guard === undefined ? [] : [rule])));
    this.guarded = pack.rules.map((_, rule) => guarded.has(rule));
    const targets = pack.rules.flatMap(({ links }) => links.flatMap((link) => link.targets));
    this.#fullNames = new Map(targets.map((target) => [target, fullNameOf(target)]));
    const ranges = new Map<Phase, readonly [number, number]>();
    for (const [at, { phase }] of pack.rules.entries()) ranges.set(phase, [ranges.get(phase)?.[0] ?? at, at + 1]);
    this.ranges = ranges;
    this.head = [
      { collections: this.#looks((_, collection) => OF_LINE.has(collection)), isSame: sameLine, last: undefined },
      { collections: this.#looks((_, collection) => OF_HEADERS.has(collection)), isSame: sameHeaders, last: undefined },
    ];
    this.groups = new Map(
      [...ranges.keys()].map((phase) => [
        phase,
        this.#looks((own, collection) => own === phase && !OF_LINE.has(collection) && !OF_HEADERS.has(collection)),
      ]),
    );
  }

  /** With options of its own, where several policies share the engine. */
  begin(request: WafRequest, options: EngineOptions = this.#options): Transaction {
    return new Transaction(this, request, options);
  }

  /** Makes what would else be made while the first request waits: an ordinary one is judged. Some 30 ms. */
  warm(): void {
    this.evaluate(ORDINARY);
  }

  /** All phases that the pack has rules for; those of the response only with one. */
  evaluate(request: WafRequest, response?: WafResponse): Verdict {
    const transaction = this.begin(request);
    transaction.requestHead();
    transaction.requestBody();
    if (response) transaction.response(response);
    transaction.finish();
    return transaction.verdict();
  }

  operator(place: number): Operator {
    return (this.#operators[place] ??= operatorOf(
      this.pack.operators[place] as RulePack["operators"][number],
      this.pack.programs,
      this.prefilter.finds,
    ));
  }

  /** Of the one variable that the target reads, of those that rules write: `tx.score`. */
  fullName(target: PackTarget): string {
    return this.#fullNames.get(target) ?? fullNameOf(target);
  }

  /** Names in the pack's variables, by the collection that they begin with, `tx.`, and a pattern that fits the rest. */
  namesIn(prefix: string, pattern?: PackPattern): readonly string[] {
    const key = `${prefix}/${pattern?.source ?? ""}`;
    let names = this.#names.get(key);
    if (!names) {
      const regex = pattern === undefined ? undefined : this.pattern(pattern);
      names = Object.keys(this.pack.variables).filter(
        (name) => name.startsWith(prefix) && (regex === undefined || regex.test(name.slice(prefix.length))),
      );
      this.#names.set(key, names);
    }
    return names;
  }

  /** Selectors of members are held against their names in any case. */
  pattern({ source, program }: PackPattern): LinearRegex {
    let pattern = this.#patterns.get(source);
    if (!pattern) {
      pattern = new LinearRegex(
        typeof program === "number" ? (this.pack.programs[program] as Uint16Array) : Uint16Array.from(program),
      );
      this.#patterns.set(source, pattern);
    }
    return pattern;
  }

  /** Whether the target leaves the member out. */
  leavesOut({ except }: PackTarget, key: string): boolean {
    return except?.some((one) => ("name" in one ? one.name === key : this.pattern(one.pattern).test(key))) ?? false;
  }

  /** What rules read, of those collections in those phases that are `wanted`. */
  #looks(wanted: (phase: Phase, collection: string) => boolean): CollectionGroups[] {
    const reading = new Map<string, Map<string, Map<number, readonly PackTarget[]>>>();
    const patterns = new Map<string, PackPattern>();
    for (const [atom, { rule }] of (this.pack.prefilter.atoms as readonly PackAtom[]).entries()) {
      const { phase, links } = this.pack.rules[rule] as PackRule;
      for (const target of links[0]?.targets ?? []) {
        const { collection, name, pattern } = target;
        if (!wanted(phase, collection)) continue;
        const selector = name !== undefined ? `=${name}` : pattern !== undefined ? `/${pattern.source}` : "";
        if (pattern !== undefined) patterns.set(selector, pattern);
        const selectors = reading.get(collection) ?? new Map<string, Map<number, readonly PackTarget[]>>();
        reading.set(collection, selectors);
        const those = selectors.get(selector) ?? new Map<number, readonly PackTarget[]>();
        selectors.set(selector, those.set(atom, [...(those.get(atom) ?? []), target]));
      }
    }
    // By name, so that those that often hold the same, such as REQUEST_URI and REQUEST_URI_RAW, follow each other.
    const sorted = [...reading].sort(([a], [b]) => (a < b ? -1 : 1));
    return sorted.map(([collection, selectors]): CollectionGroups => {
      const ofAll = selectors.get("");
      const named = [...selectors].filter(([selector]) => selector.startsWith("="));
      return {
        number: NUMBER_OF.get(collection) as number,
        before: RECURRING.test(collection) ? [] : undefined,
        all: ofAll && this.prefilter.group(ofAll),
        byName:
          named.length === 0
            ? undefined
            : new Map(named.map(([selector, those]) => [selector.slice(1), this.prefilter.group(both(ofAll, those))])),
        byPattern: [...selectors].flatMap(([selector, those]) => {
          const pattern = patterns.get(selector);
          return pattern ? [{ pattern: this.pattern(pattern), group: this.prefilter.group(those) }] : [];
        }),
      };
    });
  }
}

const fullNameOf = ({ collection, name }: PackTarget): string => `${collection.toLowerCase()}.${name}`;

/** By atom, the targets that it reads with. */
type Reading = ReadonlyMap<number, readonly PackTarget[]>;

function both(some: Reading | undefined, others: Reading): Reading {
  const all = new Map(some);
  for (const [atom, targets] of others) all.set(atom, [...(all.get(atom) ?? []), ...targets]);
  return all;
}
