/** `npm run simulate`: leased limits over a fleet of isolates in virtual time, with everything that goes wrong in one. */
import { Command, InvalidArgumentError } from "commander";
import type { Algorithm } from "../src/policies/limit-script.ts";
import { excess, type FleetScenario, simulateFleet, utilisation } from "../test/simulation/leases.ts";
import { Progress } from "./progress.ts";

/** Percent of what exact counting would have admitted (docs/limits.md). */
const LEAST = 97;

const number = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError("It is a whole number from 0.");
  return value;
};

const { seed, isolates, json } = new Command("npm run simulate --")
  .description("What a fleet of isolates admits of leased limits, and how often it asks the store")
  .option("--seed <n>", "decides everything that is random (default: another one each time)", number)
  .option("--isolates <n>", "in the fleet with skewed keys", number, 500)
  .option("--json", "print JSON")
  .addHelpText(
    "after",
    `\nExits with 1 where a limit was exceeded, or less than ${LEAST} % of it admitted; with 2 for wrong options.`,
  )
  .showHelpAfterError("(--help shows what is possible)")
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))
  .parse()
  .opts<{ seed?: number; isolates: number; json?: true }>();

const TROUBLE = { clockSkew: 250, drift: 0.0002, dying: 0.05, latency: [2, 8], lost: 0.005 } as const;
const chosen = seed ?? Math.floor(Math.random() * 2 ** 31);
const rows = [];
const progress = new Progress(9);
for (const algorithm of ["fixedWindow", "slidingWindow", "tokenBucket"] satisfies Algorithm[]) {
  const scenarios: Record<string, Omit<FleetScenario, "seed">> = {
    [`${isolates} isolates, 100 skewed keys`]: {
      ...TROUBLE,
      rule: { algorithm, quota: 1_000, window: 10_000 },
      ...{ duration: 60_000, isolates, rate: 3_000, keys: 100, skew: 1 },
    },
    "4 isolates, a hot key, a tenth passes": {
      ...TROUBLE,
      rule: { algorithm, quota: 2_400, window: 60_000 },
      ...{ duration: 180_000, isolates: 4, rate: 400, keys: 1, skew: 0 },
    },
    "4 isolates, a hot key, all of it passes": {
      ...TROUBLE,
      rule: { algorithm, quota: 50_000, window: 60_000 },
      ...{ duration: 180_000, isolates: 4, rate: 400, keys: 1, skew: 0 },
    },
  };
  for (const [name, given] of Object.entries(scenarios)) {
    const scenario = { ...given, seed: chosen };
    progress.step(`${algorithm}, ${name}`);
    const report = await simulateFleet(scenario);
    const { all, limited } = utilisation(report, scenario);
    rows.push({
      algorithm,
      fleet: name,
      requests: report.requests,
      admitted: report.admissions.length,
      "over the limit": Math.max(0, Math.ceil(excess(report, scenario))),
      "% of what exact counting admits": Number((100 * (Number.isNaN(limited) ? all : limited)).toFixed(1)),
      "requests per call": Number((report.requests / report.calls.reduce((sum, calls) => sum + calls, 0)).toFixed(1)),
      "waited, %": Number(((100 * report.waits.length) / report.requests).toFixed(1)),
    });
  }
}
progress.end();
if (json) console.log(JSON.stringify({ seed: chosen, trouble: TROUBLE, rows }, null, 2));
else {
  console.log(
    `seed ${chosen}; clocks up to 250 ms apart, 5 % of the isolates die, 1 % of the calls are lost, the store is 16 ms away`,
  );
  console.table(rows);
}
const broken = rows.filter((row) => row["over the limit"] > 0 || row["% of what exact counting admits"] < LEAST);
for (const { algorithm, fleet } of broken) console.error(`failed  ${algorithm}, ${fleet}`);
process.exitCode = broken.length === 0 ? 0 : 1;
