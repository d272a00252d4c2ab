import type { TableOutlier } from "../table/table.ts";
import { isFailure, isGatewayFailure, type Outcome } from "./outcome.ts";
import { RollingCounts } from "./rolling-counts.ts";

/**
 * Passive health of one endpoint, as Envoy's outlier detection has it (envoy/source/common/upstream/outlier_detection_impl.cc):
 * failures in a row make it due for ejection, which lasts `baseEjectionTime` times how often it has been ejected; every `interval`
 * in which it stays in takes one off that. Whether a due endpoint is ejected, its pools say (pool.ts).
 *
 * Two differences. There is no timer, so an ejection ends when its time is over and not at the next interval. And nothing is due
 * below `minimumRequests` within `interval`: an isolate sees a small part of the traffic, where five failures in a row may be all
 * of an afternoon's.
 */
export class OutlierDetector {
  readonly #options: TableOutlier;
  readonly #requests: RollingCounts;
  #consecutive5xx = 0;
  #consecutiveGatewayErrors = 0;
  /** End of the ejection; 0: it is in. */
  #ejectedUntil = 0;
  #returnedAt = 0;
  /** What `baseEjectionTime` is multiplied by. */
  #times = 0;

  constructor(options: TableOutlier) {
    this.#options = options;
    this.#requests = new RollingCounts(options.interval);
  }

  /** Takes down one outcome. True when the endpoint is due for ejection: then the count begins anew, whether it is ejected or not. */
  record(outcome: Outcome, now: number): boolean {
    if (outcome === "cancelled") return false;
    const ejected = this.ejected(now);
    this.#requests.add(false, now);
    if (!isFailure(outcome)) {
      this.#consecutive5xx = this.#consecutiveGatewayErrors = 0;
      return false;
    }
    this.#consecutive5xx++;
    if (isGatewayFailure(outcome)) this.#consecutiveGatewayErrors++;
    else this.#consecutiveGatewayErrors = 0;

    if (ejected || this.#requests.all < this.#options.minimumRequests) return false;
    const { consecutive5xx, consecutiveGatewayErrors } = this.#options;
    const by5xx = consecutive5xx > 0 && this.#consecutive5xx >= consecutive5xx;
    const byGatewayErrors = consecutiveGatewayErrors > 0 && this.#consecutiveGatewayErrors >= consecutiveGatewayErrors;
    if (by5xx) this.#consecutive5xx = 0;
    if (byGatewayErrors) this.#consecutiveGatewayErrors = 0;
    return by5xx || byGatewayErrors;
  }

  ejected(now: number): boolean {
    if (this.#ejectedUntil === 0) return false;
    if (now < this.#ejectedUntil) return true;
    this.#return(this.#ejectedUntil);
    return false;
  }

  /** Returns when the ejection ends. */
  eject(now: number): number {
    const { interval, baseEjectionTime, maxEjectionTime } = this.#options;
    this.#times = Math.max(0, this.#times - Math.floor((now - this.#returnedAt) / interval));
    if (this.#times * baseEjectionTime < maxEjectionTime + baseEjectionTime) this.#times++;
    this.#ejectedUntil = now + Math.min(this.#times * baseEjectionTime, maxEjectionTime);
    return this.#ejectedUntil;
  }

  /** An active health check has found it healthy: it returns at once, as Envoy's `successful_active_health_check_uneject_host`. */
  pardon(now: number): void {
    if (this.ejected(now)) this.#return(now);
  }

  /** The counts begin anew, so that not the first new failure ejects it again. */
  #return(at: number): void {
    this.#ejectedUntil = 0;
    this.#returnedAt = at;
    this.#consecutive5xx = this.#consecutiveGatewayErrors = 0;
  }
}
