import type { ParsedRegex, RegexNode } from "./regex-syntax.ts";

/** Characters at a time: on these, what is cubic takes some milliseconds. */
const WINDOW = 512;

/** How much of a value V8 may see at a time; 0: all of it, as nothing in the regex repeats. */
export function safeWindow({ node }: ParsedRegex): number {
  return repeats(node) ? WINDOW : 0;
}

function repeats(node: RegexNode): boolean {
  if (node.type === "repeat") return node.max > 8 || repeats(node.node);
  return "nodes" in node ? node.nodes.some(repeats) : "node" in node && repeats(node.node);
}
