/** The host of requests that are given by their path: the first that is a name, else one that a wildcard fits. */
export function usualHost(hosts: readonly string[]): string {
  const name = hosts.find((host) => /^[^*:]*\.[^*:\d][^*:]*$/.test(host)) ?? hosts.find((host) => !host.includes("*"));
  const wildcard = hosts.find((host) => host.startsWith("*."));
  return name ?? (wildcard ? `any${wildcard.slice(1)}` : "localhost");
}
