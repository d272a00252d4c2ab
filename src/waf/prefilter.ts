/**
 * Which rules a value can matter to. One pass of the automaton over each distinct value finds every word that any rule needs, and which
 * kinds of characters the value has; so most transformations and nearly all operators need not run. What is left is asked here, each
 * pair of operator and value once. One look at a time: what belongs to it is kept in fields, as to make objects for each of a thousand
 * values takes longer than to look at them.
 */
import { Automaton } from "./automaton.ts";
import type { Detector } from "./detector.ts";
import type { Operator } from "./operate.ts";
import type { PackAtom, PackChain, PackLink, PackTarget, RulePack } from "./pack.ts";
import { RecentValues } from "./recent-values.ts";
import type { TransformationName, Transformations } from "./transformations.ts";

/** That an atom's rule matches on a value with its first link. */
export interface Found {
  readonly atom: number;
  readonly rule: number;
  /** The value, transformed. */
  readonly text: string;
}

/** The atoms that look at the members of one collection, or at those of one name. */
export interface Group {
  /** By atom: the targets that read this; undefined for atoms that do not. */
  readonly targets: readonly (readonly PackTarget[] | undefined)[];
  /** Chains that are to be scanned, but for the empty one. */
  readonly scanned: readonly number[];
  /** Of these, the ones that may change any value; and the least length of one that matters behind them. */
  readonly ofAny: readonly number[];
  readonly shortest: number;
  /** Bits of which a value must have one, for any of these chains to change it. */
  readonly triggers: number;
  /** By chain: bytes that a value must have, for any word of the chain's atoms to be in what becomes of it. */
  readonly least: readonly number[];
  /** Atoms without a clause: they need no more than characters. By the bit of some; and those that need none. */
  readonly wordless: readonly (readonly number[])[];
  readonly needless: readonly number[];
  /** The bits of `wordless`. */
  readonly kinds: number;
  /** Whether no atom can match on the empty value. */
  readonly skipsEmpty: boolean;
  /** What was found in values of requests before. */
  readonly seen: RecentValues<readonly Found[]>;
  /** The same of the present phase of the present request. */
  readonly seenNow: RecentValues<readonly Found[]>;
}

/** Set for every value: of transformations that may change any. */
const ALWAYS = 1 << 30;
// Names, agents and the like come again and again; what is longer, or in a body, hardly ever does.
export const LONGEST_SEEN = 256;
const NOTHING: readonly Found[] = [];
/** With as much as its objects take. */
const charactersIn = (found: readonly Found[]): number => found.reduce((sum, { text }) => sum + text.length + 64, 0);
const recentValues = () => new RecentValues(charactersIn);

/** Transformations that never make more bytes of a text than it had. */
const SHORTENING =
  /^(?:urlDecode(?:Uni)?|jsDecode|cssDecode|base64Decode(?:Ext)?|htmlEntityDecode|escapeSeqDecode|remove\w+|compressWhitespace|replaceComments|replaceNulls|lowercase|uppercase|normali[sz]ePath(?:Win)?|cmdLine|trim(?:Left|Right)?|as(?:Markup|Shell|Sql))$/;

/** What a transformation was last given, and what it made of it. */
interface Applied {
  text: string;
  made: string;
}

export class Prefilter {
  readonly #apply: Transformations["apply"];
  readonly #chains: readonly PackChain[];
  readonly #atoms: readonly PackAtom[];
  readonly #clausesOfWord: readonly (readonly number[])[];
  readonly #operators: (place: number) => Operator;
  /** By atom. */
  readonly #operatorOf: readonly number[];
  /** By atom: what its operator must say. */
  readonly #wanted: readonly boolean[];
  readonly #automaton: Automaton;
  /** By chain: the bits without which it changes nothing, and those without which its last transformation does not. */
  readonly #triggers: readonly number[];
  readonly #ownTriggers: readonly number[];
  /** By chain: the bits without which it changes nothing but the case of letters. */
  readonly #scanTriggers: readonly number[];
  /** By chain: what it makes of the empty value. */
  readonly #ofEmpty: readonly string[];

  // Of the present look: what is asked of which value, and what was found.
  #group: Group = {
    targets: [],
    scanned: [],
    ofAny: [],
    shortest: 0,
    triggers: 0,
    least: [],
    wordless: [],
    needless: [],
    kinds: 0,
    skipsEmpty: true,
    seen: recentValues(),
    seenNow: recentValues(),
  };
  #value = "";
  #found: Found[] = [];
  // An isolate that lives long counts looks and texts beyond 2^31: where these are written down there must be room for any number.
  /** What is to be forgotten when the next phase begins. */
  readonly #seenNow: RecentValues<readonly Found[]>[] = [];
  #look = 0;
  /** By atom: the last look in which it was asked. */
  readonly #asked: Float64Array;
  /** By rule: the text that it was asked about last, and the look. */
  readonly #askedText: string[];
  readonly #askedAt: Float64Array;

  // The value in all the forms that chains give it, each made once; by chain: the look that made it.
  #mask = 0;
  readonly #made: string[];
  readonly #madeAt: Float64Array;
  /** By chain: the mask of what it made, where that was scanned; and the look that did. */
  readonly #maskOf: Int32Array;
  readonly #maskAt: Float64Array;
  /** By chain: of its last transformation. */
  readonly #lastApplied: readonly Applied[];

  // Of the value that was scanned last, whose words stay at the beginning of #words.
  #scannedValue: string | undefined;
  #wordsOfValue = 0;
  #kindsOfValue = 0;

  // Of the present text: the words in it, and by atom the clauses that they fulfil.
  #text = 0;
  #wordCount = 0;
  readonly #words: number[] = [];
  readonly #fulfilled: Int32Array;
  readonly #fulfilledAt: Float64Array;
  readonly #hit = (word: number): void => {
    this.#words[this.#wordCount++] = word;
  };

  /** @param transformations those that the pack names, or more */
  constructor(pack: RulePack, operators: (place: number) => Operator, { apply, triggers }: Transformations) {
    this.#apply = apply;
    this.#chains = pack.chains;
    this.#atoms = pack.prefilter.atoms;
    this.#clausesOfWord = pack.prefilter.clausesOfWord;
    this.#operators = operators;
    const linkOf = ({ rule }: PackAtom) => pack.rules[rule]?.links[0] as PackLink;
    this.#operatorOf = this.#atoms.map((atom) => atom.guard ?? (linkOf(atom).operator as number));
    this.#wanted = this.#atoms.map((atom) => linkOf(atom).negated !== true);
    // Bits for what triggers transformations, and others for what operators need.
    const triggering: string[] = [];
    const bitOf = (characters: string | undefined): number => {
      if (characters === undefined) return ALWAYS;
      let at = triggering.indexOf(characters);
      if (at === -1) at = triggering.push(characters) - 1;
      // A transformation without a bit of its own is never skipped.
      return at < 30 ? 1 << at : ALWAYS;
    };
    this.#ownTriggers = pack.chains.map(({ last }) => (last === undefined ? 0 : bitOf(triggers[last])));
    const chainTriggers: number[] = [];
    for (const [chain, { before, last }] of pack.chains.entries())
      chainTriggers.push(
        last === undefined ? 0 : (chainTriggers[before] as number) | (this.#ownTriggers[chain] as number),
      );
    this.#triggers = chainTriggers;
    const scanTriggers: number[] = [];
    for (const { before, last } of pack.chains) {
      const own = last === undefined ? "" : triggers[last]?.replace(/[A-Z]/g, "");
      scanTriggers.push((scanTriggers[before] ?? 0) | (own === "" ? 0 : bitOf(own)));
    }
    this.#scanTriggers = scanTriggers;
    this.#ofEmpty = pack.chains.map((_, chain) => this.transform(chain, ""));
    this.#automaton = new Automaton(pack.tables, masksOf(triggering.slice(0, 30)), masksOf(pack.prefilter.sets));
    this.#asked = new Float64Array(this.#atoms.length);
    this.#fulfilled = new Int32Array(this.#atoms.length);
    this.#fulfilledAt = new Float64Array(this.#atoms.length);
    this.#made = pack.chains.map(() => "");
    this.#madeAt = new Float64Array(pack.chains.length);
    this.#maskOf = new Int32Array(pack.chains.length);
    this.#maskAt = new Float64Array(pack.chains.length);
    const lastApplied = new Map<TransformationName | undefined, Applied>();
    for (const { last } of pack.chains)
      lastApplied.set(last, { text: "", made: last ? this.#transformation(last)("") : "" });
    this.#lastApplied = pack.chains.map(({ last }) => lastApplied.get(last) as Applied);
    this.#askedText = pack.rules.map(() => "");
    this.#askedAt = new Float64Array(pack.rules.length);
  }

  /** The group of these atoms, each with the targets that it reads the values of. */
  group(reading: ReadonlyMap<number, readonly PackTarget[]>): Group {
    const targets = new Array<readonly PackTarget[] | undefined>(this.#atoms.length).fill(undefined);
    const least = new Array<number>(this.#chains.length).fill(0);
    const wordless = new Array<readonly number[]>(32).fill([]);
    const needless: number[] = [];
    const scanned: number[] = [];
    let kinds = 0;
    let skipsEmpty = true;
    for (const [atom, those] of reading) {
      const { chain, scanned: read, clauses, masks, least: length = 1 } = this.#atoms[atom] as PackAtom;
      targets[atom] = those;
      if (read !== 0 && !scanned.includes(read)) scanned.push(read);
      least[read] = Math.min(least[read] || length, length);
      const [mask] = masks;
      if (clauses === 0 && mask === undefined) needless.push(atom);
      else if (clauses === 0 && mask !== undefined) {
        const bit = 31 - Math.clz32(mask);
        wordless[bit] = [...(wordless[bit] as readonly number[]), atom];
        kinds |= mask;
      }
      skipsEmpty &&= clauses + masks.length > 0 && this.#ofEmpty[chain] === "";
    }
    for (const chain of scanned) least[chain] = this.#lengthNeeded(chain, least[chain] as number);
    const ofAny = scanned.filter((chain) => ((this.#scanTriggers[chain] as number) & ALWAYS) !== 0);
    return {
      targets,
      scanned,
      ofAny,
      shortest: Math.min(...ofAny.map((chain) => least[chain] as number)),
      triggers: scanned.reduce((all, chain) => all | (this.#scanTriggers[chain] as number), 0),
      least,
      wordless,
      needless,
      kinds,
      skipsEmpty,
      seen: recentValues(),
      seenNow: recentValues(),
    };
  }

  /** How long a value must be for the chain to make a text of `length` bytes of it. */
  #lengthNeeded(chain: number, length: number): number {
    let needed = length;
    for (let at = chain; at !== 0; ) {
      const { before, last } = this.#chains[at] as PackChain;
      if (last !== undefined && !SHORTENING.test(last)) return 0;
      // Four characters of Base64 are three bytes.
      if (last?.startsWith("base64Decode")) needed = Math.floor((needed * 4) / 3);
      at = before;
    }
    return needed;
  }

  /** For one question about words, by number: the automaton's, as its transitions are made once. */
  detector(wanted: readonly boolean[]): Detector {
    return this.#automaton.detector(wanted);
  }

  /** Whether the automaton finds one of these words. */
  readonly finds = (value: string, words: ReadonlySet<number>): boolean => {
    let found = false;
    this.#automaton.scan(value, (word) => {
      found ||= words.has(word);
    });
    return found;
  };

  /** A new phase of a request begins. */
  begin(): void {
    for (const seen of this.#seenNow) seen.clear();
    this.#seenNow.length = 0;
  }

  /** What atoms match on `value`, of the group's. `recurs`: the like may come again in other requests. */
  look(group: Group, value: string, recurs: boolean): readonly Found[] {
    if (value === "" && group.skipsEmpty) return NOTHING;
    // One request's list of things says the same thing again and again, too.
    const seen = recurs ? group.seen : group.seenNow;
    const known = seen.get(value);
    if (known !== undefined) return known;
    this.#group = group;
    this.#value = value;
    // Else a look that an error ended would leave what it found to this one.
    if (this.#found.length > 0) this.#found = [];
    this.#look++;
    // The same text in several collections, such as a request's target, is scanned once.
    if (value !== this.#scannedValue) {
      this.#mask = this.#scan(value);
      this.#scannedValue = value;
      this.#wordsOfValue = this.#wordCount;
      this.#kindsOfValue = this.#automaton.kinds;
    }
    this.#settle(value, 0, this.#wordsOfValue, this.#kindsOfValue);
    const triggered = this.#mask & group.triggers;
    if (triggered === ALWAYS) {
      if (value.length >= group.shortest) this.#lookTransformed(group.ofAny, group.least, value);
    } else if (triggered !== 0) this.#lookTransformed(group.scanned, group.least, value);
    let found = NOTHING;
    if (this.#found.length > 0) {
      found = this.#found;
      this.#found = [];
    }
    if (value.length > LONGEST_SEEN) return found;
    if (!recurs && seen.size === 0) this.#seenNow.push(seen);
    seen.set(value, found);
    return found;
  }

  #lookTransformed(scanned: readonly number[], least: readonly number[], value: string): void {
    const texts = [value];
    const masks = [this.#mask];
    for (let i = 0; i < scanned.length; i++) {
      const chain = scanned[i] as number;
      if (((this.#scanTriggers[chain] as number) & this.#mask) === 0 || (least[chain] as number) > value.length)
        continue;
      const text = this.#transformed(chain);
      let at = texts.indexOf(text);
      if (at === -1) {
        at = texts.push(text) - 1;
        masks.push(this.#scan(text, this.#wordsOfValue));
        this.#settle(text, this.#wordsOfValue, this.#wordCount, this.#automaton.kinds);
      }
      this.#maskOf[chain] = masks[at] as number;
      this.#maskAt[chain] = this.#look;
    }
  }

  /** Asks the atoms whose words, those from `from` to `to`, and characters `text` has, of those that see it. */
  #settle(text: string, from: number, to: number, mask: number): void {
    const { targets, wordless, needless, kinds } = this.#group;
    const number = ++this.#text;
    for (let i = from; i < to; i++) {
      const clauses = this.#clausesOfWord[this.#words[i] as number] as readonly number[];
      for (let j = 0; j < clauses.length; j++) {
        const clause = clauses[j] as number;
        const atom = clause >> 2;
        if (targets[atom] === undefined || this.#asked[atom] === this.#look) continue;
        const before = this.#fulfilledAt[atom] === number ? (this.#fulfilled[atom] as number) : 0;
        const fulfilled = before | (1 << (clause & 3));
        this.#fulfilledAt[atom] = number;
        this.#fulfilled[atom] = fulfilled;
        const packed = this.#atoms[atom] as PackAtom;
        if (fulfilled === (1 << packed.clauses) - 1) this.#consider(atom, packed, text, mask);
      }
    }
    for (let i = 0; i < needless.length; i++) this.#considerOnce(needless[i] as number, text, mask);
    for (let bits = mask & kinds; bits !== 0; bits &= bits - 1) {
      const those = wordless[31 - Math.clz32(bits & -bits)] as readonly number[];
      for (let i = 0; i < those.length; i++) this.#considerOnce(those[i] as number, text, mask);
    }
  }

  #considerOnce(atom: number, text: string, mask: number): void {
    if (this.#asked[atom] !== this.#look) this.#consider(atom, this.#atoms[atom] as PackAtom, text, mask);
  }

  #consider(atom: number, packed: PackAtom, text: string, mask: number): void {
    const { masks, scanned, chain, certain, rule } = packed;
    for (let i = 0; i < masks.length; i++) if (((masks[i] as number) & mask) === 0) return;
    // The words may be those of a text that other chains made.
    const untouched = ((this.#scanTriggers[scanned] as number) & this.#mask) === 0;
    if ((untouched ? this.#value : this.#transformed(scanned)) !== text) return;
    this.#asked[atom] = this.#look;
    const seen = this.#transformed(chain);
    // With multiMatch a rule has several atoms: it is asked once about each text that comes of them.
    if (this.#askedAt[rule] === this.#look && this.#askedText[rule] === seen) return;
    this.#askedAt[rule] = this.#look;
    this.#askedText[rule] = seen;
    for (const one of this.#found) if (one.rule === rule && one.text === seen) return;
    if (certain || this.#operators(this.#operatorOf[atom] as number).test(seen, noMacros) === this.#wanted[atom])
      this.#found.push({ atom, rule, text: seen });
  }

  /** Leaves the words in #words, from there on; returns the mask. */
  #scan(text: string, from = 0): number {
    this.#wordCount = from;
    return this.#automaton.scan(text, this.#hit) | ALWAYS;
  }

  #transformed(chain: number): string {
    if (((this.#triggers[chain] as number) & this.#mask) === 0) return this.#value;
    if (this.#madeAt[chain] === this.#look) return this.#made[chain] as string;
    const { before, last } = this.#chains[chain] as PackChain;
    let made = this.#value;
    if (last !== undefined) {
      made = this.#transformed(before);
      if (((this.#ownTriggers[chain] as number) & this.#knownMask(before, made)) !== 0)
        made = this.#applied(chain, last, made);
    }
    this.#made[chain] = made;
    this.#madeAt[chain] = this.#look;
    return made;
  }

  /** Chains that differ in what changes nothing end alike: the last text that a transformation was given often comes again. */
  #applied(chain: number, name: TransformationName, text: string): string {
    const last = this.#lastApplied[chain] as Applied;
    if (last.text !== text) {
      last.text = text;
      last.made = this.#transformation(name)(text);
    }
    return last.made;
  }

  /** The mask of a text that a chain has made; all bits, where it was not scanned. */
  #knownMask(chain: number, text: string): number {
    if (text === this.#value) return this.#mask;
    return this.#maskAt[chain] === this.#look ? (this.#maskOf[chain] as number) : -1;
  }

  #transformation(name: TransformationName): (value: string) => string {
    const apply = this.#apply[name];
    if (!apply) throw new Error(`the engine has no transformation ${name}: build again`);
    return apply;
  }

  /** Any value as an operator behind the chain sees it. */
  transform(chain: number, value: string): string {
    const { before, last } = this.#chains[chain] as PackChain;
    return last === undefined ? value : this.#transformation(last)(this.transform(before, value));
  }
}

/** By byte: a bit for each of the sets, at most 32, that has it. */
function masksOf(sets: readonly string[]): Int32Array {
  const masks = new Int32Array(256);
  for (const [bit, characters] of sets.entries()) {
    for (let i = 0; i < characters.length; i++) {
      const byte = characters.charCodeAt(i);
      masks[byte] = (masks[byte] as number) | (1 << bit);
    }
  }
  return masks;
}

const noMacros = (): string => {
  throw new Error("an operator of the prefilter has no macros");
};
