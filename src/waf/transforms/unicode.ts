/** UTF-8 to IIS's %uHHHH, so that urlDecodeUni finds the ASCII that a character looks like. */

/**
 * Each sequence becomes `%u` and at least four digits. As in ModSecurity, a byte that cannot begin a sequence stays, one that begins a
 * broken sequence goes, and after an overlong sequence or a surrogate stands its first byte once more: `%u002f` and 0xc0 for C0 AF.
 */
export function utf8toUnicode(value: string): string {
  let at = nextHighByte(value, 0);
  if (at < 0) return value;
  let out = "";
  let copied = 0;
  for (; at >= 0; at = nextHighByte(value, copied)) {
    out += value.slice(copied, at);
    const lead = value.charCodeAt(at);
    const length = lead < 0xc0 || lead >= 0xf8 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    copied = at + 1;
    if (length === 1 || lead >= 0xf5) out += String.fromCharCode(lead);
    if (length === 1) continue;
    let character = lead & (0x7f >> length);
    let i = 1;
    for (; i < length; i++) {
      const next = value.charCodeAt(at + i);
      if ((next & 0xc0) !== 0x80) break;
      character = (character << 6) | (next & 0x3f);
    }
    if (i < length) continue;
    out += `%u${character.toString(16).padStart(4, "0")}`;
    const surrogate = character >= 0xd800 && character <= 0xdfff;
    if (surrogate || character < (SHORTEST[length] as number)) out += String.fromCharCode(lead);
    copied = at + length;
  }
  return out + value.slice(copied);
}

/** The first character that needs so many bytes. */
const SHORTEST = [0, 0, 0x80, 0x800, 0x10000];

function nextHighByte(value: string, from: number): number {
  for (let i = from; i < value.length; i++) if (value.charCodeAt(i) >= 0x80) return i;
  return -1;
}
