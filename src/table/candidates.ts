/**
 * All matches that a request's host and path fit, by the same look-up as the edge's matcher: what explain and replay go through. The
 * edge needs only the first whose conditions hold, so nothing of this is in the Worker.
 */
import { type Candidate, fittingHosts, type Matcher, type MatchRequest, setFor, treesOf } from "./match.ts";

/** Best first, in lists of the equally specific. */
export function candidatesFor(
  matcher: Matcher,
  request: Pick<MatchRequest, "scheme" | "port" | "host" | "path">,
): Candidate[][] {
  const set = setFor(matcher, request);
  return set === undefined ? [] : [...fittingHosts(matcher, treesOf(matcher, set), request.host, request.path)];
}
