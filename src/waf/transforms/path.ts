/** Paths: empty, `.` and `..` segments, without a file system. */

/** `/a/./b//../c` becomes `/a/c`. Never goes above the root; a relative path keeps the `..` that it cannot resolve. */
export function normalizePath(value: string): string {
  // Most values have none of these.
  if (!/^\.$|^\.[./]|\/[./]/.test(value)) return value;
  const rooted = value.startsWith("/");
  const segments = value.split("/");
  const last = segments.at(-1) as string;
  const kept: string[] = [];
  for (const segment of segments) {
    if (segment === "" || segment === ".") continue;
    if (segment !== "..") kept.push(segment);
    else if (kept.length > 0 && kept.at(-1) !== "..") kept.pop();
    else if (!rooted) kept.push("..");
  }
  const path = (rooted ? "/" : "") + kept.join("/");
  return last === "" && kept.length > 0 ? `${path}/` : path;
}

/** The same where backslashes separate too. */
export const normalizePathWin = (value: string): string => normalizePath(value.replaceAll("\\", "/"));
