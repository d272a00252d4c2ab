/** A real OAuth 2 authorisation server: the oidc-provider package, issuing JWT access tokens to one client. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair } from "jose";
import { vi } from "vitest";
import { AUDIENCE } from "./issuer.ts";

const CLIENT = { id: "warehouse", secret: "the-secret-of-the-warehouse" };

export interface RunningProvider {
  readonly issuer: string;
  readonly jwksUrl: string;
  /** An access token by client credentials (RFC 6749, 4.4) for the shop's API as the resource (RFC 8707). */
  token(scope: string): Promise<string>;
  close(): Promise<void>;
}

export async function startProvider(): Promise<RunningProvider> {
  // The issuer's name holds the port, so the port comes first.
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const { privateKey } = await generateKeyPair("ES256", { extractable: true });
  // It warns of Node versions that it was not tested with and of keeping its state in memory; here both are as they should be.
  const warnings = vi.spyOn(console, "warn").mockReturnValue();
  const { default: Provider } = await import("oidc-provider");
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: CLIENT.id,
        client_secret: CLIENT.secret,
        grant_types: ["client_credentials"],
        response_types: [],
        redirect_uris: [],
        id_token_signed_response_alg: "ES256",
      },
    ],
    ttl: { ClientCredentials: 600 },
    jwks: { keys: [{ ...(await exportJWK(privateKey)), kid: "provider-1", alg: "ES256", use: "sig" }] },
    cookies: { keys: ["not used: no browser signs in here"] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({
          scope: "orders:read orders:write",
          audience: AUDIENCE,
          accessTokenFormat: "jwt",
          jwt: { sign: { alg: "ES256" } },
        }),
      },
    },
  });
  warnings.mockRestore();
  server.on("request", provider.callback());
  return {
    issuer,
    jwksUrl: `${issuer}/jwks`,
    async token(scope) {
      const response = await fetch(`${issuer}/token`, {
        method: "POST",
        headers: { authorization: `Basic ${btoa(`${CLIENT.id}:${CLIENT.secret}`)}` },
        body: new URLSearchParams({ grant_type: "client_credentials", resource: AUDIENCE, scope }),
      });
      const answer = (await response.json()) as { access_token?: string };
      if (answer.access_token === undefined) throw new Error(`no token: ${JSON.stringify(answer)}`);
      return answer.access_token;
    },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
