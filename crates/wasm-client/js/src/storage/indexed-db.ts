import type { Entry, Store } from './store.js';

const DATABASE = 'throughline';
const RECORDS = 'records';

/** The first rung: survives a crash of the browser, and writes are all or none. */
export class IndexedDbStore implements Store {
  readonly rung = 'indexedDB';
  readonly #database: IDBDatabase;

  private constructor(database: IDBDatabase) {
    this.#database = database;
    // Another tab with a newer version of this package wants to change the form: don't stand in its way.
    database.onversionchange = () => database.close();
  }

  static open(): Promise<IndexedDbStore> {
    return new Promise((resolve, reject) => {
      const request = indexedDB.open(DATABASE, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(RECORDS);
      request.onsuccess = () => resolve(new IndexedDbStore(request.result));
      request.onerror = () => reject(request.error);
      request.onblocked = () => reject(new Error('another tab holds an older version of the storage open'));
    });
  }

  load(prefix: string): Promise<Entry[]> {
    return new Promise((resolve, reject) => {
      const transaction = this.#database.transaction(RECORDS, 'readonly');
      const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
      const keys = transaction.objectStore(RECORDS).getAllKeys(range);
      const texts = transaction.objectStore(RECORDS).getAll(range);
      transaction.oncomplete = () => resolve(keys.result.map((key, index) => [String(key), String(texts.result[index])]));
      transaction.onabort = () => reject(transaction.error);
    });
  }

  write(put: Entry[], remove: string[]): Promise<void> {
    return new Promise((resolve, reject) => {
      const transaction = this.#database.transaction(RECORDS, 'readwrite');
      const records = transaction.objectStore(RECORDS);
      for (const [key, text] of put) records.put(text, key);
      for (const key of remove) records.delete(key);
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
      transaction.commit();
    });
  }

  close(): void {
    this.#database.close();
  }
}
