/** Tables as they are, so that a change of the compiler shows what it changes. After a look at it: `npx vitest run -u`. */
import { expect, it } from "vitest";
import { compileRoutes } from "../../src/build/compile.ts";

it.each(["one-api", "matches", "targets", "policies", "traffic", "gateway-api", "identity"])(
  "test/build/fixtures/%s.ts",
  async (name) => {
    const { table, sources } = await compileRoutes({ routes: `test/build/fixtures/${name}.ts` });
    await expect(`${JSON.stringify({ table, sources }, null, 2)}\n`).toMatchFileSnapshot(`golden/${name}.golden`);
  },
);

it("routes/, as shipped", async () => {
  const { table, sources } = await compileRoutes({ routes: "routes" });
  await expect(`${JSON.stringify({ table, sources }, null, 2)}\n`).toMatchFileSnapshot("golden/routes.golden");
});
