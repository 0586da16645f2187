import { IndexedDbStore } from './indexed-db.js';
import { LocalStorageStore } from './local-storage.js';
import { MemoryStore } from './memory.js';
import type { StorageRung, Store } from './store.js';

/**
 * The first rung that works, beginning at `first`.
 *
 * Storage that tabs share needs Web Locks, so that two tabs never number commands as the same client; where the
 * browser has none (or the page is no secure context) only memory is left.
 */
export async function openStore(first: StorageRung = 'indexedDB'): Promise<Store> {
  const canShare = typeof navigator !== 'undefined' && 'locks' in navigator;
  if (canShare && first === 'indexedDB') {
    try {
      return await IndexedDbStore.open();
    } catch {
      // Blocked, or broken: one rung down.
    }
  }
  if (canShare && first !== 'memory') {
    try {
      return await LocalStorageStore.open();
    } catch {
      // Blocked as well.
    }
  }
  return new MemoryStore();
}
