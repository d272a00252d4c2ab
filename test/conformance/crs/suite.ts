/** All stages of a rule set's tests, sent or handed to the engine, and what came of each. */
import { directly } from "./direct.ts";
import { faultOf, type Outcome } from "./judge.ts";
import { readStages, type Stage } from "./stages.ts";
import { overTheWire } from "./wire.ts";

export interface StageResult {
  readonly stage: Stage;
  readonly outcome: Outcome;
  /** Undefined: it passed. */
  readonly fault: string | undefined;
}

export interface SuiteOptions {
  /** A checkout of a rule set, or a folder of rules. */
  readonly rules: string;
  /** A checkout of a rule set, a folder of go-ftw's tests, or one file. */
  readonly tests: string;
  /** Only stages whose name contains one of these. */
  readonly only?: readonly string[];
  /** Calls the engine with parsed requests, instead of sending them. */
  readonly direct?: boolean;
  /** Sends every byte as go-ftw does, also what workerd refuses by itself (`escaped` in wire.ts). */
  readonly verbatim?: boolean;
  readonly onStart?: (stages: number) => void;
  readonly onStep?: (area: string) => void;
}

/** `onStep` gets the area of a stage, such as `942`. Throws an Error that says what is wrong with the rules or the tests. */
export async function runSuite({
  rules,
  tests,
  only,
  direct,
  verbatim = false,
  onStart,
  onStep = () => {},
}: SuiteOptions): Promise<StageResult[]> {
  const all = readStages(tests);
  const stages = only ? all.filter(({ name }) => only.some((part) => name.includes(part))) : all;
  if (stages.length === 0) throw new Error(`no stage's name has ${only?.join(" or ")} in it`);
  onStart?.(stages.length);
  const step = (name: string) => onStep(name.slice(0, 3));
  const outcomes = direct ? directly(stages, rules, step) : await overTheWire(stages, rules, verbatim, step);
  return stages.map((stage, i) => {
    const outcome = outcomes[i] as Outcome;
    return { stage, outcome, fault: faultOf(stage.expected, outcome) };
  });
}
