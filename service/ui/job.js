/** A document translated piece by piece through the API. Can be stopped, and goes on where it was. */

import { patiently, ServiceError } from "./api.js";

const GROUP_CHARS = 4000;
const GROUP_UNITS = 32;
const TOO_MUCH = [413, 504];

export class Job {
  /**
   * `units`: texts; `formatOf(unit)`: its format; `send(texts, format, signal)` resolves to as many
   * translations; `onProgress(share)` gets 0 to 1, `tell` a sentence before a wait.
   */
  constructor({ units, formatOf, maxChars, send, onProgress, tell }) {
    Object.assign(this, { units, formatOf, send, onProgress, tell });
    this.groupChars = Math.min(GROUP_CHARS, maxChars);
    this.done = [];
    this.total = units.reduce((sum, unit) => sum + unit.length, 0) || 1;
    this.finishedChars = 0;
  }

  /** Translate what is left. Resolves to all translations; throws what does not pass. */
  async run(signal) {
    while (this.done.length < this.units.length) {
      const group = this.next();
      const results = await this.translate(group, signal);
      this.done.push(...results);
      this.finishedChars += group.reduce((sum, unit) => sum + unit.length, 0);
      this.onProgress(this.finishedChars / this.total);
    }
    return this.done;
  }

  next() {
    const begin = this.done.length;
    const format = this.formatOf(this.units[begin]);
    let end = begin;
    let chars = 0;
    while (end < this.units.length && end - begin < GROUP_UNITS) {
      chars += this.units[end].length;
      if (end > begin && (chars > this.groupChars || this.formatOf(this.units[end]) !== format)) break;
      end += 1;
    }
    return this.units.slice(begin, end);
  }

  /** Translate some units together; in halves where that is too much at once. */
  async translate(group, signal) {
    signal.throwIfAborted();
    if (!group.some((unit) => /\p{L}/u.test(unit))) return group;
    try {
      const work = () => this.send(group, this.formatOf(group[0]), signal);
      return await patiently(work, signal, this.tell);
    } catch (error) {
      const isTooMuch = error instanceof ServiceError && TOO_MUCH.includes(error.status);
      if (!isTooMuch || group.length === 1) throw error;
      const middle = group.length >> 1;
      const first = await this.translate(group.slice(0, middle), signal);
      return [...first, ...await this.translate(group.slice(middle), signal)];
    }
  }
}
