/** A rule pack between build and Worker: JSON, and one run of bytes for what is binary. */
import type { RulePack } from "./pack.ts";

export interface EncodedPack {
  /** The pack without its binary parts, and how long each of them is. */
  readonly json: string;
  readonly bytes: Uint8Array;
}

type Head = Omit<RulePack, "tables" | "programs"> & { readonly lengths: readonly number[] };

export function encodePack({ tables, programs, ...head }: RulePack): EncodedPack {
  const bytes = new Uint8Array(2 * programs.reduce((sum, { length }) => sum + length, 0) + tables.length);
  let at = 0;
  for (const program of programs) {
    // The low byte first, whatever this machine does.
    for (const word of program) {
      bytes[at++] = word & 0xff;
      bytes[at++] = word >> 8;
    }
  }
  bytes.set(tables, at);
  return { json: JSON.stringify({ ...head, lengths: programs.map(({ length }) => length) } satisfies Head), bytes };
}

/** `text` has a character for each of the bytes, as in a source file, or is the bytes themselves. */
export function decodePack(json: string, text: string | Uint8Array): RulePack {
  const { lengths, ...head } = JSON.parse(json) as Head;
  if (head.version !== 1) throw new Error(`a rule pack of version ${head.version}: build again`);
  const bytes = typeof text === "string" ? bytesOf(text) : text;
  let at = 0;
  const programs = lengths.map((length) => {
    const program = new Uint16Array(length);
    for (let i = 0; i < length; i++, at += 2) program[i] = (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
    return program;
  });
  return { ...head, programs, tables: bytes.subarray(at) };
}

function bytesOf(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}
