/** A real OAuth 2 authorisation server: the oidc-provider package, issuing access tokens to one client, signed or opaque. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair } from "jose";
import { vi } from "vitest";
import { AUDIENCE } from "./issuer.ts";

export const CLIENT = { id: "warehouse", secret: "the-secret-of-the-warehouse" };

/** The resource whose tokens are opaque. */
const OPAQUE = "https://opaque.example.com";

export interface RunningProvider {
  readonly issuer: string;
  readonly jwksUrl: string;
  readonly introspectionUrl: string;
  /** An access token by client credentials (RFC 6749, 4.4) for the shop's API as the resource (RFC 8707). */
  token(scope: string): Promise<string>;
  /** The same, as a token that only the provider understands. */
  opaqueToken(scope: string): Promise<string>;
  /** RFC 7009. */
  revoke(token: string): Promise<void>;
  /** How often the introspection endpoint was asked. */
  introspected(): number;
  /** Until `listen` nothing answers at the provider's address. */
  pause(): Promise<void>;
  listen(): Promise<void>;
  close(): Promise<void>;
}

export async function startProvider(): Promise<RunningProvider> {
  // The issuer's name holds the port, so the port comes first.
  const server = createServer();
  let port = 0;
  const listen = () => new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  await listen();
  ({ port } = server.address() as AddressInfo);
  const issuer = `http://127.0.0.1:${port}`;
  let introspected = 0;
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
      introspection: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => ({
          scope: "orders:read orders:write",
          ...(resource === OPAQUE
            ? { audience: OPAQUE, accessTokenFormat: "opaque" }
            : { audience: AUDIENCE, accessTokenFormat: "jwt", jwt: { sign: { alg: "ES256" } } }),
        }),
      },
    },
  });
  warnings.mockRestore();
  const callback = provider.callback();
  server.on("request", (request, response) => {
    if (request.url === "/token/introspection") introspected++;
    return callback(request, response);
  });
  const post = (path: string, parameters: Record<string, string>) =>
    fetch(`${issuer}${path}`, {
      method: "POST",
      headers: { authorization: `Basic ${btoa(`${CLIENT.id}:${CLIENT.secret}`)}` },
      body: new URLSearchParams(parameters),
    });
  const tokenFor = async (resource: string, scope: string) => {
    const response = await post("/token", { grant_type: "client_credentials", resource, scope });
    const answer = (await response.json()) as { access_token?: string };
    if (answer.access_token === undefined) throw new Error(`no token: ${JSON.stringify(answer)}`);
    return answer.access_token;
  };
  const pause = async () => {
    server.closeAllConnections();
    if (server.listening) await new Promise((resolve) => server.close(resolve));
  };
  return {
    issuer,
    jwksUrl: `${issuer}/jwks`,
    introspectionUrl: `${issuer}/token/introspection`,
    token: (scope) => tokenFor(AUDIENCE, scope),
    opaqueToken: (scope) => tokenFor(OPAQUE, scope),
    async revoke(token) {
      const { status } = await post("/token/revocation", { token });
      if (status !== 200) throw new Error(`the token was not revoked: ${status}`);
    },
    introspected: () => introspected,
    pause,
    listen,
    close: pause,
  };
}
