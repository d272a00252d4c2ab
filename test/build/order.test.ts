import { expect, it } from "vitest";
import { registry } from "../../src/build/registry.ts";
import { policyOrder } from "../../src/policies/order.ts";

it("every policy has its place in the order, once", () => {
  expect(policyOrder.map(({ policy }) => policy).sort()).toEqual(Object.keys(registry).sort());
});
