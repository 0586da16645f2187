import { localStorageLoad, localStorageWrite } from '../../generated/throughline.js';
import type { Entry, Store } from './store.js';

/** The second rung. A command that is only here can die with the browser: Chromium writes it to disk seconds later. */
export class LocalStorageStore implements Store {
  readonly rung = 'localStorage';

  static open(): LocalStorageStore {
    // Blocked storage throws when it is touched: better now than at the first command.
    localStorageWrite('[["probe","1"]]', '["probe"]');
    return new LocalStorageStore();
  }

  async load(prefix: string): Promise<Entry[]> {
    const entries = JSON.parse(localStorageLoad(prefix)) as Entry[];
    return entries.sort(([a], [b]) => (a < b ? -1 : 1));
  }

  async write(put: Entry[], remove: string[]): Promise<void> {
    localStorageWrite(JSON.stringify(put), JSON.stringify(remove));
  }

  close(): void {}
}
