/**
 * Property tests draw the same cases on every run, so that a failure is the change's own and can be repeated. Another seed finds
 * other cases: `PORTCULLIS_SEED=random npm test`, or a number in place of `random`.
 */
import fc from "fast-check";
import { inject } from "vitest";

fc.configureGlobal({ seed: inject("fuzzSeed") });
