/** Structured field values (RFC 9651): dictionaries, as signatures and digests are written in headers, read and written back. */

/** Tokens are told from strings, which are other values. */
export interface Token {
  readonly token: string;
}

export type BareItem = string | number | boolean | Uint8Array | Token;
/** In their order. */
export type Parameters = ReadonlyMap<string, BareItem>;

export interface Item {
  readonly value: BareItem;
  readonly parameters: Parameters;
}

export interface InnerList {
  readonly items: readonly Item[];
  readonly parameters: Parameters;
}

export type Member = Item | InnerList;

/** The members of a dictionary (RFC 9651, 4.2.2), of one name the last; undefined for what is none. */
export function parseDictionary(text: string): Map<string, Member> | undefined {
  try {
    return new Parser(text).dictionary();
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  dictionary(): Map<string, Member> {
    const members = new Map<string, Member>();
    this.#take(/ */y);
    while (!this.#ended) {
      const name = this.#key();
      const member = this.#eat("=") ? this.#member() : { value: true, parameters: this.#parameters() };
      members.delete(name);
      members.set(name, member);
      this.#take(/[ \t]*/y);
      if (this.#ended) break;
      if (!this.#eat(",")) throw new SyntaxError();
      this.#take(/[ \t]*/y);
      if (this.#ended) throw new SyntaxError();
    }
    return members;
  }

  get #ended(): boolean {
    return this.#at === this.#text.length;
  }

  #member(): Member {
    if (!this.#eat("(")) return this.#item();
    const items: Item[] = [];
    for (;;) {
      this.#take(/ */y);
      if (this.#eat(")")) return { items, parameters: this.#parameters() };
      items.push(this.#item());
      if (!/[ )]/.test(this.#text[this.#at] ?? "")) throw new SyntaxError();
    }
  }

  #item(): Item {
    return { value: this.#bareItem(), parameters: this.#parameters() };
  }

  #parameters(): Parameters {
    const parameters = new Map<string, BareItem>();
    while (this.#eat(";")) {
      this.#take(/ */y);
      const name = this.#key();
      const value = this.#eat("=") ? this.#bareItem() : true;
      parameters.delete(name);
      parameters.set(name, value);
    }
    return parameters;
  }

  #key(): string {
    const key = this.#take(/[a-z*][a-z0-9_\-.*]*/y);
    if (!key) throw new SyntaxError();
    return key;
  }

  #bareItem(): BareItem {
    const string = this.#take(/"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"/y);
    if (string) return string.slice(1, -1).replace(/\\(.)/g, "$1");
    const bytes = this.#take(/:[A-Za-z0-9+/]*={0,2}:/y);
    if (bytes) return fromBase64(bytes.slice(1, -1));
    const decimal = this.#take(/-?[0-9]{1,12}\.[0-9]{1,3}(?![0-9])/y) || this.#take(/-?[0-9]{1,15}(?![0-9.])/y);
    if (decimal) return Number(decimal);
    const boolean = this.#take(/\?[01]/y);
    if (boolean) return boolean === "?1";
    const token = this.#take(/[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*/y);
    if (token) return { token };
    throw new SyntaxError();
  }

  #eat(character: string): boolean {
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  /** What `pattern`, which must be sticky, matches here; "" where it does not. */
  #take(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0] ?? "";
    this.#at += found.length;
    return found;
  }
}

/** RFC 9651, 4.1.1.1 and 4.1.3. */
export const serializeMember = (member: Member): string =>
  "items" in member
    ? `(${member.items.map(serializeMember).join(" ")})${serializeParameters(member.parameters)}`
    : serializeBareItem(member.value) + serializeParameters(member.parameters);

const serializeParameters = (parameters: Parameters): string =>
  [...parameters].map(([name, value]) => `;${name}${value === true ? "" : `=${serializeBareItem(value)}`}`).join("");

function serializeBareItem(value: BareItem): string {
  if (typeof value === "string") return `"${value.replace(/["\\]/g, "\\$&")}"`;
  if (typeof value === "number") return String(value);
  if (typeof value === "boolean") return value ? "?1" : "?0";
  if (value instanceof Uint8Array) return `:${btoa(String.fromCharCode(...value))}:`;
  return value.token;
}

/** Throws SyntaxError for what is no base64. */
function fromBase64(text: string): Uint8Array {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    throw new SyntaxError();
  }
}
