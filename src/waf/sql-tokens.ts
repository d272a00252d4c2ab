/**
 * A value read as a piece of SQL, whatever the dialect: one letter for each token. What a parser would need is not kept apart; what
 * tells an injection from ordinary text is.
 *
 *     s a string   q one that does not end   1 a number, true, null   v a variable   n a name   t a type
 *     f ( a function that SQL has   F ( one that is used in attacks alone
 *     c a comparison   o an operator   & and, or, xor   U union and its kind   E select   D the start of another statement
 *     M update x set   W waitfor delay   B order by, group by, limit   H having   O into outfile   k other words that SQL has reserved
 *     C a comment to the end   and ( ) , ; . { } as they are, ? for anything else
 */
export interface SqlTokens {
  readonly letters: string;
  /** By token, what it says: the inside of strings and comments, names in lower case. */
  readonly texts: readonly string[];
  /** Comments between tokens, as in `un/**\/ion` or `1/**\/or`. */
  readonly inlineComments: number;
  /** Whether some of it is in a comment that MySQL runs: `/*!50000 ... *\/`. */
  readonly versioned: boolean;
}

export type Quote = "'" | '"' | "";

const words = (letter: string, text: string) => text.split(/\s+/).map((word) => [word, letter] as const);

const KEYWORDS: ReadonlyMap<string, string> = new Map([
  ...words("&", "and or xor"),
  ...words("1", "true false null"),
  ...words("c", "like ilike rlike regexp in is between glob match similar sounds"),
  ...words("o", "div mod collate binary"),
  ...words("!", "not"),
  ...words("U", "union intersect except minus"),
  ...words("E", "select"),
  ...words("H", "having"),
  ...words(
    "k",
    "from where into values set as on join case when then else end limit offset fetch top distinct all any by",
  ),
  ...words("k", "using escape asc desc outfile dumpfile table database procedure for returning with"),
  ...words(
    "t",
    "int integer bigint smallint char varchar nvarchar nchar text date datetime timestamp numeric decimal float",
  ),
  ...words("t", "double real boolean signed unsigned uuid xml json"),
]);

const FUNCTIONS: ReadonlySet<string> = new Set(
  (
    "abs acos asin atan avg cos cot degrees exp ln log log10 pi radians sin tan ascii bin bit_length cast ceil ceiling char char_length chr coalesce concat concat_ws conv convert count current_user " +
    "database date_add date_sub decode encode elt exists field floor format group_concat hex host_name if ifnull iif insert instr " +
    "isnull json_extract lcase left length len load_extension locate lower lpad ltrim make_set max md5 mid min now nullif " +
    "nvl object_id octet_length ord position pow power quote rand random replace repeat reverse right round row row_count rpad " +
    "rtrim schema sha1 sha2 sign soundex space sqrt strcmp string_agg substr substring sum suser_name suser_sname sysdate " +
    "system_user to_char to_number translate trim trunc truncate typeof ucase unhex unicode upper user user_name utc_date version " +
    "xmlagg xmlelement listagg array_agg db_name"
  ).split(" "),
);

const ATTACK_FUNCTIONS: ReadonlySet<string> = new Set(
  (
    "sleep pg_sleep benchmark load_file extractvalue updatexml xmltype name_const get_lock release_lock gtid_subset " +
    "gtid_subtract pg_read_file pg_ls_dir lo_import lo_export dblink_connect query_to_xml database_to_xml randomblob zeroblob " +
    "sqlite_version xp_cmdshell xp_dirtree xp_regread xp_fileexist sp_executesql sp_oacreate sp_password openrowset " +
    "opendatasource openquery fn_xe_file_target_read_file dbms_pipe.receive_message dbms_lock.sleep dbms_session.sleep " +
    "utl_http.request utl_inaddr.get_host_address utl_inaddr.get_host_name utl_smtp.open_connection ctxsys.drithsx.sn " +
    "dbms_ldap.init dbms_xmlgen.getxml dbms_xslprocessor.read2clob httpuritype sys_eval sys_exec polygon multipoint " +
    "multipolygon multilinestring linestring geometrycollection current_setting pg_stat_file serverproperty aes_decrypt json_keys bigint"
  ).split(" "),
);

/** What makes the word before the start of a statement: `drop table`, not "drop by". */
const STATEMENTS: ReadonlyMap<string, RegExp> = new Map([
  ["drop", /^(?:table|database|schema|view|index|procedure|function|trigger|user|column)$/],
  ["create", /^(?:table|database|schema|view|index|procedure|function|trigger|user|or|temporary)$/],
  ["alter", /^(?:table|database|schema|view|user|procedure|function|login)$/],
  ["truncate", /^table$/],
  ["insert", /^into$/],
  ["replace", /^into$/],
  ["delete", /^from$/],
  ["load", /^data$/],
  ["procedure", /^analyse$/],
  ["exec", /^(?:[sx]p_\w+|master.*|sys\..*|immediate|@)/],
  ["execute", /^(?:[sx]p_\w+|master.*|sys\..*|immediate|@)/],
  ["declare", /^@/],
  ["set", /^@/],
  ["grant", /^(?:all|select|insert|update|dba|execute)$/],
  ["backup", /^(?:database|log)$/],
  ["handler", /^\w+$/],
] as const);

const SPACE = /[\0-\x20\xa0]+/y;
const WORD = /[A-Za-z_\x80-\xff$][\w$\x80-\xff]*/y;
const NUMBER = /0x[0-9a-f]+|0b[01]+|(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?/iy;
const CALL = /[\0-\x20\xa0]{0,32}(?:\/\*[^*]{0,32}\*\/)?[\0-\x20\xa0]{0,32}\(/y;
const VARIABLE = /@@?(?:[\w$.]+|`[^`]*`)?|:[A-Za-z_]\w*/y;
const COMPARISON = /<=>|<>|[<>!=^]=|=|<|>|!~~?\*?|~~\*?/y;

/** @param quote what the value is put in, so that it begins as the rest of a string; "": in nothing */
export function sqlTokens(value: string, quote: Quote, escapes: boolean): SqlTokens {
  const reader = new Reader(value, escapes);
  reader.read(quote);
  return reader;
}

/** Most tokens that are read: bounds the time that patterns over them take. What comes behind is not seen (docs/waf.md). */
const MOST_TOKENS = 4_096;
/** Most of one bracket in a row: to what is asked here, more are the same. */
const MOST_BRACKETS = 4;

class Reader implements SqlTokens {
  letters = "";
  readonly #letters: string[] = [];
  readonly texts: string[] = [];
  inlineComments = 0;
  versioned = false;
  readonly #value: string;
  readonly #escapes: boolean;
  #at = 0;
  #versionedUntil = -1;

  constructor(value: string, escapes: boolean) {
    this.#value = value;
    this.#escapes = escapes;
  }

  read(quote: Quote): void {
    if (quote !== "") this.#string(quote);
    while (this.#at < this.#value.length && this.texts.length < MOST_TOKENS) this.#token();
    this.letters = this.#letters.join("");
  }

  #push(letter: string, text: string) {
    const letters = this.#letters;
    const last = letters.at(-1);
    // `'a' 'b'` is one string; signs and `not` before an operand change nothing of what is asked here, nor after a comparison.
    if (letter === "s" && last === "s" && letters.length > 1) return;
    if (letter === "!") return;
    if (letter === "o" && /^[-+~!]$/.test(text) && (last === undefined || /[&oc(,EUk;]/.test(last))) return;
    if (/[();]/.test(letter) && letters.length >= MOST_BRACKETS) {
      if (letters.slice(-MOST_BRACKETS).every((each) => each === letter)) return;
    }
    letters.push(letter);
    this.texts.push(text);
  }

  #takes(regex: RegExp): string | undefined {
    regex.lastIndex = this.#at;
    const text = regex.exec(this.#value)?.[0];
    if (text) this.#at += text.length;
    return text || undefined;
  }

  #token() {
    const value = this.#value;
    const code = value.charCodeAt(this.#at);
    if (code <= 0x20 || code === 0xa0) {
      this.#at++;
      return;
    }
    const character = value[this.#at] as string;
    const next = value[this.#at + 1];
    if (character === "'" || character === '"') {
      this.#at++;
      return this.#string(character);
    }
    if (character === "`") return this.#quotedName("`");
    if (character === "[" && /^\[\w[\w ]*\]/.test(value.slice(this.#at, this.#at + 64))) return this.#quotedName("]");
    if (character === "/" && next === "*") return this.#blockComment();
    if (character === "*" && next === "/" && this.#versionedUntil !== -1) {
      this.#at += 2;
      this.#versionedUntil = -1;
      return;
    }
    if (character === "#" || (character === "-" && next === "-" && !/[\w('"]/.test(value[this.#at + 2] ?? "")))
      return this.#lineComment();
    if (character === "-" && next === "-" && this.#commentLike()) return this.#lineComment();
    const number = (code >= 0x30 && code <= 0x39) || character === "." ? this.#takes(NUMBER) : undefined;
    // `top 1` says nothing of what is selected.
    if (number && this.#letters.at(-1) === "E" && this.texts.at(-1) === "top") return;
    if (number) return this.#push("1", number);
    if (this.#prefixedString(character, next)) return;
    const word = isWordStart(code) ? this.#takes(WORD) : undefined;
    if (word) return this.#word(word.toLowerCase());
    const variable = character === "@" || character === ":" ? this.#takes(VARIABLE) : undefined;
    if (variable) return this.#push("v", variable.toLowerCase());
    if ((character === "&" || character === "|") && next === character) {
      this.#at += 2;
      return this.#push("&", "||");
    }
    const comparison = "<>=!~^".includes(character) ? this.#takes(COMPARISON) : undefined;
    if (comparison) return this.#push("c", comparison);
    this.#at++;
    this.#push("(),;.{}".includes(character) ? character : "+-*/%^|&~!".includes(character) ? "o" : "?", character);
  }

  /** From behind the opening quote to behind the closing one; a doubled quote, or an escaped one, is part of it. */
  #string(quote: string) {
    const start = this.#at;
    for (let at = start; ; at++) {
      const character = this.#value[at];
      if (character === undefined) {
        this.#at = at;
        return this.#push("q", this.#value.slice(start));
      }
      if (character === "\\" && this.#escapes) at++;
      else if (character === quote) {
        if (this.#value[at + 1] === quote && at + 2 < this.#value.length) at++;
        else {
          this.#at = at + 1;
          return this.#push("s", this.#value.slice(start, at));
        }
      }
    }
  }

  /** `N'...'`, `x'...'`, `_utf8'...'`, `$$...$$` */
  #prefixedString(character: string, next: string | undefined): boolean {
    const value = this.#value;
    if (character === "$" && next === "$") {
      const end = value.indexOf("$$", this.#at + 2);
      this.#push(end === -1 ? "q" : "s", "");
      this.#at = end === -1 ? value.length : end + 2;
      return true;
    }
    if ((next !== "'" || !/[nxbeq]/i.test(character)) && (character !== "_" || !value.startsWith("_utf8'", this.#at)))
      return false;
    const quote = value.indexOf("'", this.#at);
    this.#at = quote + 1;
    this.#string("'");
    return true;
  }

  #quotedName(end: string) {
    const to = this.#value.indexOf(end, this.#at + 1);
    if (to === -1) {
      this.#at++;
      return this.#push("?", end);
    }
    this.#push("n", this.#value.slice(this.#at + 1, to));
    this.#at = to + 1;
  }

  #blockComment() {
    const value = this.#value;
    const versioned = /\/\*[!+]M?\d{0,6}/iy;
    versioned.lastIndex = this.#at;
    const begun = value[this.#at + 2] === "!" ? versioned.exec(value)?.[0] : undefined;
    if (begun) {
      this.#at += begun.length;
      this.#versionedUntil = 0;
      if (begun.length > 5 || KEYWORDS.has(this.#peekWord())) this.versioned = true;
      return;
    }
    const end = value.indexOf("*/", this.#at + 2);
    if (end === -1) {
      this.#push("C", value.slice(this.#at + 2));
      this.#at = value.length;
      return;
    }
    this.inlineComments++;
    this.#at = end + 2;
  }

  #lineComment() {
    const end = this.#value.indexOf("\n", this.#at);
    const text = this.#value.slice(this.#at, end === -1 ? undefined : end).replace(/^(?:#|--)/, "");
    this.#at = end === -1 ? this.#value.length : end + 1;
    // What follows on the next line is SQL again: then the comment is but a way to write a space.
    if (end !== -1 && /\S/.test(this.#value.slice(end))) this.inlineComments++;
    else this.#push("C", text);
  }

  /** `--x` is a comment to all but MySQL; as ordinary text has it too, only where it ends what came before: `1)--x`, `'--x`. */
  #commentLike(): boolean {
    const rest = this.#value.slice(this.#at, this.#at + 64);
    return /[sq)1;]/.test(this.#letters.at(-1) ?? "") && (/^--\w{1,12}$/.test(rest) || /^--[^\s]*\n/.test(rest));
  }

  #peekWord(): string {
    const space = /[\0-\x20\xa0]*/y;
    space.lastIndex = this.#at;
    space.exec(this.#value);
    WORD.lastIndex = space.lastIndex;
    return WORD.exec(this.#value)?.[0].toLowerCase() ?? "";
  }

  #word(word: string) {
    const [last, before] = [this.#letters.at(-1), this.texts.at(-1) ?? ""];
    const called = this.#isCalled();
    if (last === ".") {
      // Names with dots are one; a method called sleep is none of SQL's.
      const owner = this.texts.at(-2) ?? "";
      const whole = `${owner}.${word}`;
      if (called && ATTACK_FUNCTIONS.has(whole)) return this.#replace(2, "F", whole);
      if (this.#letters.at(-2) === "n") return this.#replace(2, "n", whole);
      return this.#push("n", word);
    }
    const statement = last !== undefined && /[nfkt!]/.test(last) ? STATEMENTS.get(before) : undefined;
    if (statement?.test(word)) return this.#replace(1, "D", `${before} ${word}`);
    if (before === "waitfor" && (word === "delay" || word === "time")) return this.#replace(1, "W", word);
    if ((before === "order" || before === "group") && word === "by") return this.#replace(1, "B", before);
    if (before === "into" && /^(?:out|dump)file$/.test(word)) return this.#replace(1, "O", word);
    if (word === "set" && this.#letters.slice(-2).join("") === "nn" && this.texts.at(-2) === "update")
      return this.#replace(2, "M", "update");
    if (last === "U" && (word === "all" || word === "distinct")) return;
    if (last === "E" && /^(?:all|distinct|top|sql_\w+)$/.test(word)) return this.#replace(1, "E", word);
    if (/^(?:exec|execute|declare|set)$/.test(word) && this.#value[this.#skipSpace()] === "@")
      return this.#push("D", word);
    if ((word === "exec" || word === "execute") && called) return this.#push("D", word);
    if (word === "shutdown" && /^[\0-\x20\xa0]*(?:$|;|--)/.test(this.#value.slice(this.#at, this.#at + 32)))
      return this.#push("D", word);
    if (called && ATTACK_FUNCTIONS.has(word)) return this.#push("F", word);
    if (/^[xs]p_[a-z]{4,}/.test(word)) return this.#push("F", word);
    if (called && FUNCTIONS.has(word)) return this.#push("f", word);
    this.#push(KEYWORDS.get(word) ?? "n", word);
  }

  #isCalled(): boolean {
    const next = this.#value.charCodeAt(this.#at);
    if (next === 0x28) return true;
    if (next > 0x20 && next !== 0x2f && next !== 0xa0) return false;
    CALL.lastIndex = this.#at;
    return CALL.test(this.#value);
  }

  #skipSpace(): number {
    SPACE.lastIndex = this.#at;
    return SPACE.test(this.#value) ? SPACE.lastIndex : this.#at;
  }

  #replace(tokens: number, letter: string, text: string): void {
    this.#letters.splice(-tokens, tokens, letter);
    this.texts.splice(-tokens, tokens, text);
  }
}

const isWordStart = (code: number) =>
  (code >= 0x61 && code <= 0x7a) || (code >= 0x41 && code <= 0x5a) || code === 0x5f || code === 0x24 || code >= 0x80;
