/** The matcher, the algebra and a reference that tries every route must be of one opinion about every table and every request. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TableRequests } from "../../src/prove/answers.ts";
import { has } from "../../src/prove/request-set.ts";
import { naively, naivelyPreflight, preflights, requests, tables, tablesWithCors } from "./tables.ts";

/** CI draws 100,000 pairs of a table and a request in all; PORTCULLIS_RUNS draws more tables. */
const RUNS = Number(process.env.PORTCULLIS_RUNS ?? 345);

describe("random tables", () => {
  it("are read alike by matcher, algebra and reference", () => {
    let cases = 0;
    const verdicts = { answers: 0, never: 0, unknown: 0 };
    fc.assert(
      fc.property(tables, fc.nat(), (table, start) => {
        const space = new TableRequests(table);
        const sets = table.routes.map((_, route) => space.requestsOf(route));
        const winners = new Set<number>();
        for (const request of requests(table, start)) {
          cases++;
          const wanted = naively(table, request);
          const found = space.match(request);
          // No `expect` in here: a hundred thousand of them take longer than all else.
          if ((found.kind === "route" ? found.route : undefined) !== wanted)
            throw new Error(`matcher ${JSON.stringify(found)}, reference ${wanted}: ${JSON.stringify(request)}`);
          // Who answers must ask for it, and where nobody answers nobody does.
          const asking = sets.findIndex((set) => has(set, request));
          if (wanted === undefined ? asking !== -1 : !has(sets[wanted] as (typeof sets)[number], request))
            throw new Error(`algebra ${asking}, reference ${wanted}: ${JSON.stringify(request)}`);
          if (wanted !== undefined) winners.add(wanted);
        }
        for (const route of table.routes.keys()) {
          const answer = space.answer(route);
          verdicts[answer.kind]++;
          if (answer.kind === "never")
            expect(winners.has(route), `route ${route} is said to be unreachable`).toBe(false);
          if (answer.kind === "answers") {
            expect(naively(table, answer.example)).toBe(route);
            expect(has(sets[route] as (typeof sets)[number], answer.example)).toBe(true);
          }
        }
      }),
      { numRuns: RUNS },
    );
    console.log(`${cases} pairs of a table and a request; routes: ${JSON.stringify(verdicts)}`);
    expect(cases).toBeGreaterThanOrEqual(100_000);
    // Else the drawn tables would prove nothing.
    expect(verdicts.never).toBeGreaterThan(RUNS / 20);
    expect(verdicts.unknown).toBe(0);
  });

  it("are read alike also of preflights, where routes ask for their headers", () => {
    const verdicts = { answers: 0, never: 0, unknown: 0 };
    let contested = 0;
    fc.assert(
      fc.property(tablesWithCors, fc.nat(), (table, start) => {
        const space = new TableRequests(table);
        const winners = new Set<string>();
        for (const request of preflights(table, start)) {
          const wanted = naivelyPreflight(table, request);
          const found = space.match(request);
          if ((found.kind === "route" ? found.route : undefined) !== wanted)
            throw new Error(`matcher ${JSON.stringify(found)}, reference ${wanted}: ${JSON.stringify(request)}`);
          if (found.kind === "route" && found.route === naively(table, request))
            winners.add(`${found.route} ${found.match}`);
          else if (found.kind === "route") contested++;
        }
        for (const [route, { matches }] of table.routes.entries()) {
          for (const match of matches.keys()) {
            const answer = space.answer(route, undefined, match);
            verdicts[answer.kind]++;
            if (answer.kind === "never" && winners.has(`${route} ${match}`))
              throw new Error(`match ${match} of route ${route} is said to be unreachable`);
            if (answer.kind === "answers") expect(naivelyPreflight(table, answer.example)).toBe(route);
          }
        }
      }),
      { numRuns: RUNS / 3 },
    );
    console.log(`${contested} preflights answered by another route; matches: ${JSON.stringify(verdicts)}`);
    expect(contested).toBeGreaterThan(RUNS / 3);
    expect(verdicts.unknown).toBe(0);
  });
});
