import fc from "fast-check";
import { expect, it, vi } from "vitest";
import { LazyRoutes, routesText } from "../../src/table/routes.ts";
import type { TableRoute } from "../../src/table/table.ts";

it("gives each route as it was, whatever is in it, and nothing beyond", () => {
  const route = fc.record({
    id: fc.string({ unit: "binary" }),
    hosts: fc.array(fc.constantFrom("\n", '"', "\u2028", "a\\n")),
  });
  fc.assert(
    fc.property(fc.array(route, { minLength: 1 }), (made) => {
      const routes = made as unknown as TableRoute[];
      const lazy = new LazyRoutes(routesText(routes));
      expect(routes.map((_, position) => lazy.at(position))).toEqual(routes);
      expect(lazy.at(routes.length)).toBeUndefined();
    }),
  );
});

it("reads a route once, and only if somebody asks for it", () => {
  const lazy = new LazyRoutes(routesText([{ id: "a" }, { id: "b" }] as TableRoute[]));
  const parse = vi.spyOn(JSON, "parse");
  const first = lazy.at(1);
  expect(lazy.at(1)).toBe(first);
  expect(parse.mock.calls).toEqual([['{"id":"b"}']]);
  parse.mockRestore();
});
