/** The requests that the waf is measured with, as they go over the wire. */

/** `path` is what they begin with. */
export type WafRequestText = string;

/** In the line, the session and the body: where no request is like another, a number of its own stands in its place. */
export const NUMBER = "00004711";

/** Ten headers that browsers send. */
export const HEADERS: readonly string[] = [
  "Host: api.example.com",
  "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
  "Accept: application/json",
  "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
  "Accept-Encoding: gzip, deflate, br, zstd",
  "Referer: https://shop.example.com/account/orders",
  "Cookie: session=8f14e45fceea167a5a36dedd00004711; theme=dark; consent=1",
  'Sec-CH-UA: "Chromium";v="142", "Not;A=Brand";v="24"',
  'Sec-CH-UA-Platform: "Linux"',
  "Sec-Fetch-Mode: cors",
];

const request = (line: string, more: readonly string[] = [], body = ""): WafRequestText =>
  [`${line} HTTP/1.1`, ...HEADERS, ...more, "", body].join("\r\n");

export const get = (path: string): WafRequestText => request(`GET ${path}/v1/orders/${NUMBER}/items?page=2&sort=name`);

export const attacked = (path: string): WafRequestText =>
  request(`GET ${path}/v1/orders?id=${NUMBER}'%20UNION%20SELECT%20name,password%20FROM%20users--%20`);

const WORDS = "order customer address street delivery invoice quantity total currency discount carrier parcel".split(
  " ",
);
const word = (i: number): string => WORDS[i % WORDS.length] as string;

/** A body of so many members, some 15 bytes each. */
export function json(path: string, members: number): WafRequestText {
  const lines = Array.from({ length: members }, (_, i) => [
    `${word(i).slice(0, 4)}${i}`,
    i === 1 ? NUMBER : i % 3 === 0 ? i * 17 : word(i * 7 + 3).slice(0, 5),
  ]);
  const body = JSON.stringify(Object.fromEntries(lines));
  return request(`POST ${path}/v1/orders`, ["Content-Type: application/json", `Content-Length: ${body.length}`], body);
}

export function form(path: string): WafRequestText {
  const body = Array.from(
    { length: 10 },
    (_, i) => `${word(i)}=${word(i + 5)}+${word(i + 2)}+${i === 1 ? NUMBER : i}`,
  ).join("&");
  const type = "Content-Type: application/x-www-form-urlencoded";
  return request(`POST ${path}/v1/orders`, [type, `Content-Length: ${body.length}`], body);
}
