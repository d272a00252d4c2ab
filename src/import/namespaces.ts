/** Which namespaces a listener or a Gateway lets in: RouteNamespaces and ListenerNamespaces of the Gateway API. */
import type { Field } from "./field.ts";
import type { Resource } from "./manifests.ts";

/** Why a namespace is not let in; undefined: it is. */
export type NamespaceRule = (namespace: string) => string | undefined;

type Labels = ReadonlyMap<string, string>;

export class Namespaces {
  /** Of the namespaces that the manifests have. */
  readonly #labels: ReadonlyMap<string, Labels>;

  constructor(resources: readonly Resource[]) {
    this.#labels = new Map(
      resources
        .filter(({ group, kind }) => group === "" && kind === "Namespace")
        .map(({ name, root }) => [name, textsIn(root.at("metadata")?.at("labels"))]),
    );
  }

  /** The rule that `field` (`{ from, selector }`) states for what stands in `own`; `otherwise` where it states none. */
  rule(field: Field | undefined, otherwise: "Same" | "None", own: string): NamespaceRule {
    const from = field?.at("from");
    const choice = from ? from.choice("All", "Same", "Selector", "None") : otherwise;
    const selector = field?.at("selector");
    const selects = selector && selectorOf(selector);
    if (choice === "All") return () => undefined;
    if (choice === "Same") return (namespace) => (namespace === own ? undefined : `only namespace ${own} is allowed`);
    if (choice !== "Selector" || !selects) return () => "no namespace is allowed";
    return (namespace) => {
      const labels = this.#labels.get(namespace);
      // Kubernetes itself puts this label on every namespace.
      if (selects(new Map([...(labels ?? []), ["kubernetes.io/metadata.name", namespace]]))) return undefined;
      return `namespace ${namespace} is not selected${labels ? "" : ", and the manifests do not have its labels"}`;
    };
  }
}

/** LabelSelector of apimachinery: all of matchLabels and all of matchExpressions must hold. */
function selectorOf(selector: Field): (labels: Labels) => boolean {
  const wanted = textsIn(selector.at("matchLabels"));
  const expressions = selector.items("matchExpressions").map((expression) => ({
    key: expression.required("key")?.text() ?? "",
    operator: expression.required("operator")?.choice("In", "NotIn", "Exists", "DoesNotExist"),
    values: expression.items("values").map((value) => value.text()),
  }));
  return (labels) =>
    [...wanted].every(([name, value]) => labels.get(name) === value) &&
    expressions.every(({ key, operator, values }) => {
      const value = labels.get(key);
      if (operator === "In") return value !== undefined && values.includes(value);
      if (operator === "NotIn") return value === undefined || !values.includes(value);
      return operator !== undefined && (value !== undefined) === (operator === "Exists");
    });
}

const textsIn = (map: Field | undefined): Map<string, string> =>
  new Map([...(map?.members() ?? [])].map(([name, field]) => [name, field.text() ?? ""]));
