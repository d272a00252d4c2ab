/**
 * The script of limit-script.ts in TypeScript, for simulations in which Lua would take most of the time. That both do the same is
 * shown in limit-model.test.ts.
 */
import { FEW, type Grant } from "../../src/policies/limit-script.ts";

interface State {
  since: number;
  used: number;
  before: number;
  alive: number;
  ageing: number;
}

export class LimitModel {
  /** Milliseconds since the epoch. */
  now = 0;
  /** By key. */
  readonly calls = new Map<string, number>();
  readonly #states = new Map<string, State & { expires: number }>();

  /** With the script's ARGV. */
  run(key: string, args: readonly (string | number)[]): Grant {
    this.calls.set(key, (this.calls.get(key) ?? 0) + 1);
    const [algorithm, ...numbers] = args as [string, ...number[]];
    const [quota, window, , need, want, charge, back, backWindow, ...turns] = numbers as [
      ...[number, number, number, number, number, number, number, number],
      ...number[],
    ];
    let life = numbers[2] as number;
    const known = this.#states.get(key);
    const state =
      known && known.expires > this.now ? { ...known } : { since: 0, used: 0, before: 0, alive: 0, ageing: 0 };
    const now = Math.max(Math.floor(this.now), state.since);
    const bucket = algorithm === "tokenBucket";
    const sliding = algorithm === "slidingWindow";
    const under = () => state.alive + state.ageing;
    let [turn, share] = [0, 0];
    if (bucket) {
      state.since ||= now;
      while (state.since < now) {
        const slotEnd = (Math.floor(state.since / life) + 1) * life;
        const stop = under() > 0 ? Math.min(now, slotEnd) : now;
        state.used = Math.max(under(), state.used - ((stop - state.since) * quota) / window);
        state.since = stop;
        if (stop >= slotEnd) [state.alive, state.ageing] = [0, state.alive];
      }
      state.used = Math.max(under(), state.used - back);
    } else {
      let start = now - (now % window);
      turn = start + window;
      if (turns.length > 0) {
        const month = turns.findIndex((from, i) => from <= now && now < (turns[i + 1] ?? 0));
        [start, turn] = turns.slice(month) as [number, number];
      }
      if (state.since !== start) {
        Object.assign(state, { before: state.since === start - window ? state.used : 0, since: start, used: 0 });
      }
      if (backWindow === start) state.used = Math.max(0, state.used - back);
      life = turn - now;
      if (sliding) share = Math.floor((state.before * life) / window);
    }
    state.used += charge;
    let room = Math.floor(quota - state.used - share);
    let granted = 0;
    if (room >= need && room > 0) {
      granted = Math.min(room, Math.max(need, Math.min(want, Math.max(Math.floor(room / 4), FEW))));
      state.used += granted;
      room -= granted;
      if (bucket) state.alive += granted - need;
    }
    let wait = 0;
    const next = granted === 0 ? Math.max(need, 1) : 1;
    if (room < next) {
      const shareGone = (of: number, most: number, end: number) => Math.floor(end - (window * (most + 1)) / of) + 1;
      if (bucket) {
        wait = Math.ceil(((state.used + next - quota) * window) / quota);
        if (under() + next > quota) wait = Math.max(wait, (Math.floor(now / life) + 1) * life - now);
      } else if (!sliding) wait = life;
      else if (quota - state.used >= next) wait = shareGone(state.before, quota - state.used - next, turn) - now;
      else wait = Math.max(turn, shareGone(state.used, quota - next, turn + window)) - now;
    }
    const keep = bucket ? Math.ceil((state.used * window) / quota) + 2 * life : sliding ? life + window : life;
    this.#states.set(key, { ...state, expires: this.now + Math.max(1, keep) });
    return { granted, room: Math.max(0, room), window: state.since, life, wait };
  }
}
