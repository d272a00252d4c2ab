/**
 * Whether a real part is there. Without it the tests that need it are skipped, visibly; with PORTCULLIS_REQUIRE_REAL_PARTS=1, as in CI,
 * the file fails instead.
 */
export function isThere(part: string, present: boolean): boolean {
  if (!present && process.env.PORTCULLIS_REQUIRE_REAL_PARTS === "1") {
    throw new Error(`PORTCULLIS_REQUIRE_REAL_PARTS is set, and there is no ${part} on the PATH`);
  }
  return present;
}

/** Debian's package modsecurity-crs: the rules of the OWASP Core Rule Set 3.3.4. */
export const CRS_RULES = "/usr/share/modsecurity-crs";
