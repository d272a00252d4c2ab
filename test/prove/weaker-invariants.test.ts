/** Which changes of invariants.ts ask for less than before. */
import { expect, it } from "vitest";
import type { InvariantDeclaration } from "../../src/config/invariant.ts";
import { anonymous, backend, every, filter, ipFilter, jwt, no, rateLimit, route, scopes } from "../../src/index.ts";
import { lostInvariants } from "../../src/prove/weaker-invariants.ts";
import { tableOf } from "./tables.ts";

const table = tableOf([{ id: "orders/list" }, { id: "admin/all" }, { id: "shop/all" }], {
  backends: [
    { name: "eu/payments", cluster: "eu" },
    { name: "us", cluster: "us" },
  ],
});
const lost = (before: InvariantDeclaration, ...now: InvariantDeclaration[]) => lostInvariants([before], now, table);
const admin = every(route).under("/admin");
const ranges = (...allow: string[]) => ipFilter({ allow });

it.each<[string, InvariantDeclaration, ...InvariantDeclaration[]]>([
  ["the same", admin.requires(jwt), admin.requires(jwt)],
  ["said the other way round", admin.requires(jwt), no(route).under("/admin").without(jwt)],
  ["more policies", admin.requires(jwt), admin.requires(filter, jwt)],
  ["in two", admin.requires(jwt, filter), admin.requires(jwt), admin.requires(filter)],
  ["of all paths", admin.requires(jwt), every(route).requires(jwt)],
  ["of a path above", every(route).under("/admin/{id}/x").requires(jwt), every(route).under("/admin/*").requires(jwt)],
  ["of one of two paths", every(route).under("/a").under("/b").requires(jwt), every(route).under("/b").requires(jwt)],
  [
    "by API",
    every(route).of("orders", "shop").requires(jwt),
    every(route).of("shop").requires(jwt),
    every(route).of("orders").requires(jwt),
  ],
  ["of more methods", every(route).taking("PUT").requires(jwt), every(route).taking("GET", "PUT").requires(jwt)],
  ["of a wider host", every(route).on("a.example.com").requires(jwt), every(route).on("*.example.com").requires(jwt)],
  ["of any backend", no(route).reaches(backend("eu/payments")).without(jwt), no(route).reaches().without(jwt)],
  [
    "of all of a cluster",
    no(route).reaches(backend("eu/payments")).without(jwt),
    no(route).reaches(backend("eu")).without(jwt),
  ],
  [
    "with fewer exceptions",
    admin.except("shop/all", "admin/all").requires(jwt),
    admin.except("admin/all").requires(jwt),
  ],
  ["a scope more", admin.requires(scopes("a")), admin.requires(scopes("b", "a"))],
  ["scopes in two", admin.requires(scopes("a", "b")), admin.requires(scopes("a")), admin.requires(scopes("b"))],
  ["one scope of two", admin.requires(scopes({ any: ["a", "b"] })), admin.requires(scopes("b"))],
  ["fewer addresses", admin.requires(ranges("10.0.0.0/8")), admin.requires(ranges("10.1.0.0/16"))],
  ["any addresses, then some", admin.requires(ipFilter), admin.requires(ranges("10.1.0.0/16"))],
  ["nobody anonymous", admin.denies(anonymous), every(route).denies(anonymous)],
  ["one policy more that none may have", no(route).with(rateLimit), no(route).with(rateLimit, filter)],
  ["of an API that is gone", every(route).of("billing").requires(jwt)],
  ["of a backend that is gone", no(route).reaches(backend("billing")).without(jwt)],
])("%s is no loss", (_, before, ...now) => {
  expect(lost(before, ...now)).toEqual([]);
});

it.each<[string, InvariantDeclaration, InvariantDeclaration[], string?]>([
  ["nothing", admin.requires(jwt), []],
  ["another claim", admin.denies(anonymous), [admin.requires(jwt)]],
  ["the contrary", no(route).without(jwt), [no(route).with(jwt)]],
  ["a path below", admin.requires(jwt), [every(route).under("/admin/users").requires(jwt)]],
  ["a path beside", admin.requires(jwt), [every(route).under("/administrators").requires(jwt)]],
  ["a host of many", every(route).on("*.example.com").requires(jwt), [every(route).on("a.example.com").requires(jwt)]],
  ["one exception more", admin.requires(jwt), [admin.except("shop/all").requires(jwt)]],
  ["one backend of many", no(route).reaches().without(jwt), [no(route).reaches(backend("us")).without(jwt)]],
  ["only routes that reach one", admin.requires(jwt), [admin.reaches().requires(jwt)]],
  ["any scopes", admin.requires(scopes("a")), [admin.requires(scopes)]],
  ["one of two scopes", admin.requires(scopes("b")), [admin.requires(scopes({ any: ["a", "b"] }))]],
  ["more addresses", admin.requires(ranges("10.1.0.0/16")), [admin.requires(ranges("10.0.0.0/8"))]],
  [
    "one scope less",
    admin.requires(scopes("a", "b")),
    [admin.requires(scopes("a"))],
    'nothing asks any more for every(route).under("/admin").requires(scopes("b")), as every(route).under("/admin").requires(scopes("a", "b")) did',
  ],
  [
    "one API less",
    every(route).of("orders", "shop").requires(jwt, filter),
    [every(route).of("orders").requires(jwt, filter), every(route).requires(filter)],
    'nothing asks any more for every(route).of("shop").requires(jwt), as every(route).of("orders", "shop").requires(jwt, filter) did',
  ],
])("%s is a loss", (_, before, now, told = expect.stringMatching(/^nothing asks for .* any more$/)) => {
  expect(lost(before, ...now)).toEqual([told]);
});
