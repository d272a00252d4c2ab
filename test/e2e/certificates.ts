/** Certificates by openssl, in a temporary folder. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const opensslAvailable = (): boolean => spawnSync("openssl", ["version"]).status === 0;

/** Paths of PEM files, and what is in them. */
export interface Certificate {
  readonly certificateFile: string;
  readonly keyFile: string;
  readonly certificate: string;
  readonly key: string;
}

export class CertificateAuthority {
  readonly own: Certificate;
  readonly #folder = mkdtempSync(join(tmpdir(), "portcullis-certificates-"));

  constructor(name: string) {
    this.own = this.#made(name, ["-x509", "-days", "2", "-subj", `/CN=${name}`]);
  }

  /** For a server at `host`, or for a client of that name. */
  issue(host: string): Certificate {
    const extensions = join(this.#folder, `${host}.ext`);
    writeFileSync(extensions, `subjectAltName=DNS:${host}`);
    const request = this.#made(host, ["-subj", `/CN=${host}`]);
    const { certificateFile, keyFile } = this.own;
    const signing = [
      "-CA",
      certificateFile,
      "-CAkey",
      keyFile,
      "-CAcreateserial",
      "-days",
      "2",
      "-extfile",
      extensions,
    ];
    openssl("x509", "-req", "-in", request.certificateFile, "-out", request.certificateFile, ...signing);
    return this.#read(request);
  }

  close(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** A key, and what `req` makes of it: a certificate signed by itself with `-x509`, else a request for one. */
  #made(name: string, args: readonly string[]): Certificate {
    const [certificateFile, keyFile] = [join(this.#folder, `${name}.pem`), join(this.#folder, `${name}.key`)];
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", keyFile];
    openssl("req", ...key, "-out", certificateFile, ...args);
    return this.#read({ certificateFile, keyFile });
  }

  #read({ certificateFile, keyFile }: Pick<Certificate, "certificateFile" | "keyFile">): Certificate {
    const [certificate, key] = [certificateFile, keyFile].map((file) => readFileSync(file, "utf8")) as [string, string];
    return { certificateFile, keyFile, certificate, key };
  }
}

const openssl = (...args: string[]): Buffer => execFileSync("openssl", args, { stdio: ["ignore", "pipe", "pipe"] });
