/**
 * A map that forgets its oldest entry when it is full.
 * @template Value
 */
export class BoundedMap {
  /** @type {Map<string, Value>} */
  #entries = new Map();
  #limit;

  constructor(limit = 10_000) {
    this.#limit = limit;
  }

  /** @param {string} key */
  get(key) {
    return this.#entries.get(key);
  }

  /**
   * @param {string} key
   * @param {Value} value
   */
  set(key, value) {
    this.#entries.delete(key);
    const oldest = this.#entries.keys().next();
    if (this.#entries.size >= this.#limit && oldest.done !== true) this.#entries.delete(oldest.value);
    this.#entries.set(key, value);
  }
}
