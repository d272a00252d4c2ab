/**
 * Leased counting: an isolate takes a block of units from the store with one call and spends it by itself. What it holds of one key
 * is a Lease; all of them are its Leases. No I/O, no clock and no randomness in here: the edge (count-leased.ts) and the simulation
 * (test/simulation/leases.ts) run this same code.
 *
 * The fleet never admits more than the limit, because every unit is spent by one isolate alone (the store gave it to nobody else, and
 * what goes back is forgotten here first) and in time: a unit may be spent for as long as the store said, counted from *before* the call.
 * That time has passed here before it has passed there, whatever this isolate's clock says, provided that it runs evenly.
 *
 * Blocks follow the demand. A key that is asked for now and then gets what it needs and nothing more, so it costs a call per request
 * and strands nothing. Each block may be four times the one before, up to what the isolate spends within the horizon, so a hot key
 * soon costs a call per many requests. Numbers and proofs: docs/limits.md.
 */
import { type Ask, FEW, type Grant, lifeOf, SHORTEST_LIFE, type UnitRule } from "./limit-script.ts";

/** A clock may run that much slower than the store's. NTP slews one by 0.05 % at most (RFC 5905, 11.3). */
const DRIFT = 0.001;
/** Milliseconds: a block is what is spent in a fiftieth of a window, and no less than the one, no more than the other. */
const SHORTEST_HORIZON = 100;
const LONGEST_HORIZON = 10_000;
/** Blocks of that size and more are refilled before they are empty. Below, that would double the calls. */
const REFILLED_AHEAD = 8;
/** Worth a call of their own, where the isolate spends as many within a tenth of the window. */
const WORTH_A_CALL = 2 * FEW;
/** Milliseconds that a hot key, one of 20 requests a second, is refused at least before the store is asked again. */
const LONGEST_REST = 1_000;
/** A call of the store on behalf of a lease. */
export interface Errand extends Ask {
  readonly sentAt: number;
  /** When it counts as lost: whoever made the call may be gone. */
  readonly deadline: number;
}

/** Times are milliseconds of the isolate's own clock, in `now` and everywhere else, except for `window`. */
export class Lease {
  readonly key: string;
  readonly rule: UnitRule;
  /** Units of requests that look on while another one asks the store. */
  #waiting = 0;
  #units = 0;
  #until = Number.NEGATIVE_INFINITY;
  /** A bucket's next block, which lives longer than the one before. */
  #nextUnits = 0;
  #nextUntil = Number.NEGATIVE_INFINITY;
  /** When the units' window began, by the store's clock. */
  #window = 0;
  /** When it ends. */
  #turn = Number.NEGATIVE_INFINITY;
  /** Units that were used and are not charged yet; negative: that were charged and are not used. */
  #owed = 0;
  /** What was left in the store, and until when it has no more. */
  #room = 0;
  #refusedUntil = Number.NEGATIVE_INFINITY;
  /** Until when a hot key is refused without waiting for the store, which is asked in the background meanwhile. */
  #restUntil = Number.NEGATIVE_INFINITY;
  #moreAt = 0;
  /** Units that were asked for, refusals included: what counts is less by a factor of e after each `#memory` ms. */
  #demand = 0;
  #demandAt: number;
  #target = 0;
  /** A block that is smaller is refilled. */
  #low = 0;
  #askedAt: number;
  #latency = 0;
  #refusals = 0;
  #errand: Errand | undefined;

  constructor(key: string, rule: UnitRule, now: number) {
    this.key = key;
    this.rule = rule;
    this.#demandAt = now;
    this.#askedAt = now;
  }

  /** Units that can be spent now. */
  available(now: number): number {
    if (now >= this.#until) {
      if (this.#bucket) this.#units = 0;
      this.#nextBlock();
      if (now >= this.#until) return 0;
    }
    return this.#units + (now < this.#nextUntil ? this.#nextUnits : 0);
  }

  /** Notes that a request asks for that many units. Once per request, whatever becomes of it. */
  wanted(cost: number, now: number): void {
    this.#demand = this.#demandNow(now) + cost;
    this.#demandAt = now;
  }

  /** No more than `available`. */
  spend(cost: number): void {
    this.#units -= cost;
    if (this.#units <= 0) this.#nextBlock();
  }

  /** Whether the store is known not to have that much. */
  refuses(cost: number, now: number): boolean {
    return now < this.#restUntil && cost > this.#room;
  }

  refused(): void {
    this.#refusals += 1;
  }

  /** The window that units spent now belong to. */
  get window(): number {
    return this.#window;
  }

  /**
   * Takes back units of that window that a request was given and has not used. Those of a window that is over are of no use. Those of
   * a bucket have only so long to live, so they go back to the store.
   */
  unused(units: number, window: number, now: number): void {
    if (this.#bucket) this.#owed -= units;
    else if (window === this.#window && now < this.#until) this.#units += units;
  }

  /** Charges what a request turned out to have used, whether it is there or not. */
  charge(units: number, now: number): void {
    const here = Math.min(units, this.available(now));
    this.spend(here);
    this.#owed += units - here;
  }

  /** At least so many units were left for this isolate when the store was asked last, minus what it has spent since. */
  remaining(now: number): number {
    const room = now < this.#turn || this.#bucket ? this.#room : 0;
    return Math.max(0, this.available(now) + room - this.#owed);
  }

  /** When more is there, as far as is known. */
  moreAt(now: number): number {
    return now < this.#refusedUntil ? this.#refusedUntil : Math.max(this.#moreAt, now + 1);
  }

  /** A request waits for the errand of another one; the next errand brings what it needs. */
  joined(cost: number): void {
    this.#waiting += cost;
  }

  /** It waits no longer. A request that was cancelled never says so; what it needed is forgotten with the next errand. */
  left(cost: number): void {
    this.#waiting = Math.max(0, this.#waiting - cost);
  }

  /** Whether somebody is asking the store already. */
  awaits(now: number): boolean {
    return this.#errand !== undefined && now < this.#errand.deadline;
  }

  /** The call for a request that has to wait for it. `patience`: milliseconds after which the call is given up. */
  ask(cost: number, now: number, patience: number): Errand {
    // What is too little for this request, or has outlived its time but perhaps not its window, is exchanged.
    const back = this.#bucket ? 0 : this.#units;
    if (!this.#bucket) this.#units = 0;
    this.#measure(cost, now);
    const want = Math.max(cost + this.#waiting, this.#target - this.available(now));
    this.#waiting = 0;
    return this.#send(cost, want, back, now, patience);
  }

  /** The call that need not be waited for, if one is due: to refill, to give back, to settle. */
  tend(now: number, patience: number): Errand | undefined {
    if (this.awaits(now)) return undefined;
    const available = this.available(now);
    const refill = available < this.#low && now >= this.#refusedUntil && this.#nextUnits === 0;
    if (refill) this.#measure(0, now);
    if (refill || this.#owed !== 0) {
      return this.#send(0, refill ? Math.max(0, this.#target - available) : 0, 0, now, patience);
    }
    if (this.#bucket) return undefined;
    if (available === 0) return this.#probe(now, patience);
    if (available <= FEW || now - this.#askedAt < 4 * this.#horizon) return undefined;
    const enough = 1 + Math.ceil(this.#rate(0, now) * this.#horizon);
    if (available < FEW + 2 * enough) return undefined;
    this.#measure(0, now);
    this.#units = enough;
    return this.#send(0, 0, available - enough, now, patience);
  }

  /** Whether something can be settled with the store when the lease is given up. */
  worthReturning(now: number): boolean {
    return this.#owed !== 0 || (!this.#bucket && this.#units > 0 && now < this.#turn && !this.awaits(now));
  }

  /** The call that does so. */
  surrender(now: number, patience: number): Errand {
    const back = this.#bucket ? 0 : this.#units;
    this.#units = 0;
    return this.#send(0, 0, back, now, patience);
  }

  /**
   * Notes the reply. Returns whether the units that the errand needed were granted: they are for whoever sent it to spend at once, also
   * when their time has passed on the way, since they count as spent when they were granted.
   */
  settle(errand: Errand, grant: Grant, now: number): boolean {
    const { granted, room, window, life, wait } = grant;
    const own = Math.min(errand.need, granted);
    this.#receive(granted - own, window, errand.sentAt + Math.floor(life * (1 - DRIFT)));
    // A late reply grants what it grants, but tells nothing new.
    if (this.#errand !== errand) return own > 0;
    this.#errand = undefined;
    this.#latency = now - errand.sentAt;
    this.#room = room;
    this.#refusals = 0;
    const rest = wait > 0 ? this.#rest(errand.need, now) : 0;
    this.#refusedUntil = wait > 0 ? now + Math.max(wait, rest) : Number.NEGATIVE_INFINITY;
    this.#restUntil = this.#refusedUntil + rest;
    this.#turn = now + life;
    this.#moreAt = this.#bucket ? now + Math.max(wait, Math.ceil(this.rule.window / this.rule.quota)) : this.#turn;
    return own > 0;
  }

  /**
   * There was no reply. Whatever was granted is lost, since nobody knows that it was. Of what was owed and what was to go back it is
   * not known either: so the one is charged again, and the other is not credited again.
   */
  fail(errand: Errand): void {
    this.#owed += errand.charge;
    if (this.#errand === errand) this.#errand = undefined;
  }

  get #bucket(): boolean {
    return this.rule.algorithm === "tokenBucket";
  }

  #receive(units: number, window: number, until: number): void {
    if (!this.#bucket) {
      if (window < this.#window) return;
      this.#units = window === this.#window ? this.#units + units : units;
      this.#until = window === this.#window ? Math.max(this.#until, until) : until;
      this.#window = window;
    } else if (this.#units === 0) {
      this.#units = units;
      this.#until = until;
    } else {
      this.#nextUnits = units;
      this.#nextUntil = until;
    }
  }

  #nextBlock(): void {
    if (this.#nextUnits === 0) return;
    this.#units += this.#nextUnits;
    this.#until = this.#nextUntil;
    this.#nextUnits = 0;
  }

  #demandNow(now: number): number {
    return now > this.#demandAt ? this.#demand * Math.exp((this.#demandAt - now) / this.#memory) : this.#demand;
  }

  /** Units per millisecond, by the requests before one of that cost. */
  #rate(cost: number, now: number): number {
    return Math.max(0, this.#demandNow(now) - cost) / this.#memory;
  }

  /** How large a block should be. */
  #measure(cost: number, now: number): void {
    const rate = this.#rate(cost, now);
    const left = now < this.#turn && !this.#bucket ? this.#turn - now : Number.POSITIVE_INFINITY;
    const few = Math.min(WORTH_A_CALL, rate * Math.min(left, this.#memory));
    this.#target = Math.floor(Math.max(few, rate * Math.min(left, this.#horizon)));
    this.#low =
      this.#target < REFILLED_AHEAD
        ? 0
        : Math.max(this.#target / 4, Math.min(this.#target / 2, rate * 4 * this.#latency));
  }

  /** Milliseconds over which demand is measured. */
  get #memory(): number {
    return this.#bucket ? lifeOf(this.rule) / 2 : Math.min(LONGEST_HORIZON, this.rule.window / 10);
  }

  /** Milliseconds for which a block should last. */
  get #horizon(): number {
    const { rule } = this;
    if (this.#bucket) {
      const life = lifeOf(rule);
      return life < Math.max(SHORTEST_LIFE, 4 * this.#latency) ? 0 : life / 2;
    }
    const horizon = Math.min(LONGEST_HORIZON, Math.max(SHORTEST_HORIZON, rule.window / 50));
    return Math.min(rule.window / 5, Math.max(horizon, 4 * this.#latency));
  }

  /** Milliseconds in which a hot key makes some twenty requests. A fixed window has no more before its end, so there is no rest to take. */
  #rest(cost: number, now: number): number {
    if (this.rule.algorithm === "fixedWindow") return 0;
    const rest = (FEW * Math.max(1, cost)) / this.#rate(cost, now);
    // What a sliding window does not give out before it turns is lost; a bucket keeps it.
    const longest = this.#bucket ? lifeOf(this.rule) : this.rule.window / 50;
    return rest < Math.min(LONGEST_REST, longest) ? rest : 0;
  }

  /** A fixed window that was used up may have got something back. */
  #probe(now: number, patience: number): Errand | undefined {
    if (this.#refusals < FEW || now >= this.#refusedUntil || this.rule.algorithm !== "fixedWindow") return undefined;
    if (now - this.#askedAt < Math.max(LONGEST_REST, this.#horizon)) return undefined;
    this.#measure(0, now);
    return this.#send(0, this.#target, 0, now, patience);
  }

  #send(need: number, want: number, back: number, now: number, patience: number): Errand {
    const errand = {
      need,
      want,
      charge: Math.max(0, this.#owed),
      back: back + Math.max(0, -this.#owed),
      window: this.#window,
      sentAt: now,
      deadline: now + patience,
    };
    this.#owed = 0;
    this.#askedAt = now;
    this.#errand = errand;
    return errand;
  }
}

/** Keys of a generation; a lease takes some 300 bytes besides its key. */
const MAX_KEYS = 8_192;
/** Milliseconds after which a lease that nobody has asked for is given up, at the earliest. */
const IDLE = 30_000;

/**
 * The leases of one isolate. Memory is bounded by generations: what was not asked for in the time of two, each 30 s long or 8,192 keys
 * wide, is given up. A flood of keys makes the isolate forget leases, which costs calls and units; it never makes two of one unit.
 */
export class Leases {
  #young = new Map<string, Lease>();
  #old = new Map<string, Lease>();
  #since = Number.NEGATIVE_INFINITY;
  #dropped: Lease[] = [];

  get size(): number {
    return this.#young.size + this.#old.size;
  }

  of(key: string, rule: UnitRule, now: number): Lease {
    // Policies that share a bucket may each have their own quota.
    const id = `${rule.quota} ${key}`;
    if (Math.abs(now - this.#since) >= IDLE) this.#turn(now);
    let lease = this.#young.get(id);
    if (lease) return lease;
    if (this.#young.size >= MAX_KEYS) this.#turn(now);
    lease = this.#old.get(id) ?? new Lease(key, rule, now);
    this.#old.delete(id);
    this.#young.set(id, lease);
    return lease;
  }

  /** Some of the leases that were given up, each once. */
  dropped(most: number): Lease[] {
    return this.#dropped.length === 0 ? [] : this.#dropped.splice(0, most);
  }

  #turn(now: number): void {
    // Those that nobody has returned meanwhile are lost.
    this.#dropped = [...this.#old.values()].filter((lease) => lease.worthReturning(now));
    this.#old = this.#young;
    this.#young = new Map();
    this.#since = now;
  }
}
