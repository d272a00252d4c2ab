import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { byDistance, type Location, whereabouts } from "../../src/traffic/locality.ts";

const REGIONS = ["wnam", "enam", "sam", "weur", "eeur", "apac", "oc", "afr", "me"];
const order = (location: Location, regions: readonly (string | undefined)[] = REGIONS) => {
  const from = whereabouts(location);
  return from && byDistance(regions, from).map((place) => regions[place]);
};

describe("whereabouts", () => {
  it.each<[string, Location, string[]]>([
    ["Amsterdam's data centre", { colo: "AMS" }, ["weur", "eeur"]],
    [
      "Dallas's, whoever is asking",
      { colo: "DFW", continent: "AS", latitude: "35.7", longitude: "139.7" },
      ["enam", "wnam"],
    ],
    [
      "a small data centre and a client in Nairobi",
      { colo: "XXX", latitude: "-1.3", longitude: "36.8" },
      ["afr", "me"],
    ],
    ["a client in Auckland", { latitude: "-36.8", longitude: "174.8" }, ["oc", "apac"]],
    ["Anchorage, over the date line", { latitude: "61.2", longitude: "-149.9" }, ["wnam", "enam"]],
    ["Seoul's data centre", { colo: "ICN" }, ["apac", "me"]],
    ["a continent alone", { continent: "SA" }, ["sam", "enam"]],
  ])("%s", (_, location, first) => {
    expect(order(location)?.slice(0, first.length)).toEqual(first);
  });

  it.each<[string, Location]>([
    ["nothing known", {}],
    ["Antarctica", { continent: "AN" }],
    ["half a place", { latitude: "50.1" }],
    ["no numbers", { latitude: "north", longitude: "" }],
  ])("%s: unknown", (_, location) => {
    expect(whereabouts(location)).toBeUndefined();
  });
});

it("puts each region first for who is in the middle of it", () => {
  for (const [region, colo] of [
    ["wnam", "SJC"],
    ["enam", "IAD"],
    ["sam", "GRU"],
    ["weur", "FRA"],
    ["eeur", "WAW"],
    ["apac", "SIN"],
    ["oc", "SYD"],
    ["afr", "JNB"],
    ["me", "DXB"],
  ] as const) {
    expect(order({ colo })?.[0]).toBe(region);
  }
});

it("keeps equally near ones in their own order, and puts unknown regions last", () => {
  const regions = [undefined, "enam", "mars", "weur", "enam", "constructor"];
  expect(order({ colo: "FRA" }, regions)).toEqual(["weur", "enam", "enam", undefined, "mars", "constructor"]);
  expect(byDistance(regions, whereabouts({ colo: "FRA" }) as readonly [number, number])).toEqual([3, 1, 4, 0, 2, 5]);
});

it("loses nobody, wherever on earth", () => {
  const region = fc.option(fc.constantFrom(...REGIONS), { nil: undefined });
  fc.assert(
    fc.property(
      fc.array(region),
      fc.double({ min: -90, max: 90, noNaN: true }),
      fc.double({ min: -180, max: 180, noNaN: true }),
      (regions, north, east) => {
        expect([...byDistance(regions, [north, east])].sort((a, b) => a - b)).toEqual([...regions.keys()]);
      },
    ),
  );
});
