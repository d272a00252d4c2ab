/** Why something could not be decided. */
export type Doubt = "regex" | "value" | "host-header" | "cookie-header" | "search";

/** What follows "could not be decided: ", and what would help. */
export const DOUBTS: Readonly<Record<Doubt, { readonly because: string; readonly fix: string }>> = {
  regex: {
    because: "a regex with lookaround, a back reference or \\b takes part, which is beyond the proof",
    fix: "write that regex without these, if it should be proved",
  },
  value: {
    because: "a value with other than visible ASCII is wanted, which may arrive otherwise than it was sent",
    fix: "nothing, if clients do send it so",
  },
  "host-header": {
    because: "the header host is asked for, which is the request's host in other words",
    fix: "give the API `hosts`, and take that header out",
  },
  "cookie-header": {
    because: "the header cookie is asked for, and a cookie in it as well",
    fix: "ask for `cookies` alone",
  },
  search: {
    because: "too many others meet it",
    fix: "part it from them by host, path or method, if it should be proved",
  },
};
