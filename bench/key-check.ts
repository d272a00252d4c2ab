/** The check of a known API key against no check, in workerd, by the CPU time of the process. */
import { type Summary, summary } from "./measure.ts";
import { cpuTime, startWorkerd } from "./processes.ts";

/** As many in one request, so that the request itself does not count. */
const CHECKS = 20_000;

/** Microseconds that one check adds. Each round measures both, in turns. */
export async function measureKeyCheck(rounds: number): Promise<Summary> {
  const running = await startWorkerd({ name: "key-check" });
  const spend = async (path: string): Promise<number> => {
    const before = cpuTime(running.pid);
    const response = await fetch(`http://127.0.0.1:${running.port}${path}?n=${CHECKS}`, { headers: HEADERS });
    if ((await response.text()) !== "done") throw new Error(`the check of a key answered ${response.status}`);
    return (cpuTime(running.pid) - before) / CHECKS / 1_000;
  };
  await spend("/none");
  await spend("/key");
  const added: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? ["/none", "/key"] : ["/key", "/none"];
    const spent = new Map<string, number>();
    for (const path of order) spent.set(path, await spend(path));
    added.push((spent.get("/key") as number) - (spent.get("/none") as number));
  }
  await running.stop();
  return summary(added);
}

const HEADERS = {
  "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
  accept: "application/json",
  "accept-language": "en-GB,en;q=0.9,de;q=0.8",
  cookie: "session=8f14e45fceea167a5a36dedd4bea2543; theme=dark; consent=1",
};
