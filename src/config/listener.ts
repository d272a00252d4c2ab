import { type Declaration, declaredAt } from "./declaration.ts";

export interface ListenerOptions {
  readonly port: number;
  readonly protocol: "http" | "https";
  /** `api.example.com`, or `*.example.com` for one or more labels. Default: any host. */
  readonly host?: string;
}

export interface ListenerDeclaration extends Declaration {
  readonly kind: "listener";
  readonly name: string;
  readonly options: ListenerOptions;
}

/**
 * A place where requests come in (Gateway API, Listener). A request belongs to the one listener of its port whose host is the most
 * specific, and only the routes of that listener can answer it, also when none of them does.
 */
export function listener(name: string, options: ListenerOptions): ListenerDeclaration {
  return { kind: "listener", name, options, declaredAt: declaredAt(listener) };
}
