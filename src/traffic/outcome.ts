/**
 * What became of one try: the status that the endpoint answered with; `connection`: no answer came; `timeout`: none came in time;
 * `cancelled`: the client went away first, which tells nothing about the endpoint.
 */
export type Outcome = number | "connection" | "timeout" | "cancelled";

/** Whether a try counts against its endpoint: 5xx, no answer, or none in time. What the client asked wrongly (4xx) does not. */
export const isFailure = (outcome: Outcome): boolean =>
  typeof outcome === "number" ? outcome >= 500 : outcome !== "cancelled";

/** The failures that say "there is nobody behind me": 502, 503, 504, no answer, none in time. */
export const isGatewayFailure = (outcome: Outcome): boolean =>
  typeof outcome === "number" ? outcome >= 502 && outcome <= 504 : outcome !== "cancelled";
