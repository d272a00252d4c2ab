/**
 * TypeScript as a tree, and its text in the layout that `biome format` gives it with this project's settings (2 blanks, 120 columns,
 * double quotes), which is Prettier's: what fits on a line stands on one; else an object, a list or a call opens.
 */
export type Code = string | number | boolean | RegExp | readonly Code[] | Properties | Call | Constant | Commented;

/** An object literal. Entries rather than an object: names come from manifests, and `1` and `__proto__` are names too. */
export interface Properties {
  readonly kind: "properties";
  readonly entries: readonly (readonly [name: string, value: Code])[];
}

/** `callee(...args)`, or `callee.method(...args)`. A text as callee is a builder of the language. */
export interface Call {
  readonly kind: "call";
  readonly callee: string | Constant | Call;
  readonly method?: string;
  readonly args: readonly Code[];
}

/** Something with a name. The name is given when all are known, so that they can be told apart. */
export interface Constant {
  readonly kind: "constant";
  identifier: string;
  /** The module that exports it: `./clusters.ts`. */
  readonly from: string;
  readonly isDefault?: true;
}

/** In a list: `//` lines above the item. */
export interface Commented {
  readonly kind: "commented";
  readonly lines: readonly string[];
  readonly code: Code;
}

/** Those of `values` that are not undefined. */
export function properties(
  values: Readonly<Record<string, Code | undefined>> | Iterable<readonly [string, Code]>,
): Properties {
  const entries = Symbol.iterator in values ? [...values] : Object.entries(values);
  return { kind: "properties", entries: entries.filter((entry): entry is [string, Code] => entry[1] !== undefined) };
}

export const call = (callee: string, ...args: readonly Code[]): Call => ({ kind: "call", callee, args });

export const method = (callee: Constant | Call, name: string, ...args: readonly Code[]): Call => ({
  kind: "call",
  callee,
  method: name,
  args,
});

export const constant = (from: string, isDefault?: true): Constant => ({
  kind: "constant",
  identifier: "",
  from,
  ...(isDefault && { isDefault }),
});

/** A statement with the comment above it. */
export interface Statement {
  /** Its lines become one doc comment. */
  readonly comment?: readonly string[];
  readonly exports: Constant | "default";
  readonly value: Code;
}

const WIDTH = 120;

/** The module's text. Imports are those of what its statements mention. */
export function printModule(statements: readonly Statement[], comment?: readonly string[]): string {
  const builders = new Set<string>();
  const constants = new Set<Constant>();
  for (const { value } of statements) collect(value, builders, constants);
  for (const { exports } of statements) if (exports !== "default") constants.delete(exports);
  const own = new Set(statements.map(({ exports }) => exports));
  const imports = [`import { ${[...builders].sort().join(", ")} } from "portcullis";`];
  const modules = Map.groupBy(constants, ({ from }) => from);
  for (const [from, imported] of [...modules].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const outside = imported.filter((one) => !own.has(one));
    const names = outside.map(({ identifier }) => identifier).sort();
    if (names.length === 0) continue;
    imports.push(
      outside.some(({ isDefault }) => isDefault)
        ? `import ${names[0]} from ${JSON.stringify(from)};`
        : printImport(names, from),
    );
  }
  const blocks = statements.map(({ comment, exports, value }) => {
    const head = exports === "default" ? "export default " : `export const ${exports.identifier} = `;
    return `${comment ? `${docComment(comment)}\n` : ""}${head}${print(value, 0, head.length, 1)};`;
  });
  const above = comment ? `${docComment(comment)}\n` : "";
  return `${[`${above}${imports.join("\n")}`, ...blocks].join("\n\n")}\n`;
}

function printImport(names: readonly string[], from: string): string {
  const line = `import { ${names.join(", ")} } from ${JSON.stringify(from)};`;
  return line.length <= WIDTH
    ? line
    : `import {\n${names.map((name) => `  ${name},\n`).join("")}} from ${JSON.stringify(from)};`;
}

const docComment = (lines: readonly string[]): string => {
  const safe = lines.map((line) => line.replaceAll("*/", "*\\/"));
  return safe.length === 1 ? `/** ${safe[0]} */` : `/**\n${safe.map((line) => ` * ${line}\n`).join("")} */`;
};

function collect(code: Code, builders: Set<string>, constants: Set<Constant>): void {
  if (typeof code !== "object" || code instanceof RegExp) return;
  if (Array.isArray(code)) for (const item of code as readonly Code[]) collect(item, builders, constants);
  else if ("kind" in code) {
    if (code.kind === "properties") for (const [, value] of code.entries) collect(value, builders, constants);
    else if (code.kind === "commented") collect(code.code, builders, constants);
    else if (code.kind === "constant") constants.add(code);
    else {
      if (typeof code.callee === "string") builders.add(code.callee);
      else collect(code.callee, builders, constants);
      for (const arg of code.args) collect(arg, builders, constants);
    }
  }
}

/** `code` on a line that is indented by `indent` and already has `before` characters, with `after` to follow. */
function print(code: Code, indent: number, before: number, after: number): string {
  if (!isBroken(code)) {
    const line = flat(code);
    if (before + line.length + after <= WIDTH) return line;
  }
  return opened(code, indent, before, after);
}

/** On one line. */
function flat(code: Code): string {
  if (typeof code === "string") return quote(code);
  if (typeof code !== "object" || code instanceof RegExp) return String(code);
  if (isList(code)) return `[${code.map(flat).join(", ")}]`;
  if (code.kind === "constant") return code.identifier;
  if (code.kind === "commented") return flat(code.code);
  if (code.kind === "call") return `${head(code)}(${code.args.map(flat).join(", ")})`;
  const members = code.entries.map(([name, value]) => `${key(name)}: ${flat(value)}`);
  return members.length === 0 ? "{}" : `{ ${members.join(", ")} }`;
}

const head = ({ callee, method: name }: Call): string =>
  typeof callee === "string" ? callee : `${flat(callee)}.${name}`;

/** In double quotes, unless it has more of these than of single ones. */
function quote(text: string): string {
  const double = JSON.stringify(text);
  const count = (mark: string) => text.split(mark).length - 1;
  if (count('"') <= count("'")) return double;
  return `'${double.slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'`;
}

const key = (name: string): string => (/^[A-Za-z_$][\w$]*$/.test(name) ? name : quote(name));

const isList = (code: Code): code is readonly Code[] => Array.isArray(code);

/** Whether it cannot stand on one line however short: a comment ends its line, and lists of larger objects are set as tables. */
function isBroken(code: Code): boolean {
  if (typeof code !== "object" || code instanceof RegExp) return false;
  if (isList(code)) return isTable(code) || code.some((item) => isCommented(item) || isBroken(item));
  if (code.kind === "properties") return code.entries.some(([, value]) => isBroken(value));
  return (
    code.kind === "call" && (code.args.some(isBroken) || (typeof code.callee === "object" && isBroken(code.callee)))
  );
}

const isCommented = (code: Code): code is Commented =>
  typeof code === "object" && "kind" in code && code.kind === "commented";

const isTable = (items: readonly Code[]): boolean =>
  items.length > 1 &&
  (items.every((item) => isProperties(item) && item.entries.length > 1) ||
    items.every((item) => isList(item) && item.length > 1));

const isProperties = (code: Code | undefined): code is Properties =>
  typeof code === "object" && "kind" in code && code.kind === "properties";

function opened(code: Code, indent: number, before: number, after: number): string {
  if (typeof code !== "object" || code instanceof RegExp) return flat(code);
  if (isList(code)) return `[\n${below(code, indent)}${" ".repeat(indent)}]`;
  if (code.kind === "commented" || code.kind === "constant") return flat(code);
  if (code.kind === "properties") {
    const lines = code.entries.map(([name, value]) => {
      const start = `${" ".repeat(indent + 2)}${key(name)}: `;
      return `${start}${print(value, indent + 2, start.length, 1)},\n`;
    });
    return lines.length === 0 ? "{}" : `{\n${lines.join("")}${" ".repeat(indent)}}`;
  }
  return openedCall(code, indent, before, after);
}

function openedCall(code: Call, indent: number, before: number, after: number): string {
  const { callee } = code;
  if (typeof callee === "object" && callee.kind === "call") {
    const rest = `.${code.method}(${code.args.map(flat).join(", ")})`;
    if (callee.method === undefined) return `${print(callee, indent, before, after + rest.length)}${rest}`;
    // A chain of methods has each on a line of its own.
    const margin = " ".repeat(indent + 2);
    const first = `${margin}.${callee.method}(`;
    return `${flat(callee.callee as Constant)}\n${first}${openArguments(callee.args, indent + 2, first.length, 0)}\n${margin}${rest}`;
  }
  const start = `${head(code)}(`;
  return `${start}${openArguments(code.args, indent, before + start.length, after)}`;
}

/** With the closing bracket. */
function openArguments(args: readonly Code[], indent: number, before: number, after: number): string {
  const last = args.at(-1);
  const others = args.slice(0, -1);
  // The last argument alone opens, if it is of another sort than the one before it and what stands before it fits.
  if (last !== undefined && canHug(last, others.at(-1)) && !others.some(isBroken)) {
    const line = others.map((arg) => `${flat(arg)}, `).join("");
    if (before + line.length + 1 <= WIDTH) return `${line}${opened(last, indent, before + line.length, after)})`;
  }
  return `\n${below(args, indent)}${" ".repeat(indent)})`;
}

const canHug = (last: Code, penultimate: Code | undefined): boolean =>
  (isProperties(last) && last.entries.length > 0 && !isProperties(penultimate)) ||
  (isList(last) && last.length > 0 && !(penultimate !== undefined && isList(penultimate)));

/** Each of `items` on lines of its own. */
function below(items: readonly Code[], indent: number): string {
  const margin = " ".repeat(indent + 2);
  return items
    .map((item) => {
      const comment = isCommented(item) ? item.lines.map((line) => `${margin}// ${line}\n`).join("") : "";
      return `${comment}${margin}${print(isCommented(item) ? item.code : item, indent + 2, indent + 2, 1)},\n`;
    })
    .join("");
}
