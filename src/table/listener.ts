/** Which hosts a listener and a route have in common (Gateway API, HTTPRouteSpec.hostnames). */

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
