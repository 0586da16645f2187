import type { Entry, Guard, Store } from './store.js';

const DATABASE = 'throughline';
/** Raised when the form of the database changes. */
const VERSION = 2;
const RECORDS = 'records';
const KEYS = 'keys';
/** For how long the answer to a guard counts: shorter than a tab has to be silent before another one takes its place. */
const GUARD_HOLDS_MS = 500;
const OPEN_ATTEMPTS = 6;

/** The first rung: survives a crash of the browser, and writes are all or none. */
export class IndexedDbStore implements Store {
  readonly rung = 'indexedDB';
  #database: IDBDatabase | undefined;
  #isClosed = false;
  /** The browser has thrown away what was stored, as when a person clears the site's data. */
  onCleared: () => void = () => undefined;

  static async open(): Promise<IndexedDbStore> {
    const store = new IndexedDbStore();
    await store.#connect();
    return store;
  }

  async #connect(): Promise<IDBDatabase> {
    if (this.#database) return this.#database;
    if (this.#isClosed) throw new Error('the storage was closed');
    const database = await openSoon();
    if (this.#isClosed) {
      database.close();
      throw new Error('the storage was closed');
    }
    this.#database = database;
    const lost = () => {
      if (this.#database === database) this.#database = undefined;
    };
    // Another tab with a newer version of this package wants to change the form: don't stand in its way.
    database.onversionchange = () => (lost(), database.close());
    database.onclose = () => (lost(), this.onCleared());
    return database;
  }

  /** Does `work` in one transaction; the answer is what it gives, once everything is committed. */
  async #transact<T>(mode: IDBTransactionMode, name: string, work: (records: IDBObjectStore) => () => T): Promise<T> {
    const database = await this.#connect();
    return new Promise((resolve, reject) => {
      const transaction = database.transaction(name, mode);
      const answer = work(transaction.objectStore(name));
      transaction.oncomplete = () => resolve(answer());
      transaction.onabort = () => reject(transaction.error ?? new Error('the browser ended the transaction'));
    });
  }

  load(prefix: string): Promise<Entry[]> {
    return this.#transact('readonly', RECORDS, (records) => {
      const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
      const keys = records.getAllKeys(range);
      const texts = records.getAll(range);
      records.transaction.commit();
      return () => keys.result.map((key, index): Entry => [String(key), String(texts.result[index])]);
    });
  }

  async write(put: Entry[], remove: string[], guard?: Guard): Promise<boolean> {
    // Nothing here waits for this page within a transaction: one that is frozen or busy would keep all tabs from writing,
    // also the one that is to take its place. So the guard is asked first, and again if this page was away meanwhile.
    for (let askedAt = -Infinity; guard && performance.now() - askedAt > GUARD_HOLDS_MS; ) {
      askedAt = performance.now();
      const found = await this.#transact('readonly', RECORDS, (records) => {
        const request = records.get(guard[0]);
        records.transaction.commit();
        return () => request.result as unknown;
      });
      if (found !== guard[1]) return false;
    }
    return this.#transact('readwrite', RECORDS, (records) => {
      for (const [key, text] of put) records.put(text, key);
      for (const key of remove) records.delete(key);
      records.transaction.commit();
      return () => true;
    });
  }

  /** The key of this name; the one that is given where there is none yet. */
  keep(name: string, key: CryptoKey | undefined): Promise<CryptoKey | undefined> {
    return this.#transact(key ? 'readwrite' : 'readonly', KEYS, (keys) => {
      const found = keys.get(name);
      if (!key) keys.transaction.commit();
      else found.onsuccess = () => !found.result && keys.put(key, name);
      return () => (found.result as CryptoKey | undefined) ?? key;
    });
  }

  forget(name: string): Promise<void> {
    return this.#transact('readwrite', KEYS, (keys) => {
      keys.delete(name);
      return () => undefined;
    });
  }

  close(): void {
    this.#isClosed = true;
    this.#database?.close();
    this.#database = undefined;
  }
}

/** Opens the database; while the browser is throwing it away that is refused, but not for long. */
async function openSoon(): Promise<IDBDatabase> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await openDatabase();
    } catch (error) {
      if (attempt === OPEN_ATTEMPTS || !(error instanceof DOMException && error.name === 'AbortError')) throw error;
      await new Promise((resolve) => setTimeout(resolve, 10 * 2 ** attempt));
    }
  }
}

function openDatabase(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, VERSION);
    request.onupgradeneeded = () => {
      const database = request.result;
      for (const name of database.objectStoreNames) database.deleteObjectStore(name);
      database.createObjectStore(RECORDS);
      database.createObjectStore(KEYS);
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error('another tab holds an older version of the storage open'));
  });
}
