/** Where a session is kept in the browser; the first that works is taken. */
export type StorageRung = 'indexedDB' | 'localStorage' | 'memory';

/** A key with its text. */
export type Entry = [key: string, text: string];

/** What has to be in the storage for a write to take effect. */
export type Guard = Entry;

/** A place for records: text under keys. */
export interface Store {
  readonly rung: StorageRung;
  /** All entries whose key begins with this prefix, in the order of their keys. */
  load(prefix: string): Promise<Entry[]>;
  /**
   * Puts and deletes, all or none where the rung can do that; writes take effect in the order of their calls. `false`
   * where the guard does not hold, and nothing was written.
   */
  write(put: Entry[], remove: string[], guard?: Guard): Promise<boolean>;
  close(): void;
}
