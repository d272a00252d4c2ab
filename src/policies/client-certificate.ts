import { z } from "zod";
import type { ConsumerDeclaration } from "../config/consumer.ts";
import { type Deciding, policyBuilder } from "../config/policy.ts";
import { admissionOf, authenticating, challenge, consumerFacts, headerText } from "./authentication.ts";
import { BoundedMemory } from "./bounded-memory.ts";
import type {
  Admission,
  Authentication,
  CompileContext,
  Exchange,
  GatewayContext,
  MakeAuthenticator,
  PolicyRun,
  Refusal,
} from "./contract.ts";
import { normalName } from "./distinguished-name.ts";

/** By what a certificate is known; all that is given must fit. */
export interface CertificateIdentity {
  /** SHA-256 of the certificate, in hexadecimal, with or without colons. A renewed certificate has another one. */
  readonly fingerprint?: string;
  /** The subject's distinguished name as RFC 4514 writes it: `CN=partner,O=Partner,C=DE`. Case and blanks do not count, the order does. */
  readonly subject?: string;
  /** The issuer's, likewise. */
  readonly issuer?: string;
  /** In hexadecimal; unique for its issuer only. */
  readonly serial?: string;
  readonly consumer: ConsumerDeclaration;
  readonly scopes?: readonly string[];
}

export interface ClientCertificateOptions extends Deciding {
  /** The first one that fits says which consumer it is. Default: none; see `anyVerified`. */
  readonly certificates?: readonly CertificateIdentity[];
  /** Whether every certificate that Cloudflare has verified is let in, the others as nobody's. Default: false where there are `certificates`. */
  readonly anyVerified?: boolean;
  /** Requests without a certificate pass, with no caller; one that is there must be good. Default: false. */
  readonly optional?: boolean;
}

/**
 * Lets requests through by the certificate that the client showed in the TLS handshake, which Cloudflare has verified against the CAs of
 * the host (`request.cf.tlsClientAuth`) and found not revoked. 401 `credentials-missing` or `credentials-invalid`.
 */
export const clientCertificate = policyBuilder<ClientCertificateOptions>("clientCertificate");

export const schema = () => {
  const text = z.string().min(1);
  return z.strictObject({
    mode: z.enum(["enforce", "report", "off"]).optional(),
    certificates: z
      .array(
        z.strictObject({
          fingerprint: text.optional(),
          subject: text.optional(),
          issuer: text.optional(),
          serial: text.optional(),
          consumer: z.looseObject({ kind: z.literal("consumer"), name: z.string() }),
          scopes: z.array(text).optional(),
        }),
      )
      .min(1)
      .optional(),
    anyVerified: z.boolean().optional(),
    optional: z.boolean().optional(),
  });
};

/** All in one spelling. */
interface IdentityConfig {
  readonly fingerprint?: string;
  readonly subject?: string;
  readonly issuer?: string;
  readonly serial?: string;
  readonly consumer: string;
  readonly scopes: readonly string[];
}

export interface ClientCertificateConfig {
  readonly certificates: readonly IdentityConfig[];
  readonly anyVerified: boolean;
  readonly optional: boolean;
}

export function compile(options: ClientCertificateOptions, context: CompileContext): ClientCertificateConfig {
  const { certificates = [], anyVerified = certificates.length === 0 } = options;
  const name = (what: string, text: string): string => {
    const normal = normalName(text);
    if (normal === undefined)
      context.problem(`${what} "${text}" is no distinguished name`, 'write it as "CN=partner,O=Partner,C=DE"');
    return normal ?? "";
  };
  return {
    certificates: certificates.map(({ fingerprint, subject, issuer, serial, consumer, scopes = [] }) => {
      if (fingerprint === undefined && subject === undefined && serial === undefined) {
        const fix = "give `fingerprint`, `subject`, or `issuer` and `serial`";
        context.problem(`a certificate of "${consumer.name}" is told apart by nothing`, fix);
      }
      if (serial !== undefined && issuer === undefined && fingerprint === undefined) {
        context.problem(`serial "${serial}" may be that of any issuer's certificate`, "give its `issuer`, too");
      }
      if (fingerprint !== undefined && !/^[0-9a-f]{64}$/.test(hexadecimal(fingerprint))) {
        context.problem(
          `fingerprint "${fingerprint}" is no SHA-256`,
          "give 64 hexadecimal digits, as openssl x509 -fingerprint -sha256 prints them",
        );
      }
      if (serial !== undefined && !/^[0-9a-f]{1,40}$/.test(hexadecimal(serial)))
        context.problem(`serial "${serial}" is no number in hexadecimal`, "give it as openssl x509 -serial prints it");
      return {
        ...(fingerprint !== undefined && { fingerprint: hexadecimal(fingerprint) }),
        ...(subject !== undefined && { subject: name("subject", subject) }),
        ...(issuer !== undefined && { issuer: name("issuer", issuer) }),
        ...(serial !== undefined && { serial: withoutZeros(hexadecimal(serial)) }),
        consumer: consumer.name,
        scopes,
      };
    }),
    anyVerified,
    optional: options.optional ?? false,
  };
}

const hexadecimal = (text: string): string => text.replaceAll(":", "").toLowerCase();
const withoutZeros = (text: string): string => text.replace(/^0+(?=.)/, "");

/** What Cloudflare tells of the handshake, all of it as texts (Cloudflare, "Client certificate variables"). */
interface TlsClientAuth {
  /** `1` or `0`. */
  readonly certPresented?: string;
  /** `SUCCESS`, `NONE` or `FAILED:<why>`. A revoked certificate is verified with success. */
  readonly certVerified?: string;
  /** `1` or `0`. */
  readonly certRevoked?: string;
  readonly certFingerprintSHA256?: string;
  readonly certSubjectDNRFC2253?: string;
  readonly certIssuerDNRFC2253?: string;
  readonly certSerial?: string;
}

const REASONS = {
  unverified: "the certificate is not one of those that are asked for, or is not valid now",
  revoked: "the certificate was revoked",
  unknown: "the certificate belongs to no known consumer",
} as const;

const ANONYMOUS: Admission = Object.freeze({ headers: [], facts: Object.freeze({ anonymous: true }) });

export const authenticator: MakeAuthenticator<ClientCertificateConfig> = (config, runtime) => {
  // By fingerprint: to read names takes some microseconds.
  const known = new BoundedMemory<Admission | "unknown">(1_000);

  const deny = (exchange: Exchange, why: keyof typeof REASONS, id?: string): Refusal => ({
    refused: "credentials-invalid",
    extras: {
      detail: REASONS[why],
      headers: { "www-authenticate": asked(exchange) },
      facts: { why, ...(id && { id }) },
    },
  });

  const recognise = (tls: TlsClientAuth, fingerprint: string): Admission | "unknown" => {
    const subject = normalName(tls.certSubjectDNRFC2253 ?? "");
    const issuer = normalName(tls.certIssuerDNRFC2253 ?? "");
    const serial = withoutZeros(hexadecimal(tls.certSerial ?? ""));
    const identity = config.certificates.find(
      (one) =>
        (one.fingerprint === undefined || one.fingerprint === fingerprint) &&
        (one.subject === undefined || one.subject === subject) &&
        (one.issuer === undefined || one.issuer === issuer) &&
        (one.serial === undefined || one.serial === serial),
    );
    if (!identity && !config.anyVerified) return "unknown";
    const name = tls.certSubjectDNRFC2253 ?? "";
    const caller = {
      ...consumerFacts(runtime, identity?.consumer),
      subject: `certificate:${name}`,
      scopes: identity?.scopes ?? [],
      claims: { subject: name, issuer: tls.certIssuerDNRFC2253 ?? "", serial, fingerprint },
      credential: { kind: "clientCertificate" as const, id: fingerprint },
    };
    const text = headerText(name);
    return admissionOf(caller, text ? [["x-consumer-subject", text]] : []);
  };

  return {
    authenticate(c: GatewayContext): Authentication {
      const exchange = c.get("exchange");
      const tls = (c.req.raw as { cf?: { tlsClientAuth?: TlsClientAuth } }).cf?.tlsClientAuth;
      if (tls?.certPresented !== "1") {
        if (config.optional) return ANONYMOUS;
        return {
          refused: "credentials-missing",
          absent: true,
          extras: { headers: { "www-authenticate": asked(exchange) } },
        };
      }
      const fingerprint = hexadecimal(tls.certFingerprintSHA256 ?? "");
      if (tls.certVerified !== "SUCCESS") return deny(exchange, "unverified", fingerprint);
      // What is not said to be in force is not taken for it.
      if (tls.certRevoked !== "0") return deny(exchange, "revoked", fingerprint);
      let admission = known.get(fingerprint);
      if (admission === undefined || fingerprint === "") {
        admission = recognise(tls, fingerprint);
        known.put(fingerprint, admission);
      }
      return admission === "unknown" ? deny(exchange, "unknown", fingerprint) : admission;
    },
  };
};

export const run: PolicyRun<ClientCertificateConfig> = authenticating("clientCertificate", authenticator);

// No scheme is registered for certificates, and a 401 must have one (RFC 9110, 15.5.2).
const asked = (exchange: Exchange): string => challenge(exchange, "ClientCertificate");
