/**
 * The demo's issuer and all the keys of the development stand. They are kept in `.portcullis/dev-keys.json`, so that a token signed
 * in one terminal is accepted by the demo that runs in another, and still is after a restart.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { link, mkdir, readFile, unlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, type JWK, SignJWT } from "jose";
import { parseDuration } from "../config/duration.ts";
import { close, listen } from "./loopback.ts";

/** Where the stand keeps what it makes; gitignored. */
export const STAND_FOLDER = ".portcullis";

/** `iss` and `aud` of the demo's tokens, as the shipped routes expect them. */
export const ISSUER = "https://login.example.com";
export const AUDIENCE = "https://api.example.com";

export interface DevKeys {
  /** Private, ES256: signs tokens. */
  readonly issuer: JWK;
  /** Private, ES256: the gateway signs its assertions with it. */
  readonly assertion: JWK;
  readonly debug: string;
  readonly canary: string;
  readonly redisToken: string;
}

/**
 * The keys in `folder`, made on first use, readable by the owner alone. Throws when the file is there but not one of ours.
 */
export async function devKeys(folder: string = STAND_FOLDER): Promise<DevKeys> {
  const file = join(folder, "dev-keys.json");
  const kept = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
  });
  return parseKeys(kept ?? (await makeKeys(folder, file)), file);
}

function parseKeys(text: string, file: string): DevKeys {
  try {
    const keys = JSON.parse(text) as DevKeys;
    if (keys.issuer.d && keys.assertion.d && keys.debug && keys.canary && keys.redisToken) return keys;
  } catch {}
  throw new Error(`${file} does not hold the stand's keys; delete it, and new ones are made`);
}

async function makeKeys(folder: string, file: string): Promise<string> {
  const keys: DevKeys = {
    issuer: await privateKey(),
    assertion: await privateKey(),
    debug: randomBytes(16).toString("hex"),
    canary: randomBytes(16).toString("hex"),
    redisToken: randomBytes(16).toString("hex"),
  };
  await mkdir(folder, { recursive: true });
  const draft = `${file}.${randomUUID()}`;
  await writeFile(draft, `${JSON.stringify(keys, null, 2)}\n`, { mode: 0o600 });
  try {
    // A link comes into being whole, and only where there is none: of two processes that get here at once, one wins.
    await link(draft, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  } finally {
    await unlink(draft);
  }
  return readFile(file, "utf8");
}

async function privateKey(): Promise<JWK> {
  const pair = await generateKeyPair("ES256", { extractable: true });
  const jwk = await exportJWK(pair.privateKey);
  return { ...jwk, alg: "ES256", kid: await calculateJwkThumbprint(jwk) };
}

export interface TokenOptions {
  readonly subject: string;
  /** Scopes, separated by blanks. Default: none. */
  readonly scope?: string;
  /** The `client_id` claim. Default: `storefront`, a declared consumer of the shipped routes. */
  readonly client?: string;
  /** Seconds; negative for a token that has expired. Default: 3600. */
  readonly expiresIn?: number;
  /** More claims; they win over those above, so that a wrong `aud` can be tried. */
  readonly claims?: Readonly<Record<string, unknown>>;
}

/** An access token (RFC 9068) that the demo accepts. `folder`: where the keys are. */
export async function signToken(options: TokenOptions, folder?: string): Promise<string> {
  const { subject, scope = "", client = "storefront", expiresIn = 3600, claims } = options;
  const { issuer } = await devKeys(folder);
  const now = Math.floor(Date.now() / 1000);
  return new SignJWT({
    iss: ISSUER,
    aud: AUDIENCE,
    sub: subject,
    client_id: client,
    ...(scope !== "" && { scope }),
    iat: now,
    exp: now + expiresIn,
    jti: randomUUID(),
    ...claims,
  })
    .setProtectedHeader({ alg: "ES256", kid: issuer.kid as string, typ: "at+jwt" })
    .sign(await importJWK(issuer));
}

/** What `gateway -- token` was asked for. Throws when `expires` is no duration or a claim has no name. */
export async function tokenForDemo(options: {
  sub: string;
  scope?: string;
  client?: string;
  expires?: string;
  /** `name=value`; the value is JSON, or else text. */
  claim?: readonly string[];
}): Promise<string> {
  const { sub, scope, client, expires = "1h", claim = [] } = options;
  const milliseconds = parseDuration(expires);
  if (milliseconds === undefined)
    throw new Error(`--expires ${expires} is no duration; write it as 90s, 15m, 1h30m or 7d`);
  return signToken({
    subject: sub,
    expiresIn: Math.floor(milliseconds / 1000),
    ...(scope !== undefined && { scope }),
    ...(client !== undefined && { client }),
    claims: Object.fromEntries(claim.map(claimOf)),
  });
}

function claimOf(text: string): [name: string, value: unknown] {
  const equals = text.indexOf("=");
  if (equals < 1) throw new Error(`--claim ${text} is no claim; write it as name=value`);
  const value = text.slice(equals + 1);
  try {
    return [text.slice(0, equals), JSON.parse(value)];
  } catch {
    return [text.slice(0, equals), value];
  }
}

export interface RunningIssuer {
  readonly url: string;
  readonly jwksUrl: string;
  close(): Promise<void>;
}

/** Serves the issuer's public key as a JWK Set. `port` defaults to a free one, `folder` is where the keys are. */
export async function startIssuer(options: { port?: number; folder?: string } = {}): Promise<RunningIssuer> {
  const { kty, crv, x, y, kid, alg } = (await devKeys(options.folder)).issuer;
  const keySet = JSON.stringify({ keys: [{ kty, crv, x, y, kid, alg, use: "sig" }] });
  const server = createServer((request, response) => {
    const found = request.url === "/.well-known/jwks.json";
    response
      .writeHead(found ? 200 : 404, { "content-type": found ? "application/jwk-set+json" : "text/plain" })
      .end(found ? keySet : "The issuer's keys are at /.well-known/jwks.json\n");
  });
  const url = `http://127.0.0.1:${await listen(server, options.port)}`;
  return { url, jwksUrl: `${url}/.well-known/jwks.json`, close: () => close(server) };
}
