/**
 * The stages over the wire: the gateway in workerd, its route with the waf policy in report mode, in front of the backend that the tests
 * assume. What matched stands in the decision record of each request.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DecisionRecord } from "../../../src/policies/contract.ts";
import { Gateway } from "../../e2e/gateway.ts";
import { Backend } from "./backend.ts";
import type { Outcome } from "./judge.ts";
import { CONFIGURATION, messages } from "./rules.ts";
import type { Stage } from "./stages.ts";

/** As go-ftw's client: one connection a request. Two cores have nothing from more at a time. */
const AT_A_TIME = 8;
/** A request that is not answered whole is given up after this. */
const PATIENCE_MS = 4_000;

/**
 * workerd answers `<`, `>` and `"` in a request target with 400 by itself (measured: 2026-10-23), before the Worker; browsers never send
 * them so, and Cloudflare's edge hands requests on as URLs, in which they are escaped (WHATWG URL, 1.3). So that such requests reach the
 * rules, this much is escaped, where the request line is one of HTTP/1.
 */
export function escaped(request: string): string {
  return request.replace(/^[A-Z]+ \S+ HTTP\/1\.[01](?=\r\n)/, (line) =>
    line.replace(/[<>"]/g, (character) => encodeURIComponent(character)),
  );
}

/** Outcomes in the order of `stages`. With `verbatim` nothing is `escaped`. */
export async function overTheWire(
  stages: readonly Stage[],
  rules: string,
  verbatim: boolean,
  onStage: (name: string) => void,
): Promise<Outcome[]> {
  const folder = mkdtempSync(join(tmpdir(), "portcullis-crs-"));
  const before = join(folder, "before.conf");
  writeFileSync(before, DIRECTIVES);
  const { paranoia, variables } = CONFIGURATION;
  const policy = { rules, before: [before], paranoia, variables, mode: "report", response: true };
  const backend = await Backend.start();
  let gateway: Gateway | undefined;
  try {
    gateway = await Gateway.start({
      routes: routesWith(policy),
      texts: { BACKEND: `http://127.0.0.1:${backend.port}` },
    });
    const { port } = gateway;
    const answers = new Array<WireAnswer>(stages.length);
    let next = 0;
    await Promise.all(
      Array.from({ length: AT_A_TIME }, async () => {
        for (let i = next++; i < stages.length; i = next++) {
          const stage = stages[i] as Stage;
          answers[i] = await exchange(port, verbatim ? stage.request : escaped(stage.request));
          onStage(stage.name);
        }
      }),
    );
    const records = await recordsOf(gateway, answers);
    // Compiling the rules once more is only worth it for tests that look at texts.
    const texts = stages.some(({ expected }) => expected.match ?? expected.noMatch);
    const messageOf = texts ? messages(rules) : () => "";
    return answers.map((answer) =>
      outcomeOf(answer, answer.id === undefined ? undefined : records.get(answer.id), messageOf),
    );
  } finally {
    await gateway?.close();
    await backend.close();
    rmSync(folder, { recursive: true });
  }
}

/** What the tests assume and is no option of the policy. */
const DIRECTIVES = `SecRequestBodyAccess On
SecResponseBodyAccess On
SecResponseBodyMimeType ${CONFIGURATION.settings.responseTypes.join(" ")}
`;

/** Every request to one route, whatever its host, path and method; the record's id is in a header of the answer. */
const routesWith = (policy: object): string => `
import { api, cluster, env, gateway, requestId, route, waf } from "portcullis";
const backend = cluster("backend", { ingress: env("BACKEND") });
export default gateway({ policies: [requestId({})] }, [
  api("tests", {}, [
    route("all", { path: "/*" }, { policies: [waf(${JSON.stringify(policy)})], to: backend }),
  ]),
]);
`;

interface WireAnswer {
  readonly status?: number;
  readonly id?: string;
}

function exchange(port: number, request: string): Promise<WireAnswer> {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port });
    let came = "";
    const finish = () => {
      socket.destroy();
      resolve(answerOf(came));
    };
    const timer = setTimeout(finish, PATIENCE_MS);
    socket.on("data", (chunk) => {
      came += (chunk as Buffer).toString("latin1");
      if (isWhole(came)) finish();
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      clearTimeout(timer);
      finish();
    });
    socket.write(Buffer.from(request, "latin1"));
  });
}

function isWhole(came: string): boolean {
  const end = came.indexOf("\r\n\r\n");
  if (end < 0) return false;
  if (/^HTTP\/1.1 100 /.test(came)) return isWhole(came.slice(end + 4));
  const length = /\r\ncontent-length: ([0-9]+)/i.exec(came.slice(0, end))?.[1];
  if (length !== undefined) return came.length >= end + 4 + Number(length);
  return /\r\ntransfer-encoding: chunked/i.test(came.slice(0, end)) && came.endsWith("0\r\n\r\n");
}

function answerOf(came: string): WireAnswer {
  const answers = came.replace(/^(?:HTTP\/1.1 100 .*?\r\n\r\n)+/s, "");
  const status = /^HTTP\/1\.[01] ([0-9]{3})/.exec(answers)?.[1];
  const id = /\r\nx-request-id: ([\w-]+)/i.exec(answers)?.[1] ?? /urn:portcullis:request:([\w-]+)/.exec(answers)?.[1];
  return { ...(status !== undefined && { status: Number(status) }), ...(id !== undefined && { id }) };
}

/** By id; a record is written after its answer has gone, so the last ones may still be on their way. */
async function recordsOf(gateway: Gateway, answers: readonly WireAnswer[]): Promise<Map<string, DecisionRecord>> {
  const wanted = new Set(answers.flatMap(({ id }) => (id === undefined ? [] : [id])));
  const found = () =>
    new Map(gateway.records.flatMap((record) => (wanted.has(record.id) ? [[record.id, record]] : [])));
  for (let i = 0; i < 100 && found().size < wanted.size; i++) await new Promise((resolve) => setTimeout(resolve, 50));
  return found();
}

interface WafFacts {
  readonly rules: readonly { readonly rule: number; readonly targets: readonly string[] }[];
}

/** Records have no values, so what a rule took out of one is not known here. */
function outcomeOf(
  { status }: WireAnswer,
  record: DecisionRecord | undefined,
  messageOf: (id: number) => string,
): Outcome {
  const facts = record?.policies.flatMap(({ policy, facts }) =>
    policy === "waf" && facts ? [facts as unknown as WafFacts] : [],
  );
  const matches = (facts ?? []).flatMap(({ rules }) =>
    rules.map(({ rule, targets }) => ({ id: rule, on: targets.map((name) => ({ name })), message: messageOf(rule) })),
  );
  return {
    ...(status !== undefined && { status }),
    matches,
    judged: record?.policies.some(({ policy }) => policy === "waf") ?? false,
  };
}
