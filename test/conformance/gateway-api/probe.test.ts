/** The kinds of cases against a gateway that is a function: how often they ask, what they count, and what they let pass. */
import { describe, expect, it } from "vitest";
import { hash32 } from "../../../src/table/split.ts";
import type { Case } from "./cases.ts";
import type { Echo } from "./echo.ts";
import type { Answer, WireRequest } from "./exchange.ts";
import { CONTENT_TYPE, responseBody } from "./grpc-web.ts";
import { probe, type Subject } from "./probe.ts";

const caseOf = (kind: string, parts: Partial<Case> = {}): Case => ({
  kind,
  name: "made up",
  gateway: { namespace: "infra", name: "same-namespace", port: 80, protocol: "HTTP" },
  scheme: "http",
  request: { method: "GET", path: "/" },
  expect: { statusCodes: [200], backend: "", namespace: "infra" },
  ...parts,
});

/** A gateway that forwards everything to the backend that `choose` names; a number is an answer of its own. */
class FakeGateway implements Subject {
  readonly sent: WireRequest[] = [];
  readonly mirrored = new Map<string, number>();
  paused = 0;
  readonly #choose: (request: WireRequest, nth: number) => string | number;

  constructor(choose: (request: WireRequest, nth: number) => string | number) {
    this.#choose = choose;
  }

  async send(request: WireRequest): Promise<Answer> {
    this.sent.push(request);
    const chosen = this.#choose(request, this.sent.length);
    if (typeof chosen === "number") return { status: chosen, headers: new Map(), body: Buffer.alloc(0) };
    return request.headers["Content-Type"] === CONTENT_TYPE ? grpcEcho(request, chosen) : echo(request, chosen);
  }

  mirror(service: string, { target }: WireRequest): void {
    this.mirrored.set(`${service} ${target}`, this.arrivals("infra", service, target) + 1);
  }

  arrivals(_namespace: string, service: string, target: string): number {
    return this.mirrored.get(`${service} ${target}`) ?? 0;
  }

  async converse(_request: WireRequest, messages: readonly (string | Buffer)[]): Promise<(string | Buffer)[]> {
    return [...messages];
  }

  async pause(milliseconds: number): Promise<void> {
    this.paused += milliseconds;
  }
}

function echo({ method, target, host, headers }: WireRequest, backend: string): Answer {
  const seen: Partial<Echo> = {
    method,
    path: target,
    host,
    namespace: "infra",
    pod: `${backend}-0-0`,
    headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, [value]])),
  };
  const body = Buffer.from(JSON.stringify(seen));
  return { status: 200, headers: new Map([["content-type", ["application/json"]]]), body };
}

function grpcEcho({ target, host }: WireRequest, backend: string): Answer {
  const assertions = {
    fullyQualifiedMethod: target,
    headers: [],
    authority: host,
    namespace: "infra",
    pod: `${backend}-0-0`,
  };
  return { status: 200, headers: new Map([["content-type", [CONTENT_TYPE]]]), body: responseBody("OK", assertions) };
}

/** Uniform numbers from 0 to 1, the same ones for the same seed. */
const random = (seed: number) => {
  let n = 0;
  return () => hash32(`${seed} ${n++}`) / 2 ** 32;
};

describe("three times in a row", () => {
  it("asks three times", async () => {
    const gateway = new FakeGateway(() => "web");
    expect(await probe(caseOf("http"), gateway)).toEqual({ fault: undefined, tries: 1 });
    expect(gateway.sent).toHaveLength(3);
  });

  it("fails with the first fault, however late", async () => {
    const gateway = new FakeGateway((_, nth) => (nth === 3 ? 503 : "web"));
    expect(await probe(caseOf("http"), gateway)).toEqual({
      fault: "status 503, expected 200 (after it had passed 2 times)",
      tries: 1,
    });
  });

  it("begins anew for what must be in time, at most twice", async () => {
    const late = new FakeGateway((_, nth) => (nth <= 2 ? 504 : "web"));
    expect(await probe(caseOf("timeout"), late)).toEqual({ fault: undefined, tries: 3 });
    const broken = new FakeGateway(() => 504);
    expect(await probe(caseOf("timeout"), broken)).toEqual({ fault: "status 504, expected 200", tries: 3 });
    expect(broken.sent).toHaveLength(3);
  });

  it("gives each try of a retry case a uuid of its own, and expects that upstream", async () => {
    const path = "/retry/a?succeedAfter=1&uuid={{uuid}}";
    const gateway = new FakeGateway(() => "web");
    const tested = caseOf("retry", {
      request: { method: "GET", path },
      expect: { statusCodes: [200], backend: "web", namespace: "infra", upstreamRequest: { method: "GET", path } },
    });
    expect((await probe(tested, gateway)).fault).toBeUndefined();
    expect(new Set(gateway.sent.map(({ target }) => target)).size).toBe(3);
    for (const { target } of gateway.sent) expect(target).toMatch(/&uuid=[0-9a-f-]{36}$/);
  });

  it("takes no answer for a fault", async () => {
    const gateway = new FakeGateway(() => {
      throw Object.assign(new Error("socket hang up"), { code: "ECONNRESET" });
    });
    expect((await probe(caseOf("http"), gateway)).fault).toBe("no answer: socket hang up");
  });
});

describe("weight", () => {
  const weights = { v1: 0.7, v2: 0.3, v3: 0 };
  const split = (share: number, seed: number) => {
    const draw = random(seed);
    return () => (draw() < share ? "v1" : "v2");
  };

  it("passes a gateway that draws by the weights, over HTTP and gRPC", async () => {
    expect((await probe(caseOf("weight", { weights }), new FakeGateway(split(0.7, 1)))).fault).toBeUndefined();
    const gateway = new FakeGateway(split(0.7, 2));
    const request = { method: "Echo", service: "p.S", path: "/" };
    expect((await probe(caseOf("weight", { weights, request }), gateway)).fault).toBeUndefined();
    expect(gateway.sent[0]?.target).toBe("/p.S/Echo");
  });

  it("fails one that does not, after ten tries", async () => {
    const gateway = new FakeGateway(split(0.5, 3));
    const { fault, tries } = await probe(caseOf("weight", { weights }), gateway);
    expect(fault).toMatch(/^v1 got [0-9.]+ % of 500 requests, expected 70 %$/);
    expect([tries, gateway.sent.length]).toEqual([10, 5_000]);
  });

  it("fails one that asks a backend of weight 0, an unknown one, or none", async () => {
    const once = (odd: string | number) => {
      const rest = split(0.7, 4);
      return new FakeGateway((_, nth) => (nth % 500 === 250 ? odd : rest()));
    };
    expect((await probe(caseOf("weight", { weights }), once("v3"))).fault).toMatch(/^v3 got 0.2 %/);
    expect((await probe(caseOf("weight", { weights }), once("v4"))).fault).toBe("v4 answered a request");
    expect((await probe(caseOf("weight", { weights }), once(500))).fault).toBe("no backend answered a request");
  });
});

describe("mirrors", () => {
  const expected = (percent?: number): Case["expect"] => ({
    statusCodes: [200],
    backend: "v1",
    namespace: "infra",
    mirroredTo: [{ name: "v2", namespace: "infra", ...(percent && { percent }) }],
  });
  const copying = (copies: (nth: number) => number): FakeGateway => {
    const gateway: FakeGateway = new FakeGateway((request, nth) => {
      for (let i = copies(nth); i > 0; i--) gateway.mirror("v2", request);
      return "v1";
    });
    return gateway;
  };

  it("get one copy of each request", async () => {
    const tested = caseOf("mirror", { expect: expected() });
    expect(
      (
        await probe(
          tested,
          copying(() => 1),
        )
      ).fault,
    ).toBeUndefined();
    expect(
      (
        await probe(
          tested,
          copying(() => 0),
        )
      ).fault,
    ).toBe("v2 got 0 copies of a request, expected one");
    expect(
      (
        await probe(
          tested,
          copying(() => 2),
        )
      ).fault,
    ).toBe("v2 got 2 copies of a request, expected one");
  });

  it("get a percentage of the requests, within three standard deviations", async () => {
    const share = (percent: number, seed: number) => {
      const draw = random(seed);
      return copying(() => (draw() < percent / 100 ? 1 : 0));
    };
    const tested = caseOf("percentage-mirror", { expect: expected(20) });
    expect((await probe(tested, share(20, 5))).fault).toBeUndefined();
    const { fault, tries } = await probe(tested, share(35, 6));
    expect(fault).toMatch(/^v2 got [0-9]+ of 500 requests, expected 100 ± 26.8$/);
    expect(tries).toBe(5);
  });

  it("do not excuse a wrong primary answer", async () => {
    const tested = caseOf("percentage-mirror", { expect: expected(20) });
    const failing = new FakeGateway((_, nth) => (nth > 100 ? 500 : "v1"));
    expect((await probe(tested, failing)).fault).toBe("status 500, expected 200");
  });

  it("must be named by the case", async () => {
    const { fault } = await probe(caseOf("mirror"), new FakeGateway(() => "v1"));
    expect(fault).toMatch(/does not say where the mirrors are/);
  });
});

describe("a header that each backend gets of its own", () => {
  const answers = (named: (backend: string) => string) => {
    const gateway: FakeGateway = new FakeGateway((_, nth) => `v${1 + (nth % 2)}`);
    const { send } = gateway;
    gateway.send = async (request) => {
      const answer = await send.call(gateway, request);
      const seen = JSON.parse(String(answer.body)) as Echo;
      const headers = { Backend: [named(seen.pod.slice(0, 2))] };
      return { ...answer, body: Buffer.from(JSON.stringify({ ...seen, headers })) };
    };
    return gateway;
  };

  it("names the backend, in a hundred requests", async () => {
    const gateway = answers((backend) => backend);
    expect((await probe(caseOf("backend-header-weights"), gateway)).fault).toBeUndefined();
    expect(gateway.sent).toHaveLength(100);
    const { fault } = await probe(
      caseOf("backend-header-weights"),
      answers(() => "v1"),
    );
    expect(fault).toBe('v2-0-0 got the Backend header ["v1"], expected its own name');
  });
});

describe("WebSocket", () => {
  const steps: Case["steps"] = [
    { send: "text", data: "hello" },
    { send: "binary", data: [1, 2, 255] },
  ];

  it("gets every message back, as text or bytes", async () => {
    const gateway = new FakeGateway(() => "web");
    expect((await probe(caseOf("websocket", { steps }), gateway)).fault).toBeUndefined();
    gateway.converse = async (_, [text, bytes]) => [Buffer.from(text as string), bytes as Buffer];
    expect((await probe(caseOf("websocket", { steps }), gateway)).fault).toBe('message 1 came back as bytes "hello"');
    gateway.converse = async () => ["hello", Buffer.from([1, 2])];
    expect((await probe(caseOf("websocket", { steps }), gateway)).fault).toMatch(/^message 2 came back as bytes/);
  });
});

it.each(["websocket", "mirror", "percentage-mirror", "weight"])(
  "does not pass an empty case of kind %s",
  async (kind) => {
    expect((await probe(caseOf(kind), new FakeGateway(() => "web"))).fault).toBeDefined();
  },
);

it.each(["tls", ""])("does not pass what it does not know: kind %j", async (kind) => {
  const { fault } = await probe(caseOf(kind), new FakeGateway(() => "web"));
  expect(fault).toMatch(/^no such kind of case is known/);
});

it("does not pass a request in a protocol that it does not speak", async () => {
  const request = { method: "GET", path: "/", protocol: "H2C_PRIOR_KNOWLEDGE" };
  const { fault } = await probe(caseOf("http", { request }), new FakeGateway(() => "web"));
  expect(fault).toBe("the client speaks HTTP/1.1, not H2C_PRIOR_KNOWLEDGE");
});
