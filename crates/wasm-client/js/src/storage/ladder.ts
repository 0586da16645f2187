import { IndexedDbStore } from './indexed-db.js';
import { LocalStorageStore } from './local-storage.js';
import { MemoryStore, sorted } from './memory.js';
import type { Entry, Guard, StorageRung, Store } from './store.js';
import { Vault } from './vault.js';

/** What a page may hear of its storage. */
export interface StorageEvents {
  /** It stands on another rung now. */
  rungChanged(): void;
  /** What was stored is gone: everything is to be stored again. */
  cleared(): void;
}

/**
 * The storage of this browser: IndexedDB, else localStorage, else memory; encrypted on all but the last.
 *
 * A rung on which a write fails is left for the next one. What it holds can still be read, so the rungs above the
 * current one are read as well, and what was written later, further down, counts.
 *
 * Storage that tabs share needs Web Locks, so that one of them leads; where the browser has none (or the page is no
 * secure context) only memory is left.
 */
export class Storage {
  readonly #rungs: Store[];
  readonly #vault: Vault;
  #current = 0;
  #events: StorageEvents | undefined;

  private constructor(rungs: Store[], vault: Vault) {
    this.#rungs = rungs;
    this.#vault = vault;
  }

  /** Opens the rungs from `first` on; those that can't be opened are passed over. */
  static async open(first: StorageRung = 'indexedDB'): Promise<Storage> {
    // Only pages have tabs beside them: a worker and a server keep to themselves, whatever else they have.
    const canShare = typeof document !== 'undefined' && 'locks' in navigator && typeof BroadcastChannel !== 'undefined';
    const rungs: Store[] = [];
    let database: IndexedDbStore | undefined;
    if (canShare && first === 'indexedDB') {
      database = await IndexedDbStore.open().catch(() => undefined);
      if (database) rungs.push(database);
    }
    // Its code is only loaded where it is needed: there is something, or there is nothing better.
    if (canShare && first !== 'memory' && (!database || localStorageIsUsed())) {
      const local = await LocalStorageStore.open().catch(() => undefined);
      if (local) rungs.push(local);
    }
    if (rungs.length === 0) rungs.push(new MemoryStore());
    const storage = new Storage(rungs, new Vault(database));
    if (database) database.onCleared = () => void storage.#cleared();
    return storage;
  }

  get rung(): StorageRung {
    return this.#rungs[this.#current]!.rung;
  }

  /** Whether other tabs see what is stored. */
  get isShared(): boolean {
    return this.#rungs[0]!.rung !== 'memory';
  }

  /** Whether the key that locks it can be read by scripts of the page. */
  get isKeyReadable(): boolean {
    return this.#vault.isKeyReadable;
  }

  listen(events: StorageEvents): void {
    this.#events = events;
  }

  /** All entries under this prefix, in the order of their keys, and the keys of those that are damaged. */
  async load(prefix: string): Promise<{ entries: Entry[]; damaged: string[] }> {
    const found = new Map<string, { text: string; isSealed: boolean }>();
    for (const rung of this.#rungs) {
      const isSealed = rung.rung !== 'memory';
      for (const [key, text] of await rung.load(prefix).catch((): Entry[] => [])) found.set(key, { text, isSealed });
    }
    const damaged: string[] = [];
    const opened = [...found].map(async ([key, { text, isSealed }]): Promise<Entry[]> => {
      const scope = isSealed ? scopeOf(key) : undefined;
      if (scope === undefined) return [[key, text]];
      try {
        return [[key, await this.#vault.open(scope, key, text)]];
      } catch {
        damaged.push(key);
        return [];
      }
    });
    return { entries: sorted((await Promise.all(opened)).flat()), damaged };
  }

  /** The text under this key; nothing where there is none, or it is damaged. */
  async get(key: string): Promise<string | undefined> {
    return (await this.load(key)).entries.find(([found]) => found === key)?.[1];
  }

  /** Puts and deletes; `false` where the guard does not hold. */
  async write(put: Entry[], remove: string[] = [], guard?: Guard): Promise<boolean> {
    const sealed = this.rung === 'memory' ? put : await this.#seal(put);
    for (;;) {
      const rung = this.#rungs[this.#current]!;
      try {
        const written = await rung.write(rung.rung === 'memory' ? put : sealed, remove, guard);
        if (written) await this.#deleteElsewhere([...remove, ...put.map(([key]) => key)]);
        return written;
      } catch (error) {
        if (!(await this.#stepDown(rung))) throw error;
        // What guards a write lies on the rung above, and nobody is asked twice.
        guard = undefined;
      }
    }
  }

  #seal(put: Entry[]): Promise<Entry[]> {
    return Promise.all(
      put.map(async ([key, text]): Promise<Entry> => {
        const scope = scopeOf(key);
        return [key, scope === undefined ? text : await this.#vault.seal(scope, key, text)];
      }),
    );
  }

  /** What is deleted or written anew on one rung must not come back from another. */
  async #deleteElsewhere(keys: string[]): Promise<void> {
    for (const [index, rung] of this.#rungs.entries()) {
      if (index !== this.#current) await rung.write([], keys).catch(() => undefined);
    }
  }

  /** One rung down, unless that has happened already. */
  async #stepDown(failed: Store): Promise<boolean> {
    if (this.#rungs[this.#current] !== failed) return true;
    if (failed.rung === 'memory') return false;
    if (this.#current + 1 === this.#rungs.length) {
      const local = failed.rung === 'indexedDB' ? await LocalStorageStore.open().catch(() => undefined) : undefined;
      this.#rungs.push(local ?? new MemoryStore());
    }
    this.#current += 1;
    this.#events?.rungChanged();
    return true;
  }

  async #cleared(): Promise<void> {
    await this.#vault.keepAgain().catch(() => undefined);
    this.#events?.cleared();
  }

  /** Goes on in memory, and touches nothing that is stored. */
  leaveAlone(): void {
    for (const rung of this.#rungs) rung.close();
    this.#rungs.splice(0, this.#rungs.length, new MemoryStore());
    this.#current = 0;
  }

  /** Moves damaged records out of the way, where a person can still look at them. */
  async setAside(keys: string[]): Promise<void> {
    for (const rung of this.#rungs) {
      for (const key of keys) {
        const found = (await rung.load(key)).filter(([name]) => name === key);
        await rung.write(found.map(([name, text]) => [`damaged/${name}`, text]), [key]);
      }
    }
  }

  /** Deletes everything of a session, and the key that locks it. */
  async wipe(sessionId: string): Promise<void> {
    await this.#vault.destroy(sessionId).catch(() => undefined);
    for (const rung of this.#rungs) {
      const prefixes = [`${sessionId}/`, `damaged/${sessionId}/`];
      const own = (await Promise.all(prefixes.map((prefix) => rung.load(prefix)))).flat();
      const current = (await rung.load('current')).filter(([key, id]) => key === 'current' && id === sessionId);
      await rung.write([], [...own, ...current].map(([key]) => key));
    }
  }

  close(): void {
    for (const rung of this.#rungs) rung.close();
  }
}

/** Whose key locks a record; nothing for what tells of nobody. */
function scopeOf(key: string): string | undefined {
  const [scope, name] = key.split('/');
  const isOpen = name === undefined || scope === 'funnel' || scope === 'damaged' || name === 'leader';
  return isOpen ? undefined : scope;
}

function localStorageIsUsed(): boolean {
  try {
    return Object.keys(localStorage).some((key) => key.startsWith('throughline/'));
  } catch {
    return false;
  }
}
