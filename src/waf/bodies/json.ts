/**
 * JSON (RFC 8259), read by an own reader: JSON.parse keeps only the last of two members of one name, of which a backend may take the
 * first, and has no limit of depth.
 *
 * A member is called by its path, `json.order.name`. An element of an array has the array's name, as in ModSecurity 2, where
 * libmodsecurity 3 counts (`json.order.array_0.name`): so one exclusion is for every element, and each name is judged once.
 */
import { utf8 } from "../bytes.ts";
import { hexByte } from "../transforms/hex.ts";
import { type Argument, BODY_LIMITS, type BodyLimits, type ReadBody, tooManyArguments } from "./body.ts";

/** Strings become their UTF-8, numbers stay as they are written, true and false are these words, null is empty. */
export function readJson(text: string, limits: BodyLimits = BODY_LIMITS): ReadBody {
  const reader = new JsonReader(text, limits);
  try {
    reader.document();
    return { args: reader.args };
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    return { args: reader.args, error: `JSON: ${error.message}` };
  }
}

class Unreadable extends Error {}

const BEGIN_ARRAY = 0x5b;
const END_ARRAY = 0x5d;
const BEGIN_OBJECT = 0x7b;
const END_OBJECT = 0x7d;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const COMMA = 0x2c;

/** Else a body of deep members with long names would be judged many times its length: each path is a name of its own. */
const LONGEST_NAME = 1024;

/** No quote, no backslash, no control character. */
const PLAIN = /[ !#-[\]-\xff]*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

class JsonReader {
  readonly args: Argument[] = [];
  readonly #text: string;
  readonly #limits: BodyLimits;
  #at = 0;

  constructor(text: string, limits: BodyLimits) {
    this.#text = text;
    this.#limits = limits;
  }

  document(): void {
    // RFC 8259, 8.1: a byte order mark may be ignored.
    if (this.#text.startsWith("\xef\xbb\xbf")) this.#at = 3;
    this.#value("json", 0);
    if (!Number.isNaN(this.#next())) this.#fail("something after the document");
  }

  #value(name: string, depth: number): void {
    const code = this.#next();
    if (code === QUOTE) this.#add(name, this.#string());
    else if (code === BEGIN_OBJECT) this.#object(name, depth + 1);
    else if (code === BEGIN_ARRAY) this.#array(name, depth + 1);
    else this.#add(name, this.#word());
  }

  #object(name: string, depth: number): void {
    this.#enter(depth);
    if (this.#next() === END_OBJECT) {
      this.#at++;
      return;
    }
    for (;;) {
      if (this.#next() !== QUOTE) this.#fail("a member needs a name in quotes");
      const member = `${name}.${this.#string()}`;
      if (member.length > LONGEST_NAME) this.#fail(`a path is longer than ${LONGEST_NAME} bytes`);
      if (this.#next() !== COLON) this.#fail("a member needs a colon after its name");
      this.#at++;
      this.#value(member, depth);
      if (this.#closes(END_OBJECT)) return;
    }
  }

  #array(name: string, depth: number): void {
    this.#enter(depth);
    if (this.#next() === END_ARRAY) {
      this.#at++;
      return;
    }
    for (;;) {
      this.#value(name, depth);
      if (this.#closes(END_ARRAY)) return;
    }
  }

  #enter(depth: number): void {
    if (depth > this.#limits.depth) this.#fail(`nested deeper than ${this.#limits.depth}`);
    this.#at++;
  }

  /** After a member or an element: whether it was the last. */
  #closes(end: number): boolean {
    const code = this.#next();
    if (code !== end && code !== COMMA) this.#fail("a comma or the end is missing");
    this.#at++;
    return code === end;
  }

  /** From the quote that begins it. */
  #string(): string {
    const text = this.#text;
    let out = "";
    let from = this.#at + 1;
    for (;;) {
      PLAIN.lastIndex = from;
      PLAIN.test(text);
      const to = PLAIN.lastIndex;
      const code = text.charCodeAt(to);
      this.#at = to;
      if (code === QUOTE) {
        this.#at++;
        return out === "" ? text.slice(from, to) : out + text.slice(from, to);
      }
      if (code !== BACKSLASH)
        this.#fail(Number.isNaN(code) ? "a string does not end" : "a control character in a string");
      out += text.slice(from, to) + this.#escape();
      from = this.#at;
    }
  }

  #escape(): string {
    const letter = this.#text.charAt(this.#at + 1);
    if (letter === "u") {
      const unit = this.#codeUnit();
      if (unit < 0xd800 || unit > 0xdfff) return utf8(unit);
      if (unit < 0xdc00 && this.#text.startsWith("\\u", this.#at)) {
        const at = this.#at;
        const second = this.#codeUnit();
        if (second >= 0xdc00 && second <= 0xdfff) return utf8(0x10000 + ((unit - 0xd800) << 10) + (second - 0xdc00));
        this.#at = at;
      }
      // Half of a pair is no character: U+FFFD, as decoders have it.
      return utf8(0xfffd);
    }
    const stands = ESCAPES[letter];
    if (stands === undefined) this.#fail("an unknown escape");
    this.#at += 2;
    return stands as string;
  }

  #codeUnit(): number {
    const high = hexByte(this.#text, this.#at + 2);
    const low = hexByte(this.#text, this.#at + 4);
    if (high < 0 || low < 0) this.#fail("\\u needs four hexadecimal digits");
    this.#at += 6;
    return high * 256 + low;
  }

  #word(): string {
    const text = this.#text;
    const from = this.#at;
    NUMBER.lastIndex = from;
    if (NUMBER.test(text)) {
      this.#at = NUMBER.lastIndex;
      return text.slice(from, this.#at);
    }
    for (const word of ["true", "false", "null"]) {
      if (text.startsWith(word, from)) {
        this.#at += word.length;
        return word === "null" ? "" : word;
      }
    }
    return this.#fail(from >= text.length ? "a value is missing" : "no value begins so");
  }

  #add(name: string, value: string): void {
    if (this.args.length === this.#limits.arguments) this.#fail(tooManyArguments(this.#limits));
    this.args.push([name, value]);
  }

  /** The next character that is no white space; NaN at the end. */
  #next(): number {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return code;
      this.#at++;
    }
  }

  #fail(what: string): never {
    throw new Unreadable(`${what}, at byte ${this.#at}`);
  }
}
