/** An issuer of tokens: signs, and serves its keys over http as the test wants it to. */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { base64url, CompactSign, type CryptoKey, exportJWK, generateKeyPair, type JWK } from "jose";

export const ISSUER = "https://login.example.com";
export const AUDIENCE = "https://api.example.com";

export interface Key {
  readonly kid: string;
  readonly alg: string;
  readonly privateKey: CryptoKey;
  /** Public, with `kid` and `alg`. */
  readonly jwk: JWK;
}

export async function makeKey(kid: string, alg = "ES256"): Promise<Key> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  return { kid, alg, privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: "sig" } };
}

export class Issuer {
  readonly key: Key;
  /** What the key set holds now. */
  published: JWK[];
  /** Answers in place of the key set, by path. */
  readonly answers = new Map<string, (response: ServerResponse) => void>();
  /** How often the keys were asked for. */
  asked = 0;
  /** Every token that this issuer made: none may show in a log. */
  readonly minted: string[] = [];
  readonly #server = createServer(({ url = "" }, response) => {
    this.asked++;
    const answer = this.answers.get(url);
    if (answer) answer(response);
    else response.setHeader("content-type", "application/jwk-set+json").end(JSON.stringify({ keys: this.published }));
  });
  #port = 0;

  private constructor(key: Key) {
    this.key = key;
    this.published = [key.jwk];
  }

  static async start(): Promise<Issuer> {
    const issuer = new Issuer(await makeKey("first"));
    await issuer.listen();
    return issuer;
  }

  get jwksUrl(): string {
    return `http://127.0.0.1:${this.#port}/jwks`;
  }

  /** On the same port as before. */
  async listen(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject).listen(this.#port, "127.0.0.1", resolve);
    });
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    if (this.#server.listening) await new Promise((resolve) => this.#server.close(resolve));
  }

  /** A token that the tests' policy accepts, but for `claims`; undefined takes one away. */
  async token(
    claims: Record<string, unknown> = {},
    header: Record<string, unknown> = {},
    key = this.key,
  ): Promise<string> {
    const now = Math.floor(Date.now() / 1_000);
    const whole = { iss: ISSUER, aud: AUDIENCE, sub: "user-1", iat: now, exp: now + 600, ...claims };
    const token = await new CompactSign(new TextEncoder().encode(JSON.stringify(whole)))
      .setProtectedHeader(JSON.parse(JSON.stringify({ alg: key.alg, kid: key.kid, typ: "at+jwt", ...header })))
      .sign(key.privateKey);
    this.minted.push(token);
    return token;
  }

  async bearer(claims: Record<string, unknown> = {}): Promise<{ authorization: string }> {
    return { authorization: `Bearer ${await this.token(claims)}` };
  }
}

/** A compact token of any header and payload, signed by nobody. */
export const forge = (header: unknown, payload: unknown, signature = "AAAA"): string =>
  `${base64url.encode(JSON.stringify(header))}.${base64url.encode(JSON.stringify(payload))}.${signature}`;
