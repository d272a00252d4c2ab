/**
 * IP addresses and CIDR ranges, v4 and v6 (RFC 4291, 2.2; RFC 4632, 3.1). An address is a BigInt in the IPv6 space: IPv4 becomes
 * its mapped form `::ffff:a.b.c.d`, so that `::ffff:10.0.0.1` is what `10.0.0.0/8` means, however the client spells it.
 */
export interface Range {
  readonly address: bigint;
  readonly prefix: number;
}

const MAPPED = 0xffff_0000_0000n;

/** The address, or undefined when `text` is none. No zone ids, no ports. */
export function parseAddress(text: string): bigint | undefined {
  if (!text.includes(":")) {
    const v4 = parseV4(text);
    return v4 === undefined ? undefined : MAPPED | v4;
  }
  let rest = text;
  let tail: number[] = [];
  const dotted = rest.lastIndexOf(":") + 1;
  if (rest.includes(".")) {
    const v4 = parseV4(rest.slice(dotted));
    if (v4 === undefined) return undefined;
    tail = [Number(v4 >> 16n), Number(v4 & 0xffffn)];
    rest = rest.slice(0, dotted);
    if (rest.endsWith("::")) rest = rest.slice(0, rest.length);
    else rest = rest.slice(0, -1);
  }
  const halves = rest.split("::");
  if (halves.length > 2) return undefined;
  const groups = halves.map((half) => (half === "" ? [] : half.split(":")));
  if (groups.flat().some((group) => !/^[0-9a-fA-F]{1,4}$/.test(group))) return undefined;
  const head = (groups[0] as string[]).map((group) => Number.parseInt(group, 16));
  const end = [...(groups[1] ?? []).map((group) => Number.parseInt(group, 16)), ...tail];
  const missing = 8 - head.length - end.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined;
  return [...head, ...new Array<number>(missing).fill(0), ...end].reduce(
    (sum, group) => (sum << 16n) | BigInt(group),
    0n,
  );
}

function parseV4(text: string): bigint | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let address = 0n;
  for (const part of parts) {
    // No leading zeros: some readers take `010` for octal.
    if (!/^(?:0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return undefined;
    address = (address << 8n) | BigInt(part);
  }
  return address;
}

/** `10.0.0.0/8`, `2001:db8::/32` or one address; undefined when `text` is none of them or has bits set beyond its prefix. */
export function parseRange(text: string): Range | undefined {
  const [addressText = "", prefixText, more] = text.split("/");
  const address = parseAddress(addressText);
  if (address === undefined || more !== undefined) return undefined;
  if (prefixText === undefined) return { address, prefix: 128 };
  const width = addressText.includes(":") ? 128 : 32;
  if (!/^(?:0|[1-9][0-9]{0,2})$/.test(prefixText) || Number(prefixText) > width) return undefined;
  const prefix = Number(prefixText) + 128 - width;
  const range = { address, prefix };
  return inRange(address, range) && (address & ((1n << BigInt(128 - prefix)) - 1n)) === 0n ? range : undefined;
}

export function inRange(address: bigint, range: Range): boolean {
  const shift = BigInt(128 - range.prefix);
  return address >> shift === range.address >> shift;
}

/** What a limiter counts an address as: itself for IPv4, its /64 for IPv6, since one subscriber holds at least that much (RFC 6177, 2). */
export function subscriberOf(text: string): string {
  const address = parseAddress(text);
  if (address === undefined) return text;
  if (address >> 32n === MAPPED >> 32n) {
    return [24n, 16n, 8n, 0n].map((shift) => (address >> shift) & 255n).join(".");
  }
  const network = [112n, 96n, 80n, 64n].map((shift) => ((address >> shift) & 0xffffn).toString(16)).join(":");
  return `${network}::/64`;
}
