import { loadLocalStorageCore } from '../core.js';
import type { Entry, Store } from './store.js';

/** The second rung. A command that is only here can die with the browser: Chromium writes it to disk seconds later. */
export class LocalStorageStore implements Store {
  readonly rung = 'localStorage';

  readonly #core: Awaited<ReturnType<typeof loadLocalStorageCore>>;

  private constructor(core: Awaited<ReturnType<typeof loadLocalStorageCore>>) {
    this.#core = core;
  }

  static async open(): Promise<LocalStorageStore> {
    const core = await loadLocalStorageCore();
    // Blocked storage throws when it is touched: better now than at the first command.
    core.localStorageWrite('[["probe","1"]]', '["probe"]');
    return new LocalStorageStore(core);
  }

  async load(prefix: string): Promise<Entry[]> {
    const entries = JSON.parse(this.#core.localStorageLoad(prefix)) as Entry[];
    return entries.sort(([a], [b]) => (a < b ? -1 : 1));
  }

  async write(put: Entry[], remove: string[]): Promise<void> {
    this.#core.localStorageWrite(JSON.stringify(put), JSON.stringify(remove));
  }

  close(): void {}
}
