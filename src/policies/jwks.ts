/** An issuer's public keys (RFC 7517, 5), from the address of their set or from the issuer's metadata. */
import { createLocalJWKSet, errors, type JWSHeaderParameters, type LocalJWKSet } from "jose";
import type { Exchange } from "./contract.ts";
import { Kept, type KeptConfig } from "./kept.ts";
import { downloadJson, providerUrl } from "./provider-request.ts";

export type KeySetConfig = KeptConfig;

/** There are no keys, and none to be had now. */
export class KeysUnavailable extends Error {
  override readonly name = "KeysUnavailable";
  /** Whole seconds until the next attempt. */
  readonly retryAfter: number;

  constructor(retryAfter: number) {
    super("the key set could not be fetched");
    this.retryAfter = retryAfter;
  }
}

interface Keys {
  readonly find: LocalJWKSet;
  readonly content: string;
}

export class KeySet {
  readonly #kept: Kept<Keys>;

  /**
   * `source` is the set's address, or finds it by a request of its own. `changed` is called whenever what was verified with the keys may
   * no longer hold.
   */
  constructor(source: string | (() => Promise<string>), config: KeySetConfig, now: () => number, changed: () => void) {
    const load = async (): Promise<Keys> => {
      const url = typeof source === "string" ? source : await source();
      const set = await downloadJson(url, config.timeout, "application/jwk-set+json, application/json");
      // jose refuses what is not a set.
      const find = createLocalJWKSet(set as Parameters<typeof createLocalJWKSet>[0]);
      // Some issuers list their keys in a new order each time.
      const keys = (set as { keys: object[] }).keys.map((key) => JSON.stringify(key));
      return { find, content: keys.sort().join() };
    };
    const requests = typeof source === "string" ? 1 : 2;
    this.#kept = new Kept(
      config,
      { load, requests, same: (old, fresh) => old.content === fresh.content, changed },
      now,
    );
  }

  /** Whether the last attempt to refresh the set failed. */
  get stale(): boolean {
    return this.#kept.stale;
  }

  /** Keeps the set fresh (Kept.tend). */
  tend(exchange: Exchange): void {
    this.#kept.tend(exchange);
  }

  /**
   * The key for a token with this header. Throws what jose's local key set throws (JWKSNoMatchingKey, JWKSMultipleMatchingKeys),
   * and KeysUnavailable when there is no set.
   */
  async key(header: JWSHeaderParameters, exchange: Exchange): ReturnType<LocalJWKSet> {
    const kept = this.#kept;
    kept.tend(exchange);
    if (!kept.value) await kept.update(exchange);
    const { find } = kept.value ?? {};
    if (!find) throw new KeysUnavailable(kept.retryAfter);
    try {
      return await find(header);
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
      await kept.update(exchange);
      const { find: fresh } = kept.value ?? {};
      if (!fresh || fresh === find) throw error;
      return await fresh(header);
    }
  }
}

/** What an issuer says of itself (OpenID Connect Discovery 1.0, 3; RFC 8414, 2), as far as the gateway needs it. */
export interface ProviderMetadata {
  readonly issuer: string;
  readonly jwks_uri?: string;
  readonly authorization_endpoint?: string;
  readonly token_endpoint?: string;
  readonly end_session_endpoint?: string;
}

/**
 * The metadata of `issuer`, from where OpenID Connect Discovery 1.0, 4 has them. Throws when they are not to be had, or are another
 * issuer's (4.3), or name addresses that are none.
 */
export async function discover(issuer: string, timeout: number): Promise<ProviderMetadata> {
  const url = `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
  const metadata = (await downloadJson(url, timeout, "application/json")) as ProviderMetadata;
  if (metadata?.issuer !== issuer) throw new Error("the metadata are of another issuer");
  for (const [name, value] of Object.entries(metadata)) {
    if (/^(?:jwks_uri|.*_endpoint)$/.test(name) && !providerUrl(value)) throw new Error(`${name} is no https URL`);
  }
  return metadata;
}

/** Finds the key set of `issuer` by its metadata; while those are not to be had, where it was last. */
export function keySetOf(issuer: string, timeout: number): () => Promise<string> {
  let known: string | undefined;
  return async () => {
    try {
      known = (await discover(issuer, timeout)).jwks_uri ?? known;
    } catch (error) {
      if (known === undefined) throw error;
    }
    if (known === undefined) throw new Error("the metadata name no key set");
    return known;
  };
}
