/**
 * One atomic step of counting in Redis: what was used beyond the lease is charged, what was not needed goes back, and a block of units
 * is granted. Redis' own clock decides which window it is, so no clock of an isolate does; and a reply speaks of time only as "for so
 * many milliseconds from now".
 *
 * The units of one key are a hash. `used`: how many are given out; for a token bucket, how many are missing from a full one. `since`:
 * when the window began, or when the bucket was last looked at. `before`: what the window before used. `alive` and `ageing`: units of
 * a bucket that were granted in this life time of a lease, and in the one before, and may be spent later.
 *
 * A bucket gives out what flows in, but units that lie with isolates flow out later than they were given. They would come on top of a
 * bucket that has filled up meanwhile. So it fills only up to what is not under way: level + under way <= burst at all times, and
 * no span of time T sees more than burst + T * rate (docs/limits.md has the proof).
 */

/** From there on a grant is at most a quarter of what is left, so that few isolates do not hold what many want. */
export const FEW = 20;

const TEXT = `
local algorithm, quota, window, life = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local need, want, charge = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local back, backWindow = tonumber(ARGV[8]), tonumber(ARGV[9])
local state = redis.call('HMGET', KEYS[1], 'since', 'used', 'before', 'alive', 'ageing')
for i = 1, 5 do state[i] = tonumber(state[i] or 0) end
local since, used, before, alive, ageing = unpack(state)
local time = redis.call('TIME')
-- A clock that was set back, as by a failover, must not open a window for a second time.
local now = math.max(time[1] * 1000 + math.floor(time[2] / 1000), since)

local bucket, sliding = algorithm == 'tokenBucket', algorithm == 'slidingWindow'
local turn, share = 0, 0
if bucket then
  if since == 0 then since = now end
  while since < now do
    local slotEnd = (math.floor(since / life) + 1) * life
    local stop = alive + ageing > 0 and math.min(now, slotEnd) or now
    used = math.max(alive + ageing, used - (stop - since) * quota / window)
    since = stop
    if stop >= slotEnd then alive, ageing = 0, alive end
  end
  used = math.max(alive + ageing, used - back)
else
  local start = now - now % window
  turn = start + window
  if #ARGV > 9 then
    start = nil
    for i = 10, #ARGV - 1 do
      if tonumber(ARGV[i]) <= now and now < tonumber(ARGV[i + 1]) then start, turn = tonumber(ARGV[i]), tonumber(ARGV[i + 1]) end
    end
    if not start then return redis.error_reply('ERR the clocks of gateway and store are more than a month apart') end
  end
  if since ~= start then
    before = since == start - window and used or 0
    since, used = start, 0
  end
  if backWindow == since then used = math.max(0, used - back) end
  life = turn - now
  if sliding then share = math.floor(before * life / window) end
end

used = used + charge
local room = math.floor(quota - used - share)
local granted = 0
if room >= need and room > 0 then
  granted = math.min(room, math.max(need, math.min(want, math.max(math.floor(room / 4), ${FEW}))))
  used, room = used + granted, room - granted
  -- What is needed is spent as of now; only the rest may be spent later.
  if bucket then alive = alive + granted - need end
end

-- Until as much as was needed fits, or else one unit does.
local wait, next = 0, granted == 0 and math.max(need, 1) or 1
if room < next then
  if bucket then
    wait = math.ceil((used + next - quota) * window / quota)
    if alive + ageing + next > quota then wait = math.max(wait, (math.floor(now / life) + 1) * life - now) end
  elseif not sliding then
    wait = life
  elseif quota - used >= next then
    wait = math.floor(turn - window * (quota - used - next + 1) / before) + 1 - now
  else
    wait = math.max(turn, math.floor(turn + window - window * (quota - next + 1) / used) + 1) - now
  end
end

-- A bucket's units are fractions, which not every server writes in full by itself.
redis.call('HSET', KEYS[1], 'since', since, 'used', string.format('%.17g', used), 'before', before, 'alive', alive, 'ageing', ageing)
local keep = life
if sliding then keep = life + window elseif bucket then keep = math.ceil(used * window / quota) + 2 * life end
-- Thirty years are enough, also for who owes more.
redis.call('PEXPIRE', KEYS[1], math.max(1, math.min(keep, 1e12)))
return {granted, math.max(0, room), since, life, wait}
`;

/** `sha` once it was needed. */
export const limitScript: { readonly text: string; sha?: string } = { text: TEXT };

export type Algorithm = "fixedWindow" | "slidingWindow" | "tokenBucket";

/** Milliseconds. */
export interface UnitRule {
  readonly algorithm: Algorithm;
  /** Units in a window; the most that a bucket holds. */
  readonly quota: number;
  /** In which as many units as the quota come back. */
  readonly window: number;
  /** Windows are the months of the calendar, in UTC; `window` is then the longest of them. */
  readonly calendar?: "month";
}

/** One step. Units are whole numbers. */
export interface Ask {
  /** Granted whole or not at all, and spent as of the step. */
  readonly need: number;
  /** As many are welcome, those needed included. */
  readonly want: number;
  /** Units used already, whether they were there or not. */
  readonly charge: number;
  /** Units of the window `window` that are not needed. */
  readonly back: number;
  readonly window: number;
}

export interface Grant {
  readonly granted: number;
  /** What is left in the store for everybody. */
  readonly room: number;
  /** When the window began, by Redis' clock. */
  readonly window: number;
  /** Milliseconds, from some time between the call and its reply, for which granted units may be spent. */
  readonly life: number;
  /** Milliseconds until more is there; 0 while there is some. */
  readonly wait: number;
}

/**
 * Milliseconds that a bucket's units may lie with an isolate: a thirtieth of the time in which it fills, at least 100 ms and at most
 * 20 s. A longer life saves calls, and delays what flows in after a burst. Of a bucket that fills within a second, a tenth of that.
 */
export const lifeOf = ({ window }: UnitRule): number =>
  Math.ceil(Math.min(window / 10, Math.max(SHORTEST_LIFE, window / 30), 20_000));

/** Units of a shorter life are not worth leasing: the way to the store would take most of it. */
export const SHORTEST_LIFE = 100;

/** ARGV of the script, at this time of the isolate. */
export function argumentsOf(
  rule: UnitRule,
  { need, want, charge, back, window }: Ask,
  now: number,
): (string | number)[] {
  const { algorithm, quota, calendar } = rule;
  const step = [algorithm, quota, rule.window, lifeOf(rule), need, want, charge, back, window];
  return calendar ? [...step, ...monthsAround(now)] : step;
}

/** Beginnings of the month before, of this one and the next two: the store's clock may be in any of the three. */
function monthsAround(now: number): number[] {
  const date = new Date(now);
  return [-1, 0, 1, 2].map((offset) => Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + offset));
}

/** Throws TypeError when something else has answered in place of the script. */
export function grantOf(reply: unknown): Grant {
  if (!Array.isArray(reply) || reply.length !== 5 || !reply.every(Number.isSafeInteger))
    throw new TypeError("no grant");
  const [granted, room, window, life, wait] = reply as [number, number, number, number, number];
  if (granted < 0 || life < 0) throw new TypeError("no grant");
  return { granted, room, window, life, wait };
}
