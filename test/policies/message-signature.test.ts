/** The test cases of RFC 9421, appendix B, as far as they are requests; and of RFC 9530. */
import { expect, test } from "vitest";
import {
  ALGORITHMS,
  digestMatches,
  importKey,
  type SignatureAlgorithm,
  type SignedMessage,
  signatureBase,
  signaturesOf,
} from "../../src/policies/message-signature.ts";

/** B.1. */
const KEYS = {
  "test-key-rsa-pss": [
    "rsa-pss-sha512",
    `-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2
+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+
oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq
gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W
Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4
aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI
2wIDAQAB
-----END PUBLIC KEY-----`,
  ],
  "test-key-ecc-p256": [
    "ecdsa-p256-sha256",
    `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END PUBLIC KEY-----`,
  ],
  "test-key-ed25519": [
    "ed25519",
    '{"kty":"OKP","crv":"Ed25519","kid":"test-key-ed25519","x":"JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"}',
  ],
  "test-shared-secret": [
    "hmac-sha256",
    "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==",
  ],
} as const satisfies Record<string, readonly [SignatureAlgorithm, string]>;

/** B.2's test-request. */
const request = {
  method: "POST",
  scheme: "https",
  authority: "example.com",
  path: "/foo",
  search: "?param=Value&Pet=dog",
  headers: {
    Date: "Tue, 20 Apr 2021 02:07:55 GMT",
    "Content-Type": "application/json",
    "Content-Digest":
      "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
    "Content-Length": "18",
  } as Record<string, string>,
};
/** B.3: the same, after a proxy that ends TLS. */
const proxied = {
  ...request,
  authority: "service.internal.example",
  headers: {
    ...request.headers,
    "Client-Cert":
      ":MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF0ZSBDQTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaUgmnMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAWgBRm3WjLa38lbEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4YW1wbGUuY29tMAoGCCqGSM49BAMCA0gAMEUCIBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuydBVoU4hBVZ1yhk=:",
  },
};
/** B.4: before and after proxies that have changed what does not count. */
const transformed = {
  method: "GET",
  scheme: "https",
  authority: "example.org",
  path: "/demo",
  search: "?name1=Value1&Name2=value2",
  headers: { Date: "Fri, 15 Jul 2022 14:24:55 GMT", Accept: "application/json, */*" } as Record<string, string>,
};
const B4 = 'transform=("@method" "@path" "@authority" "accept");created=1618884473;keyid="test-key-ed25519"';
const B4_SIGNATURE = "ZT1kooQsEHpZ0I1IjCqtQppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA==";

type Message = typeof request;
const messageOf = ({ headers, ...rest }: Message, signed: Record<string, string> = {}): SignedMessage => ({
  ...rest,
  headers: new Headers({ ...headers, ...signed }),
});

async function verify(message: Message, input: string, signature: string): Promise<boolean> {
  const label = input.slice(0, input.indexOf("="));
  const signed = messageOf(message, { "signature-input": input, signature: `${label}=:${signature}:` });
  const [found] = signaturesOf(signed.headers) ?? [];
  if (!found) throw new Error("there is no signature");
  const [algorithm, key] = KEYS[found.input.parameters.get("keyid") as keyof typeof KEYS];
  const base = new TextEncoder().encode(signatureBase(found.input, signed));
  return crypto.subtle.verify(
    ALGORITHMS[algorithm][1],
    await importKey(algorithm, key),
    found.signature as BufferSource,
    base,
  );
}

const CASES: [string, Message, string, string][] = [
  [
    "B.2.1",
    request,
    'sig-b21=();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"',
    "d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAvtl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1bLhdxO5Nyt8C8ssinQ98Xw9Q==",
  ],
  [
    "B.2.2",
    request,
    'sig-b22=("@authority" "content-digest" "@query-param";name="Pet");created=1618884473;keyid="test-key-rsa-pss";tag="header-example"',
    "LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CDfKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4TRJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wiKYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaUEb0rQl3/XaVe4bXTugEjHSw==",
  ],
  [
    "B.2.3",
    request,
    'sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-rsa-pss"',
    "bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFkeGt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldmlu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZAFL2FUo5fTIztsDZKEgM4cUA==",
  ],
  [
    "B.2.5",
    request,
    'sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"',
    "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=",
  ],
  [
    "B.2.6",
    request,
    'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"',
    "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==",
  ],
  [
    "B.3",
    proxied,
    'ttrp=("@path" "@query" "@method" "@authority" "client-cert");created=1618884473;keyid="test-key-ecc-p256"',
    "xVMHVpawaAC/0SbHrKRs9i8I3eOs5RtTMGCWXm/9nvZzoHsIg6Mce9315T6xoklyy0yzhD9ah4JHRwMLOgmizw==",
  ],
  ["B.4", transformed, B4, B4_SIGNATURE],
];

test.each(CASES)("RFC 9421, %s verifies", async (_, message, input, signature) => {
  expect(await verify(message, input, signature)).toBe(true);
});

test.each(CASES)(
  "RFC 9421, %s does not with another date, method or query",
  async (name, message, input, signature) => {
    const spoilt = { ...message, method: "PUT", search: "?Pet=cat", authority: "example.net" };
    // B.2.1 covers nothing of the message.
    expect(await verify(spoilt, input, signature)).toBe(name === "B.2.1");
    expect(await verify(message, input.replace("1618884473", "1618884474"), signature)).toBe(false);
  },
);

test.each<[string, boolean, Partial<Message>]>([
  [
    "another header and another order",
    true,
    { headers: { Accept: "application/json, */*", "X-Forwarded-For": "192.0.2.123" } },
  ],
  ["a query that is not covered", true, { search: "?a=b" }],
  ["another method", false, { method: "POST" }],
  ["another authority", false, { authority: "example.com" }],
  ["an Accept in another order", false, { headers: { Accept: "*/*, application/json" } }],
])("RFC 9421, B.4 with %s: %s", async (_, verifies, changes) => {
  expect(await verify({ ...transformed, ...changes } as Message, B4, B4_SIGNATURE)).toBe(verifies);
});

const component = (identifier: string, message: Message = request) => {
  const [found] =
    signaturesOf(new Headers({ "signature-input": `a=(${identifier});created=1`, signature: "a=:AAAA:" })) ?? [];
  if (!found) throw new Error("no signature");
  return signatureBase(found.input, messageOf(message)).split("\n")[0];
};

test.each<[string, string, Partial<Message>]>([
  // RFC 9421, 2.2.
  ['"@target-uri"', "https://example.com/foo?param=Value&Pet=dog", {}],
  ['"@request-target"', "/foo?param=Value&Pet=dog", {}],
  ['"@scheme"', "https", {}],
  ['"@query"', "?", { search: "" }],
  ['"@authority"', "example.com", { authority: "EXAMPLE.com:443" }],
  ['"@authority"', "example.com:80", { authority: "example.com:80" }],
  [
    '"@query-param";name="var"',
    "this%20is%20a%20big%0Amultiline%20value",
    { search: "?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something" },
  ],
  ['"@query-param";name="bar"', "with%20plus%20whitespace", { search: "?var=1&bar=with+plus+whitespace" }],
  ['"@query-param";name="fa%C3%A7ade%22%3A%20"', "something", { search: "?fa%C3%A7ade%22%3A%20=something" }],
  // RFC 9421, 2.1.2.
  ['"example-dict";key="a"', "1", { headers: { "Example-Dict": "a=1, b=2;x=1;y=2, c=(a   b    c), d" } }],
  ['"example-dict";key="b"', "2;x=1;y=2", { headers: { "Example-Dict": "a=1, b=2;x=1;y=2, c=(a   b    c), d" } }],
  ['"example-dict";key="c"', "(a b c)", { headers: { "Example-Dict": "a=1, b=2;x=1;y=2, c=(a   b    c), d" } }],
  ['"example-dict";key="d"', "?1", { headers: { "Example-Dict": "a=1, b=2;x=1;y=2, c=(a   b    c), d" } }],
])("%s is %s", (identifier, expected, changes) => {
  expect(component(identifier, { ...request, ...changes } as Message)).toBe(`${identifier}: ${expected}`);
});

test.each([
  '"absent"',
  '"Date"',
  '"@status"',
  '"@nothing"',
  '"@method";req',
  '"date";sf',
  '"date";bs',
  '"date";tr',
  '"date";key="a"',
  '"@query-param"',
  '"@query-param";name="absent"',
  '"@query-param";name="param";x',
  '"date" "date"',
  "date",
])("%s is refused", (identifier) => {
  expect(() => component(identifier)).toThrow(expect.objectContaining({ name: "ComponentRefused" }));
});

test("a query parameter that is there twice is refused, as is a line break in a value", () => {
  expect(() => component('"@query-param";name="a"', { ...request, search: "?a=1&a=2" })).toThrow(/once/);
  expect(() => component('"@path"', { ...request, path: "/a\nb" })).toThrow(/line break/);
});

test("signatures and their inputs come in pairs", () => {
  const pairs = (input: string, signature: string) =>
    signaturesOf(new Headers({ "signature-input": input, signature }))?.map(({ label }) => label);
  expect(pairs("a=(), b=()", "b=:AA==:, a=:AA==:")).toEqual(["a", "b"]);
  expect(pairs("a=()", "a=:AA==:, b=:AA==:")).toEqual(["a"]);
  for (const [input, signature] of [
    ["a=()", "b=:AA==:"],
    ["a=1", "a=:AA==:"],
    ["a=()", "a=1"],
    ["a=()", "a=()"],
    ["a=(", "a=:AA==:"],
  ] as const)
    expect(pairs(input, signature)).toBeUndefined();
});

test.each([
  // RFC 9530, appendix D, and RFC 9421, B.2.
  [
    '{"hello": "world"}',
    "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
    true,
  ],
  ['{"hello": "world"}', "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:", true],
  ['{"hello": "world"}', "md5=:AAAA:, sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:", true],
  ['{"hello": "World"}', "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:", false],
  ['{"hello": "world"}', "sha-512=:AAAA:, sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:", false],
  ["", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:", true],
  ["x", "md5=:nd2eMVCRQq7a4sbYSOOPWQ==:", false],
  ["x", "sha-256=x", false],
  ["x", "", false],
])("%j has the digest %s: %s", async (body, field, matches) => {
  expect(await digestMatches(field, new TextEncoder().encode(body))).toBe(matches);
});

test.each<[SignatureAlgorithm, string]>([
  ["hmac-sha256", "c2hvcnQ="],
  ["hmac-sha256", "%%%"],
  ["ed25519", "{"],
  ["ed25519", '{"kty":"oct","k":"AAAA"}'],
  ["ecdsa-p256-sha256", KEYS["test-key-ed25519"][1]],
  ["ecdsa-p256-sha256", "AAAA"],
])("%s has no key %s", async (algorithm, text) => {
  await expect(importKey(algorithm, text)).rejects.toThrow();
});
