/** The first line of what comes over stdin, where neither the shell nor `ps` sees it. */
export async function firstLine(input: AsyncIterable<unknown>): Promise<string> {
  let text = "";
  for await (const chunk of input) {
    text += String(chunk);
    if (text.includes("\n")) break;
  }
  return text.split(/\r?\n/, 1)[0] as string;
}
