/**
 * Which listener a request belongs to, and which hosts a listener and a route have in common (Gateway API, Listener.hostname and
 * HTTPRouteSpec.hostnames).
 */
import type { TableListener } from "./table.ts";

/**
 * The listeners by place and host. A place is a scheme and a port, `http:8080`. A scheme alone stands for requests at ports that no
 * listener has: there the listeners at the scheme's own port count, and when there are none, all of them.
 */
export interface ListenerIndex {
  readonly places: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** What `places` leads to: positions of the listeners of one host that are asked together, those of the request's protocol first. */
  readonly sets: readonly (readonly number[])[];
}

/** Where a request came in. */
export interface Entrance {
  readonly scheme: string;
  /** Of the Host header; undefined: it has none. */
  readonly port?: number | undefined;
  /** In lower case and without port. */
  readonly host: string;
}

const OWN_PORT = { http: 80, https: 443 } as const;

export function indexListeners(listeners: readonly TableListener[]): ListenerIndex {
  const places: Record<string, Record<string, number>> = {};
  const sets: number[][] = [];
  const numbers = new Map<string, number>();
  const place = (name: string, positions: readonly number[]) => {
    const byHost = Map.groupBy(positions, (position) => listeners[position]?.host ?? "*");
    const numbered = [...byHost].map(([host, set]) => {
      const key = set.join();
      if (!numbers.has(key)) numbers.set(key, sets.push(set) - 1);
      return [host, numbers.get(key) as number] as const;
    });
    places[name] = Object.fromEntries(numbered);
  };
  const all = [...listeners.keys()];
  const placeOf = (position: number) => `${listeners[position]?.protocol}:${listeners[position]?.port}`;
  const byPlace = Map.groupBy(all, placeOf);
  for (const [name, positions] of byPlace) place(name, positions);
  for (const scheme of ["http", "https"] as const) {
    const speaks = (position: number) => listeners[position]?.protocol === scheme;
    const own = byPlace.get(`${scheme}:${OWN_PORT[scheme]}`);
    place(scheme, own ?? [...all.filter(speaks), ...all.filter((position) => !speaks(position))]);
  }
  return { places, sets };
}

/**
 * Position in the index's sets; undefined: no listener is for this host. A port that no listener has tells nothing, since a
 * development server or a proxy in front may be what listens there.
 */
export function listenersFor({ places }: ListenerIndex, { scheme, port, host }: Entrance): number | undefined {
  const place = places[`${scheme}:${port}`] ?? places[scheme] ?? {};
  for (let name = host; name !== ""; name = widerHost(name)) if (Object.hasOwn(place, name)) return place[name];
  return undefined;
}

/** The next less specific host: `a.b.c`, `*.b.c`, `*.c`, `*`; "" after the last. A wildcard is one or more labels. */
export function widerHost(host: string): string {
  if (host === "*") return "";
  const dot = host.indexOf(".", host.startsWith("*.") ? 2 : 0);
  return dot === -1 ? "*" : `*${host.slice(dot)}`;
}

/**
 * What is left of `host` behind a listener for `other`: each is a name, `*.` and a name for one or more labels in front of it, or `*`
 * for any. Undefined when no request can be for both.
 */
export function commonHost(host: string, other: string): string | undefined {
  if (covers(other, host)) return host;
  return covers(host, other) ? other : undefined;
}

const covers = (wide: string, narrow: string): boolean =>
  wide === "*" || wide === narrow || (wide.startsWith("*.") && narrow.endsWith(wide.slice(1)));
