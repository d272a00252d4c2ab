/** The rules that the tests are for, compiled with the configuration that the tests assume. */
import { type CompiledRules, type CompileOptions, compileRules } from "../../../src/seclang/compile.ts";

/** Of the Core Rule Set's own test runs (its tests/docker-compose.yml): every rule is asked, and none refuses. */
export const CONFIGURATION = {
  paranoia: 4,
  variables: {
    arg_name_length: "100",
    arg_length: "400",
    total_arg_length: "6400",
    max_num_args: "255",
    max_file_size: "64100",
    combined_file_sizes: "65535",
    crs_validate_utf8_encoding: "1",
  },
  phases: [1, 2, 3, 4, 5],
  settings: {
    engine: "detection-only",
    requestBody: true,
    responseBody: true,
    responseTypes: ["text/plain", "text/html", "text/xml", "application/json"],
  },
} satisfies CompileOptions;

/** Throws an Error that lists what cannot be compiled. */
export function compiledRules(folder: string, options: Pick<CompileOptions, "messages"> = {}): CompiledRules {
  const compiled = compileRules(folder, { ...CONFIGURATION, ...options });
  if (compiled.problems.length > 0)
    throw new Error(
      compiled.problems.map(({ file, line, message, fix }) => `${file}:${line}: ${message}; ${fix}`).join("\n"),
    );
  return compiled;
}

/** What a rule says to people. */
export function messages(folder: string): (id: number) => string {
  const { catalog } = compiledRules(folder);
  return (id) => catalog.get(id)?.message ?? "";
}
