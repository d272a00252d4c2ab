import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { inRange, parseAddress, parseRange, subscriberOf } from "../../src/table/cidr.ts";

const within = (address: string, range: string) => inRange(parseAddress(address) as bigint, parseRange(range) as never);

describe("ranges", () => {
  it.each([
    ["10.20.1.1", "10.20.0.0/16", true],
    ["10.21.1.1", "10.20.0.0/16", false],
    ["::ffff:10.20.1.1", "10.20.0.0/16", true],
    ["::ffff:0a14:0101", "10.20.0.0/16", true],
    ["2001:db8:20::1", "2001:db8:20::/48", true],
    ["2001:db8:21::1", "2001:db8:20::/48", false],
    ["1.2.3.4", "0.0.0.0/0", true],
    ["2001:db8::1", "0.0.0.0/0", false],
    ["1.2.3.4", "::/0", true],
    ["1.2.3.4", "1.2.3.4", true],
  ])("%s in %s: %s", (address, range, expected) => expect(within(address, range)).toBe(expected));

  it.each([
    "",
    "10.0.0.1/8",
    "10.0.0.0/33",
    "10.0.0/8",
    "010.0.0.0/8",
    "1.2.3.256",
    "::g",
    "1::2::3",
    ":::",
    "1:2:3",
    "::/129",
    "fe80::1%eth0",
    "1.2.3.4:80",
    "::1.2.3",
  ])("%j is no range", (text) => expect(parseRange(text)).toBeUndefined());

  it("reads back every address that a URL parser writes", () => {
    fc.assert(
      fc.property(fc.ipV6(), (text) => {
        expect(parseAddress(new URL(`http://[${text}]/`).hostname.slice(1, -1))).toBe(parseAddress(text));
      }),
    );
    fc.assert(
      fc.property(fc.ipV4(), (text) => {
        expect(parseAddress(`::ffff:${text}`)).toBe(parseAddress(text));
      }),
    );
  });
});

it("counts IPv4 by address and IPv6 by /64", () => {
  expect(subscriberOf("203.0.113.7")).toBe("203.0.113.7");
  expect(subscriberOf("::ffff:203.0.113.7")).toBe("203.0.113.7");
  expect(subscriberOf("2001:db8:1:2:3:4:5:6")).toBe(subscriberOf("2001:db8:1:2::ffff"));
  expect(subscriberOf("2001:db8:1:2::1")).not.toBe(subscriberOf("2001:db8:1:3::1"));
  expect(subscriberOf("not an address")).toBe("not an address");
});
