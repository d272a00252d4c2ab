/** The files of the routes/ module. */
import type { AttachedRoute, Attachment } from "./attachment.ts";
import { CLUSTERS_FILE, type Clusters } from "./clusters.ts";
import { type Commented, type Constant, call, constant, printModule, properties, type Statement } from "./code.ts";
import type { Field } from "./field.ts";
import type { Listener } from "./listeners.ts";
import { byMethodAlone } from "./match.ts";
import { Identifiers, Names, nameFrom } from "./names.ts";
import type { References } from "./references.ts";
import { routesOf } from "./rule.ts";

const LISTENERS_FILE = "listeners.ts";

/** An API of the module, in a file of its own. */
interface Api {
  readonly name: string;
  readonly attached: AttachedRoute;
  readonly routes: readonly Commented[];
  readonly constant: Constant;
}

/** Text by file. `Clusters` has every Service that is used once this is done. */
export function moduleFiles(
  { gateway, listeners, routes }: Attachment,
  references: References,
  clusters: Clusters,
): ReadonlyMap<string, string> {
  const names = new Names(["index", "clusters", "listeners"]);
  const namesakes = Map.groupBy(routes, ({ route }) => route.name);
  const amongMethods = routes.some(({ route }) => route.kind === "GRPCRoute" && byMethodAlone(route.root));
  const apis = routes.flatMap((attached): Api[] => {
    const name = apiName(attached, namesakes.get(attached.route.name) ?? [], names);
    const code = routesOf({ api: name, route: attached.route, amongMethods, references, clusters });
    return code.length === 0 ? [] : [{ name, attached, routes: code, constant: constant(`./${name}.ts`, true) }];
  });

  const files = new Map<string, string>();
  const shown = saySomething(listeners) || routes.some(mayRedirect) ? listeners : [];
  const constants = new Map(shown.map((listener) => [listener, constant(`./${LISTENERS_FILE}`)]));
  // An API's file has names of listeners and of clusters, the index names of listeners and of APIs.
  const identifiers = new Identifiers();
  const listening = shown.map((listener) =>
    listenerStatement(listener, constants.get(listener) as Constant, identifiers),
  );
  const reaching = clusters.statements(identifiers);
  if (listening.length > 0) files.set(LISTENERS_FILE, printModule(listening));
  if (reaching.length > 0) files.set(CLUSTERS_FILE, printModule(reaching));

  const inIndex = new Identifiers([...constants.values()].map(({ identifier }) => identifier));
  for (const api of apis) {
    api.constant.identifier = inIndex.take(api.name, "Api");
    files.set(`${api.name}.ts`, apiFile(api, listeners, constants));
  }
  const index: Statement = {
    comment: ["Of matches that nothing else parts the first counts: the oldest route, then by namespace and name."],
    exports: "default",
    value: call(
      "gateway",
      properties({ semantics: "gateway-api", listeners: shown.length > 0 ? [...constants.values()] : undefined }),
      apis.map((api) => api.constant),
    ),
  };
  const subject = `Gateway ${gateway.namespace}/${gateway.name}`;
  files.set("index.ts", printModule([index], [`${subject}, imported. REPORT.md says what differs.`]));
  return files;
}

/** The route's own name, as far as needed with its namespace and kind. */
function apiName({ route }: AttachedRoute, namesakes: readonly AttachedRoute[], names: Names): string {
  const { namespace, name, kind } = route;
  const full = `${namespace}.${name}`;
  const choices = namesakes.length === 1 ? [name, full] : [full];
  const shared = namesakes.some((other) => other.route !== route && other.route.namespace === namespace);
  return names.take(...(shared ? [] : choices.map(nameFrom)), nameFrom(`${full}.${kind.toLowerCase()}`));
}

/** Without any listener, one is for everything. That is what a single one for plain HTTP at its own port says too. */
const saySomething = (listeners: readonly Listener[]): boolean =>
  listeners.length !== 1 ||
  listeners.some(({ port, protocol, hostname }) => port !== 80 || protocol !== "http" || hostname !== undefined);

/** Then the listener's port is asked for, whatever port the Host header has (HTTPRequestRedirectFilter.port). */
const mayRedirect = ({ route }: AttachedRoute): boolean => holds(route.root, "RequestRedirect");

function holds({ content }: Field, text: string): boolean {
  if (Array.isArray(content)) return content.some((item) => holds(item, text));
  if (content instanceof Map) return [...content.values()].some((member) => holds(member, text));
  return content === text;
}

function listenerStatement(listener: Listener, exports: Constant, identifiers: Identifiers): Statement {
  const { name, owner, port, protocol, hostname } = listener;
  exports.identifier = identifiers.take(name, "Listener");
  const value = call("listener", name, properties({ port, protocol, host: hostname }));
  return { ...(owner.kind !== "Gateway" && { comment: [`Of ${owner.subject}.`] }), exports, value };
}

function apiFile(
  { name, attached, routes }: Api,
  all: readonly Listener[],
  constants: ReadonlyMap<Listener, Constant>,
): string {
  const { route, hostnames, listeners } = attached;
  const own = listeners.flatMap((listener) => constants.get(listener) ?? []);
  const options = properties({
    hosts: hostnames,
    listeners: own.length > 0 && own.length < all.length ? own : undefined,
  });
  return printModule([
    { comment: [`${route.subject}.`], exports: "default", value: call("api", name, options, routes) },
  ]);
}
