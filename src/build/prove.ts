/** prove: what is true of the whole table, told with the lines of the routes that it is about. */

import type { Declaration } from "../config/declaration.ts";
import type { AcknowledgementDeclaration, InvariantDeclaration } from "../config/invariant.ts";
import { TableRequests } from "../prove/answers.ts";
import type { Finding } from "../prove/finding.ts";
import { checkInvariants } from "../prove/invariants.ts";
import { proveTable } from "../prove/prove.ts";
import { type ExampleRequest, shownRequest } from "../prove/request-set.ts";
import type { Step } from "../prove/step.ts";
import type { RouteTable } from "../table/table.ts";
import { type Problem, quoted, shown } from "./problem.ts";
import type { RoutesModule } from "./read.ts";

/** What was proved and does not refuse the configuration. */
export interface Proved extends Problem {
  readonly kind: Finding["kind"];
  readonly severity: "warning" | "note";
  readonly route?: string;
  /** Who answers the example. */
  readonly winner?: string;
  /** As one would ask for it by hand. */
  readonly request?: string;
  readonly example?: ExampleRequest;
  readonly more?: number;
}

/** Adds to the module's problems what no configuration should be; the rest it gives back, warnings first. */
export function prove(
  table: RouteTable,
  module: RoutesModule,
  declarations: ReadonlyMap<string, Declaration>,
  notes: boolean,
  step: Step,
): Proved[] {
  const { problems } = module;
  const space = new TableRequests(table);
  const proved: Proved[] = [];
  const tell = (finding: Finding, declaration: Declaration | undefined, subject: string) => {
    const { severity, message, fix, kind, route, winner, example, more } = finding;
    if (severity === "error") {
      problems.add(declaration, subject, message, fix);
      return;
    }
    const place = declaration && problems.locate(declaration.declaredAt);
    proved.push({
      ...(place && { file: shown(place.file), line: place.line }),
      subject,
      message: more ? `${message}, and to ${more} more` : message,
      fix,
      kind,
      severity,
      ...(route !== undefined && { route }),
      ...(winner !== undefined && { winner }),
      ...(example && { request: shownRequest(example), example }),
      ...(more && { more }),
    });
  };
  const ofRoute = (id: string) => declarations.get(`route ${id}`);
  for (const finding of proveTable(table, { notes, space, step }))
    tell(finding, ofRoute(finding.route ?? ""), `route "${finding.route}"`);
  const { invariants } = invariantsOf(module);
  const placeOf = ({ declaredAt }: Declaration) => {
    const place = problems.locate(declaredAt);
    return place && `${shown(place.file)}:${place.line}`;
  };
  for (const finding of checkInvariants(space, invariants, placeOf, step)) {
    const { route, invariant } = finding;
    if (route === undefined) tell(finding, invariant, "invariant");
    else tell(finding, ofRoute(route), `route "${route}"`);
  }
  return proved.sort((a, b) => Number(a.severity === "note") - Number(b.severity === "note"));
}

/** What stands in `invariants.ts`; tells of what is none of it. */
export function invariantsOf({ invariants, problems }: Pick<RoutesModule, "invariants" | "problems">): {
  invariants: InvariantDeclaration[];
  acknowledgements: AcknowledgementDeclaration[];
} {
  const found = { invariants: [] as InvariantDeclaration[], acknowledgements: [] as AcknowledgementDeclaration[] };
  if (!invariants) return found;
  const { file, exported } = invariants;
  const fix = 'export default [every(route).under("/admin").requires(jwt), ...]';
  if (!Array.isArray(exported)) {
    problems.addAt(file, 1, "invariants", `its default export is ${quoted(exported)}, no list of invariants`, fix);
    return found;
  }
  for (const [position, one] of exported.entries()) {
    const { kind } = (one ?? {}) as { kind?: unknown };
    if (kind === "invariant") found.invariants.push(one as InvariantDeclaration);
    else if (kind === "acknowledgement") found.acknowledgements.push(one as AcknowledgementDeclaration);
    else {
      const message = `number ${position + 1} of the list is ${quoted(one)}, no invariant`;
      problems.addAt(
        file,
        1,
        "invariants",
        message,
        "end each with a claim, such as .requires(jwt) or .denies(anonymous)",
      );
    }
  }
  return found;
}
