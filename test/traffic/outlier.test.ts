import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { TableOutlier } from "../../src/table/table.ts";
import type { Outcome } from "../../src/traffic/outcome.ts";
import { OutlierDetector } from "../../src/traffic/outlier.ts";
import { OUTLIER } from "./defaults.ts";

const START = 1_800_000_000_000;
const detector = (options: Partial<TableOutlier> = {}) => new OutlierDetector({ ...OUTLIER, ...options });
/** Which of the outcomes, one millisecond apart, make the endpoint due. */
const due = (outlier: OutlierDetector, outcomes: readonly Outcome[], at = START) =>
  outcomes.flatMap((outcome, i) => (outlier.record(outcome, at + i) ? [i] : []));
const times = (count: number, outcome: Outcome): Outcome[] => Array(count).fill(outcome);

describe("what makes an endpoint due for ejection", () => {
  it.each<[string, Outcome[], number[]]>([
    ["five 500 in a row", times(5, 500), [4]],
    ["five without an answer", times(5, "connection"), [4]],
    ["five timeouts", times(5, "timeout"), [4]],
    ["any mixture of them", [503, "timeout", 500, "connection", 599], [4]],
    ["each further five", times(10, 500), [4, 9]],
    ["four and a success and four: not", [...times(4, 500), 200, ...times(4, 500)], []],
    ["a 404 is a success", [...times(4, 500), 404, 500], []],
    ["clients that went away: neither failure nor success", [...times(4, 500), "cancelled", 500], [5]],
  ])("%s", (_, outcomes, expected) => {
    expect(due(detector(), outcomes)).toEqual(expected);
  });

  it("counts gateway errors apart from all 5xx", () => {
    const outlier = () => detector({ consecutive5xx: 0, consecutiveGatewayErrors: 3, minimumRequests: 1 });
    expect(due(outlier(), times(20, 500))).toEqual([]);
    expect(due(outlier(), [502, 503, 504])).toEqual([2]);
    expect(due(outlier(), [502, 503, 505, 504, 502, "connection"])).toEqual([5]);
    expect(
      due(detector({ consecutive5xx: 3, consecutiveGatewayErrors: 0, minimumRequests: 1 }), [500, 502, 501]),
    ).toEqual([2]);
  });

  it("waits for the minimum volume, within the interval", () => {
    expect(due(detector({ minimumRequests: 8 }), times(8, 500))).toEqual([7]);
    const slow = detector();
    for (let i = 0; i < 50; i++) expect(slow.record(500, START + i * 2_500)).toBe(false);
  });
});

describe("how long an ejection lasts", () => {
  it("the base time multiplied by how often, up to the most", () => {
    const outlier = detector();
    let now = START;
    const lasts = Array.from({ length: 12 }, () => {
      const until = outlier.eject(now);
      expect(outlier.ejected(until - 1)).toBe(true);
      expect(outlier.ejected(until)).toBe(false);
      const lasted = until - now;
      now = until;
      return lasted / 1_000;
    });
    expect(lasts).toEqual([30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
  });

  it("gets shorter again by one base time for each interval in which it stayed in", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 0, max: 400_000 }), (before, calm) => {
        const outlier = detector();
        let now = START;
        for (let i = 0; i < before; i++) {
          now = outlier.eject(now);
          outlier.ejected(now);
        }
        // Envoy's multiplier grows by one more than it takes to reach the longest time.
        const multiplier = Math.min(before, 11) - Math.floor(calm / OUTLIER.interval);
        const expected = Math.min((Math.max(0, multiplier) + 1) * OUTLIER.baseEjectionTime, OUTLIER.maxEjectionTime);
        expect(outlier.eject(now + calm) - now - calm).toBe(expected);
      }),
    );
  });

  it("counts anew when it is over, also what failed in panic meanwhile", () => {
    const outlier = detector();
    const until = outlier.eject(START);
    expect(due(outlier, times(9, 500), until - 10)).toEqual([]);
    expect(due(outlier, times(5, 500), until)).toEqual([4]);
  });

  it("ends with a health check that passes", () => {
    const outlier = detector();
    outlier.eject(START);
    outlier.pardon(START + 1_000);
    expect(outlier.ejected(START + 1_000)).toBe(false);
    // As if the ejection had been over then: the second is twice as long.
    expect(outlier.eject(START + 2_000)).toBe(START + 62_000);
  });
});
