/** What is bundled into one file, since it is needed at once whenever something is explained (prepared.ts). */
export { explain } from "./explain.ts";
export { differencesText, explanationText } from "./text.ts";
