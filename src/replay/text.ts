/** The report of a replay for a person. */
import type { Paint } from "../dev/paint.ts";
import type { ChangeGroup, ReplayReport } from "./replay.ts";

export interface Names {
  readonly old: string;
  readonly new: string;
  readonly files: number;
}

export function replayText(report: ReplayReport, names: Names, paint: Paint, most = 50): string {
  const { requests, changed, uncertain, weakened, unread, span, groups, ungrouped, foreign } = report;
  const lines = [
    `${paint("bold", "replayed")}  ${many(requests, "request")} of ${many(names.files, "file")}${span ? `, ${timesOf(span)}` : ""}`,
    `          old ${names.old}, new ${names.new}`,
    "",
    changed === 0
      ? `${paint("green", "same")}      every request is treated as before`
      : `${paint("yellow", "changed")}   ${many(changed, "request")}, ${percent(changed, requests)}${uncertain > 0 ? `; ${count(uncertain)} of these only may, by what the log does not tell` : ""}`,
  ];
  if (weakened > 0) lines.push(`${paint("red", "weakened")}  ${many(weakened, "request")}`);
  for (const group of groups.slice(0, most)) lines.push("", ...groupLines(group, paint));
  if (groups.length > most) lines.push("", `and ${many(groups.length - most, "more group")} (--json has all)`);
  const notes = [
    ...(unread > 0 ? [`${many(unread, "line")} could not be read as a request`] : []),
    ...(ungrouped > 0 ? [`${many(ungrouped, "change")} of too many kinds to be listed`] : []),
    ...(foreign > 0 ? [`${many(foreign, "record")} of neither table: what their policies found then is not used`] : []),
  ];
  if (notes.length > 0) lines.push("", ...notes.map((note) => paint("dim", `note: ${note}`)));
  return `${lines.join("\n")}\n`;
}

function groupLines(
  { kind, routes, old, new: fresh, weakened, count: how, uncertain, example }: ChangeGroup,
  paint: Paint,
): string[] {
  const at = routes[0] === routes[1] ? routes[0] : `${routes[0]} -> ${routes[1]}`;
  const may = uncertain === 0 ? "" : uncertain === how ? "  may be" : `  ${count(uncertain)} may be`;
  const change = kind === "route" ? "" : `  ${plain(old)} ${paint("bold", "->")} ${plain(fresh)}`;
  const who = example.consumer === undefined ? "" : ` by ${example.consumer}`;
  return [
    `${count(how).padStart(9)}  ${paint(weakened ? "red" : "yellow", (weakened ? `${kind}, weaker` : kind).padEnd(16))}${at}${change}${paint("dim", may)}`,
    paint(
      "dim",
      `${" ".repeat(11)}e.g. line ${example.line}: ${example.method} ${plain(example.url)} from ${example.client || "?"}${who}`,
    ),
  ];
}

const count = (number: number): string => number.toLocaleString("en");

const many = (number: number, name: string): string => `${count(number)} ${name}${number === 1 ? "" : "s"}`;

function percent(part: number, whole: number): string {
  const share = (part / whole) * 100;
  return share < 0.1 ? "less than 0.1 %" : `${share.toFixed(1)} %`;
}

const timesOf = ([first, last]: readonly [number, number]): string =>
  `${new Date(first).toISOString()} to ${new Date(last).toISOString()}`;

/** Clients chose the paths; they must not steer the terminal. */
const plain = (text: string): string => text.replace(/[^\x20-\x7e]/g, "?").slice(0, 300);
