/**
 * A field of a manifest: its value, where it stands, and what becomes of it. Reading a value marks it as carried; what nobody has
 * read when the import is done is a field that the importer does not know, and the report says so (report.ts).
 */
import { type Document, isAlias, isMap, isNode, isScalar, isSeq, type LineCounter, type Node } from "yaml";
import type { Problems } from "../build/problem.ts";
import type { Fix } from "../config/declaration.ts";

/** `ignored`: no business of a gateway's, or by the Gateway API itself without effect. */
export type Verdict =
  | { readonly kind: "carried" }
  | { readonly kind: "differs" | "refused" | "ignored"; readonly note: string };

/** What the fields of one document have in common. */
export interface Origin {
  readonly file: string;
  readonly problems: Problems;
  /** `HTTPRoute shop/orders`, once that is known. */
  subject: string;
}

type Scalar = string | number | boolean | null;
export type Content = Scalar | ReadonlyMap<string, Field> | readonly Field[];

export class Field {
  readonly origin: Origin;
  /** From the resource's root: `spec.rules[0].matches`. */
  readonly path: string;
  readonly line: number;
  readonly content: Content;
  verdict: Verdict | undefined;

  constructor(origin: Origin, path: string, line: number, content: Content) {
    this.origin = origin;
    this.path = path;
    this.line = line;
    this.content = content;
  }

  /** The member of that name of a map; undefined when there is none, or when it is null, which Kubernetes takes for none. */
  at(name: string): Field | undefined {
    const field = this.members().get(name);
    if (field?.content !== null) return field;
    field.carry();
    return undefined;
  }

  members(): ReadonlyMap<string, Field> {
    if (this.content instanceof Map) {
      if (this.content.size === 0) this.carry();
      return this.content;
    }
    this.#mistyped("a map");
    return new Map();
  }

  /** The items of the list that is the member of that name; none when there is no such member. */
  items(name: string): readonly Field[] {
    const list = this.at(name);
    if (list === undefined) return [];
    if (!Array.isArray(list.content)) {
      list.#mistyped("a list");
      return [];
    }
    if (list.content.length === 0) list.carry();
    return list.content;
  }

  /** As `at`, and a problem when there is none. */
  required(name: string): Field | undefined {
    const field = this.at(name);
    if (field === undefined && this.content instanceof Map) this.problem(`has no \`${name}\``, `give it a \`${name}\``);
    return field;
  }

  text(): string | undefined {
    if (typeof this.content === "string") return this.#carried(this.content);
    this.#mistyped(
      typeof this.content === "object" ? "a text" : `a text: put it in quotes, "${String(this.content).slice(0, 40)}"`,
    );
    return undefined;
  }

  /** A whole number of that range. */
  integer(least: number, most: number): number | undefined {
    const { content } = this;
    if (typeof content === "number" && Number.isInteger(content) && content >= least && content <= most)
      return this.#carried(content);
    this.#mistyped(`a whole number from ${least} to ${most}`);
    return undefined;
  }

  flag(): boolean | undefined {
    if (typeof this.content === "boolean") return this.#carried(this.content);
    this.#mistyped("true or false");
    return undefined;
  }

  /** One of `choices`; undefined, and refused, for any other text: newer versions of the API may have more. */
  choice<const Choice extends string>(...choices: readonly Choice[]): Choice | undefined {
    const text = this.text();
    if (text === undefined || (choices as readonly string[]).includes(text)) return text as Choice | undefined;
    this.refuse(`${JSON.stringify(text)} is none of ${choices.join(", ")}`);
    return undefined;
  }

  carry(): void {
    this.verdict ??= { kind: "carried" };
  }

  /** Carried, but what comes out of it is not quite the same. */
  differ(note: string): void {
    this.verdict = { kind: "differs", note };
  }

  refuse(note: string): void {
    this.verdict = { kind: "refused", note };
  }

  ignore(note: string): void {
    this.verdict = { kind: "ignored", note };
  }

  /** The manifest itself is wrong; nothing will be written. */
  problem(message: string, fix: Fix): void {
    const { file, problems, subject } = this.origin;
    problems.addAt(file, this.line, subject, this.path === "" ? message : `\`${this.path}\` ${message}`, fix);
  }

  #carried<Value>(value: Value): Value {
    this.carry();
    return value;
  }

  #mistyped(expected: string): void {
    // Told once: a field may be asked for more than once.
    if (this.verdict?.kind === "ignored") return;
    this.ignore("is of the wrong type");
    this.problem(`must be ${expected}`, "write it as the API's reference says");
  }
}

/** Of a map or a list; none of another value. */
export const membersOf = ({ content }: Field): readonly Field[] =>
  typeof content === "object" && content !== null ? [...content.values()] : [];

/** Kubernetes' own objects nest far less; an alias may lead back to what holds it, and endlessly from there. */
const DEEPEST = 64;
/** Of one resource. A few aliases to aliases make billions. */
const MOST = 200_000;

/** The YAML below `root` as fields; undefined, after a problem, for what Kubernetes would not read either. */
export function fieldOf(root: Node, document: Document, lines: LineCounter, origin: Origin): Field | undefined {
  let count = 0;
  const lineOf = (node: unknown, otherwise: number): number =>
    isNode(node) && node.range ? lines.linePos(node.range[0]).line : otherwise;

  const read = (node: unknown, path: string, line: number, depth: number): Content | undefined => {
    const refuse = (message: string, fix: Fix): undefined =>
      void new Field(origin, path, line, null).problem(message, fix);
    if (++count > MOST) return count > MOST + 1 ? undefined : refuse("has too many values", "split the file");
    if (depth > DEEPEST) return refuse("is nested too deeply", "write out what its aliases stand for");
    if (isAlias(node)) {
      const target = node.resolve(document);
      if (!target) return refuse(`is an alias of "${node.source}", which is nowhere before`, "write the value out");
      return read(target, path, line, depth + 1);
    }
    if (isMap(node)) {
      const members = new Map<string, Field>();
      const merged: Content[] = [];
      for (const { key, value } of node.items) {
        if (!isScalar(key)) return refuse("has a key that is no text", "write a name before the colon");
        const name = String(key.value);
        if (name === "<<" && key.type === "PLAIN") {
          const target = isAlias(value) ? value.resolve(document) : value;
          for (const part of isSeq(target) ? target.items : [value]) {
            const content = read(part, path, lineOf(key, line), depth + 1);
            if (content === undefined) return undefined;
            if (!(content instanceof Map))
              return refuse("merges what is no map", "write out the fields that it merges");
            merged.push(content);
          }
          continue;
        }
        const plain = path === "" || /^[\w-]+$/.test(name);
        const below = plain ? (path && `${path}.`) + name : `${path}[${JSON.stringify(name)}]`;
        const at = lineOf(key, line);
        const content = read(value, below, at, depth + 1);
        if (content === undefined) return undefined;
        members.set(name, new Field(origin, below, at, content));
      }
      // What the map says itself counts before what it merges, and the first that is merged before the others (YAML's merge key type).
      for (const part of merged as Map<string, Field>[])
        for (const [name, field] of part) if (!members.has(name)) members.set(name, field);
      return members;
    }
    if (isSeq(node)) {
      const items: Field[] = [];
      for (const [position, item] of node.items.entries()) {
        const below = `${path}[${position}]`;
        const at = lineOf(item, line);
        const content = read(item, below, at, depth + 1);
        if (content === undefined) return undefined;
        items.push(new Field(origin, below, at, content));
      }
      return items;
    }
    const value = isScalar(node) ? node.value : null;
    if (value === null || typeof value === "string" || typeof value === "number" || typeof value === "boolean")
      return value;
    return refuse("has a value that JSON does not know", "put it in quotes");
  };

  const line = lineOf(root, 1);
  const content = read(root, "", line, 0);
  return content === undefined ? undefined : new Field(origin, "", line, content);
}
