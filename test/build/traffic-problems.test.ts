/** What the build says of listeners, rewrites, pools, mirrors, retries and clusters' resilience. `//!` marks what is pointed at. */
import { describe, expect, it } from "vitest";
import { cases, PRELUDE, problemsOf } from "./module.ts";

const ROUTE = 'route "shop/all"';
const NORMAL_FIX = "write it without escapes, dots and double slashes";
const CORRECT = "correct the value";

const inGateway = (options: string, api = "{}") => `
export default gateway(${options}, [ //!
  api("shop", ${api}, [route("all", {}, { to: eu })]),
]);`;
const inRoute = (options: string) => `
export default api("shop", {}, [
  route("all", {}, { ${options} }), //!
]);`;
const to = (target: string) => inRoute(`to: ${target}`);
const inCluster = (options: string) => `
const us = cluster("us", { ingress: binding("US"), ${options} }); //!
export default api("shop", {}, [route("all", {}, { to: us })]);`;
const US = `const us = cluster("us", { ingress: binding("US"), region: "enam", services: { path: "/{service}" } });`;

describe("listeners", () => {
  const listeners = (...all: string[]) => `
const [one, two] = [
  ${all.join(",\n  ")},
];
export default gateway({ listeners: [one, two] }, [api("shop", {}, [route("all", {}, { to: eu })])]);`;

  cases([
    [
      "of other semantics than there are",
      inGateway('{ semantics: "istio" }'),
      "gateway",
      '`semantics`: Invalid option: expected one of "portcullis"|"gateway-api"',
      "choose one of them",
    ],
    [
      "none",
      inGateway("{ listeners: [] }"),
      "gateway",
      "`listeners`: Too small: expected array to have >=1 items",
      CORRECT,
    ],
    ["that are none", inGateway("{ listeners: [80] }"), "gateway", "`listeners.0`: must be a listener(...)", CORRECT],
    [
      "at a port that there is not",
      listeners('listener("a", { port: 80, protocol: "http" })', 'listener("b", { port: 0, protocol: "http" }) //!'),
      'listener "b"',
      "`port`: Too small: expected number to be >=1",
      CORRECT,
    ],
    [
      "for a host that is none",
      listeners(
        'listener("a", { port: 80, protocol: "http" })',
        'listener("b", { port: 80, protocol: "http", host: "*.*.com" }) //!',
      ),
      'listener "b"',
      "`host`: is no host such as api.example.com or *.example.com, in lower case",
      CORRECT,
    ],
    [
      "with one name",
      listeners('listener("a", { port: 80, protocol: "http" })', 'listener("a", { port: 81, protocol: "http" }) //!'),
      'listener "a"',
      "has the name of another",
      "name it differently: records and policies go by the name",
    ],
    [
      "in one place",
      listeners('listener("a", { port: 80, protocol: "http" })', 'listener("b", { port: 80, protocol: "http" }) //!'),
      'listener "b"',
      'listens where listener "a" does: http://*:80',
      "give it another port or host, or take one out",
    ],
    [
      "of an API that the gateway has not",
      `const lost = listener("lost", { port: 80, protocol: "http" });
export default api("shop", { listeners: [lost] }, [route("all", {}, { to: eu })]); //!`,
      'api "shop"',
      'is for listener "lost", which is none of the gateway\'s',
      "list it in gateway({ listeners: [...] })",
    ],
    [
      "that have none of an API's hosts",
      `const one = listener("one", { port: 80, protocol: "http", host: "*.example.com" });
export default gateway({ listeners: [one] }, [
  api("shop", { hosts: ["example.com"] }, [route("all", {}, { to: eu })]), //!
]);`,
      'api "shop"',
      "has hosts that none of its listeners has",
      "correct the hosts on one side",
    ],
    [
      "behind one of which two routes are the same",
      `const one = listener("one", { port: 80, protocol: "http", host: "*.example.com" });
const two = listener("two", { port: 443, protocol: "https" });
export default gateway({ listeners: [one, two] }, [
  api("a", { hosts: ["*.example.com"] }, [route("all", {}, { to: eu })]),
  api("b", { listeners: [one] }, [route("all", {}, { to: eu })]), //!
]);`,
      'route "b/all"',
      'matches the same requests as route "a/all": * *.example.com/',
      "part them by path, method, header or query, or take one out",
    ],
  ]);

  it("part routes that would else be the same", async () => {
    const text = `${PRELUDE}
const one = listener("one", { port: 80, protocol: "http" });
const two = listener("two", { port: 443, protocol: "https" });
export default gateway({ listeners: [one, two] }, [
  api("a", { listeners: [one] }, [route("all", {}, { to: eu })]),
  api("b", { listeners: [two] }, [route("all", {}, { to: eu })]),
]);`;
    expect(await problemsOf({ "index.ts": text })).toEqual([]);
  });
});

describe("rewrites", () => {
  cases([
    [
      "to a path that is not normal",
      inRoute('to: eu, rewrite: { path: { prefix: "/a//b" } }'),
      ROUTE,
      '"/a//b" is not a normal path',
      NORMAL_FIX,
    ],
    [
      "to many hosts",
      inRoute('to: eu, rewrite: { host: "*.example.com" }'),
      ROUTE,
      "`rewrite.host`: must be one host, without *",
      CORRECT,
    ],
    [
      "of a backend, by nothing that it has",
      to('eu.with({ rewrite: { query: "a" } })'),
      ROUTE,
      '`rewrite`: Unrecognized key: "query"',
      "take it out, or correct the spelling",
    ],
    [
      "where nothing is sent",
      inRoute('to: redirect({ port: 8443 }), rewrite: { host: "a.org" }'),
      ROUTE,
      "has `rewrite`, but sends nothing to any cluster",
      "take it out",
    ],
    [
      "of headers that the gateway decides",
      to('eu.with({ headers: { request: { set: { "X-Forwarded-For": "a" } } } })'),
      ROUTE,
      'headers cannot set "x-forwarded-for" in the request: the gateway decides it',
      "take it out of the list",
    ],
    [
      "of headers that are none",
      to('eu.with({ headers: { response: { add: { "a b": "c" } } } })'),
      ROUTE,
      "`headers.response.add.a b`: Invalid key in record",
      CORRECT,
    ],
  ]);
});

describe("balanced backends", () => {
  cases([
    ["none", to("balance([])"), ROUTE, "`levels.0.endpoints`: Too small: expected array to have >=1 items", CORRECT],
    [
      "whose weights sum to 0",
      to("balance([eu.weight(0)])"),
      ROUTE,
      "the balanced backends' weights sum to 0, so no request could be sent anywhere",
      "give one of them a weight",
    ],
    [
      "of less than nothing",
      to("balance([eu.weight(-1)])"),
      ROUTE,
      "`weight`: Too small: expected number to be >=0",
      CORRECT,
    ],
    [
      "by something unknown",
      to('balance([eu], { by: "random" })'),
      ROUTE,
      '`levels.0.balance.by`: must be "round-robin", "least-request" or { hash: "subject", "client", { header }, { cookie } or { query } }',
      CORRECT,
    ],
    [
      "by a cookie that is none",
      to('balance([eu], { affinity: { cookie: "a b" } })'),
      ROUTE,
      "`levels.0.balance.affinity.cookie`: is no name of a header or cookie",
      CORRECT,
    ],
    [
      "by who is calling, where nobody is known",
      to('balance([eu], { by: { hash: "subject" } })'),
      ROUTE,
      "balances by who is calling, but nothing says who that is",
      'add jwt({ ... }), or use { hash: "client" }',
    ],
    [
      "by what clients make up",
      to(
        'split({ a: balance([eu], { by: { hash: { header: "X-Forwarded-For" } } }).weight(1) }, { sticky: "client" })',
      ),
      ROUTE,
      'goes by the header "x-forwarded-for", which only the gateway may say: here it is whatever the client sent',
      'go by "consumer", { claim: ... } or a header of the client\'s own',
    ],
    [
      "by nearness, without a region",
      `${US}${to("nearest(us, eu)")}`,
      ROUTE,
      'asks for the nearest, but cluster "eu" has no region',
      "give the cluster its region",
    ],
    ["that are missing without a reason", to('missing("")'), ROUTE, "`reason`: must say why there is none", CORRECT],
  ]);
});

describe("mirrors", () => {
  const inMirror = (target: string, options = "{}") => `${US}
const copies = mirror(${target}, ${options}); //!
export default api("shop", {}, [route("all", {}, { to: eu, mirrors: [copies] })]);`;
  cases([
    ["that are none", inRoute("to: eu, mirrors: [eu]"), ROUTE, "`mirrors.0`: must be a mirror(...)", CORRECT],
    [
      "to nothing",
      inMirror('redirect({ path: { full: "/" } })'),
      ROUTE,
      "`to`: must be a cluster or a cluster's service",
      CORRECT,
    ],
    [
      "of a percentage that is none",
      inMirror("us", "{ percent: 101 }"),
      ROUTE,
      "`options.percent`: Too big: expected number to be <=100",
      CORRECT,
    ],
    [
      "of two shares",
      inMirror("us", "{ percent: 10, fraction: [1, 3] }"),
      ROUTE,
      "the mirror has a percentage and a fraction",
      "keep one of them",
    ],
    [
      "of more than all",
      inMirror("us", "{ fraction: [4, 3] }"),
      ROUTE,
      "the mirror's fraction is more than all requests",
      "write 1 of 3 as [1, 3]",
    ],
    [
      "to several",
      inMirror("eu.or(us)"),
      ROUTE,
      "copies go to one backend, and this is several",
      "mirror to each of them",
    ],
    [
      "of mirrors",
      inMirror("us.with({ mirrors: [mirror(eu)] })"),
      ROUTE,
      "a mirror's backend has mirrors itself",
      "list all mirrors on the route",
    ],
    [
      "of a backend, to one that cannot be reached",
      `${US}
const copies = mirror(us.service("B!")); //!
export default api("shop", {}, [route("all", {}, { to: eu.with({ mirrors: [copies] }) })]);`,
      ROUTE,
      "`service`: must be lower case letters, digits and hyphens",
      CORRECT,
    ],
  ]);
});

describe("retries", () => {
  const retry = (options: string, timeouts: string) => inRoute(`to: eu, retry: ${options}, timeouts: ${timeouts}`);
  cases([
    [
      "on what is no failure",
      inRoute('to: eu, retry: { on: ["4xx"] }'),
      ROUTE,
      '`retry.on.0`: must be "connection", "timeout", "gateway-error", "5xx" or a status from 400 to 599',
      CORRECT,
    ],
    [
      "by methods that there are not",
      inRoute('to: eu, retry: { methods: "safe" }'),
      ROUTE,
      '`retry.methods`: must be "idempotent", "any" or a list of methods',
      CORRECT,
    ],
    [
      "that do not fit into the whole exchange (Istio's example)",
      retry('{ attempts: 3, backoff: { base: "2s", max: "2s" } }', '{ firstByte: "1s", total: "3s" }'),
      ROUTE,
      "4 tries of 1000 ms and up to 6000 ms between them take 10000 ms, but the whole exchange only 3000 ms",
      "give `total` at least 10000ms, or fewer `attempts`",
    ],
    [
      "that do not fit by a little",
      retry('{ attempts: 1, backoff: { base: "1ms" } }', '{ firstByte: "500ms", total: "1s" }'),
      ROUTE,
      "2 tries of 500 ms and up to 1 ms between them take 1001 ms, but the whole exchange only 1000 ms",
      "give `firstByte` at most 499ms, or `total` at least 1001ms, or fewer `attempts`",
    ],
    [
      "after a try without an end",
      retry("{}", '{ firstByte: "0s" }'),
      ROUTE,
      "one try may take all of the 60000 ms that the exchange has, and 2 more could never happen",
      "give `firstByte` at most 19975ms, or fewer `attempts`",
    ],
  ]);

  it.each([
    ["that fit exactly", retry('{ attempts: 1, backoff: { base: "1ms" } }', '{ firstByte: "500ms", total: "1001ms" }')],
    ["in an exchange without an end", retry("{ attempts: 9 }", '{ firstByte: "1m", total: "0s" }')],
    ["by default", inRoute("to: eu, retry: {}")],
    [
      "of the Gateway API, which cuts them where time is up",
      inGatewayApi('retry: { attempts: 5 }, timeouts: { firstByte: "200ms", total: "400ms" }'),
    ],
  ])("%s", async (_, text) => expect(await problemsOf({ "index.ts": PRELUDE + text })).toEqual([]));
});

function inGatewayApi(options: string, target = "eu"): string {
  return `
export default gateway({ semantics: "gateway-api" }, [
  api("shop", {}, [route("all", { path: "/a" }, { to: ${target}, ${options} })]),
]);`;
}

describe("clusters", () => {
  cases([
    [
      "that are otherwise at no URL",
      'const us = cluster("us", { ingress: env("US", "us.example.com") }); //!\nexport default api("shop", {}, [route("all", {}, { to: us })]);',
      'env("US")',
      '"us.example.com" is no ingress URL',
      "write it as https://host[:port][/path]",
    ],
    [
      "that are otherwise asked in plain text",
      'const us = cluster("us", { ingress: env("US", "http://us.example.com") }); //!\nexport default api("shop", {}, [route("all", {}, { to: us })]);',
      'env("US")',
      "would carry requests over plain http",
      "use https, or a binding; http is for loopback addresses",
    ],
    [
      "that are two things otherwise",
      `const us = cluster("us", { ingress: env("US", "https://a.example.com") });
const too = cluster("too", {
  ingress: env("US", "https://b.example.com"), //!
});
export default api("shop", {}, [route("all", {}, { to: us.or(too) })]);`,
      'env("US")',
      "is something else otherwise than elsewhere",
      "declare the reference once, and use it in both places",
    ],
    [
      "behind a binding that none can have",
      'const us = cluster("us", { ingress: binding("US CLUSTER") }); //!\nexport default api("shop", {}, [route("all", {}, { to: us })]);',
      'binding("US CLUSTER")',
      "is no name of a variable",
      "use letters, digits and . / : _ -",
    ],
    [
      "whose outliers are looked at all the time",
      inCluster('outlier: { interval: "0s" }'),
      'cluster "us"',
      "`outlier.interval`: must be longer than nothing",
      CORRECT,
    ],
    [
      "whose outliers are out for longer than they may",
      inCluster('outlier: { maxEjectionTime: "5s" }'),
      'cluster "us"',
      "the first ejection lasts longer than any may",
      "make `baseEjectionTime` at most `maxEjectionTime`",
    ],
    [
      "whose breaker is always open",
      inCluster("breaker: { errorPercent: 0 }"),
      'cluster "us"',
      "`breaker.errorPercent`: Too small: expected number to be >0",
      CORRECT,
    ],
    [
      "that may have no request",
      inCluster("concurrency: 0"),
      'cluster "us"',
      "`concurrency`: Too small: expected number to be >=1",
      CORRECT,
    ],
    [
      "asked for their health where nothing keeps it",
      inCluster("health: {}"),
      'cluster "us"',
      "has no store to keep its health in",
      "give gateway({ store: { url: env(...), token: secret(...) } })",
    ],
    [
      "asked for their health at a path that is not normal",
      `const us = cluster("us", { ingress: binding("US"), health: { path: "/a/../b?c" } }); //!
export default gateway({ store: { url: env("R"), token: secret("T") } }, [api("shop", {}, [route("all", {}, { to: us })])]);`,
      'cluster "us"',
      '"/a/../b?c" is not a normal path',
      NORMAL_FIX,
    ],
    [
      "with a setting that there is not",
      inCluster("outlier: { consecutiveErrors: 5 }"),
      'cluster "us"',
      '`outlier`: Unrecognized key: "consecutiveErrors"',
      "take it out, or correct the spelling",
    ],
  ]);
});

describe("WebSockets", () => {
  cases([
    [
      "by what is no setting",
      inRoute('to: eu, websocket: "yes"'),
      ROUTE,
      '`websocket`: must be true, false or { idle: "5m", lifetime: "1h" }',
      CORRECT,
    ],
    [
      "with a limit that is none",
      inRoute('to: eu, websocket: { idle: "soon" }'),
      ROUTE,
      "`websocket.idle`: is no duration such as 250ms, 5s or 1m30s",
      CORRECT,
    ],
  ]);
});

describe("the Gateway API's semantics allow", () => {
  it.each([
    ["weights that sum to 0", inGatewayApi("", "split({ a: eu.weight(0), b: eu.weight(0) })")],
    ["redirects to any host, and to themselves", inGatewayApi("", 'redirect({ host: "example.org" })')],
    ["redirects to themselves", inGatewayApi("", "redirect({})")],
    ["a rewrite beside a redirect", inGatewayApi('rewrite: { host: "a.org" }', "redirect({})")],
    ["credentials of any origin", inGatewayApi('policies: [cors({ origins: ["*"], credentials: true })]')],
    [
      "hosts that no listener has",
      `
const one = listener("one", { port: 80, protocol: "http", host: "a.com" });
export default gateway({ semantics: "gateway-api", listeners: [one] }, [
  api("shop", { hosts: ["b.com"] }, [route("all", {}, { to: eu })]),
]);`,
    ],
    ["a gateway without routes", 'export default gateway({ semantics: "gateway-api" }, []);'],
    [
      "matches that nothing parts",
      `
export default gateway({ semantics: "gateway-api" }, [
  api("shop", {}, [route("a", {}, { to: eu }), route("b", {}, { to: eu })]),
]);`,
    ],
  ])("%s", async (_, text) => expect(await problemsOf({ "index.ts": PRELUDE + text })).toEqual([]));
});
