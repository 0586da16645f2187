/** Where a session is kept in the browser; the first that works is taken. */
export type StorageRung = 'indexedDB' | 'localStorage' | 'memory';

/** A key with its text. */
export type Entry = [key: string, text: string];

/** A place for records: text under keys. Every rung of the ladder is one. */
export interface Store {
  readonly rung: StorageRung;
  /** All entries whose key begins with this prefix, in the order of their keys. */
  load(prefix: string): Promise<Entry[]>;
  /** Puts and deletes, all or none where the rung can do that; writes take effect in the order of their calls. */
  write(put: Entry[], remove: string[]): Promise<void>;
  close(): void;
}
