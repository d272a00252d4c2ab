/** Where a request may carry a credential, and how it is taken out of what the origin gets. */
import { z } from "zod";
import type { Exchange } from "./contract.ts";
import { receivedHeader, removeCookie } from "./contract.ts";

/** With a `scheme` the header's value is `<scheme> <credential>`, else the credential alone. */
export type CredentialPlace =
  | { readonly header: string; readonly scheme?: string }
  | { readonly cookie: string }
  | { readonly query: string };

// The token of RFC 9110, 5.6.2: header names, authentication schemes and cookie names.
export const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

export const placeSchema = () =>
  z.union([
    z.strictObject({
      header: z.string().regex(TOKEN),
      scheme: z
        .string()
        .regex(/^[A-Za-z0-9-]+$/)
        .optional(),
    }),
    z.strictObject({ cookie: z.string().regex(TOKEN) }),
    z.strictObject({ query: z.string().min(1) }),
  ]);

export interface Place {
  /** What stands in this place; more than one where a cookie or parameter is repeated. */
  read(exchange: Pick<Exchange, "received" | "search">): readonly string[];
  /** Takes it out of what the origin gets. */
  remove(exchange: Exchange): void;
}

const NOTHING: readonly string[] = [];

export function placeOf(place: CredentialPlace): Place {
  if ("query" in place) {
    const { query } = place;
    return {
      read: ({ search }) =>
        search === "" ? NOTHING : new URLSearchParams(search).getAll(query).filter((value) => value !== ""),
      remove: (exchange) => {
        exchange.upstreamSearch = withoutParameter(exchange.upstreamSearch ?? exchange.search, query);
      },
    };
  }
  if ("cookie" in place) {
    const isNamed = (pair: string) => pair.split("=", 1)[0]?.trim() === place.cookie;
    return {
      // Browsers drop a cookie by emptying it, so an empty one is none.
      read: (exchange) =>
        (receivedHeader(exchange, "cookie") ?? "")
          .split(";")
          .filter(isNamed)
          .map((pair) => pair.slice(pair.indexOf("=") + 1).trim())
          .filter((value) => value !== ""),
      remove: ({ upstream }) => removeCookie(upstream, place.cookie),
    };
  }
  const { scheme } = place;
  const header = place.header.toLowerCase();
  if (scheme === undefined) {
    return {
      read: (exchange) => {
        const value = receivedHeader(exchange, header);
        return value ? [value] : NOTHING;
      },
      remove: ({ upstream }) => upstream.delete(header),
    };
  }
  // Schemes are case-insensitive (RFC 9110, 11.1).
  const alone = new RegExp(`^${scheme} +([^ ,]+)$`, "i");
  // Repeated headers arrive joined by commas. Another reader may see a token there, so it must not count as none.
  const anywhere = new RegExp(`(?:^|,)[ \\t]*${scheme}(?:[ \\t,]|$)`, "i");
  const read = (value: string | null): readonly string[] => {
    if (value === null) return NOTHING;
    const token = alone.exec(value)?.[1];
    if (token !== undefined) return [token];
    return anywhere.test(value) ? [value] : NOTHING;
  };
  return {
    read: (exchange) => read(receivedHeader(exchange, header)),
    remove: ({ upstream }) => {
      if (read(upstream.get(header)).length > 0) upstream.delete(header);
    },
  };
}

/** The one credential in all of these places; undefined where there is none, `conflict` where there are two different ones. */
export function readCredential(
  places: readonly Place[],
  exchange: Pick<Exchange, "received" | "search">,
): string | { readonly conflict: true } | undefined {
  let found: string | undefined;
  for (const place of places) {
    for (const value of place.read(exchange)) {
      if (found !== undefined && found !== value) return CONFLICT;
      found = value;
    }
  }
  return found;
}

const CONFLICT = { conflict: true } as const;

/** A query without a parameter, however it is spelled; the others keep their bytes. */
function withoutParameter(search: string, name: string): string {
  const kept = search
    .slice(1)
    .split("&")
    .filter((pair) => !new URLSearchParams(pair).has(name));
  return kept.length === 0 || kept.join("") === "" ? "" : `?${kept.join("&")}`;
}
