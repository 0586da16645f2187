import type { Entry, Store } from './store.js';

/** The last rung: works everywhere, and ends with the page. */
export class MemoryStore implements Store {
  readonly rung = 'memory';
  readonly #records = new Map<string, string>();

  async load(prefix: string): Promise<Entry[]> {
    const found = [...this.#records].filter(([key]) => key.startsWith(prefix));
    return found.sort(([a], [b]) => (a < b ? -1 : 1));
  }

  async write(put: Entry[], remove: string[]): Promise<void> {
    for (const [key, text] of put) this.#records.set(key, text);
    for (const key of remove) this.#records.delete(key);
  }

  close(): void {}
}
