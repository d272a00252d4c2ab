/** What goes wrong between the gateway's certificate and the cluster's, told apart from a cluster that is not there. */

/** workerd gives a failed handshake no name of its own (measured: "internal error", the reason in its log alone). */
export const isTlsFailure = (error: unknown, url: string): boolean =>
  url.startsWith("https:") && error instanceof Error && /^internal error|TLS|certificate/i.test(error.message);

// nginx's own for a wrong and a missing client certificate; by default it answers 400 with a page that says so.
const NGINX_STATUSES = new Set([495, 496]);

// By their titles, so that no service can be made to say the same by what a client sends: it would count against the cluster.
const NGINX_PAGE = /<title>400 (?:The SSL certificate error|No required SSL certificate was sent)<\/title>/;

/**
 * Whether the cluster refused the gateway's client certificate after the handshake, as nginx does with `ssl_verify_client on`. Looks
 * into a short HTML page with status 400 and at nothing else; such a page that says something else is handed on.
 */
export async function certificateRefused(response: Response): Promise<boolean> {
  const { status, headers } = response;
  if (NGINX_STATUSES.has(status)) {
    await response.body?.cancel();
    return true;
  }
  const length = Number(headers.get("content-length") ?? Number.NaN);
  if (status !== 400 || !(length < 1_024) || !headers.get("content-type")?.startsWith("text/html")) return false;
  return NGINX_PAGE.test(await response.clone().text());
}
