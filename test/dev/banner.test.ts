import { expect, it } from "vitest";
import { compileRoutes } from "../../src/build/compile.ts";
import { bannerText } from "../../src/dev/banner.ts";

it("tells in short where each route leads", async () => {
  const { table } = await compileRoutes({ routes: "test/build/fixtures/traffic.ts" });
  const text = bannerText({ running: [], table, requests: [], paint: (_, plain) => plain });
  const leads = Object.fromEntries([...text.matchAll(/^ {2}(\S+) .*-> (.*)$/gm)].map(([, path, to]) => [path, to]));
  expect(leads).toEqual({
    "/*": "500: nothing is here",
    "/alike/*": "eu/a | us/a",
    "/arms/*":
      "gone 12.5 % 500: Service shop/gone is not there; moved 12.5 % 302 to /new; next 25 % eu/c | us/c; now 50 % eu/c",
    "/balanced/*": "eu/a | us/a, else us/fallback",
    "/hashed/*": "eu | us",
    "/near/*": "the nearest of eu/b, else us/b",
    "/stubborn/*": "eu",
  });
});
