/** Stands for every issuer of tokens: signs with a key that is made here, and publishes it wherever a policy looks for keys. */
import { createPublicKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";

export class Issuer {
  readonly #key: KeyObject;
  /** Under each of these ids the one key is published. */
  readonly #ids = new Set<string>(["offline"]);

  constructor() {
    this.#key = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  }

  /** A JWT of these claims, signed by ES256. */
  token(claims: object, header: { readonly kid?: string; readonly typ?: string } = {}): string {
    const { kid = "offline", typ = "at+jwt" } = header;
    this.#ids.add(kid);
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const signed = `${part({ alg: "ES256", kid, typ })}.${part(claims)}`;
    const signature = sign("sha256", Buffer.from(signed), { key: this.#key, dsaEncoding: "ieee-p1363" });
    return `${signed}.${signature.toString("base64url")}`;
  }

  /** Metadata (OpenID Connect Discovery 1.0; RFC 8414) at an issuer's well-known path, elsewhere the keys (RFC 7517). */
  answer({ method, url }: Request): Response | undefined {
    if (method !== "GET") return undefined;
    const issuer = /^(.*)\/\.well-known\/(?:openid-configuration|oauth-authorization-server)$/.exec(url)?.[1];
    if (issuer !== undefined) return Response.json(this.#metadata(issuer));
    const jwk = createPublicKey(this.#key).export({ format: "jwk" });
    return Response.json({ keys: [...this.#ids].map((kid) => ({ ...jwk, kid, alg: "ES256", use: "sig" })) });
  }

  #metadata(issuer: string) {
    return {
      issuer,
      jwks_uri: `${issuer}/jwks.json`,
      authorization_endpoint: `${issuer}/authorize`,
      token_endpoint: `${issuer}/token`,
      introspection_endpoint: `${issuer}/introspect`,
      response_types_supported: ["code"],
      subject_types_supported: ["public"],
      id_token_signing_alg_values_supported: ["ES256"],
      code_challenge_methods_supported: ["S256"],
    };
  }
}
