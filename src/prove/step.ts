/** Told as a long work goes on: what it is at, and how many of how many are done. */
export type Step = (what: string, done: number, total: number) => void;

export const unwatched: Step = () => {};
