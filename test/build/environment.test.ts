/** What the configuration asks of its environment, against wrangler's configuration. `//!` and `#!` mark what is pointed at. */
import { describe, expect, it } from "vitest";
import { type Files, markedIn, problemsOf } from "./module.ts";

const ROUTES = `import { api, binding, cluster, env, gateway, route, secret } from "portcullis";
const eu = cluster("eu", { ingress: env("EU"), certificate: binding("CERT") });
const us = cluster("us", { ingress: binding("US") });
export default gateway({ store: { url: env("REDIS"), token: secret("TOKEN") } }, [
  api("shop", {}, [route("all", {}, { to: eu.or(us) })]),
]);`;

const WRANGLER = `[vars]
EU = "https://ingress.example.com"
REDIS = "https://redis.example.com"

[secrets]
required = ["TOKEN"]

[[vpc_services]]
binding = "US"
service_id = "0"

[[mtls_certificates]]
binding = "CERT"
certificate_id = "0"
`;

type Told = readonly [subject: string, message: string, fix: string];

async function expectProblems(files: Files, ...told: readonly Told[]): Promise<void> {
  const problems = await problemsOf(files);
  expect(problems.map(({ subject, message, fix }) => [subject, message, fix])).toEqual(told);
  expect(problems.map(({ file, line }) => `${file}:${line}`)).toEqual(markedIn(files));
}

/** The routes with a mark behind the line that has `text`. */
const marked = (text: string, routes = ROUTES): string =>
  routes.replace(new RegExp(`^.*${text.replace(/\W/g, "\\$&")}.*$`, "m"), "$& //!");

const without = (...lines: string[]): string => lines.reduce((text, line) => text.replace(`${line}\n`, ""), WRANGLER);

it("that has everything", () => expectProblems({ "index.ts": ROUTES, "wrangler.toml": WRANGLER }));

describe("that lacks", () => {
  it.each([
    ["a variable", 'env("EU")', 'EU = "https://ingress.example.com"', 'add EU = "..." to [vars]'],
    [
      "a secret",
      'secret("TOKEN")',
      'required = ["TOKEN"]',
      'add "TOKEN" to [secrets] required, then run: wrangler secret put TOKEN',
    ],
    [
      "a binding for a cluster",
      'binding("US")',
      'binding = "US"\nservice_id = "0"',
      "add it to [[vpc_services]] or [[services]]",
    ],
    ["a certificate", 'binding("CERT")', 'binding = "CERT"\ncertificate_id = "0"', "add it to [[mtls_certificates]]"],
  ])("%s", (_, subject, line, fix) => {
    // A table without its keys would be another mistake.
    const wrangler = without(line).replace(/\[\[\w+\]\]\n(?=\n|$)/, "");
    return expectProblems({ "index.ts": marked(subject), "wrangler.toml": wrangler }, [
      subject,
      "is not in wrangler.toml",
      fix,
    ]);
  });

  it("all of it, each where it is referred to first", async () => {
    const problems = await problemsOf({ "index.ts": ROUTES, "wrangler.toml": 'name = "shop"' });
    expect(problems.map(({ line, subject }) => `${line} ${subject}`)).toEqual([
      '2 env("EU")',
      '2 binding("CERT")',
      '3 binding("US")',
      '4 env("REDIS")',
      '4 secret("TOKEN")',
    ]);
  });

  it("what is referred to in another file", () =>
    expectProblems(
      {
        "index.ts":
          'import { eu } from "./environment.ts";\nimport { api, cluster, route } from "portcullis";\nexport default api("shop", {}, [route("all", {}, { to: cluster("eu", { ingress: eu }) })]);',
        "environment.ts": 'import { env } from "portcullis";\n\nexport const eu = env("EU"); //!',
        "wrangler.toml": "",
      },
      ['env("EU")', "is not in wrangler.toml", 'add EU = "..." to [vars]'],
    ));

  it("something that every object has", () => {
    const routes =
      'import { api, cluster, env, route } from "portcullis";\nexport default api("shop", {}, [route("all", {}, { to: cluster("eu", { ingress: env("constructor") }) })]); //!';
    return expectProblems({ "index.ts": routes, "wrangler.jsonc": '{ "vars": {} }' }, [
      'env("constructor")',
      "is not in wrangler.jsonc",
      'add constructor = "..." to [vars]',
    ]);
  });
});

describe("for health checks", () => {
  const watched = ROUTES.replace('binding("US") }', 'binding("US"), health: {} }');
  const triggered = `${WRANGLER}\n[triggers]\ncrons = ["* * * * *"]\n`;
  const nothing = [
    'cluster "us"',
    "has health checks, which nothing starts: wrangler.toml has no cron trigger",
  ] as const;

  it("that starts them", () => expectProblems({ "index.ts": watched, "wrangler.toml": triggered }));

  it.each(["", "\n[triggers]\ncrons = []\n"])("that does not start them: %j", (triggers) =>
    expectProblems({ "index.ts": marked("health: {}", watched), "wrangler.toml": `${WRANGLER}${triggers}` }, [
      ...nothing,
      'add crons = ["* * * * *"] to [triggers]',
    ]),
  );

  const staging = WRANGLER.replace(/^\[(?!\[)/gm, "[env.staging.").replace(/^\[\[/gm, "[[env.staging.");

  it("that starts them in a named environment as well", () =>
    expectProblems({ "index.ts": watched, "wrangler.toml": `${triggered}\n${staging}` }));

  it("that does not start them in a named environment", () =>
    expectProblems(
      {
        "index.ts": marked("health: {}", watched),
        "wrangler.toml": `${triggered}\n${staging}\n[env.staging.triggers]\ncrons = []\n`,
      },
      [nothing[0], `${nothing[1]} for the environment staging`, 'add crons = ["* * * * *"] to [env.staging.triggers]'],
    ));
});

describe("of a named environment", () => {
  const named = (text: string): string =>
    text.replace(/^\[(?!\[)/gm, "[env.staging.").replace(/^\[\[/gm, "[[env.staging.");

  it("that has everything", () =>
    expectProblems({ "index.ts": ROUTES, "wrangler.toml": `${WRANGLER}\n${named(WRANGLER)}` }));

  it("inherits nothing", async () => {
    const wrangler = `${WRANGLER}\n[env.staging]\nname = "staging"\n`;
    const problems = await problemsOf({ "index.ts": ROUTES, "wrangler.toml": wrangler });
    expect(problems.map(({ subject, message, fix }) => [subject, message, fix])).toEqual([
      ['env("EU")', "is not in wrangler.toml for the environment staging", 'add EU = "..." to [env.staging.vars]'],
      [
        'binding("CERT")',
        "is not in wrangler.toml for the environment staging",
        "add it to [[env.staging.mtls_certificates]]",
      ],
      [
        'binding("US")',
        "is not in wrangler.toml for the environment staging",
        "add it to [[env.staging.vpc_services]] or [[env.staging.services]]",
      ],
      [
        'env("REDIS")',
        "is not in wrangler.toml for the environment staging",
        'add REDIS = "..." to [env.staging.vars]',
      ],
      [
        'secret("TOKEN")',
        "is not in wrangler.toml for the environment staging",
        'add "TOKEN" to [env.staging.secrets] required, then run: wrangler secret put TOKEN',
      ],
    ]);
  });
});

it("with a secret in plain text", () =>
  expectProblems(
    { "index.ts": ROUTES, "wrangler.toml": WRANGLER.replace("[vars]\n", '[vars]\nTOKEN = "hunter2" #!\n') },
    ['secret("TOKEN")', "stands in [vars] in plain text", 'take it out and add "TOKEN" to [secrets] required'],
  ));

it("never tells a secret's value", async () => {
  const wrangler = WRANGLER.replace("[vars]\n", '[vars]\nTOKEN = "hunter2"\n');
  expect(JSON.stringify(await problemsOf({ "index.ts": ROUTES, "wrangler.toml": wrangler }))).not.toContain("hunter2");
});

describe("with an ingress", () => {
  const ingress = (value: string) => WRANGLER.replace('EU = "https://ingress.example.com"', `EU = ${value} #!`);
  const URL_FIX = "write it as https://host[:port][/path]";

  it.each([
    [
      '"http://ingress.example.com"',
      "would carry requests over plain http",
      "use https, or a binding; http is for loopback addresses",
    ],
    [
      '"http://127.0.0.1.example.com"',
      "would carry requests over plain http",
      "use https, or a binding; http is for loopback addresses",
    ],
    ['"ingress.example.com"', '"ingress.example.com" is no ingress URL', URL_FIX],
    ['"ftp://ingress.example.com"', '"ftp://ingress.example.com" is no ingress URL', URL_FIX],
    ['"https://user:word@ingress.example.com"', '"https://user:word@ingress.example.com" is no ingress URL', URL_FIX],
    ['"https://ingress.example.com/?a=b"', '"https://ingress.example.com/?a=b" is no ingress URL', URL_FIX],
    ['"https://ingress.example.com/#a"', '"https://ingress.example.com/#a" is no ingress URL', URL_FIX],
    ['""', "is no text", 'write it as EU = "..." in [vars]'],
    ["443", "is no text", 'write it as EU = "..." in [vars]'],
  ])("at %s", (value, message, fix) =>
    expectProblems({ "index.ts": ROUTES, "wrangler.toml": ingress(value) }, ['env("EU")', message, fix]),
  );

  it.each([
    "http://127.0.0.1:8080",
    "http://localhost",
    "http://[::1]:80/base",
    "https://ingress.example.com:8443/base",
  ])("at %s", (url) => expectProblems({ "index.ts": ROUTES, "wrangler.toml": ingress(`"${url}"`).replace(" #!", "") }));
});

describe("in wrangler.jsonc", () => {
  const JSONC = `{
  // "vars": { "EU": "not this one" }
  "vars": {
    "EU": "https://ingress.example.com", /* as
    seen from outside, */
    "REDIS": "https://redis.example.com//a,]",
  },
  "secrets": { "required": ["TOKEN"] },
  "services": [{ "binding": "US", "service": "us" },],
  "mtls_certificates": [{ "binding": "CERT", "certificate_id": "0" }],
}`;

  it("that has everything", () => expectProblems({ "index.ts": ROUTES, "wrangler.jsonc": JSONC }));

  it("that lacks something", () =>
    expectProblems(
      { "index.ts": marked('env("EU")'), "wrangler.jsonc": JSONC.replace('"EU": "https', '"UE": "https') },
      ['env("EU")', "is not in wrangler.jsonc", 'add EU = "..." to [vars]'],
    ));

  it("with a mistake in a line", () =>
    expectProblems({ "index.ts": ROUTES, "wrangler.jsonc": JSONC.replace('"TOKEN"] }', '"TOKEN" } //!') }, [
      "wrangler configuration",
      expect.stringMatching(/^cannot be read: /) as unknown as string,
      "correct the line",
    ]));

  it("with a mistake in a value", () =>
    expectProblems({ "index.ts": ROUTES, "wrangler.jsonc": JSONC.replace('["TOKEN"] },', '"TOKEN" }, //!') }, [
      "wrangler configuration",
      "`secrets.required`: Invalid input: expected array, received string",
      "write it as wrangler's documentation says",
    ]));
});

describe("in wrangler.toml", () => {
  it("with a mistake in a line", () =>
    expectProblems({ "index.ts": ROUTES, "wrangler.toml": WRANGLER.replace('= ["TOKEN"]', '["TOKEN"] #!') }, [
      "wrangler configuration",
      expect.stringMatching(/^cannot be read: Invalid TOML document: /) as unknown as string,
      "correct the line",
    ]));

  it.each([
    ["vars = 5 #!", "`vars`: Invalid input: expected record, received number"],
    ["[secrets]\nrequired = [5] #!", "`secrets.required.0`: Invalid input: expected string, received number"],
    ["services = {} #!", "`services`: Invalid input: expected array, received object"],
    ["[[vpc_services]]\nbinding = 5 #!", "`vpc_services.0.binding`: Invalid input: expected string, received number"],
    ['env = "staging" #!', "`env`: Invalid input: expected record, received string"],
    ["[env]\nstaging = 5 #!", "`env.staging`: Invalid input: expected object, received number"],
    ["compatibility_flags = true #!", "`compatibility_flags`: Invalid input: expected array, received boolean"],
  ])("with %j", (wrangler, message) =>
    expectProblems({ "index.ts": ROUTES, "wrangler.toml": wrangler }, [
      "wrangler configuration",
      message,
      "write it as wrangler's documentation says",
    ]),
  );
});

describe("wherever it lies", () => {
  const broken = "no toml #!";
  const told = async (files: Files, path: string, config?: string) =>
    (await problemsOf(files, path, config)).map(({ file, subject }) => file ?? subject);

  it("in the folder of the module", async () => {
    expect(await told({ "a/shop.ts": ROUTES, "a/wrangler.toml": broken }, "a/shop.ts")).toEqual(["a/wrangler.toml"]);
  });

  it("beside a folder that is named routes", async () => {
    expect(await told({ "routes/index.ts": ROUTES, "wrangler.toml": broken }, "routes")).toEqual(["wrangler.toml"]);
  });

  it("not beside any other folder: without it nothing is checked", async () => {
    expect(await told({ "shop/index.ts": ROUTES, "wrangler.toml": broken }, "shop")).toEqual([]);
  });

  it("where --config says", async () => {
    const files = { "index.ts": ROUTES, "wrangler.toml": WRANGLER, "other/worker.json": '{ "vars": {} ' };
    expect(await told(files, "index.ts", "other/worker.json")).toEqual(["other/worker.json"]);
  });

  it("nowhere, where --config says", async () => {
    expect(await problemsOf({ "index.ts": ROUTES }, "index.ts", "none.toml")).toEqual([
      { subject: "/none.toml", message: "cannot be read", fix: "give wrangler's configuration with --config FILE" },
    ]);
  });
});

describe("that may lack a variable", () => {
  const optional = ROUTES.replace('env("EU")', 'env("EU", "https://otherwise.example.com")');

  it("lacks it", () =>
    expectProblems({ "index.ts": optional, "wrangler.toml": without('EU = "https://ingress.example.com"') }));

  it("has it, and then has it right", () =>
    expectProblems(
      { "index.ts": optional, "wrangler.toml": WRANGLER.replace('https://ingress.example.com"', 'ftp://eu" #!') },
      ['env("EU")', '"ftp://eu" is no ingress URL', "write it as https://host[:port][/path]"],
    ));

  it.each([
    ["first", optional.replace('env("REDIS")', 'env("EU")'), "gateway({ store"],
    ["later", ROUTES.replace('env("REDIS")', 'env("EU", "https://otherwise.example.com")'), 'cluster("eu"'],
  ])("must have it all the same for who cannot do without, %s", (_, routes, place) =>
    expectProblems(
      { "index.ts": marked(place, routes), "wrangler.toml": without('EU = "https://ingress.example.com"') },
      ['env("EU")', "is not in wrangler.toml", 'add EU = "..." to [vars]'],
    ),
  );
});

it("that has a binding with a name that no variable has", () =>
  expectProblems({
    "index.ts": ROUTES.replace('binding("US")', 'binding("shop/us:80")'),
    "wrangler.toml": WRANGLER.replace('binding = "US"', 'binding = "shop/us:80"'),
  }));

describe("that starts health checks", () => {
  const routes = ROUTES.replace('binding("US") }', 'binding("US"), health: {} }');
  const crons = '[triggers]\ncrons = ["* * * * *"]\n';
  const fault = "has health checks, which nothing starts: wrangler.toml has no cron trigger";

  it("by a cron trigger, which its named environments have as well", () =>
    expectProblems({ "index.ts": routes, "wrangler.toml": WRANGLER + crons }));

  it("by none", () =>
    expectProblems({ "index.ts": marked('binding("US")', routes), "wrangler.toml": WRANGLER }, [
      'cluster "us"',
      fault,
      'add crons = ["* * * * *"] to [triggers]',
    ]));

  it("but not where it is named", async () => {
    const own = WRANGLER.replace(/^\[(?!\[)/gm, "[env.staging.").replace(/^\[\[/gm, "[[env.staging.");
    const wrangler = `${WRANGLER}${crons}\n${own}\n[env.staging.triggers]\ncrons = []\n`;
    expect(await problemsOf({ "index.ts": routes, "wrangler.toml": `${WRANGLER}${crons}\n${own}` })).toEqual([]);
    await expectProblems({ "index.ts": marked('binding("US")', routes), "wrangler.toml": wrangler }, [
      'cluster "us"',
      `${fault} for the environment staging`,
      'add crons = ["* * * * *"] to [env.staging.triggers]',
    ]);
  });
});
