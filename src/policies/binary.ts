/** Text and bytes as the waf's engine has them: one character, U+0000 to U+00FF, for each byte. */

const encoder = new TextEncoder();
const decoder = new TextDecoder("latin1");
const BEYOND = /[^\0-\xff]/;

/** What is beyond latin1 the runtime has decoded: as its UTF-8 again. */
export const asBinary = (text: string): string => (BEYOND.test(text) ? binaryOf(encoder.encode(text)) : text);

const AT_ONCE = 8192;

/** Measured for 1 KB: 1.3 µs where the decoder may do it, which gives windows-1252 (WHATWG Encoding, 4.2) and so changes 0x80 to 0x9f; 13 µs else. */
export function binaryOf(bytes: Uint8Array): string {
  const decoded = decoder.decode(bytes);
  if (!BEYOND.test(decoded)) return decoded;
  let text = "";
  for (let at = 0; at < bytes.length; at += AT_ONCE)
    // A typed array is array-like enough for apply; to spread it takes eight times as long.
    text += String.fromCharCode.apply(null, bytes.subarray(at, at + AT_ONCE) as unknown as number[]);
  return text;
}
