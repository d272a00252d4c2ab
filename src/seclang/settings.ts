/** Directives that set the engine up, rather than being rules. */
import type { PackSettings } from "../waf/pack.ts";
import { Malformed } from "./rule-text.ts";

export type SourceSettings = { -readonly [Key in keyof PackSettings]?: PackSettings[Key] };

export const DEFAULT_SETTINGS: PackSettings = {
  engine: "on",
  requestBody: true,
  responseBody: false,
  requestBodyLimit: 131_072,
  responseBodyLimit: 524_288,
  responseTypes: ["text/plain", "text/html", "text/xml", "application/json"],
  argumentSeparator: "&",
  argumentsLimit: 1_000,
  jsonDepth: 512,
};

export const ENGINE_MODES: ReadonlyMap<string, PackSettings["engine"]> = new Map([
  ["on", "on"],
  ["detectiononly", "detection-only"],
  ["off", "off"],
]);

/**
 * Of files, logs, processes and services that a Worker does not have, or of what the gateway does itself (audit: the decision
 * record). They change nothing about which requests match.
 */
export const MEANINGLESS = new Set(
  (
    "SecComponentSignature SecCollectionTimeout SecDataDir SecTmpDir SecUploadDir SecUploadFileLimit SecUploadFileMode " +
    "SecUploadKeepFiles SecTmpSaveUploadedFiles SecAuditEngine SecAuditLog SecAuditLog2 SecAuditLogDirMode SecAuditLogFileMode " +
    "SecAuditLogFormat SecAuditLogParts SecAuditLogRelevantStatus SecAuditLogStorageDir SecAuditLogType SecDebugLog " +
    "SecDebugLogLevel SecPcreMatchLimit SecPcreMatchLimitRecursion SecRequestBodyInMemoryLimit SecRequestBodyNoFilesLimit " +
    "SecRequestBodyLimitAction SecResponseBodyLimitAction SecServerSignature SecStatusEngine SecUnicodeMapFile SecUnicodeMap " +
    "SecCookieFormat SecCookieV0Separator SecSensorId SecConnEngine SecRuleInheritance SecRulePerfTime SecInterceptOnError " +
    "SecXmlExternalEntity SecGeoLookupDb SecHttpBlKey SecGsbLookupDb SecGuardianLog SecChrootDir SecWebAppId SecContentInjection " +
    "SecStreamInBodyInspection SecStreamOutBodyInspection SecDisableBackendCompression SecParseXmlIntoArgs"
  )
    .toLowerCase()
    .split(" "),
);

/** Undefined for a directive that is none of these. */
export function settingOf(directive: string, args: readonly string[]): SourceSettings | undefined {
  const [value = ""] = args;
  switch (directive.toLowerCase()) {
    case "secruleengine": {
      const engine = ENGINE_MODES.get(value.toLowerCase());
      if (!engine) throw new Malformed(`SecRuleEngine is On, DetectionOnly or Off, not "${value}"`);
      return { engine };
    }
    case "secrequestbodyaccess":
      return { requestBody: isOn(directive, value) };
    case "secresponsebodyaccess":
      return { responseBody: isOn(directive, value) };
    case "secrequestbodylimit":
      return { requestBodyLimit: count(directive, value) };
    case "secresponsebodylimit":
      return { responseBodyLimit: count(directive, value) };
    case "secresponsebodymimetype":
      return { responseTypes: args.flatMap((arg) => arg.toLowerCase().split(/\s+/)) };
    case "secresponsebodymimetypesclear":
      return { responseTypes: [] };
    case "secargumentseparator":
      return { argumentSeparator: value };
    case "secargumentslimit":
      return { argumentsLimit: count(directive, value) };
    case "secrequestbodyjsondepthlimit":
      return { jsonDepth: count(directive, value) };
    default:
      return undefined;
  }
}

function isOn(directive: string, value: string): boolean {
  if (!/^(?:on|off)$/i.test(value)) throw new Malformed(`${directive} is On or Off, not "${value}"`);
  return value.toLowerCase() === "on";
}

function count(directive: string, value: string): number {
  if (!/^\d+$/.test(value)) throw new Malformed(`${directive} takes a number, not "${value}"`);
  return Number(value);
}
