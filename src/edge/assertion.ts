/**
 * The gateway's assertion: a short-lived JWT by which a cluster knows that a request came through here, so that it can refuse what
 * comes by another way. Signed once per cluster and caller and used for half its lifetime, since a signature costs 25 to 84 µs.
 */
import { type CryptoKey, importJWK, type JWK, type JWTPayload, SignJWT } from "jose";
import type { Caller } from "../policies/contract.ts";
import { NotConfigured } from "../policies/contract.ts";
import type { TableAssertion } from "../table/table.ts";

export const ASSERTION_HEADER = "x-portcullis-assertion";

/** Assertions kept per isolate; the oldest leaves first. 1,000 of about 500 bytes are half a megabyte of the isolate's 128. */
const KEPT = 1_000;

/** Milliseconds since the epoch. */
interface Kept {
  readonly token: string;
  readonly renewAt: number;
}

/** What clusters are told of who is calling; what is empty is left out. `scope` as in RFC 8693, 4.2. */
function claimsOf({ subject, consumer, scopes, groups, plan, credential }: Caller): JWTPayload {
  return {
    sub: subject,
    ...(consumer !== undefined && { consumer }),
    ...(scopes.length > 0 && { scope: scopes.join(" ") }),
    ...(groups && groups.length > 0 && { groups: [...groups] }),
    ...(plan !== undefined && { plan }),
    ...(credential && { credential: credential.kind }),
  };
}

export class Assertions {
  readonly #settings: TableAssertion;
  /** By cluster and what is told of the caller. */
  readonly #kept = new Map<string, Kept>();
  /** The same by the caller itself, which policies share between requests: to write down what is told of it takes longer. */
  #ofCallers = new WeakMap<Caller, Map<string, Kept>>();
  #key: { text: string; jwk: JWK; signing: CryptoKey | Uint8Array } | undefined;

  constructor(settings: TableAssertion) {
    this.#settings = settings;
  }

  /** A token for `cluster` about `caller`. Throws NotConfigured when the key is no private JWK. */
  async sign(keyText: string, cluster: string, caller: Caller | undefined, now: number): Promise<string> {
    const known = caller && this.#ofCallers.get(caller)?.get(cluster);
    if (known && known.renewAt > now && this.#key?.text === keyText) return known.token;
    const claims = caller ? claimsOf(caller) : {};
    const id = JSON.stringify([cluster, claims]);
    let kept = this.#kept.get(id);
    if (!kept || kept.renewAt <= now || this.#key?.text !== keyText) {
      const { jwk, signing } = await this.#load(keyText);
      const issued = Math.floor(now / 1000);
      const token = await new SignJWT(claims)
        .setProtectedHeader({ alg: jwk.alg as string, kid: jwk.kid as string, typ: "portcullis-assertion+jwt" })
        .setIssuer(this.#settings.issuer)
        .setAudience(cluster)
        .setIssuedAt(issued)
        .setExpirationTime(issued + this.#settings.lifetime)
        .sign(signing);
      kept = { token, renewAt: now + this.#settings.lifetime * 500 };
      this.#kept.delete(id);
      this.#kept.set(id, kept);
      if (this.#kept.size > KEPT) this.#kept.delete(this.#kept.keys().next().value as string);
    }
    if (caller) {
      const clusters = this.#ofCallers.get(caller) ?? new Map<string, Kept>();
      this.#ofCallers.set(caller, clusters.set(cluster, kept));
    }
    return kept.token;
  }

  /** The public half as a JWK Set, for `/.well-known/portcullis/jwks.json`. */
  async publicKeys(keyText: string): Promise<{ keys: JWK[] }> {
    const { jwk } = await this.#load(keyText);
    const { kty, crv, x, y, n, e, alg, kid } = jwk;
    const whole = { kty, crv, x, y, n, e, alg, kid, use: "sig" };
    return {
      keys: [Object.fromEntries(Object.entries(whole).filter(([, value]) => value !== undefined)) as unknown as JWK],
    };
  }

  async #load(text: string): Promise<{ text: string; jwk: JWK; signing: CryptoKey | Uint8Array }> {
    if (this.#key?.text === text) return this.#key;
    let jwk: JWK;
    try {
      jwk = JSON.parse(text);
      if (jwk.kty === "oct" || !jwk.d || !jwk.alg || !jwk.kid) throw new Error("incomplete");
      this.#key = { text, jwk, signing: await importJWK(jwk) };
    } catch {
      throw new NotConfigured("the assertion's key must be a private JWK with alg and kid");
    }
    this.#kept.clear();
    this.#ofCallers = new WeakMap();
    return this.#key;
  }
}
