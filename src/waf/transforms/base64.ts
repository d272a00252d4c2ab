/** Base64, as strict as ModSecurity's. */

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const SEXTET = new Int8Array(256).fill(-1);
for (let i = 0; i < 64; i++) SEXTET[ALPHABET.charCodeAt(i)] = i;

/** Up to the first character that is none of Base64 (line breaks are passed over). */
export const base64Decode = (value: string): string => decode(value, false);

/** Passes over what is no Base64: PHP's decoder does. */
export const base64DecodeExt = (value: string): string => decode(value, true);

function decode(value: string, forgiving: boolean): string {
  let out = "";
  let bits = 0;
  let count = 0;
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i);
    const sextet = SEXTET[code] ?? -1;
    if (sextet < 0) {
      if (forgiving || code === 0x0d || code === 0x0a) continue;
      break;
    }
    bits = ((bits << 6) | sextet) & 0xffff;
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += String.fromCharCode((bits >> count) & 0xff);
    }
  }
  return out;
}

export const base64Encode = (value: string): string => btoa(value);
