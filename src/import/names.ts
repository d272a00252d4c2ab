/** Names in the module: readable ones, unique where they have to be, and the same for the same manifests. */
import { createHash } from "node:crypto";
import * as portcullis from "../index.ts";

/** Longest name of an API, a route, a cluster or an arm (build/check.ts). */
const LONGEST = 63;

/** `text` as the build takes names: letters, digits and . _ - */
export function nameFrom(text: string): string {
  const name = text.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+|[^A-Za-z0-9]+$/g, "") || "unnamed";
  return name.length <= LONGEST ? name : `${name.slice(0, LONGEST - 9)}-${digest(text)}`;
}

const digest = (text: string): string => createHash("sha256").update(text).digest("hex").slice(0, 8);

/** Gives out names once: the first that is free of `choices`, or the last of them with a number. */
export class Names {
  readonly #taken: Set<string>;

  constructor(taken: Iterable<string> = []) {
    this.#taken = new Set(taken);
  }

  take(...choices: readonly string[]): string {
    const last = choices.at(-1) ?? "unnamed";
    let name = choices.find((choice) => !this.#taken.has(choice));
    for (let number = 2; name === undefined; number++) {
      const numbered = `${last.slice(0, LONGEST - 1 - String(number).length)}-${number}`;
      if (!this.#taken.has(numbered)) name = numbered;
    }
    this.#taken.add(name);
    return name;
  }
}

// ECMA-262, 12.7.2, and what strict mode and modules add.
const RESERVED =
  "arguments await break case catch class const continue debugger default delete do else enum eval export extends false finally for function if implements import in instanceof interface let new null package private protected public return static super switch this throw true try typeof undefined var void while with yield".split(
    " ",
  );

/** Constants of one module, or of modules that import each other. */
export class Identifiers {
  readonly #taken: Set<string>;

  constructor(taken: Iterable<string> = []) {
    this.#taken = new Set([...RESERVED, ...Object.keys(portcullis), ...taken]);
  }

  /** `orders-next` as `ordersNext`; with `suffix` where that is taken: `gatewayApi`. */
  take(name: string, suffix: string): string {
    const words = name.split(/[^A-Za-z0-9]+/).filter(Boolean);
    const camel = words.map((word, at) => (at === 0 ? word[0]?.toLowerCase() : word[0]?.toUpperCase()) + word.slice(1));
    const plain = camel.join("").replace(/^(?=[0-9])/, "_") || "_";
    let identifier = this.#taken.has(plain) ? plain + suffix : plain;
    for (let number = 2; this.#taken.has(identifier); number++) identifier = `${plain}${suffix}${number}`;
    this.#taken.add(identifier);
    return identifier;
  }
}
