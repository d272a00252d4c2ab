/** Sets of client addresses, as ipFilter lets them through: sorted ranges that do not meet. */
import type { IpFilterConfig } from "../policies/ip-filter.ts";
import { parseRange } from "../table/cidr.ts";

export type AddressSet = readonly (readonly [first: bigint, last: bigint])[];

const LAST = (1n << 128n) - 1n;
export const EVERY_ADDRESS: AddressSet = [[0n, LAST]];

function addressesIn(ranges: readonly string[]): AddressSet {
  const sorted = ranges
    .map((text) => parseRange(text))
    .filter((range) => range !== undefined)
    .map(({ address, prefix }): [bigint, bigint] => [address, address | ((1n << BigInt(128 - prefix)) - 1n)])
    .sort(([a], [b]) => (a < b ? -1 : 1));
  const united: [bigint, bigint][] = [];
  for (const [first, last] of sorted) {
    const before = united.at(-1);
    if (before && first <= before[1] + 1n) before[1] = last > before[1] ? last : before[1];
    else united.push([first, last]);
  }
  return united;
}

export function common(a: AddressSet, b: AddressSet): AddressSet {
  return a.flatMap(([first, last]) =>
    b.flatMap(([from, to]): AddressSet => {
      const [begin, end] = [first > from ? first : from, last < to ? last : to];
      return begin <= end ? [[begin, end]] : [];
    }),
  );
}

export function without(set: AddressSet, taken: AddressSet): AddressSet {
  const outside: [bigint, bigint][] = [];
  let next = 0n;
  for (const [first, last] of taken) {
    if (first > next) outside.push([next, first - 1n]);
    next = last + 1n;
  }
  if (next <= LAST) outside.push([next, LAST]);
  return common(set, outside);
}

/** Who passes all of the filters. */
export const passing = (filters: readonly IpFilterConfig[]): AddressSet =>
  filters.reduce<AddressSet>(
    (set, { allow, deny = [] }) => without(allow ? common(set, addressesIn(allow)) : set, addressesIn(deny)),
    EVERY_ADDRESS,
  );

const MAPPED = 0xffff_0000_0000n;

/** The set's first address, an IPv4 one if it has any; undefined: it is empty. */
export function firstAddress(set: AddressSet): string | undefined {
  const [v4] = common(set, [[MAPPED, MAPPED | 0xffff_ffffn]]);
  if (v4) return [24n, 16n, 8n, 0n].map((shift) => (v4[0] >> shift) & 255n).join(".");
  const [any] = set;
  if (!any) return undefined;
  return Array.from({ length: 8 }, (_, i) => ((any[0] >> BigInt(112 - 16 * i)) & 0xffffn).toString(16)).join(":");
}
