/** Options that several commands take, and how their values are written. */
import { InvalidArgumentError } from "commander";
import { parseDuration } from "../config/duration.ts";

export const routesOption = [
  "--routes <path>",
  "the routes module: a file, or a folder with an index.ts",
  "routes",
] as const;
export const configOption = [
  "--config <file>",
  "wrangler's configuration (default: the one beside the routes)",
] as const;
export const jsonOption = ["--json", "print JSON, for scripts"] as const;

export function failures(text: string): string[] {
  return text.split(",").map((one) => one.trim());
}

export function duration(text: string): string {
  if (parseDuration(text) === undefined)
    throw new InvalidArgumentError("A duration is written as 90s, 15m, 1h30m or 7d.");
  return text;
}

export function headerLine(text: string, others: readonly string[] = []): readonly string[] {
  if (!/^[\w!#$%&'*+.^`|~-]+:/.test(text)) throw new InvalidArgumentError('A header is written as "name: value".');
  return [...others, text];
}

export function pair(text: string, others: readonly string[] = []): readonly string[] {
  if (!/^[^=]+=/.test(text)) throw new InvalidArgumentError("It is written as name=value.");
  return [...others, text];
}

export function claims(text: string, others: readonly string[] = []): readonly string[] {
  if (!/^[^=]+=/.test(text)) throw new InvalidArgumentError("A claim is written as name=value.");
  return [...others, text];
}

export function consumer(text: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(text))
    throw new InvalidArgumentError("A consumer's name has letters, digits, - . _; 63 at most.");
  return text;
}

export function groups(text: string, others: readonly string[] = []): readonly string[] {
  if (!/^[\x21-\x24\x26-\x2b\x2d-\x7e]{1,64}$/.test(text))
    throw new InvalidArgumentError("A group has 1 to 64 visible characters without commas and %.");
  return [...others, text];
}

export function subject(text: string): string {
  if (text === "") throw new InvalidArgumentError("A token is about somebody.");
  return text;
}

export function gatewayName(text: string): string {
  if (!/^[^/]+\/[^/]+$/.test(text)) throw new InvalidArgumentError("A Gateway is written as namespace/name.");
  return text;
}

export function level(text: string): number {
  if (!/^[1-4]$/.test(text)) throw new InvalidArgumentError("it is 1, 2, 3 or 4");
  return Number(text);
}

export function port(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || value > 65_535)
    throw new InvalidArgumentError("A port is a number from 0 to 65535.");
  return value;
}
