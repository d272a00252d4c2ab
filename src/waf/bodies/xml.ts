/**
 * XML, for the two XPaths that the Core Rule Set uses: the text of the document (`XML:/*`) and the values of all attributes (`XML://@*`).
 * Nothing is fetched and no entity but XML's own five is replaced, so there is nothing to expand: a document that declares one has an
 * error. So has one that is not well-formed; it is read on nevertheless, so that what a more generous backend would read is judged too.
 */
import { utf8 } from "../bytes.ts";
import { BODY_LIMITS, type BodyLimits, type ReadBody, tooManyArguments } from "./body.ts";

export interface XmlBody extends ReadBody {
  /** The text of all elements in the document's order, as one string, like libxml2's xmlNodeGetContent. CDATA is text. */
  readonly text: string;
  /** The values of all attributes. */
  readonly attributes: readonly string[];
}

export function readXml(document: string, limits: BodyLimits = BODY_LIMITS): XmlBody {
  const reader = new XmlReader(document, limits);
  reader.read();
  const { text, attributes, error } = reader;
  return { args: [], text, attributes, ...(error !== undefined && { error: `XML: ${error}` }) };
}

const NAME = /[A-Za-z_:\x80-\xff][A-Za-z0-9_:.\x80-\xff-]*/y;
const SPACE = /[\t\n\r ]*/y;
const BEGINS = { comment: "<!--", data: "<![CDATA[", instruction: "<?", type: "<!DOCTYPE" } as const;
const ENTITIES: ReadonlyMap<string, string> = new Map(
  Object.entries({ lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" }),
);

class XmlReader {
  text = "";
  readonly attributes: string[] = [];
  /** The first thing that is wrong. */
  error: string | undefined;
  readonly #document: string;
  readonly #limits: BodyLimits;
  readonly #open: string[] = [];
  #at = 0;
  #roots = 0;

  constructor(document: string, limits: BodyLimits) {
    this.#document = document;
    this.#limits = limits;
  }

  read(): void {
    const document = this.#document;
    if (document.startsWith("\xef\xbb\xbf")) this.#at = 3;
    if (!this.#encodingIsKnown()) return;
    while (this.#at < document.length) {
      const found = document.indexOf("<", this.#at);
      const to = found < 0 ? document.length : found;
      if (to > this.#at) this.#characters(document.slice(this.#at, to));
      this.#at = to;
      if (found >= 0 && !this.#markup()) return;
    }
    if (this.#open.length > 0) this.#wrong(`<${this.#open.at(-1)}> does not end`);
    else if (this.#roots === 0) this.#wrong("there is no element");
  }

  /** Other encodings would hide ASCII from the rules: UTF-16 and its like, EBCDIC, UTF-7. */
  #encodingIsKnown(): boolean {
    if (this.#document.slice(0, 4).includes("\0") || /^(?:\xff\xfe|\xfe\xff)/.test(this.#document)) {
      this.#wrong("its encoding is none of UTF-8, US-ASCII and ISO-8859-1");
      return false;
    }
    const declared = /^(?:\xef\xbb\xbf)?<\?xml[^>]{0,200}?encoding\s{0,20}=\s{0,20}["']([^"']{0,40})/.exec(
      this.#document,
    )?.[1];
    if (declared !== undefined && !/^(?:utf-?8|us-ascii|iso-8859-1)$/i.test(declared)) {
      this.#wrong("its encoding is none of UTF-8, US-ASCII and ISO-8859-1");
    }
    return true;
  }

  /** From a `<` on. False: nothing more can be read. */
  #markup(): boolean {
    const document = this.#document;
    const second = document.charAt(this.#at + 1);
    if (second === "/") return this.#endTag();
    if (second === "?") return this.#skip(BEGINS.instruction, "?>");
    if (second === "!") {
      if (document.startsWith(BEGINS.comment, this.#at)) return this.#skip(BEGINS.comment, "-->");
      if (document.startsWith(BEGINS.data, this.#at)) {
        const from = this.#at + BEGINS.data.length;
        if (!this.#skip(BEGINS.data, "]]>")) return false;
        this.#addText(document.slice(from, this.#at - 3));
        return true;
      }
      if (document.startsWith(BEGINS.type, this.#at)) return this.#documentType();
    }
    return this.#startTag();
  }

  #skip(begin: string, end: string): boolean {
    const found = this.#document.indexOf(end, this.#at + begin.length);
    if (found < 0) {
      this.#wrong(`${begin} does not end`);
      // A backend that is generous may read it as text.
      this.#addText(this.#document.slice(this.#at));
      this.#at = this.#document.length;
      return false;
    }
    this.#at = found + end.length;
    return true;
  }

  /** To its end, which is not within a quoted string nor within the internal subset. */
  #documentType(): boolean {
    const ends = /[^"'[\]<>]*(?:"[^"]*"|'[^']*'|[[\]<>])/y;
    ends.lastIndex = this.#at + BEGINS.type.length;
    let depth = 1;
    for (let last = ends.lastIndex; ends.test(this.#document); last = ends.lastIndex) {
      const mark = this.#document.charAt(ends.lastIndex - 1);
      if (mark === "<") {
        depth++;
        if (this.#document.startsWith("!ENTITY", ends.lastIndex)) this.#wrong("it declares entities");
        else if (this.#document.startsWith("!--", ends.lastIndex)) {
          const end = this.#document.indexOf("-->", ends.lastIndex);
          if (end < 0) break;
          ends.lastIndex = end + 2;
        }
      } else if (mark === ">" && --depth === 0) {
        this.#at = ends.lastIndex;
        return true;
      }
      if (ends.lastIndex === last) break;
    }
    this.#wrong("<!DOCTYPE does not end");
    return false;
  }

  #startTag(): boolean {
    this.#at++;
    const name = this.#match(NAME);
    if (name === "") {
      this.#wrong("a tag has no name");
      this.#addText("<");
      return true;
    }
    if (this.#open.length === 0) this.#roots++;
    if (this.#roots > 1) this.#wrong("there is more than one root element");
    if (this.#open.length >= this.#limits.depth) {
      this.#wrong(`nested deeper than ${this.#limits.depth}`);
      return false;
    }
    for (;;) {
      const space = this.#match(SPACE);
      const next = this.#document.charAt(this.#at);
      if (next === ">") {
        this.#at++;
        this.#open.push(name);
        return true;
      }
      if (next === "/" && this.#document.charAt(this.#at + 1) === ">") {
        this.#at += 2;
        return true;
      }
      if (next === "") {
        this.#wrong(`<${name} does not end`);
        return false;
      }
      if (space === "") this.#wrong("white space is missing before an attribute");
      if (!this.#attribute()) return false;
    }
  }

  #attribute(): boolean {
    if (this.#match(NAME) === "") {
      this.#wrong("an attribute has no name");
      // Whatever it is, it must not stop the reading, nor be read for ever.
      this.#at++;
      return true;
    }
    this.#match(SPACE);
    if (this.#document.charAt(this.#at) !== "=") {
      this.#wrong("an attribute has no value");
      return true;
    }
    this.#at++;
    this.#match(SPACE);
    const quote = this.#document.charAt(this.#at);
    let value: string;
    if (quote === '"' || quote === "'") {
      const end = this.#document.indexOf(quote, this.#at + 1);
      if (end < 0) this.#wrong("an attribute's value does not end");
      value = this.#document.slice(this.#at + 1, end < 0 ? undefined : end);
      this.#at = end < 0 ? this.#document.length : end + 1;
    } else {
      this.#wrong("an attribute's value has no quotes");
      value = this.#match(/[^\s>]*/y);
    }
    if (this.attributes.length === this.#limits.arguments) {
      this.#wrong(tooManyArguments(this.#limits));
      return false;
    }
    // XML 1.0, 3.3.3: white space in a value is spaces.
    this.attributes.push(this.#resolved(value.replace(/[\t\n\r]/g, " ")));
    return true;
  }

  #endTag(): boolean {
    this.#at += 2;
    const name = this.#match(NAME);
    if (this.#open.at(-1) === name) this.#open.pop();
    else this.#wrong(`</${name}> ends nothing`);
    const end = this.#document.indexOf(">", this.#at);
    this.#at = end < 0 ? this.#document.length : end + 1;
    return true;
  }

  #characters(text: string): void {
    if (this.#open.length === 0 && /[^\t\n\r ]/.test(text)) this.#wrong("text outside the root element");
    this.#addText(this.#resolved(text));
  }

  #addText(text: string): void {
    // What stands outside the root element is no text of the document, unless it is wrong that it is there.
    if (this.#open.length > 0 || /[^\t\n\r ]/.test(text)) this.text += text;
  }

  #resolved(text: string): string {
    if (text.indexOf("&") < 0) return text;
    return text.replace(
      /&(?:#x([0-9a-fA-F]{1,6})|#([0-9]{1,7})|([A-Za-z_:][A-Za-z0-9_:.-]{0,63}));|&/g,
      (whole, hexadecimal, decimal, name) => {
        const number =
          hexadecimal !== undefined ? Number.parseInt(hexadecimal, 16) : decimal !== undefined ? Number(decimal) : -1;
        if (number >= 0 && number <= 0x10ffff) return utf8(number);
        const character = name === undefined ? undefined : ENTITIES.get(name);
        if (character === undefined) this.#wrong(whole === "&" ? "an & without an entity" : "an unknown entity");
        return character ?? whole;
      },
    );
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    if (!pattern.test(this.#document)) return "";
    const from = this.#at;
    this.#at = pattern.lastIndex;
    return this.#document.slice(from, this.#at);
  }

  #wrong(what: string): void {
    this.error ??= `${what}, at byte ${this.#at}`;
  }
}
