/** Text and bytes as the waf's engine has them: one character, U+0000 to U+00FF, for each byte. */

const encoder = new TextEncoder();
const BEYOND = /[^\0-\xff]/;

/** What is beyond latin1 the runtime has decoded: as its UTF-8 again. */
export const asBinary = (text: string): string => (BEYOND.test(text) ? binaryOf(encoder.encode(text)) : text);

// Not TextDecoder("latin1"), which is windows-1252 (WHATWG Encoding, 4.2) and would change 0x80 to 0x9f.
const AT_ONCE = 8192;
export function binaryOf(bytes: Uint8Array): string {
  if (bytes.length <= AT_ONCE) return String.fromCharCode(...bytes);
  let text = "";
  for (let at = 0; at < bytes.length; at += AT_ONCE) text += String.fromCharCode(...bytes.subarray(at, at + AT_ONCE));
  return text;
}
