import { loadLocalStorageCore } from '../core.js';
import { sorted } from './memory.js';
import type { Entry, Guard, Store } from './store.js';

type Core = Awaited<ReturnType<typeof loadLocalStorageCore>>;

/** The second rung. A command that is only here can die with the browser: Chromium writes it to disk seconds later. */
export class LocalStorageStore implements Store {
  readonly rung = 'localStorage';
  readonly #core: Core;

  private constructor(core: Core) {
    this.#core = core;
  }

  static async open(): Promise<LocalStorageStore> {
    const core = await loadLocalStorageCore();
    // Blocked storage throws when it is touched: better now than at the first command.
    core.localStorageWrite('[["probe","1"]]', '["probe"]');
    return new LocalStorageStore(core);
  }

  async load(prefix: string): Promise<Entry[]> {
    return sorted(JSON.parse(this.#core.localStorageLoad(prefix)) as Entry[]);
  }

  async write(put: Entry[], remove: string[], guard?: Guard): Promise<boolean> {
    if (guard) {
      const found = JSON.parse(this.#core.localStorageLoad(guard[0])) as Entry[];
      if (!found.some(([key, text]) => key === guard[0] && text === guard[1])) return false;
    }
    this.#core.localStorageWrite(JSON.stringify(put), JSON.stringify(remove));
    return true;
  }

  close(): void {}
}
