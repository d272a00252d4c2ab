/**
 * What can be tried with plain curl on the demo: the banner prints these lines, the tests run them as they are printed. In the order
 * in which they are best tried; the limit comes last, since it uses up what it shows.
 */
export interface DemoRequest {
  /** The shipped route that it is for; where that is not served, there is nothing to show. */
  readonly route: string;
  readonly shows: string;
  /** For a POSIX shell. */
  readonly command: string;
  /** All found in what the command prints. */
  readonly expect: readonly RegExp[];
}

/** Sets TOKEN, which the other lines use. */
export const tokenCommand = `TOKEN=$(npm run --silent gateway -- token --sub alice --scope "orders:read orders:write")`;

const BEARER = `-H "Authorization: Bearer $TOKEN"`;

const tokenWith = (subject: string, scope: string): string =>
  `-H "Authorization: Bearer $(npm run --silent gateway -- token --sub ${subject} --scope ${scope})"`;

/** `gateway`: its address, without a slash at the end. */
export function demoRequests(
  gateway: string,
  keys: { readonly debug: string; readonly canary: string },
): DemoRequest[] {
  const order = `-H "Content-Type: application/json" -d '{"sku":"pan-28","quantity":2}'`;
  return [
    {
      route: "orders/list",
      shows: "401: orders want a token",
      command: `curl -i ${gateway}/v1/orders`,
      expect: [/^HTTP\/1\.1 401 /, /^www-authenticate: Bearer/im, /"code":"token-missing"/],
    },
    {
      route: "orders/list",
      shows: "200 with one; the answer shows what the cluster is told about the caller",
      command: `curl -i ${gateway}/v1/orders ${BEARER}`,
      expect: [/^HTTP\/1\.1 200 /, /"x-user-id": "alice"/, /"x-portcullis-assertion": \{/],
    },
    {
      route: "orders/create",
      shows: "403: a token that may read, but not write",
      command: `curl -i ${gateway}/v1/orders ${order} ${tokenWith("bob", "orders:read")}`,
      expect: [/^HTTP\/1\.1 403 /, /"code":"scope-missing"/],
    },
    {
      route: "orders/list",
      shows: "the canary: orders-next answers as v2; only who knows the key can choose",
      command: `curl -i ${gateway}/v1/orders ${BEARER} -H "X-Canary: canary:${keys.canary}"`,
      expect: [/^HTTP\/1\.1 200 /, /^x-portcullis-arm: canary/im, /"version": "v2"/, /^x-served-by: eu\/orders-next/im],
    },
    {
      route: "catalog/products",
      shows: "a request that failed over: eu is made to answer 503, us answers",
      command: `curl -i "${gateway}/v1/products?fail=eu"`,
      expect: [/^HTTP\/1\.1 200 /, /^x-served-by: us\/catalog/im],
    },
    {
      route: "catalog/search",
      shows: "403: an SQL injection in a search",
      command: `curl -i -G ${gateway}/v1/search --data-urlencode "q=' UNION SELECT password FROM users--"`,
      expect: [/^HTTP\/1\.1 403 /, /"code":"request-filtered"/],
    },
    {
      route: "admin/all",
      shows: "403: the staff's pages are for the office's network",
      command: `curl -i ${gateway}/admin/stock`,
      expect: [/^HTTP\/1\.1 403 /, /"code":"address-denied"/],
    },
    {
      route: "admin/all",
      shows: "200 from there (loopback may say in CF-Connecting-IP whom it stands for)",
      command: `curl -i ${gateway}/admin/stock -H "CF-Connecting-IP: 10.20.1.1" ${tokenWith("carol", "admin")}`,
      expect: [/^HTTP\/1\.1 200 /, /"staff": "carol"/],
    },
    {
      route: "legacy/moved",
      shows: "308: the old API has moved",
      command: `curl -i "${gateway}/api/products?page=2"`,
      expect: [/^HTTP\/1\.1 308 /, /^location: \S+\/v1\/products\?page=2\r?$/im],
    },
    {
      route: "partners/products",
      shows: "200 with an API key, of which the gateway keeps a hash alone; 401 with a wrong one",
      command: `curl -i ${gateway}/v1/products/kettle-12 -H "X-Api-Key: $(npm run --silent gateway -- keys create --consumer price-watch)"`,
      expect: [/^HTTP\/1\.1 200 /, /^ratelimit-policy: "default";q=3000;w=60/im, /kettle-12/],
    },
    {
      route: "catalog/products",
      shows: "why a request got its answer: the decision record",
      command: `curl -i ${gateway}/v1/products/kettle-12 -H "X-Portcullis-Debug: ${keys.debug}"`,
      expect: [/^HTTP\/1\.1 200 /, /^x-portcullis-record: \{.*"route":"catalog\/products"/im],
    },
    {
      route: "feed/stock",
      shows: "101: stock levels over a WebSocket, for three seconds",
      command: `curl -i -N -m 3 ${gateway}/v1/feed -H "Connection: Upgrade" -H "Upgrade: websocket" -H "Sec-WebSocket-Version: 13" -H "Sec-WebSocket-Key: cG9ydGN1bGxpcyBkZW1vIQ=="`,
      expect: [/^HTTP\/1\.1 101 /, /"stock":\d+/],
    },
    {
      route: "orders/list",
      shows: "the key by which a cluster knows that a request came through here",
      command: `curl -i ${gateway}/.well-known/portcullis/jwks.json`,
      expect: [/^HTTP\/1\.1 200 /, /"keys":\[\{"kty":"EC"/],
    },
    {
      route: "orders/create",
      shows: "429: the sixth order in a minute, with RateLimit, RateLimit-Policy and Retry-After",
      command: `for i in 1 2 3 4 5 6; do curl -si ${gateway}/v1/orders ${order} ${BEARER} | grep -iE "^(HTTP|RateLimit|Retry-After)"; done`,
      expect: [
        /^HTTP\/1\.1 201 /m,
        /^HTTP\/1\.1 429 /m,
        /^ratelimit: /im,
        /^ratelimit-policy: /im,
        /^retry-after: \d+/im,
      ],
    },
  ];
}
