import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { readJson } from "../../src/waf/bodies/json.ts";
import { readMultipart, strictError } from "../../src/waf/bodies/multipart.ts";
import { readUrlencoded } from "../../src/waf/bodies/urlencoded.ts";
import { readXml } from "../../src/waf/bodies/xml.ts";
import { utf8 } from "../../src/waf/bytes.ts";

const latin1 = (text: string): string => Buffer.from(text, "utf8").toString("latin1");
const limits = { arguments: 3, depth: 3 };

describe("urlencoded", () => {
  it("gives names and values, decoded, in order and with repetitions", () => {
    expect(readUrlencoded("a=1&b=%3Cx%3E+y&a=2&c&=d&&e=f=g&")).toEqual({
      args: [
        ["a", "1"],
        ["b", "<x> y"],
        ["a", "2"],
        ["c", ""],
        ["", "d"],
        ["e", "f=g"],
      ],
      invalidEncoding: false,
    });
  });

  it("takes another separator", () => {
    expect(readUrlencoded("a=1;b=2&3", undefined, ";").args).toEqual([
      ["a", "1"],
      ["b", "2&3"],
    ]);
  });

  it.each(["a=%", "a=%4", "%zz=1"])("tells of an invalid escape: %s", (text) => {
    expect(readUrlencoded(text).invalidEncoding).toBe(true);
  });

  it("has a limit", () => {
    const { args, error } = readUrlencoded("a&b&c&d", limits);
    expect(args.map(([name]) => name)).toEqual(["a", "b", "c"]);
    expect(error).toBe("more than 3 arguments");
  });

  it("reads what URLSearchParams writes", () => {
    const pairs = fc.array(fc.tuple(fc.string({ unit: "grapheme", minLength: 1 }), fc.string({ unit: "grapheme" })), {
      maxLength: 6,
    });
    fc.assert(
      fc.property(pairs, (written) => {
        const read = readUrlencoded(new URLSearchParams(written as [string, string][]).toString());
        expect(read.args).toEqual(
          written.map(([name, value]) => [latin1(name.toWellFormed()), latin1(value.toWellFormed())]),
        );
      }),
    );
  });
});

describe("JSON", () => {
  it("calls members by their path, and the elements of an array by the array's", () => {
    const text = `{"a": {"b": [1, {"c": "x"}, [true]]}, "d": null, "": false, "e": {}, "f": []}`;
    expect(readJson(text)).toEqual({
      args: [
        ["json.a.b", "1"],
        ["json.a.b.c", "x"],
        ["json.a.b", "true"],
        ["json.d", ""],
        ["json.", "false"],
      ],
    });
  });

  it("keeps both of two members of one name", () => {
    expect(readJson(`{"a": 1, "a": "2"}`).args).toEqual([
      ["json.a", "1"],
      ["json.a", "2"],
    ]);
  });

  it.each([
    [`"x"`, "x"],
    ["-1.50e+3", "-1.50e+3"],
    [`\t"\\u0041\\u00e9\\ud83d\\ude00\\n\\/"\r\n`, latin1("Aé😀\n/")],
    [`"\\ud83d\\u0041\\udc00"`, latin1("\ufffdA\ufffd")],
    [`"${latin1("é😀")}"`, latin1("é😀")],
    [`\xef\xbb\xbf"with a mark"`, "with a mark"],
  ])("reads %s", (text, value) => {
    expect(readJson(text)).toEqual({ args: [["json", value]] });
  });

  it.each([
    ["", "a value is missing, at byte 0"],
    ['{"a": 1', "a comma or the end is missing, at byte 7"],
    ['{"a" 1}', "a member needs a colon after its name, at byte 5"],
    ["{a: 1}", "a member needs a name in quotes, at byte 1"],
    ["[1,]", "no value begins so, at byte 3"],
    ["[1] x", "something after the document, at byte 4"],
    ["01", "something after the document, at byte 1"],
    ['"a', "a string does not end, at byte 2"],
    ['"a\nb"', "a control character in a string, at byte 2"],
    ['"\\x41"', "an unknown escape, at byte 1"],
    ['"\\u12g4"', "\\u needs four hexadecimal digits, at byte 1"],
    ["nul", "no value begins so, at byte 0"],
  ])("says what is wrong with %s", (text, error) => {
    expect(readJson(text).error).toBe(`JSON: ${error}`);
  });

  it("has limits, and keeps what it read before them", () => {
    expect(readJson("[1,2,3,4]", limits)).toMatchObject({
      args: { length: 3 },
      error: expect.stringContaining("more than 3"),
    });
    expect(readJson(`[1,[2,[3,[4]]]]`, limits)).toMatchObject({
      args: { length: 3 },
      error: expect.stringContaining("deeper"),
    });
    const deep = `${`{"${"n".repeat(100)}":`.repeat(400)}1`;
    expect(readJson(deep).error).toContain("a path is longer than 1024 bytes");
    expect(readJson("[".repeat(100_000)).error).toContain("nested deeper than 512");
  });

  it("reads what JSON.stringify writes", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 5 }), (value) => {
        const { args, error } = readJson(latin1(JSON.stringify(value)), { arguments: 10_000, depth: 10 });
        expect(error).toBeUndefined();
        expect(args.map(([, text]) => text)).toEqual(leaves(value));
      }),
    );
  });

  it("accepts what JSON.parse accepts, and nothing else", () => {
    const parts = fc.constantFrom(
      ...'{}[],:"0123.-+eE ',
      "\\",
      "\\u",
      "true",
      "null",
      '"a"',
      "00",
      "\n",
      "\x01",
      "\\n",
      "1",
    );
    const near = fc.array(parts, { maxLength: 10 }).map((list) => list.join(""));
    fc.assert(
      fc.property(near, (text) => {
        expect(readJson(text).error === undefined).toBe(isJson(text));
      }),
      { numRuns: 3_000 },
    );
  });
});

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function leaves(value: unknown): string[] {
  if (Array.isArray(value)) return value.flatMap(leaves);
  if (value === null) return [""];
  if (typeof value === "object") return Object.values(value).flatMap(leaves);
  return [typeof value === "string" ? latin1(value.toWellFormed()) : JSON.stringify(value)];
}

const FORM = "multipart/form-data; boundary=b";
const form = (...lines: string[]): string => lines.join("\r\n");

describe("multipart", () => {
  const ordinary = form(
    "--b",
    'Content-Disposition: form-data; name="a"',
    "",
    "one\r\ntwo",
    "--b",
    'Content-Disposition: form-data; name="f"; filename="x\\"y.txt"',
    "Content-Type: text/plain",
    "",
    "content",
    "--b--",
    "",
  );

  it("gives arguments, files and the headers of the parts", () => {
    const read = readMultipart(ordinary, FORM);
    expect(read).toEqual({
      args: [["a", "one\r\ntwo"]],
      files: [{ name: "f", filename: 'x"y.txt', size: 7 }],
      partHeaders: [
        ["a", 'Content-Disposition: form-data; name="a"'],
        ["f", 'Content-Disposition: form-data; name="f"; filename="x\\"y.txt"'],
        ["f", "Content-Type: text/plain"],
      ],
      flags: expect.anything(),
    });
    expect(Object.entries(read.flags).filter(([, raised]) => raised)).toEqual([]);
    expect(strictError(read)).toBe(false);
  });

  const part = 'Content-Disposition: form-data; name="a"';
  it.each([
    ["boundaryQuoted", form("--b", part, "", "x", "--b--"), 'multipart/form-data; boundary="b"'],
    ["boundaryWhitespace", form("--b", part, "", "x", "--b--"), "multipart/form-data; boundary =b"],
    ["missingSemicolon", form("--b", part, "", "x", "--b--"), "multipart/form-data boundary=b"],
    ["dataBefore", form("y", "--b", part, "", "x", "--b--")],
    ["dataAfter", form("--b", part, "", "x", "--b--", "y")],
    ["headerFolding", form("--b", part, " ; x=y", "", "x", "--b--")],
    ["invalidHeaderFolding", form("--b", ` ${part}`, "", "x", "--b--")],
    ["lfLine", form("--b", part, "", "x", "--b--").replaceAll("\r", "")],
    ["crlfLfLines", form("--b", `${part}\n`, "x", "--b--")],
    ["missingSemicolon", form("--b", 'Content-Disposition: form-data name="a"', "", "x", "--b--")],
    ["invalidQuoting", form("--b", "Content-Disposition: form-data; name='a'", "", "x", "--b--")],
    ["invalidQuoting", form("--b", 'Content-Disposition: form-data; name="a', "", "x", "--b--")],
    ["invalidQuoting", form("--b", 'Content-Disposition: form-data; name="a"b"', "", "x", "--b--")],
    ["invalidPart", form("--b", "Content-Type: text/plain", "", "x", "--b--")],
    ["invalidPart", form("--b", part, "--b--")],
    ["unmatchedBoundary", form("--b", part, "", "x", "--c", "y", "--b--")],
    ["unmatchedBoundary", form("--b", part, "", "x", "--bc", "y", "--b--")],
  ] as const)("raises %s", (flag, body, contentType: string = FORM) => {
    expect(readMultipart(body, contentType).flags[flag]).toBe(true);
  });

  it.each([
    ["", FORM, "there is no boundary in the body"],
    [ordinary, "multipart/form-data", "the Content-Type names no boundary"],
    [ordinary, `${FORM}; boundary=c`, "the Content-Type names more than one boundary"],
    [ordinary, "multipart/form-data; boundary=<>", "the boundary is empty, too long, or has forbidden characters"],
    [form("--b", part, "", "x"), FORM, "the last boundary is missing"],
    [form("--b", part, part, "", "x", "--b--"), FORM, "a part has two Content-Dispositions"],
    [form("--b", `${part}; name=b`, "", "x", "--b--"), FORM, "a part has two names"],
    [form("--b", `${part}; filename=b; filename=c`, "", "x", "--b--"), FORM, "a part has two file names"],
    [form("--b", part, "no colon", "", "x", "--b--"), FORM, "a part's header has no name"],
    [
      form("--b", 'Content-Disposition: attachment; name="a"', "", "x", "--b--"),
      FORM,
      "a Content-Disposition is not form-data",
    ],
    [form("--b", part, "", "x", "--bc", "--b--"), FORM, "a line continues after a boundary"],
  ])("says what is wrong with %j as %s", (body, contentType, error) => {
    const read = readMultipart(body, contentType);
    expect(read.error).toBe(`multipart: ${error}`);
    expect(strictError(read)).toBe(true);
  });

  it("reads on where it can: the value is judged although the last boundary is missing", () => {
    expect(readMultipart(form("--b", part, "", "<script>"), FORM).args).toEqual([["a", "<script>"]]);
  });

  it("has a limit of parts and of headers", () => {
    const many = `${`--b\r\n${part}\r\n\r\nx\r\n`.repeat(4)}--b--`;
    expect(readMultipart(many, FORM, limits)).toMatchObject({
      args: { length: 3 },
      error: "multipart: more than 3 arguments",
    });
    expect(readMultipart(`--b\r\n${"a: b\r\n".repeat(200)}\r\nx\r\n--b--`, FORM).error).toContain(
      "more than 100 headers",
    );
  });

  it("reads what FormData writes", async () => {
    const names = fc.string({ unit: "grapheme", minLength: 1, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(names, names), { minLength: 1, maxLength: 4 }), async (fields) => {
        const data = new FormData();
        for (const [name, value] of fields) data.append(name, value);
        const response = new Response(data);
        const body = Buffer.from(await response.arrayBuffer()).toString("latin1");
        const read = readMultipart(body, response.headers.get("content-type") as string);
        expect(read.error).toBeUndefined();
        expect(read.args.map(([, value]) => value)).toEqual(
          fields.map(([, value]) => latin1(value.toWellFormed().replace(/\r\n?|\n/g, "\r\n"))),
        );
      }),
      { numRuns: 30 },
    );
  });
});

describe("XML", () => {
  it("gives the text and the attributes", () => {
    const document = `<?xml version="1.0" encoding="UTF-8"?>
<!-- no text --><!DOCTYPE a SYSTEM "a.dtd"><a x="1 &lt; 2" y='"&#65;&#x42;"'><b>t&amp;</b> <c z="3"/><![CDATA[<script>]]>&#xe9;</a>
`;
    expect(readXml(document)).toEqual({ args: [], text: "t& <script>\xc3\xa9", attributes: ["1 < 2", '"AB"', "3"] });
  });

  it("expands no entities, and refuses that a document declares them", () => {
    const bomb = `<!DOCTYPE a [<!ENTITY b "${"c".repeat(100)}"><!ENTITY d "&b;&b;">]><a>&d;</a>`;
    expect(readXml(bomb)).toEqual({
      args: [],
      text: "&d;",
      attributes: [],
      error: expect.stringContaining("it declares entities"),
    });
  });

  it.each([
    ["", "there is no element", ""],
    ["<a>x", "<a> does not end", "x"],
    ["<a>x</b>", "</b> ends nothing", "x"],
    ["<a>x</a>y", "text outside the root element", "xy"],
    ["<a/><b>x</b>", "there is more than one root element", "x"],
    ["<a>x < y</a>", "a tag has no name", "x < y"],
    ["<a>x & y</a>", "an & without an entity", "x & y"],
    ["<a>&constructor;</a>", "an unknown entity", "&constructor;"],
    ["<a b>x</a>", "an attribute has no value", "x"],
    ["<a>x<!-- y", "<!-- does not end", "x<!-- y"],
    ["<a>x<![CDATA[ y", "<![CDATA[ does not end", "x<![CDATA[ y"],
    ["<!DOCTYPE a [", "<!DOCTYPE does not end", ""],
    [`<a b="x" c='y`, "an attribute's value does not end", ""],
  ])("says what is wrong with %s, and reads on", (document, error, text) => {
    expect(readXml(document)).toMatchObject({ text, error: expect.stringContaining(error) });
  });

  it.each([
    "\xff\xfe<\0a\0",
    "<\0a\0/\0>\0",
    "\0<\0a",
    `<?xml version="1.0" encoding="UTF-7"?><a/>`,
    `<?xml encoding='IBM037'?><a/>`,
  ])("refuses encodings that would hide ASCII: %j", (document) => {
    expect(readXml(document).error).toContain("its encoding");
  });

  it("has limits", () => {
    expect(readXml("<a><b><c><d>", limits).error).toContain("nested deeper than 3");
    expect(readXml(`<a b="1" c="2" d="3" e="4"/>`, limits)).toMatchObject({
      attributes: ["1", "2", "3"],
      error: expect.stringContaining("more than 3 arguments"),
    });
  });
});

describe("every reader", () => {
  const readers = {
    urlencoded: (body: string) => readUrlencoded(body),
    JSON: (body: string) => readJson(body),
    multipart: (body: string) => readMultipart(body, FORM),
    XML: (body: string) => readXml(body),
  };

  it.each(Object.keys(readers) as (keyof typeof readers)[])(
    "%s takes anything: it neither throws nor invents bytes",
    (name) => {
      const parts = fc.constantFrom(
        ..."{}[],:\"'<>/=&;%\\-!?ab1 \r\n",
        "--b",
        "--b--",
        "\r\n--b\r\n",
        "\r\n\r\n",
        'Content-Disposition: form-data; name="a"',
        "filename=",
        "<!--",
        "-->",
        "<![CDATA[",
        "]]>",
        "<!DOCTYPE",
        "<!ENTITY",
        "&#x",
        "&lt;",
        "\\u00",
        "\xff",
        "\0",
      );
      fc.assert(
        fc.property(
          fc.array(parts, { maxLength: 40 }).map((list) => list.join("")),
          (body) => {
            const read = readers[name](body);
            for (const pair of read.args) for (const text of pair) expect(/^[\0-\xff]*$/.test(text)).toBe(true);
          },
        ),
        { numRuns: 2_000 },
      );
    },
  );

  it.each(Object.keys(readers) as (keyof typeof readers)[])("%s takes time in proportion to the body", (name) => {
    const pumps = [
      "&",
      "%",
      "a=",
      "{",
      '{"a":',
      '"',
      "\\u",
      '"a",',
      "[1,",
      "-",
      "--b",
      "\n--b",
      "\r\n--b\r\n",
      "\n",
      " ",
      "a: b\n",
      "<",
      "<a ",
      "<a>",
      "</a>",
      "<!--",
      "<![CDATA[",
      "<!DOCTYPE",
      "<!DOCTYPE a [",
      "&#",
      "&a",
      "a='",
      'a="',
      ";",
      "x=y;",
      "<a b=c ",
    ];
    const heads = [
      "",
      "[",
      '{"a":"',
      "--b\r\n",
      "--b\r\n\r\n",
      "<a>",
      "<a b='",
      "<a ",
      "--b\r\nContent-Disposition: form-data; ",
    ];
    for (const head of heads) {
      for (const pump of pumps) {
        const body = head + pump.repeat(Math.ceil(100_000 / pump.length));
        const started = performance.now();
        readers[name](body);
        // In the square of the body it would be several seconds on any machine.
        expect(performance.now() - started, JSON.stringify([head, pump])).toBeLessThan(1_000);
      }
    }
  });
});

it("utf8 writes what TextEncoder writes", () => {
  for (const character of [0x41, 0x7f, 0x80, 0x7ff, 0x800, 0xfffd, 0xffff, 0x10000, 0x10ffff]) {
    expect(utf8(character)).toBe(latin1(String.fromCodePoint(character)));
  }
});
