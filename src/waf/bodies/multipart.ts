/**
 * multipart/form-data (RFC 7578 on RFC 2046), with ModSecurity's account of everything that parsers read differently: each is a way to
 * show the gateway another form than the backend.
 */
import { type Argument, BODY_LIMITS, type BodyLimits, type ReadBody, tooManyArguments } from "./body.ts";

export interface MultipartBody extends ReadBody {
  readonly files: readonly MultipartFile[];
  /** The header lines of all parts, each with its part's name; a folded one as one line. */
  readonly partHeaders: readonly Argument[];
  readonly flags: MultipartFlags;
}

export interface MultipartFile {
  /** Of the form's field. */
  readonly name: string;
  readonly filename: string;
  /** In bytes. */
  readonly size: number;
}

/** What is unusual, by the names of ModSecurity's MULTIPART_ variables. */
export interface MultipartFlags {
  boundaryQuoted: boolean;
  boundaryWhitespace: boolean;
  dataBefore: boolean;
  dataAfter: boolean;
  headerFolding: boolean;
  lfLine: boolean;
  crlfLfLines: boolean;
  missingSemicolon: boolean;
  invalidQuoting: boolean;
  invalidPart: boolean;
  invalidHeaderFolding: boolean;
  fileLimitExceeded: boolean;
  /** A line begins like a boundary and is none. */
  unmatchedBoundary: boolean;
}

/** MULTIPART_STRICT_ERROR: of the flags those that no browser's form raises; also when the body has an error. */
export function strictError({ flags, error }: MultipartBody): boolean {
  const { crlfLfLines: _, unmatchedBoundary: __, ...strict } = flags;
  return error !== undefined || Object.values(strict).some((raised) => raised);
}

export function readMultipart(body: string, contentType: string, limits: BodyLimits = BODY_LIMITS): MultipartBody {
  const reader = new MultipartReader(body, limits);
  reader.read(contentType);
  const { args, files, partHeaders, flags, error } = reader;
  return { args, files, partHeaders, flags, ...(error !== undefined && { error: `multipart: ${error}` }) };
}

/** RFC 2046, 5.1.1: up to 70 of these; longer ones and some others are in use. */
const BOUNDARY = /^[0-9A-Za-z'()+_,./:=?~ -]{1,200}$/;

class MultipartReader {
  readonly args: Argument[] = [];
  readonly files: MultipartFile[] = [];
  readonly partHeaders: Argument[] = [];
  readonly flags: MultipartFlags = {
    boundaryQuoted: false,
    boundaryWhitespace: false,
    dataBefore: false,
    dataAfter: false,
    headerFolding: false,
    lfLine: false,
    crlfLfLines: false,
    missingSemicolon: false,
    invalidQuoting: false,
    invalidPart: false,
    invalidHeaderFolding: false,
    fileLimitExceeded: false,
    unmatchedBoundary: false,
  };
  /** The first thing that is wrong. */
  error: string | undefined;
  readonly #body: string;
  readonly #limits: BodyLimits;
  #crlfLine = false;

  constructor(body: string, limits: BodyLimits) {
    this.#body = body;
    this.#limits = limits;
  }

  read(contentType: string): void {
    const boundary = this.#boundary(contentType);
    if (boundary === undefined) return;
    const delimiter = `--${boundary}`;
    let part = -1;
    let searched = 0;
    for (;;) {
      const at = this.#body.indexOf(delimiter, searched);
      if (at < 0) break;
      searched = at + delimiter.length;
      if (at > 0 && this.#body.charAt(at - 1) !== "\n") continue;
      const last = this.#body.startsWith("--", searched);
      const line = last ? searched + 2 : searched;
      const rest = this.#lineBreak(line);
      if (rest < 0) {
        this.flags.unmatchedBoundary = true;
        this.#wrong("a line continues after a boundary");
        continue;
      }
      if (part < 0) this.flags.dataBefore ||= at > 0;
      else if (!this.#part(part, at)) return;
      if (last) {
        this.flags.dataAfter ||= rest < this.#body.length;
        return;
      }
      part = rest;
    }
    if (part < 0) {
      this.#wrong("there is no boundary in the body");
    } else {
      this.#wrong("the last boundary is missing");
      this.#part(part, this.#body.length);
    }
  }

  /** Where the next line begins; -1 when no line ends at `at`. */
  #lineBreak(at: number): number {
    if (at === this.#body.length) return at;
    if (this.#body.startsWith("\r\n", at)) {
      this.#lineEnds(true);
      return at + 2;
    }
    if (this.#body.charAt(at) !== "\n") return -1;
    this.#lineEnds(false);
    return at + 1;
  }

  #lineEnds(crlf: boolean): void {
    if (crlf) this.#crlfLine = true;
    else this.flags.lfLine = true;
    this.flags.crlfLfLines = this.#crlfLine && this.flags.lfLine;
  }

  #boundary(contentType: string): string | undefined {
    const [found, second] = contentType.matchAll(/boundary([\t-\r ]*)=([\t-\r ]*)(?:"([^"]*)"|([^\t-\r ;,"]*))/gi);
    if (!found) return this.#noBoundary("the Content-Type names no boundary");
    if (second) return this.#noBoundary("the Content-Type names more than one boundary");
    const [, before, after, quoted, plain = ""] = found;
    this.flags.boundaryQuoted = quoted !== undefined;
    this.flags.boundaryWhitespace = before !== "" || after !== "";
    const boundary = quoted ?? plain;
    if (!BOUNDARY.test(boundary))
      return this.#noBoundary("the boundary is empty, too long, or has forbidden characters");
    if (!/[;\t-\r ]/.test(contentType.charAt(found.index - 1))) this.flags.missingSemicolon = true;
    const head = contentType.slice(0, found.index);
    if (!head.includes(";")) this.flags.missingSemicolon = true;
    return boundary;
  }

  #noBoundary(what: string): undefined {
    this.#wrong(what);
    return undefined;
  }

  /** One part, its headers from `from` on, its delimiter at `to`. False: no further one is read. */
  #part(from: number, to: number): boolean {
    const { headers, body } = this.#headers(from, to);
    let end = to;
    if (end > body && this.#body.charAt(end - 1) === "\n")
      end -= end - 1 > body && this.#body.charAt(end - 2) === "\r" ? 2 : 1;
    const content = this.#body.slice(body, Math.max(body, end));
    if (/(?:^|\n)--/.test(content)) this.flags.unmatchedBoundary = true;

    let disposition: Disposition | undefined;
    for (const header of headers) {
      const colon = header.indexOf(":");
      if (colon <= 0) this.#wrong("a part's header has no name");
      else if (header.slice(0, colon).trim().toLowerCase() === "content-disposition") {
        if (disposition) this.#wrong("a part has two Content-Dispositions");
        else disposition = this.#disposition(header.slice(colon + 1).trim());
      }
    }
    const name = disposition?.name ?? "";
    for (const header of headers) this.partHeaders.push([name, header]);
    if (disposition?.name === undefined) {
      this.flags.invalidPart = true;
      this.#wrong("a part has no name");
    }
    if (this.args.length + this.files.length === this.#limits.arguments) {
      if (disposition?.filename !== undefined) this.flags.fileLimitExceeded = true;
      this.#wrong(tooManyArguments(this.#limits));
      return false;
    }
    if (disposition?.filename === undefined) this.args.push([name, content]);
    else this.files.push({ name, filename: disposition.filename, size: content.length });
    return true;
  }

  #headers(from: number, to: number): { headers: string[]; body: number } {
    const headers: string[] = [];
    let at = from;
    for (;;) {
      const found = this.#body.indexOf("\n", at);
      if (found < 0 || found >= to) {
        this.flags.invalidPart = true;
        this.#wrong("a part's headers do not end");
        if (at < to) headers.push(this.#body.slice(at, to));
        return { headers, body: to };
      }
      const crlf = found > at && this.#body.charAt(found - 1) === "\r";
      this.#lineEnds(crlf);
      const line = this.#body.slice(at, crlf ? found - 1 : found);
      at = found + 1;
      if (line === "") return { headers, body: at };
      if (line.startsWith(" ") || line.startsWith("\t")) {
        this.flags.headerFolding = true;
        if (headers.length === 0) this.flags.invalidHeaderFolding = true;
        headers.push((headers.pop() ?? "") + line);
      } else {
        headers.push(line);
      }
      if (headers.length > MOST_HEADERS) {
        this.#wrong(`a part has more than ${MOST_HEADERS} headers`);
        return { headers, body: at };
      }
    }
  }

  /** `form-data; name="a"; filename="b"`. */
  #disposition(value: string): Disposition {
    const disposition: { name?: string; filename?: string } = {};
    if (!/^form-data(?=[;\t ]|$)/i.test(value)) this.#wrong("a Content-Disposition is not form-data");
    const parameter = /[\t ]*(;?)[\t ]*([^\t =;"]+)[\t ]*=[\t ]*(?:"((?:[^"\\]|\\.)*)("?)|([^;]*))/gsy;
    parameter.lastIndex = /^[^;\t ]*/.exec(value)?.[0].length ?? 0;
    let end = parameter.lastIndex;
    for (const [whole, semicolon, rawName = "", quoted, closing, plain = ""] of value.matchAll(parameter)) {
      end += whole.length;
      if (semicolon === "") this.flags.missingSemicolon = true;
      if ((quoted !== undefined && closing === "") || /^'|"/.test(plain)) this.flags.invalidQuoting = true;
      // Browsers escape a quote by a backslash or as %22; a backslash before anything else is itself, as in a path of Windows.
      const text = quoted === undefined ? plain.trimEnd() : quoted.replace(/\\(["\\])/g, "$1");
      const name = rawName.toLowerCase();
      if (name === "name") {
        if (disposition.name !== undefined) this.#wrong("a part has two names");
        disposition.name ??= text;
      } else if (name === "filename" || name === "filename*") {
        if (disposition.filename !== undefined) this.#wrong("a part has two file names");
        disposition.filename ??= text;
      }
    }
    if (/[^\t ;]/.test(value.slice(end))) this.flags.invalidQuoting = true;
    return disposition;
  }

  #wrong(what: string): void {
    this.error ??= what;
  }
}

interface Disposition {
  readonly name?: string;
  readonly filename?: string;
}

const MOST_HEADERS = 100;
