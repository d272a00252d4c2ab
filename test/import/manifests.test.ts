/** What the importer reads, and what it says of what it cannot. */
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ConfigurationRefused } from "../../src/build/problem.ts";
import { importManifests } from "../../src/import/import.ts";
import { type Files, folderOf } from "../build/module.ts";
import { GATEWAY, imported, problemsOf, withRules } from "./convert.ts";

describe("forms", () => {
  const route = { name: "orders", namespace: "shop" };
  const objects = [
    {
      kind: "Gateway",
      metadata: { name: "public", namespace: "infra" },
      spec: { listeners: [{ name: "a", port: 81, protocol: "HTTP", allowedRoutes: { namespaces: { from: "All" } } }] },
    },
    { kind: "HTTPRoute", metadata: route, spec: { parentRefs: [{ name: "public", namespace: "infra" }], rules: [{}] } },
  ].map((object) => ({ apiVersion: "gateway.networking.k8s.io/v1", ...object }));
  const list = (kind: string, items: readonly object[]) => ({ apiVersion: "v1", kind, metadata: {}, items });

  it.each([
    ["JSON", JSON.stringify(list("List", objects))],
    ["JSON with tabs", JSON.stringify(list("List", objects), null, "\t")],
    [
      "a list of one kind",
      `${JSON.stringify(list("GatewayList", objects.slice(0, 1)))}\n---\n${JSON.stringify(objects[1])}`,
    ],
    ["a list that does not say so", JSON.stringify({ items: objects })],
    [
      "lists whose items leave their kind to them",
      ["GatewayList", "HTTPRouteList"]
        .map((kind, i) => {
          const { apiVersion, kind: _, ...item } = objects[i] as { apiVersion: string; kind: string };
          return JSON.stringify({ apiVersion, kind, items: [item] });
        })
        .join("\n---\n"),
    ],
    [
      "merge keys",
      `${GATEWAY}---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: orders, namespace: shop }\nspec: { parentRefs: [{ <<: [{ name: public }, { name: other, namespace: infra }] }], rules: [] }`,
    ],
    ["a list in a list", JSON.stringify(list("List", [list("List", objects)]))],
    [
      "YAML with Windows' line ends, a mark at its beginning and empty documents",
      `\uFEFF---\r\n---\r\n${GATEWAY.replaceAll("\n", "\r\n")}---\r\n# nothing\r\n---\r\n${JSON.stringify(objects[1])}\r\n---\r\n`,
    ],
    [
      "anchors",
      `${GATEWAY}---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: &name orders, namespace: shop, labels: { app: *name } }\nspec: { parentRefs: [{ name: public, namespace: infra }], rules: [&rule { matches: [] }, *rule] }`,
    ],
  ])("%s", (_, text) => {
    const { report, files } = imported(text);
    expect(report.gateway).toBe("infra/public");
    expect([...files.keys()]).toContain("orders.ts");
  });

  it.each(["v1", "v1beta1", "v1alpha2"])("version %s", (version) => {
    const text = withRules("[]").replaceAll("k8s.io/v1", `k8s.io/${version}`);
    expect([...imported(text).files.keys()]).toContain("orders.ts");
  });

  it("an object in two versions is one", () => {
    const twice = GATEWAY.replace("name: public", "uid: u, name: public");
    expect(imported(`${twice}---${twice.replace("io/v1", "io/v1beta1")}`).totals.listeners).toBe(1);
  });
});

describe("mistakes of manifests", () => {
  it.each([
    ["no YAML", "a: [1, 2\nb: c", /^m\.yaml:2 {2}manifest: is no YAML: /],
    ["one name twice", "a: 1\na: 2", "m.yaml:2  manifest: is no YAML: Map keys must be unique"],
    ["a text", "hello", "m.yaml:1  manifest: is no Kubernetes object"],
    ["a list", "- a", "m.yaml:1  manifest: is no Kubernetes object"],
    ["values for something else", "replicas: 2", "m.yaml:1  manifest: has no `kind`"],
    ["no version", "kind: Gateway", "m.yaml:1  manifest: has no `apiVersion`"],
    ["no name", GATEWAY.replace("name: public, ", ""), "m.yaml:2  Gateway infra/: has no `metadata.name`"],
    ["no spec", GATEWAY.replace(/spec:[\s\S]*/, ""), "m.yaml:2  Gateway infra/public: has no `spec`"],
    [
      "a listener without port",
      GATEWAY.replace("port: 80, ", ""),
      "m.yaml:8  Gateway infra/public: `spec.listeners[0]` has no `port`",
    ],
    [
      "a port in quotes",
      GATEWAY.replace("80", '"80"'),
      "m.yaml:8  Gateway infra/public: `spec.listeners[0].port` must be a whole number from 1 to 65535",
    ],
    [
      "a port that is none",
      GATEWAY.replace("80", "80000"),
      "m.yaml:8  Gateway infra/public: `spec.listeners[0].port` must be a whole number from 1 to 65535",
    ],
    [
      "a name that is a number",
      GATEWAY.replace("name: http", "name: 7"),
      'm.yaml:8  Gateway infra/public: `spec.listeners[0].name` must be a text: put it in quotes, "7"',
    ],
    [
      "a map for a list",
      GATEWAY.replace(/listeners:[\s\S]*/, "listeners: { a: 1 }"),
      "m.yaml:7  Gateway infra/public: `spec.listeners` must be a list",
    ],
    [
      "a list for a map",
      GATEWAY.replace(/spec:[\s\S]*/, "spec: []"),
      "m.yaml:5  Gateway infra/public: `spec` must be a map",
    ],
    [
      "a time that is none",
      GATEWAY.replace("namespace: infra", "namespace: infra, creationTimestamp: soon"),
      "m.yaml:4  Gateway infra/public: `metadata.creationTimestamp` is no time",
    ],
    [
      "the same object twice",
      `${GATEWAY}---${GATEWAY}`,
      "m.yaml:10  Gateway infra/public: is there already, at m.yaml:2",
    ],
    [
      "an alias to nothing",
      "apiVersion: v1\nkind: *nothing",
      'm.yaml:2  manifest: `kind` is an alias of "nothing", which is nowhere before',
    ],
    ["an alias to itself", "apiVersion: v1\nkind: X\nspec: &a { b: *a }", /`spec\.b\.b\..*` is nested too deeply$/],
    ["a merge of no map", "a: &a b\nc: { <<: *a }", "m.yaml:2  manifest: `c` merges what is no map"],
    ["a merge of itself", "apiVersion: v1\nkind: X\nspec: &a { <<: *a }", /is nested too deeply$/],
    ["a key that is no text", "? [a]\n: b", "m.yaml:1  manifest: has a key that is no text"],
  ])("%s", (_, text, told) => {
    const [problem] = problemsOf(text);
    expect(problem).toEqual(typeof told === "string" ? told : expect.stringMatching(told));
  });

  it("aliases to aliases are counted", () => {
    const levels = Array.from(
      { length: 9 },
      (_, at) => `a${at + 1}: &a${at + 1} [${Array(9).fill(`*a${at}`).join(", ")}]`,
    );
    expect(problemsOf(`apiVersion: v1\nkind: X\na0: &a0 [x]\n${levels.join("\n")}`)[0]).toMatch(/has too many values$/);
  });

  it("are told all at once", () => {
    const wrong = "- { name: 5, port: 80, protocol: HTTP }\n    - { name: b, port: -1 }";
    expect(problemsOf(GATEWAY.replace(/- \{ name: http.*/, wrong)).map((problem) => problem.split("  ")[0])).toEqual([
      "m.yaml:8",
      "m.yaml:9",
      "m.yaml:9",
    ]);
  });
});

describe("files", () => {
  const imports = async (files: Files, paths: readonly string[], options: Record<string, unknown> = {}) => {
    const folder = await folderOf(files);
    const out = join(folder, "routes");
    const result = importManifests(
      paths.map((path) => join(folder, path)),
      { out, ...options },
    );
    return { folder, out, ...(await result) };
  };
  const told = (error: unknown) =>
    (error as ConfigurationRefused).problems.map(
      ({ subject, message }) => `${subject.replace(/^.*\/routes-\w+\//, "")}: ${message}`,
    );

  it("of folders are read at any depth, each once, and nothing else", async () => {
    const { report, out } = await imports(
      {
        "k8s/b/gateway.yml": GATEWAY,
        "k8s/a/orders.yaml": withRules("[]").split("---").slice(1, 2).join(),
        "k8s/values.txt": "no: manifest",
      },
      ["k8s", "k8s/b/gateway.yml"],
    );
    const order = [...new Set(report.entries.map(({ file }) => file.replace(/^.*\/k8s\//, "")))];
    expect(order).toEqual(["a/orders.yaml", "b/gateway.yml"]);
    expect((await readdir(out)).sort()).toEqual(["REPORT.md", "index.ts", "orders.ts"]);
  });

  it("that are not there are told of", async () => {
    const error = await imports({ "empty/a.txt": "" }, ["nowhere", "empty"]).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(ConfigurationRefused);
    expect(told(error)).toEqual([
      "nowhere: there is no such file or folder",
      "empty: the folder has no .yaml, .yml or .json",
    ]);
  });

  it("are not written where anything is wrong", async () => {
    const folder = await folderOf({ "m.yaml": GATEWAY.replace("80", "x") });
    const out = join(folder, "routes");
    await expect(importManifests([join(folder, "m.yaml")], { out })).rejects.toThrow(ConfigurationRefused);
    await expect(readdir(out)).rejects.toThrow("ENOENT");
  });

  it("are not written over others without force, and with it the others stay", async () => {
    const folder = await folderOf({ "m.yaml": GATEWAY, "routes/mine.ts": "mine", "routes/index.ts": "old" });
    const out = join(folder, "routes");
    const error = await importManifests([join(folder, "m.yaml")], { out }).catch((thrown) => thrown);
    expect(told(error)).toEqual(["routes: has files already"]);
    expect(await readFile(join(out, "index.ts"), "utf8")).toBe("old");
    const { left } = await importManifests([join(folder, "m.yaml")], { out, force: true });
    expect(left).toEqual(["mine.ts"]);
    expect(await readFile(join(out, "index.ts"), "utf8")).toContain("gateway(");
    expect(await readFile(join(out, "mine.ts"), "utf8")).toBe("mine");
  });

  it("go into an empty folder, and a folder that is to be made", async () => {
    const folder = await folderOf({ "m.yaml": GATEWAY });
    await mkdir(join(folder, "empty"));
    for (const name of ["empty", "new/folder"]) {
      await importManifests([join(folder, "m.yaml")], { out: join(folder, name) });
      expect(await readdir(join(folder, name))).toContain("index.ts");
    }
  });

  it("cannot go into a file", async () => {
    const folder = await folderOf({ "m.yaml": GATEWAY });
    await writeFile(join(folder, "routes"), "");
    const error = await importManifests([join(folder, "m.yaml")], { out: join(folder, "routes") }).catch(
      (thrown) => thrown,
    );
    expect(told(error)).toEqual(["routes: is no folder"]);
  });

  it("of endpoints must be there", async () => {
    const error = await imports({ "m.yaml": GATEWAY }, ["m.yaml"], { endpoints: "nowhere.yaml" }).catch(
      (thrown) => thrown,
    );
    expect(told(error)).toEqual(["nowhere.yaml: cannot be read"]);
  });
});
