/** Kinds and fields that nothing here reads, and what is said of them: nothing of a manifest is passed over in silence. */
import type { Field, Verdict } from "./field.ts";
import { isGateway, isListenerSet, isRoute } from "./listeners.ts";
import { GATEWAY_API, type Resource } from "./manifests.ts";

/** What says nothing to a gateway, and what can never be carried. The rest is left to whoever reads it. */
export function settle(resource: Resource, chosen: Resource): void {
  const { kind, root } = resource;
  const isOther = isGateway(resource) && resource !== chosen;
  const isRead = isGateway(resource) || isRoute(resource) || isListenerSet(resource) || isGrant(resource);
  if (isOther) root.ignore("is another Gateway");
  else if (!isRead && !isClusters(resource)) settleOther(resource);
  if (isOther || root.verdict) return;
  root.at("apiVersion")?.carry();
  root.at("status")?.ignore("what a controller has found");
  const metadata = root.at("metadata");
  if (!metadata?.at("name")) root.problem("has no `metadata.name`", "name it");
  for (const [name, field] of metadata?.members() ?? []) {
    if (name === "annotations") settleAnnotations(field);
    else if (BOOKKEEPING.has(name) || (name === "labels" && kind !== "Namespace")) field.verdict = CLUSTERS_OWN;
  }
  if (resource === chosen) settleGateway(root);
}

const isGrant = ({ group, kind }: Resource): boolean => group === GATEWAY_API && kind === "ReferenceGrant";

const UNKNOWN: Verdict = { kind: "refused", note: "this importer does not know the field" };
const CLUSTERS_OWN: Verdict = { kind: "ignored", note: "the cluster's own" };

/** What becomes of the fields of `resource` that nobody has read when all is done. */
export const unreadOf = (resource: Resource): Verdict => (isClusters(resource) ? CLUSTERS_OWN : UNKNOWN);

/** Objects that others refer to. What nobody reads of them says nothing to a gateway. */
const isClusters = ({ group, kind }: Resource): boolean => group === "" && (kind === "Service" || kind === "Namespace");

// ObjectMeta of apimachinery.
const BOOKKEEPING = new Set([
  "creationTimestamp",
  "deletionGracePeriodSeconds",
  "deletionTimestamp",
  "finalizers",
  "generateName",
  "generation",
  "managedFields",
  "ownerReferences",
  "resourceVersion",
  "selfLink",
  "uid",
]);

/** Of tools that keep account of what they have applied. */
const TOOLS =
  /^(?:kubectl\.kubernetes\.io|meta\.helm\.sh|helm\.sh|argocd\.argoproj\.io|config\.kubernetes\.io|kustomize\.toolkit\.fluxcd\.io)\//;

function settleAnnotations(annotations: Field): void {
  for (const [name, field] of annotations.members()) {
    if (TOOLS.test(name)) field.verdict = CLUSTERS_OWN;
    else field.refuse("an annotation tells another program what to do");
  }
  annotations.carry();
}

function settleGateway(root: Field): void {
  const spec = root.required("spec");
  spec?.at("gatewayClassName")?.ignore("this gateway serves it, whatever the class");
  spec?.at("addresses")?.refuse("the platform gives the addresses: bind the Worker to a route of the zone");
  spec?.at("infrastructure")?.refuse("nothing is made in the cluster");
  spec?.at("tls")?.at("backend")?.refuse("give the cluster its client certificate: certificate: binding(...)");
  spec?.at("tls")?.at("frontend")?.refuse("certificates of clients are for the Cloudflare zone to check");
}

/** Kinds that are not read. Routes of other protocols and policies would have an effect, so they are not passed over. */
function settleOther({ group, kind, root }: Resource): void {
  const spec = root.content instanceof Map ? root.content.get("spec") : undefined;
  const members = spec?.content instanceof Map ? spec.content : new Map<string, Field>();
  if (group === GATEWAY_API && /Route$/.test(kind)) root.refuse("a Worker gets HTTP requests alone");
  else if (members.has("targetRef") || members.has("targetRefs"))
    root.refuse("a policy that is attached to others: say it with the policies of routes/");
  else root.ignore("a kind that is not read");
}
