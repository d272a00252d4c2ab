/**
 * Every problem that the build can report: what it says, how to mend it, and the line that it points at (`//!`). A module here has
 * one mistake, unless it is about how several are told.
 */
import { describe, expect, it, vi } from "vitest";
import { registry } from "../../src/build/registry.ts";
import { policyOrder } from "../../src/policies/order.ts";
import { cases, expectProblems, PRELUDE, problemsOf } from "./module.ts";

const inGateway = (options: string) => `
export default gateway(${options}, [ //!
  api("shop", {}, [route("all", {}, { to: eu })]),
]);`;

const inApi = (options: string) => `
export default api("shop", ${options}, [ //!
  route("all", {}, { to: eu }),
]);`;

const inRoute = (match: string, options = "{ to: eu }", more = "") => `
export default api("shop", {}, [
  route("all", ${match}, ${options}), //!
  ${more}
]);`;

const NAME_FIX = "use letters, digits, - . _; 63 at most";
const ROUTE = 'route "shop/all"';

describe("the module", () => {
  const DEFAULT_FIX = "export default gateway({ ... }, [ ...apis ])";
  const BUNDLER_FIX = "correct the line; the message is the TypeScript bundler's";
  const RUN_FIX = "correct what the line does; the module runs at build";

  it.each([
    ["is missing", "nowhere.ts", "there is no such file or folder"],
    ["is a folder without an index", "folder", "the folder has no index.ts"],
  ])("%s", async (_, path, message) => {
    expect(await problemsOf({ "folder/routes.ts": "" }, path)).toEqual([
      { subject: `/${path}`, message, fix: "give the routes module with --routes PATH" },
    ]);
  });

  it("has a syntax error, in a file that it imports", () =>
    expectProblems(
      {
        "index.ts": 'import shop from "./shop.ts";\nexport default shop;',
        "shop.ts": "const a = 1;\nexport default api(;; //!",
      },
      ["module", 'Unexpected ";"', BUNDLER_FIX],
    ));

  it("has several imports that lead nowhere", () =>
    expectProblems(
      { "index.ts": 'import a from "./a.ts"; //!\nimport b from "left-pad-of-nobody"; //!\nexport default [a, b];' },
      ["module", 'Could not resolve "./a.ts"', BUNDLER_FIX],
      [
        "module",
        'Could not resolve "left-pad-of-nobody"',
        'You can mark the path "left-pad-of-nobody" as external to exclude it from the bundle, which will remove this error and leave the unresolved path in the bundle.',
      ],
    ));

  it("imports a name that a file does not export", () =>
    expectProblems(
      {
        "index.ts": 'import shop from "./shop.ts";\nexport default shop;',
        "shop.ts":
          'import { api } from "portcullis";\nimport { us } from "./clusters.ts"; //!\nexport default api("shop", {}, [us]);',
        "clusters.ts": "export const eu = 1;",
      },
      ["module", 'No matching export in "clusters.ts" for import "us"', BUNDLER_FIX],
    ));

  it("imports a name that the language does not have", () =>
    expectProblems(
      {
        "index.ts":
          'import { api } from "portcullis";\nimport { clutser } from "portcullis"; //!\nexport default api(clutser);',
      },
      [
        "module",
        'No matching export in "portcullis" for import "clutser"',
        'Did you mean to import "cluster" instead?',
      ],
    ));

  it("throws, in a function of a file that it imports", () =>
    expectProblems(
      {
        "index.ts": 'import { shop } from "./shop.ts";\nexport default shop(undefined);',
        "shop.ts": "export function shop(options) {\n  return options.name; //!\n}",
      },
      ["module", "throws TypeError: Cannot read properties of undefined (reading 'name')", RUN_FIX],
    ));

  it("throws in a builder, by what it hands to it", () =>
    expectProblems({ "index.ts": `${PRELUDE}\nexport default api("shop", {}, [\n  eu.or(undefined), //!\n]);` }, [
      "module",
      "throws TypeError: Cannot read properties of undefined (reading 'levels')",
      RUN_FIX,
    ]));

  it.each([
    ["a text", '"no";', "throws 'no'"],
    ["null", "null;", "throws null"],
    ["an object without a prototype", "Object.create(null);", "throws [Object: null prototype] {}"],
  ])("throws %s", async (_, thrown, message) => {
    expect(await problemsOf({ "index.ts": `throw ${thrown}` })).toEqual([{ subject: "module", message, fix: RUN_FIX }]);
  });

  it("throws in a getter, when its declarations are looked at", () =>
    expectProblems(
      {
        "index.ts": `${PRELUDE}
const options = { get hosts() {
  throw new Error("no hosts"); //!
} };
export default api("shop", options, [route("all", {}, { to: eu })]);`,
      },
      ["module", "throws Error: no hosts", RUN_FIX],
    ));

  it("never gets done", async () => {
    // Its patience is measured in seconds; the bundler's own time is real.
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const told = problemsOf({ "index.ts": "export default await new Promise(() => {}); //!" });
    await vi.waitFor(() => expect(vi.getTimerCount()).toBe(1));
    await vi.advanceTimersByTimeAsync(10_000);
    vi.useRealTimers();
    expect(await told).toEqual([
      {
        file: "index.ts",
        line: 1,
        subject: "module",
        message: "waits for something that has not come after 10 s",
        fix: "take out the await that is never done",
      },
    ]);
  });

  it.each([
    ["nothing", "export const a = 1;", "has no default export"],
    ["undefined", "export default undefined;", "has no default export"],
    ["null", "export default null;", "its default export is null"],
    ["a number", "export default 5;", "its default export is 5"],
    ["a text", 'export default "gateway";', 'its default export is "gateway"'],
    ["an empty list", "export default [];", "its default export is an empty list"],
    ["an object", "export default { apis: [] };", "its default export is an object"],
    ["a function", "export default () => [];", "its default export is a function"],
    [
      "a route",
      'import { route } from "portcullis"; export default route("a", {}, { to: null });',
      "its default export is a route",
    ],
  ])("exports %s", (_, text, message) =>
    expectProblems({ "index.ts": `${text} //!` }, ["module", message, DEFAULT_FIX]),
  );
});

describe("the gateway", () => {
  cases([
    ["has no APIs", "export default gateway({}, []); //!", "gateway", "has no APIs", "give it a list of api(...)"],
    [
      "has a list that is none",
      "export default gateway({}, 5); //!",
      "gateway",
      "has no APIs",
      "give it a list of api(...)",
    ],
    [
      "has something else among its APIs",
      'export default gateway({}, [ //!\n  api("shop", {}, [route("all", {}, { to: eu })]), null]);',
      "apis",
      "number 2 of the list is null, no api",
      "make each with api(...)",
    ],
    ["has no options", inGateway("null"), "gateway", "Invalid input: expected object, received null", "give an object"],
    [
      "has an option that there is not",
      inGateway("{ maxUrls: 5 }"),
      "gateway",
      'Unrecognized key: "maxUrls"',
      "take it out, or correct the spelling",
    ],
    [
      "has a store that is not referred to",
      inGateway('{ store: { url: "https://redis.example.com", token: secret("T") } }'),
      "gateway",
      '`store.url`: must be env("NAME")',
      "correct the value",
    ],
    [
      "has its secret in a variable",
      inGateway('{ debug: env("DEBUG") }'),
      "gateway",
      '`debug`: must be secret("NAME")',
      "correct the value",
    ],
    [
      "has a name for a variable that none can have",
      'const debug = secret("DEBUG KEY"); //!\nexport default gateway({ debug }, [api("shop", {}, [route("all", {}, { to: eu })])]);',
      'secret("DEBUG KEY")',
      "is no name of a variable",
      "use letters, digits and _",
    ],
    [
      "has an assertion without an issuer",
      inGateway('{ assertion: { key: secret("K") } }'),
      "gateway",
      "`assertion.issuer`: Invalid input: expected string, received undefined",
      "give a string",
    ],
    [
      "has an assertion of a lifetime that is none",
      inGateway('{ assertion: { key: secret("K"), issuer: "a", lifetime: "soon" } }'),
      "gateway",
      "`assertion.lifetime`: is no duration such as 250ms, 5s or 1m30s",
      "correct the value",
    ],
    [
      "has a setting that is not to be chosen",
      inGateway('{ forwardedFor: "trust" }'),
      "gateway",
      '`forwardedFor`: Invalid option: expected one of "overwrite"|"append"',
      "choose one of them",
    ],
    [
      "trusts something that is no address",
      inGateway('{ trustedProxies: ["10.0.0.1/8"] }'),
      "gateway",
      "`trustedProxies.0`: is no address or CIDR range",
      "correct the value",
    ],
    [
      "allows longer URLs than the platform has",
      inGateway("{ maxUrl: 20_000 }"),
      "gateway",
      "`maxUrl`: Too big: expected number to be <=16384",
      "correct the value",
    ],
    [
      "has a timeout that is none",
      inGateway('{ timeouts: { total: "1 minute" } }'),
      "gateway",
      "`timeouts.total`: is no duration such as 250ms, 5s or 1m30s",
      "correct the value",
    ],
    [
      "has a timeout in which nothing can happen",
      inGateway('{ timeouts: { connect: "0s" } }'),
      "gateway",
      "a timeout of 0s would fail every request",
      "only `firstByte`, `total` and `idle` may be 0s",
    ],
    [
      "waits longer for the first byte than for all",
      inGateway('{ timeouts: { firstByte: "30s", total: "10s" } }'),
      "gateway",
      "the first byte may take 30000 ms, but the whole exchange only 10000 ms",
      "make `firstByte` at most `total`",
    ],
    [
      "waits longer for the connection than for the first byte",
      inGateway('{ timeouts: { connect: "6s", firstByte: "5s" } }'),
      "gateway",
      "connecting may take 6000 ms, but the first byte is due after 5000 ms",
      "make `connect` at most `firstByte`",
    ],
  ]);
});

describe("an API", () => {
  cases([
    [
      "has no usable name",
      'export default api("a b", {}, [route("all", {}, { to: eu })]); //!',
      'api "a b"',
      "is no usable name",
      NAME_FIX,
    ],
    ["has no name", "export default api(undefined, {}, []); //!", "api undefined", "is no usable name", NAME_FIX],
    [
      "has the name of another",
      'const shop = (name) => [route(name, { path: "/" + name }, { to: eu })];\nexport default [\n  api("shop", {}, shop("a")),\n  api("shop", {}, shop("b")), //!\n];',
      'api "shop"',
      "has the name of another",
      "name it differently: records and policies go by the name",
    ],
    [
      "is listed twice",
      'const shop = api("shop", {}, [route("all", {}, { to: eu })]); //!\nexport default [shop, shop];',
      'api "shop"',
      "is listed twice",
      "list it once",
    ],
    [
      "has a host that is none",
      inApi('{ hosts: ["API.example.com"] }'),
      'api "shop"',
      "`hosts.0`: is no host such as api.example.com or *.example.com, in lower case",
      "correct the value",
    ],
    [
      "has a text where a list of hosts is due",
      inApi('{ hosts: "api.example.com" }'),
      'api "shop"',
      "`hosts`: Invalid input: expected array, received string",
      "give an array",
    ],
    [
      "has no hosts at all",
      inApi("{ hosts: [] }"),
      'api "shop"',
      "`hosts`: Too small: expected array to have >=1 items",
      "correct the value",
    ],
    [
      "has a policy that is none",
      inApi('{ policies: ["jwt"] }'),
      'api "shop"',
      "`policies.0`: must be a policy such as cors({ ... }), a Hono middleware or without(...)",
      "correct the value",
    ],
    [
      "has no routes",
      'export default api("shop", {}); //!',
      'api "shop"',
      "has no list of routes",
      "give route(...)s as the third argument",
    ],
    [
      "has timeouts that do not go with the gateway's",
      'export default gateway({ timeouts: { total: "5s" } }, [\n  api("shop", { timeouts: { firstByte: "8s" } }, [route("all", {}, { to: eu })]), //!\n]);',
      'api "shop"',
      "the first byte may take 8000 ms, but the whole exchange only 5000 ms",
      "make `firstByte` at most `total`",
    ],
    [
      "has something else among its routes",
      'export default api("shop", {}, [ //!\n  api("inner", {}, []),\n]);',
      "routes",
      "number 1 of the list is an api, no route",
      "make each with route(...)",
    ],
  ]);
});

describe("a route", () => {
  cases([
    [
      "has no usable name",
      'export default api("shop", {}, [\n  route("-", {}, { to: eu }), //!\n]);',
      'route "-"',
      "is no usable name",
      NAME_FIX,
    ],
    [
      "has the name of another",
      'export default api("shop", {}, [\n  route("all", { path: "/a" }, { to: eu }),\n  route("all", { path: "/b" }, { to: eu }), //!\n]);',
      ROUTE,
      "has the name of another",
      "name it differently: records and policies go by the name",
    ],
    [
      "is listed twice",
      'const all = route("all", {}, { to: eu }); //!\nexport default api("shop", {}, [all, all]);',
      ROUTE,
      "is listed twice",
      "list it once",
    ],
    ["matches nothing", inRoute("[]"), ROUTE, "matches nothing", 'give a match such as { path: "/v1/orders" }'],
    [
      "has a match that is none",
      inRoute('"/v1"'),
      ROUTE,
      "Invalid input: expected object, received string",
      "give an object",
    ],
    [
      "matches by something that there is not",
      inRoute('{ host: "a" }'),
      ROUTE,
      'Unrecognized key: "host"',
      "take it out, or correct the spelling",
    ],
    ["has a relative path", inRoute('{ path: "v1" }'), ROUTE, "`path`: must begin with /", "correct the value"],
    [
      "has a path that is none",
      inRoute("{ path: 5 }"),
      ROUTE,
      "`path`: must be a text that begins with /, or a RegExp",
      "correct the value",
    ],
    [
      "has a method in lower case",
      inRoute('{ methods: ["get"] }'),
      ROUTE,
      "`methods.0`: is no method in upper case that can be forwarded",
      "correct the value",
    ],
    [
      "has a method that cannot be sent",
      inRoute('{ methods: ["TRACE"] }'),
      ROUTE,
      "`methods.0`: is no method in upper case that can be forwarded",
      "correct the value",
    ],
    [
      "has a condition that is none",
      inRoute("{ query: { page: 5 } }"),
      ROUTE,
      "`query`: must map each name to a text, a RegExp or true",
      "correct the value",
    ],
    [
      "has a condition on what is no header",
      inRoute('{ headers: { "x beta": true } }'),
      ROUTE,
      '"x beta" is no header name',
      "use letters, digits and hyphens",
    ],
    [
      "has a condition on what only the gateway says",
      inRoute('{ headers: { "X-Consumer-Id": "shop" } }'),
      ROUTE,
      'goes by the header "x-consumer-id", which only the gateway may say: here it is whatever the client sent',
      'go by "consumer", { claim: ... } or a header of the client\'s own',
    ],
    [
      "has two conditions on a header",
      inRoute('{ headers: { "X-Beta": true, "x-beta": "1" } }'),
      ROUTE,
      'has two conditions on the header "x-beta"',
      "keep one of them",
    ],
    [
      "has a condition on what is no cookie",
      inRoute('{ cookies: { "a=b": true } }'),
      ROUTE,
      '"a=b" is no cookie name',
      "use letters, digits and hyphens",
    ],
    [
      "has a * inside of its path",
      inRoute('{ path: "/v1/*/items" }'),
      ROUTE,
      'path "/v1/*/items" has a * that is not its last segment',
      "end a prefix with /*, write one segment as {name}, or use a RegExp",
    ],
    [
      "has a parameter that is part of a segment",
      inRoute('{ path: "/v1/item-{id}" }'),
      ROUTE,
      'path "/v1/item-{id}" has "item-{id}"',
      "a parameter is a whole segment: {name}",
    ],
    [
      "names a parameter twice",
      inRoute('{ path: "/{id}/{id}" }'),
      ROUTE,
      'path "/{id}/{id}" names a parameter twice',
      "name each parameter once",
    ],
    [
      "has a path whose requests are refused",
      inRoute('{ path: "/a%2Fb" }'),
      ROUTE,
      'path "/a%2Fb" can never match: requests for it answer 400 path-encoded-slash',
      "write the path as clients should ask for it",
    ],
    [
      "has a path in another form than requests",
      inRoute('{ path: "/a//%7euser/*" }'),
      ROUTE,
      'path "/a//%7euser/*" is not in the form in which requests are matched',
      'write "/a/~user/*"',
    ],
    [
      "has a path with a parameter in another form than requests",
      inRoute('{ path: "/a/../{id}" }'),
      ROUTE,
      'path "/a/../{id}" is not in the form in which requests are matched',
      "write it without escapes, dots and double slashes",
    ],
    [
      "has the gateway's own path",
      inRoute('{ path: "/.well-known/portcullis/health" }'),
      ROUTE,
      'path "/.well-known/portcullis/health" is the gateway\'s own',
      "choose another path",
    ],
    [
      "has a regex with a flag that changes what it means",
      inRoute("{ path: /\\/\\p{L}+/u }"),
      ROUTE,
      "/\\/\\p{L}+/u has flags that a match does not know",
      "keep only i and s",
    ],
    [
      "has a regex that backtracks",
      inRoute("{ path: /\\/(a+)+/ }"),
      ROUTE,
      "/\\/(a+)+/ backtracks: it takes exponential time on input such as '/a' + 'a'.repeat(31) + '/'",
      "avoid repeating what itself repeats, e.g. write [^/]+ instead of (.*)+",
    ],
    [
      "has a regex that no path begins like",
      inRoute("{ path: /^v1.*/ }"),
      ROUTE,
      "path /^v1.*/ can never match: every path begins with /",
      "begin it with \\/",
    ],
    [
      "leads nowhere",
      inRoute("{}", "{}"),
      ROUTE,
      "`to`: must be a cluster, a cluster's service, split(...) or redirect(...)",
      "correct the value",
    ],
    [
      "has a misspelt option",
      inRoute("{}", "{ to: eu, policy: [] }"),
      ROUTE,
      'Unrecognized key: "policy"',
      "take it out, or correct the spelling",
    ],
    [
      "has timeouts that do not go with its API's",
      'export default api("shop", { timeouts: { total: "5s" } }, [\n  route("all", {}, { to: eu, timeouts: { firstByte: "6s" } }), //!\n]);',
      ROUTE,
      "the first byte may take 6000 ms, but the whole exchange only 5000 ms",
      "make `firstByte` at most `total`",
    ],
    [
      "matches what another matches",
      `export default api("shop", {}, [
  route("then", { path: "/v1/{name}", methods: ["GET", "PUT"] }, { to: eu }), //!
  route("all", { path: "/v1/{id}", methods: ["GET"] }, { to: eu }),
]);`,
      'route "shop/then"',
      'matches the same requests as route "shop/all": GET */v1/{name}',
      "part them by path, method, header or query, or take one out",
    ],
  ]);
});

describe("where a route leads", () => {
  const US = 'ingress: env("US")';
  const BACKEND_FIX = "use a cluster or cluster.service(name)";
  const to = (target: string) => inRoute("{}", `{ to: ${target} }`);
  const inCluster = (options: string) => `
const us = cluster("us", ${options}); //!
export default api("shop", {}, [route("all", {}, { to: us })]);`;
  const inSplit = (split: string) => `
const canary = split(${split}); //!
export default api("shop", {}, [route("all", {}, { to: canary })]);`;
  const inRedirect = (options: string) => `
const moved = redirect(${options}); //!
export default api("shop", { hosts: ["api.example.com"] }, [route("all", {}, { to: moved })]);`;

  cases([
    [
      "a backend of nothing",
      to('{ kind: "backend", levels: [] }'),
      ROUTE,
      "leads to a backend without endpoints",
      BACKEND_FIX,
    ],
    [
      "a service without a name",
      to('eu.service("Orders!")'),
      ROUTE,
      "`service`: must be lower case letters, digits and hyphens",
      "correct the value",
    ],
    [
      "a service with an option that there is not",
      to('eu.service("orders", { port: 80 })'),
      ROUTE,
      'Unrecognized key: "port"',
      "take it out, or correct the spelling",
    ],
    [
      "a service that the ingress cannot tell apart",
      `const us = cluster("us", { ${US} });${to('us.service("orders")')}`,
      ROUTE,
      'nothing tells service "orders" apart at the ingress of cluster "us"',
      'give the cluster services: { host: "{service}.example.com" } or { path: "/{service}" }',
    ],
    [
      "a service at a host that is none",
      to('eu.service("orders", { host: "https://orders" })'),
      ROUTE,
      '"https://orders" is no host',
      "write a host name in lower case, with {service} for the service",
    ],
    [
      "a service at a path that is none",
      to('eu.service("orders", { path: "/a/../b" })'),
      ROUTE,
      '"/a/../b" is no usable path prefix',
      "write it as /prefix",
    ],
    [
      "a cluster without a name",
      inCluster(`{ ${US} }`).replace('"us"', '""'),
      'cluster ""',
      "is no usable name",
      NAME_FIX,
    ],
    [
      "a cluster with the name of another",
      `const again = cluster("eu", { ${US} }); //!
export default api("shop", {}, [route("a", {}, { to: eu.or(again) })]);`,
      'cluster "eu"',
      "has the name of another cluster",
      "name it differently",
    ],
    [
      "a cluster with a literal address",
      inCluster('{ ingress: "https://ingress.example.com" }'),
      'cluster "us"',
      '`ingress`: must be env("NAME") or binding("NAME")',
      "correct the value",
    ],
    [
      "a cluster in a region that Cloudflare does not know",
      inCluster(`{ ${US}, region: "frankfurt" }`),
      'cluster "us"',
      '`region`: Invalid option: expected one of "wnam"|"enam"|"sam"|"weur"|"eeur"|"apac"|"oc"|"afr"|"me"',
      "choose one of them",
    ],
    [
      "a cluster with a scheme besides the URL's",
      inCluster(`{ ${US}, scheme: "http" }`),
      'cluster "us"',
      "`scheme` is for bindings",
      "write the scheme into the URL in the environment",
    ],
    [
      "a cluster with two ways to make a connection",
      inCluster('{ ingress: binding("US"), certificate: binding("CERT") }'),
      'cluster "us"',
      "has a certificate and a binding, and only one can make the connection",
      "use ingress: env(...) with the certificate",
    ],
    ["a split without arms", inSplit("{}"), ROUTE, "the split has no arms", "name at least one backend"],
    [
      "a split with an arm without a name",
      inSplit('{ "": eu.weight(1) }'),
      ROUTE,
      '"" is no usable arm name',
      NAME_FIX,
    ],
    [
      "a split with an arm that is none",
      inSplit("{ a: eu.weight(1), b: 5 }"),
      ROUTE,
      'arm "b" is no backend',
      BACKEND_FIX,
    ],
    [
      "a split with an arm without a weight",
      inSplit("{ a: eu.weight(1), b: eu }"),
      ROUTE,
      'arm "b" has no weight of 0 or more',
      "give it one: .weight(5)",
    ],
    [
      "a split with an arm of less than nothing",
      inSplit("{ a: eu.weight(1), b: eu.weight(-1) }"),
      ROUTE,
      'arm "b" has no weight of 0 or more',
      "give it one: .weight(5)",
    ],
    [
      "a split whose weights sum to 0",
      inSplit("{ a: eu.weight(0), b: eu.weight(0) }"),
      ROUTE,
      "the arms' weights sum to 0, so no request could be sent anywhere",
      "give one arm a weight",
    ],
    [
      "a split whose arm cannot be reached",
      inSplit('{ a: eu.weight(1), b: eu.service("B!", { weight: 1 }) }'),
      ROUTE,
      "`service`: must be lower case letters, digits and hyphens",
      "correct the value",
    ],
    [
      "a split that sticks to something that it does not know",
      inSplit('{ a: eu.weight(1) }, { sticky: "ip" }'),
      ROUTE,
      '`sticky`: must be "subject", "client", "request", { cookie: "name" } or { header: "name" }',
      "correct the value",
    ],
    [
      "a split by subject where nobody is known",
      `const canary = split({ a: eu.weight(1) }, { sticky: "subject" });${to("canary")}`,
      ROUTE,
      "keeps callers on an arm by their subject, but nothing says who is calling",
      'add jwt({ ... }), or use sticky: "client" or { cookie: "..." }',
    ],
    [
      "a split with an override that nobody can use",
      inSplit('{ a: eu.weight(1) }, { sticky: "client", override: { secret: secret("S") } }'),
      ROUTE,
      "the override names neither header nor cookie",
      "say where the client states its wish",
    ],
    [
      "a redirect with a status that is none",
      inRedirect('{ status: 300, path: { full: "/" } }'),
      ROUTE,
      "`status`: Invalid option: expected one of 301|302|303|307|308",
      "choose one of them",
    ],
    [
      "a redirect by a path of both kinds",
      inRedirect('{ path: { full: "/", prefix: "/" } }'),
      ROUTE,
      '`path`: must be { prefix: "/..." } or { full: "/..." }',
      "correct the value",
    ],
    [
      "a redirect to somebody else",
      inRedirect('{ host: "example.org" }'),
      ROUTE,
      'redirects to "example.org", which no API declares',
      "declare the host on an api, so that no redirect leads elsewhere by accident",
    ],
    ["a redirect to itself", inRedirect("{}"), ROUTE, "redirects to itself", "change host, path, scheme or port"],
    [
      "a redirect to a path that is not normal",
      inRedirect('{ path: { full: "/a/../b" } }'),
      ROUTE,
      '"/a/../b" is not a normal path',
      "write it without escapes, dots and double slashes",
    ],
  ]);
});

describe("policies", () => {
  const known = `choose from ${policyOrder.map(({ policy }) => policy).join(", ")}`;
  const inList = (declarations: string, list: string) => `
${declarations}
export default gateway({ store: { url: env("R"), token: secret("T") } }, [
  api("shop", { policies: ${list} }, [route("all", {}, { to: eu })]),
]);`;

  cases([
    [
      "of a kind that there is not",
      inRoute("{}", '{ to: eu, policies: [{ kind: "policy", policy: "constructor", options: {} }] }').replace(
        "//!",
        "",
      ),
      'policy "constructor"',
      "is unknown",
      known,
    ],
    [
      "that stand twice in one list",
      inList("const first = requestId({});\nconst second = requestId({}); //!", "[first, second]"),
      "policy requestId",
      "stands twice in the list of shop",
      "keep one",
    ],
    [
      "that stand twice in the gateway's list",
      `const again = cors({ origins: ["*"] }); //!
export default gateway({ policies: [cors({ origins: ["https://a.example.com"] }), again] }, [
  api("shop", {}, [route("all", {}, { to: eu })]),
]);`,
      "policy cors",
      "stands twice in the list of the gateway",
      "keep one",
    ],
    [
      "taken off by a name that there is not",
      inList('const off = without("toString"); //!', "[off]"),
      'without("toString")',
      "names no policy",
      known,
    ],
    [
      "taken off where they are not inherited",
      inList('const off = without("jwt"); //!', "[token, off]"),
      'without("jwt")',
      "takes off a policy that is not inherited here",
      "take the line out",
    ],
    [
      "without options",
      inList("const ids = requestId(); //!", "[ids]"),
      "policy requestId",
      "Invalid input: expected object, received undefined",
      "give an object",
    ],
    [
      "with a misspelt option",
      inList('const ids = requestId({ heeder: "x-id" }); //!', "[ids]"),
      "policy requestId",
      'Unrecognized key: "heeder"',
      "take it out, or correct the spelling",
    ],
    [
      "with options that they refuse themselves",
      inList('const office = ipFilter({ allow: ["10.0.0.1/8"] }); //!', "[office]"),
      "policy ipFilter",
      '"10.0.0.1/8" is no address or CIDR range',
      "write it as 10.0.0.0/8 or 2001:db8::/32, with no bits set after the prefix",
    ],
    [
      "that count without a store",
      'const limit = rateLimit({ limit: 5, window: "1m" }); //!\nexport default api("shop", { policies: [limit] }, [route("all", {}, { to: eu })]);',
      "policy rateLimit",
      "has no store to count in",
      "give gateway({ store: { url: env(...), token: secret(...) } })",
    ],
    [
      "that look keys up without a store",
      'const key = apiKey({}); //!\nexport default api("shop", { policies: [key] }, [route("all", {}, { to: eu })]);',
      "policy apiKey",
      "has no store to look keys up in",
      "give gateway({ store: { url: env(...), token: secret(...) } })",
    ],
    [
      "that both say who is calling",
      inList("const key = apiKey({}); //!", "[token, key]"),
      "policy apiKey",
      "stands beside jwt in the list of shop, and both say who is calling",
      "combine them: anyOf(jwt(...), apiKey(...)) for either, allOf(...) for both",
    ],
    [
      "that sign browsers in and have nowhere for them to come back to",
      `const login = oidcLogin({ issuer: "https://login.example.com", clientId: "web", clientSecret: secret("S"), cookieKey: secret("K"),
  logoutPath: "/account/logout" });
export default api("shop", {}, [
  route("all", { path: "/account/*", methods: ["GET"] }, { policies: [anyOf(token, login)], to: eu }), //!
  route("callback", { path: "/auth/{step}", methods: ["POST"] }, { policies: [anyOf(token, login)], to: eu }),
  route("other", { path: "/*" }, { to: eu }),
]);`,
      ROUTE,
      "signs browsers in, but no route with that policy has the path /auth/callback",
      'give the policy to a route whose path is "/*" or "/auth/*"',
    ],
    [
      "with rules about nobody",
      inRoute("{}", '{ to: eu, policies: [authorize(allow("staff", caller.groups.has("staff")))] }'),
      ROUTE,
      "has rules about who is calling, but nothing says who that is",
      "add jwt({ ... }) or another such policy to the route, its API or the gateway",
    ],
    [
      "with rules about a header that only the gateway may say",
      inRoute(
        "{}",
        '{ to: eu, policies: [authorize(allow("a", request.method.is("GET")), allow("b", request.header("X-Consumer-Name").is("partner")))] }',
      ),
      ROUTE,
      'goes by the header "x-consumer-name", which only the gateway may say: here it is whatever the client sent',
      'go by "consumer", { claim: ... } or a header of the client\'s own',
    ],
    [
      "with rules that are none",
      inList("const rules = authorize(request.method); //!", "[rules]"),
      "policy authorize",
      '`rules.0`: must be allow("name", ...) or deny("name", ...)',
      "correct the value",
    ],
    [
      "within anyOf that do not say who is calling",
      inList("const ids = requestId({}); //!\nconst both = anyOf(token, apiKey({}), ids);", "[both]"),
      'policy "requestId"',
      "does not say who is calling",
      `choose from ${policyOrder
        .filter(({ authenticates }) => authenticates)
        .map(({ policy }) => policy)
        .join(", ")}`,
    ],
    [
      "within anyOf that report by themselves",
      inList('const key = apiKey({ mode: "report" }); //!\nconst both = anyOf(token, key);', "[both]"),
      'policy "apiKey"',
      "cannot report by itself",
      "take `mode` out, or give it to the policy around it",
    ],
    [
      "within anyOf with a misspelt option",
      inList('const key = apiKey({ prefx: "shop" }); //!\nconst both = anyOf(token, key);', "[both]"),
      "policy apiKey",
      'Unrecognized key: "prefx"',
      "take it out, or correct the spelling",
    ],
    [
      "within anyOf that have no store",
      'const key = apiKey({}); //!\nexport default api("shop", { policies: [anyOf(token, key)] }, [route("all", {}, { to: eu })]);',
      "policy apiKey",
      "has no store to look keys up in",
      "give gateway({ store: { url: env(...), token: secret(...) } })",
    ],
    [
      "that ask for scopes of nobody",
      inRoute("{}", '{ to: eu, policies: [scopes("read")] }'),
      ROUTE,
      "asks for scopes, but nothing says who is calling",
      "add jwt({ ... }) to the route, its API or the gateway",
    ],
    [
      "that limit by who is calling where nobody is known",
      `export default gateway({ store: { url: env("R"), token: secret("T") } }, [
  api("shop", {}, [
    route("all", {}, { to: eu, policies: [rateLimit({ per: "consumer", limit: 1, window: "1s" })] }), //!
  ]),
]);`,
      ROUTE,
      "limits by who is calling, but nothing says who that is",
      'add jwt({ ... }), or use per: "client"',
    ],
    [
      "that count what is under way by a header that only the gateway may say",
      `export default gateway({ store: { url: env("R"), token: secret("T") } }, [
  api("shop", {}, [
    route("all", {}, { to: eu, policies: [concurrency({ per: { header: "X-Consumer-Id" }, limit: 1 })] }), //!
  ]),
]);`,
      ROUTE,
      'goes by the header "x-consumer-id", which only the gateway may say: here it is whatever the client sent',
      'go by "consumer", { claim: ... } or a header of the client\'s own',
    ],
    [
      "that know two consumers of a name",
      inList(
        'const a = consumer("a", { claims: { sub: "1" } });\nconst other = consumer("a", { claims: { sub: "2" } }); //!',
        '[jwt({ issuer: "https://login.example.com", jwks: env("KEYS"), consumers: [a, other] })]',
      ),
      'consumer "a"',
      "has the name of another consumer",
      "name it differently: limits and records go by the name",
    ],
    [
      "that know a consumer by a claim that is no text",
      inList(
        'const a = consumer("a", { claims: { admin: true } }); //!',
        '[rateLimit({ limit: 5, window: "1m", consumers: [[a, 9]] })]',
      ),
      'consumer "a"',
      "`claims.admin`: Invalid input: expected string, received boolean",
      "give a string",
    ],
    [
      "that know a consumer without a usable name",
      inList(
        'const a = consumer("a/b", { claims: { sub: "1" } }); //!',
        '[jwt({ issuer: "https://login.example.com", jwks: env("KEYS"), consumers: [a] })]',
      ),
      'consumer "a/b"',
      "is no usable name",
      NAME_FIX,
    ],
    [
      "that know a consumer in a group that no header could carry",
      inList(
        'const a = consumer("a", { groups: ["b,c"] }); //!',
        '[rateLimit({ limit: 5, window: "1m", consumers: [[a, 9]] })]',
      ),
      'consumer "a"',
      "`groups.0`: is no group: 1 to 64 visible characters without commas and %",
      "correct the value",
    ],
    [
      "that know a consumer whose metadata are no JSON",
      inList(
        'const a = consumer("a", { metadata: { since: new Date(0) } }); //!',
        '[rateLimit({ limit: 5, window: "1m", consumers: [[a, 9]] })]',
      ),
      'consumer "a"',
      "`metadata`: must be an object of what JSON can hold",
      "correct the value",
    ],
    [
      "that know a consumer with too much metadata",
      inList(
        'const a = consumer("a", { metadata: { note: "x".repeat(4_096) } }); //!',
        '[rateLimit({ limit: 5, window: "1m", consumers: [[a, 9]] })]',
      ),
      'consumer "a"',
      "`metadata`: is longer than 4096 characters of JSON",
      "correct the value",
    ],
    [
      "that know a consumer on a plan that is none",
      inList(
        'const a = consumer("a", { plan: "gold" }); //!',
        '[rateLimit({ limit: 5, window: "1m", consumers: [[a, 9]] })]',
      ),
      'consumer "a"',
      "`plan`: must be a plan(...)",
      "correct the value",
    ],
    [
      "that know two plans of a name",
      inList(
        `const a = consumer("a", { plan: plan("gold") });
const other = plan("gold"); //!
const b = consumer("b", { plan: other });`,
        '[rateLimit({ limit: 5, window: "1m", consumers: [[a, 9], [b, 9]] })]',
      ),
      'plan "gold"',
      "has the name of another plan",
      "name it differently: limits and records go by the name",
    ],
    [
      "that know a plan with a limit of no time",
      inList(
        'const gold = plan("gold", { limits: [{ limit: 5, window: "0s" }] }); //!\nconst a = consumer("a", { plan: gold });',
        '[rateLimit({ limit: 5, window: "1m", consumers: [[a, 9]] })]',
      ),
      'plan "gold"',
      '`limits.0.window`: must be a duration such as "1m", "day" or "month"',
      "correct the value",
    ],
  ]);

  it("that break in their own compiler", async () => {
    // No options are known to do so: what breaks has to be put in.
    const broken = vi
      .spyOn(registry.requestId as unknown as { compile: () => unknown }, "compile")
      .mockImplementation(() => {
        throw new Error("a defect");
      });
    await expectProblems({ "index.ts": `${PRELUDE}${inList("const ids = requestId({}); //!", "[ids]")}` }, [
      "policy requestId",
      "cannot be compiled: a defect",
      "correct its options",
    ]);
    broken.mockRestore();
  });

  it("are told once, where they are declared, however many routes use them", () =>
    expectProblems(
      {
        "policies.ts": 'import { ipFilter } from "portcullis";\n\nexport const office = ipFilter({}); //!',
        "index.ts": `${PRELUDE}
import { office } from "./policies.ts";
export default api("shop", { policies: [office] }, ["a", "b", "c"].map((name) => route(name, { path: "/" + name }, { to: eu, policies: [office] })));`,
      },
      ["policy ipFilter", "ipFilter has neither `allow` nor `deny`", "give at least one list of ranges"],
    ));
});

describe("the line", () => {
  it("is the one in the function that declares, in the file that has it", () =>
    expectProblems(
      {
        "index.ts": `import { api } from "portcullis";
import { crud } from "./lib/crud.ts";
export default api("shop", {}, crud("orders"));`,
        "lib/crud.ts": `import { route } from "portcullis";
import { eu } from "./clusters.js";
/** Types and blank lines

    are gone when it runs. */
interface Options { readonly name: string }
const one = (name: Options["name"], path: string) =>
  route(name, { path }, { to: eu }); //!
export function crud(name: string) {
  return [one("list", "/" + name), one("read", name + "/{id}")];
}`,
        "lib/clusters.js":
          'import { cluster, env } from "portcullis";\nexport const eu = cluster("eu", { ingress: env("EU") });',
      },
      ['route "shop/read"', "`path`: must begin with /", "correct the value"],
    ));

  it("is the routes' own where a package calls the builder", () =>
    expectProblems(
      {
        "node_modules/kit/package.json": '{ "name": "kit", "main": "index.js" }',
        "node_modules/kit/index.js": "exports.make = (build, ...given) => build(...given);",
        "index.ts": `import { make } from "kit";
import { api, cluster, env, route } from "portcullis";
const eu = cluster("eu", { ingress: env("EU") });
export default api("shop", {}, [
  make(route, "all", { path: "v1" }, { to: eu }), //!
]);`,
      },
      [ROUTE, "`path`: must begin with /", "correct the value"],
    ));
});

it("tells of a mistake once, however many routes lead to it", () =>
  expectProblems(
    {
      "index.ts": `${PRELUDE}
const us = cluster("us", { ingress: env("US"), region: "virginia" }); //!
const canary = split({ stable: eu.weight(0) }, { sticky: "client" }); //!
export default api("shop", {}, [
  route("a", { path: "/a" }, { to: us }),
  route("b", { path: "/b" }, { to: us.or(eu) }),
  route("c", { path: "/c" }, { to: canary }),
  route("d", { path: "/d" }, { to: canary }),
]);`,
    },
    [
      'cluster "us"',
      '`region`: Invalid option: expected one of "wnam"|"enam"|"sam"|"weur"|"eeur"|"apac"|"oc"|"afr"|"me"',
      "choose one of them",
    ],
    ['route "shop/c"', "the arms' weights sum to 0, so no request could be sent anywhere", "give one arm a weight"],
  ));

it("tells nothing that only follows from another mistake", () =>
  expectProblems(
    {
      "index.ts": `${PRELUDE}
export default gateway({ store: "redis" }, [ //!
  api("a", { hosts: "a.example.com", policies: [rateLimit({ limit: 1, window: "1s" })] }, [ //!
    route("all", { path: "/a" }, { to: eu }),
  ]),
  api("b", { hosts: "b.example.com" }, [ //!
    route("all", { path: "/a" }, { to: eu }),
  ]),
]);`,
    },
    ["gateway", "`store`: Invalid input: expected object, received string", "give an object"],
    ['api "a"', "`hosts`: Invalid input: expected array, received string", "give an array"],
    ['api "b"', "`hosts`: Invalid input: expected array, received string", "give an array"],
  ));

it("tells of all mistakes of a module at once, in the order of its lines", () =>
  expectProblems(
    {
      "index.ts": `${PRELUDE}
const us = cluster("us", { ingress: env("US"), region: "virginia" }); //!
const limit = rateLimit({ limit: 0, window: "1m" }); //!
const canary = split({ stable: eu.weight(0), next: eu.weight(0) }, { sticky: "client" }); //!
const off = without("cors"); //!
export default gateway({ maxUrl: "8k", store: { url: env("R"), token: secret("T") } }, [ //!
  api("shop", { hosts: ["Shop"], policies: [limit] }, [ //!
    route("a", { path: "/a/{a}b" }, { to: eu }), //!
    route("b", { path: /\\/(.+)+x/ }, { to: us }), //!
    route("c", { path: "/c" }, { to: canary, policies: [off] }),
  ]),
  api("same", {}, [
    route("d", { path: "/d" }, { to: eu, policies: [scopes("x")] }), //!
    route("e", { path: "/d" }, { to: eu }), //!
  ]),
]);`,
    },
    [
      'cluster "us"',
      '`region`: Invalid option: expected one of "wnam"|"enam"|"sam"|"weur"|"eeur"|"apac"|"oc"|"afr"|"me"',
      "choose one of them",
    ],
    ["policy rateLimit", "`limit`: Too small: expected number to be >=1", "correct the value"],
    ['route "shop/c"', "the arms' weights sum to 0, so no request could be sent anywhere", "give one arm a weight"],
    ['without("cors")', "takes off a policy that is not inherited here", "take the line out"],
    ["gateway", "`maxUrl`: Invalid input: expected number, received string", "give a number"],
    [
      'api "shop"',
      "`hosts.0`: is no host such as api.example.com or *.example.com, in lower case",
      "correct the value",
    ],
    ['route "shop/a"', 'path "/a/{a}b" has "{a}b"', "a parameter is a whole segment: {name}"],
    [
      'route "shop/b"',
      "/\\/(.+)+x/ backtracks: it takes exponential time on input such as '//' + '\\x00'.repeat(31) + '\\x00'",
      "avoid repeating what itself repeats, e.g. write [^/]+ instead of (.*)+",
    ],
    [
      'route "same/d"',
      "asks for scopes, but nothing says who is calling",
      "add jwt({ ... }) to the route, its API or the gateway",
    ],
    [
      'route "same/e"',
      'matches the same requests as route "same/d": * */d',
      "part them by path, method, header or query, or take one out",
    ],
  ));
