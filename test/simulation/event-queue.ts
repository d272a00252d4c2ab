/** What happens when, the next first: a binary heap of numbers alone, so that millions of events leave nothing to collect. */
export class EventQueue {
  #times = new Float64Array(1_024);
  #events = new Int32Array(1_024);
  #size = 0;
  /** Time of the event that `next` returned last. */
  now = 0;

  at(time: number, event: number): void {
    if (this.#size === this.#times.length) this.#grow();
    const times = this.#times;
    const events = this.#events;
    let child = this.#size++;
    while (child > 0) {
      const parent = (child - 1) >> 1;
      if ((times[parent] as number) <= time) break;
      times[child] = times[parent] as number;
      events[child] = events[parent] as number;
      child = parent;
    }
    times[child] = time;
    events[child] = event;
  }

  /** -1: nothing is left. */
  next(): number {
    if (this.#size === 0) return -1;
    const times = this.#times;
    const events = this.#events;
    const event = events[0] as number;
    this.now = times[0] as number;
    const last = --this.#size;
    const time = times[last] as number;
    let parent = 0;
    for (;;) {
      let child = 2 * parent + 1;
      if (child >= last) break;
      if (child + 1 < last && (times[child + 1] as number) < (times[child] as number)) child++;
      if ((times[child] as number) >= time) break;
      times[parent] = times[child] as number;
      events[parent] = events[child] as number;
      parent = child;
    }
    times[parent] = time;
    events[parent] = events[last] as number;
    return event;
  }

  #grow(): void {
    const [times, events] = [this.#times, this.#events];
    this.#times = new Float64Array(times.length * 2);
    this.#events = new Int32Array(events.length * 2);
    this.#times.set(times);
    this.#events.set(events);
  }
}
