import type { Entry, Guard, Store } from './store.js';

/** The last rung: works everywhere, and ends with the page. */
export class MemoryStore implements Store {
  readonly rung = 'memory';
  readonly #records = new Map<string, string>();

  async load(prefix: string): Promise<Entry[]> {
    return sorted([...this.#records].filter(([key]) => key.startsWith(prefix)));
  }

  async write(put: Entry[], remove: string[], guard?: Guard): Promise<boolean> {
    if (guard && this.#records.get(guard[0]) !== guard[1]) return false;
    for (const [key, text] of put) this.#records.set(key, text);
    for (const key of remove) this.#records.delete(key);
    return true;
  }

  close(): void {}
}

/** The entries in the order of their keys. */
export function sorted(entries: Entry[]): Entry[] {
  return entries.sort(([a], [b]) => (a < b ? -1 : 1));
}
