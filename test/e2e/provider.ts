/** A real OAuth 2 authorisation server: the oidc-provider package, issuing access tokens to one client, signed or opaque. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair } from "jose";
import type Provider from "oidc-provider";
import { vi } from "vitest";
import { AUDIENCE } from "./issuer.ts";

export const CLIENT = { id: "warehouse", secret: "the-secret-of-the-warehouse" };

/** Signs browsers in. */
export const WEB = { id: "web", secret: "the-secret-of-the-web", host: "api.example.com", user: "alice" };

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
  const { default: OidcProvider } = await import("oidc-provider");
  const provider = new OidcProvider(issuer, {
    clients: [
      {
        client_id: CLIENT.id,
        client_secret: CLIENT.secret,
        grant_types: ["client_credentials"],
        response_types: [],
        redirect_uris: [],
        id_token_signed_response_alg: "ES256",
      },
      {
        client_id: WEB.id,
        client_secret: WEB.secret,
        grant_types: ["authorization_code"],
        response_types: ["code"],
        redirect_uris: [`http://${WEB.host}/auth/callback`],
        post_logout_redirect_uris: [`http://${WEB.host}/`],
        id_token_signed_response_alg: "ES256",
      },
    ],
    findAccount: (_, sub) => ({
      accountId: sub,
      claims: () => ({ sub, email: `${sub}@example.com`, name: "Alice", groups: ["staff"] }),
    }),
    claims: { openid: ["sub"], email: ["email"], profile: ["name", "groups"] },
    // Else only the userinfo endpoint would tell claims.
    conformIdTokenClaims: false,
    interactions: { url: (_, { uid }) => `/interaction/${uid}` },
    ttl: { ClientCredentials: 600 },
    jwks: { keys: [{ ...(await exportJWK(privateKey)), kid: "provider-1", alg: "ES256", use: "sig" }] },
    cookies: { keys: ["signs the cookies of the provider itself"] },
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
    // Whoever comes is the user, and consents.
    if (request.url?.startsWith("/interaction/")) return interact(provider, request, response);
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

async function interact(provider: Provider, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  if (prompt.name === "login") {
    await provider.interactionFinished(request, response, { login: { accountId: WEB.user } });
    return;
  }
  const grant = new provider.Grant({ accountId: session?.accountId as string, clientId: params.client_id as string });
  grant.addOIDCScope(params.scope as string);
  const consent = { grantId: await grant.save() };
  await provider.interactionFinished(request, response, { consent }, { mergeWithLastSubmission: true });
}
