/**
 * What must be true of the whole table, whoever adds a route next: `every(route).under("/admin").requires(scopes("admin"), ipFilter)`.
 * The default export of `invariants.ts` beside the routes is a list of these. The build proves them; nothing of them gets into the Worker.
 */
import type { Method, RouteDeclaration } from "./api.ts";
import type { Cluster } from "./cluster.ts";
import { type Declaration, declaredAt } from "./declaration.ts";
import type { PolicyDeclaration } from "./policy.ts";

/** A policy of any options by its builder, `jwt`; or by what it must ask at least: `scopes("admin")`, `ipFilter({ allow: [...] })`. */
export type RequiredPolicy = ((...options: never) => PolicyDeclaration) | PolicyDeclaration;

/** Which routes an invariant is about. Absent members: all of them. */
export interface Selection {
  /** Each by itself: the routes that answer requests below all of these. */
  readonly under?: readonly string[];
  readonly hosts?: readonly string[];
  readonly methods?: readonly string[];
  readonly apis?: readonly string[];
  /** `cluster`, `cluster/service` or a service of any cluster; "": any. */
  readonly reaches?: readonly string[];
  readonly except?: readonly string[];
}

export interface InvariantDeclaration extends Declaration {
  readonly kind: "invariant";
  readonly quantifier: "every" | "no";
  readonly selection: Selection;
  /** `requires`, `without`: what each selected route must have; `with`: what none may have; `denies`: who must not get through. */
  readonly claim: "requires" | "without" | "with" | "denies";
  readonly policies: readonly RequiredPolicy[];
}

/** A weakening that was meant (docs/diff.md). */
export interface AcknowledgementDeclaration extends Declaration {
  readonly kind: "acknowledgement";
  /** `api/route`; `*` for settings of the gateway and for invariants. */
  readonly route: string;
  readonly policy: RequiredPolicy | "gateway" | "invariants";
  readonly because: string;
}

/** Narrows down which routes are meant. All that is asked for must hold. */
interface Selecting<Claims> {
  /** Those that answer requests for this path or anything below it. */
  under(path: string): Claims;
  /** Those that answer requests for this host: `api.example.com`, or `*.example.com` for any below it. */
  on(host: string): Claims;
  /** Those that answer requests of one of these methods. */
  taking(...methods: readonly Method[]): Claims;
  /** Those of one of these APIs. */
  of(...apis: readonly string[]): Claims;
  /** Those that may send a request, or a copy of it, to this backend; without one to any: no redirects. */
  reaches(backend?: BackendName | Cluster): Claims;
  /** Not these, by id: `api/route`. */
  except(...routes: readonly string[]): Claims;
}

export interface Every extends Selecting<Every> {
  /** No request gets through without having passed each of these; one that is optional or in report mode holds nobody back. */
  requires(...policies: readonly RequiredPolicy[]): InvariantDeclaration;
  /** `denies(anonymous)`: no request without a credential gets through. */
  denies(who: (...options: never) => PolicyDeclaration): InvariantDeclaration;
}

export interface No extends Selecting<No> {
  /** No such route lacks any of these. */
  without(...policies: readonly RequiredPolicy[]): InvariantDeclaration;
  /** No such route has any of these. */
  with(...policies: readonly RequiredPolicy[]): InvariantDeclaration;
}

export interface BackendName {
  readonly kind: "backend";
  readonly name: string;
}

/** By name: a cluster's `eu`, a service's `eu/payments`, or `payments` for that service of any cluster. */
export const backend = (name: string): BackendName => ({ kind: "backend", name });

type RouteBuilder = (...parts: never) => RouteDeclaration;

/** `every(route)`: all routes, until `under` and the others narrow them down. */
export function every(_route: RouteBuilder): Every {
  return claiming("every", {}, { declaredAt: declaredAt(every) });
}

/** `no(route)`: what none of the routes may be. */
export function no(_route: RouteBuilder): No {
  return claiming("no", {}, { declaredAt: declaredAt(no) });
}

function claiming(quantifier: "every" | "no", selection: Selection, place: Declaration): Every & No {
  const more = (added: Selection) => claiming(quantifier, { ...selection, ...added }, place);
  const claim =
    (claim: InvariantDeclaration["claim"]) =>
    (...policies: readonly RequiredPolicy[]): InvariantDeclaration => ({
      kind: "invariant",
      quantifier,
      selection,
      claim,
      policies,
      ...place,
    });
  return {
    under: (path) => more({ under: [...(selection.under ?? []), path] }),
    on: (host) => more({ hosts: [...(selection.hosts ?? []), host] }),
    taking: (...methods) => more({ methods: both(selection.methods, methods) }),
    of: (...apis) => more({ apis: both(selection.apis, apis) }),
    reaches: (target) => more({ reaches: [...(selection.reaches ?? []), nameOf(target)] }),
    except: (...routes) => more({ except: [...(selection.except ?? []), ...routes] }),
    requires: claim("requires"),
    denies: claim("denies"),
    without: claim("without"),
    with: claim("with"),
  };
}

/** What is said a second time narrows down what the first one left. */
const both = (before: readonly string[] | undefined, now: readonly string[]): readonly string[] =>
  before ? before.filter((one) => now.includes(one)) : now;

const nameOf = (target: BackendName | Cluster | undefined): string =>
  target === undefined ? "" : "declaration" in target ? target.declaration.name : target.name;

/**
 * Says that this policy of this route was weakened on purpose: `acknowledge("orders/create", rateLimit, "the warehouse orders in bulk")`.
 * It counts in the diff in which it is new, and never again. For settings of the gateway itself: `acknowledge("*", "gateway", "...")`;
 * for invariants that are gone or looser: `acknowledge("*", "invariants", "...")`.
 */
export function acknowledge(
  route: string,
  policy: RequiredPolicy | "gateway" | "invariants",
  because: string,
): AcknowledgementDeclaration {
  return { kind: "acknowledgement", route, policy, because, declaredAt: declaredAt(acknowledge) };
}
