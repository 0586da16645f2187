import { newClientId } from '../generated/throughline.js';
import type { Entry, Store } from './storage/store.js';

/**
 * A place in a session's storage that one tab at a time holds: a client id with its outbox.
 *
 * The number of slots is the number of tabs that had the session open at the same time, not the number of page loads:
 * a tab takes the first slot that is free, with what an earlier holder left there.
 */
export interface Slot {
  readonly number: number;
  clientId: string;
  release(): void;
}

const LOCK = 'throughline';

/** Takes the first free slot of the session, and tells the tabs that {@link watchSlots}. */
export async function takeSlot(store: Store, sessionId: string): Promise<Slot> {
  if (store.rung === 'memory') return { number: 0, clientId: newClientId(), release() {} };
  for (let number = 0; ; number += 1) {
    const release = await takeLock(`${LOCK}/${sessionId}/slot/${number}`, { ifAvailable: true });
    if (!release) continue;
    const clientId = await clientOf(store, sessionId, number);
    const tabs = new BroadcastChannel(`${LOCK}/${sessionId}`);
    tabs.postMessage(number);
    tabs.close();
    return { number, clientId, release };
  }
}

/** Calls `seen` with the number of every slot that there is, and of every one that a tab takes from now on. */
export async function watchSlots(
  store: Store,
  sessionId: string,
  signal: AbortSignal,
  seen: (number: number) => void,
): Promise<void> {
  if (store.rung === 'memory') return;
  const tabs = new BroadcastChannel(`${LOCK}/${sessionId}`);
  tabs.onmessage = ({ data }) => seen(Number(data));
  signal.addEventListener('abort', () => tabs.close());
  for (const number of (await knownSlots(store, sessionId)).keys()) seen(number);
}

/** Waits until the tab that holds this slot is gone, then takes it. */
export async function inheritSlot(store: Store, sessionId: string, number: number, signal: AbortSignal): Promise<Slot | undefined> {
  const release = await takeLock(`${LOCK}/${sessionId}/slot/${number}`, { signal });
  return release && { number, clientId: await clientOf(store, sessionId, number), release };
}

/** The numbers of the slots that the storage knows, with their client ids. */
async function knownSlots(store: Store, sessionId: string): Promise<Map<number, string>> {
  const prefix = `${sessionId}/slot/`;
  const entries = await store.load(prefix);
  return new Map(entries.map(([key, clientId]) => [Number(key.slice(prefix.length)), clientId]));
}

/** What the storage has of a slot: whose it is. */
export function slotEntry(sessionId: string, { number, clientId }: Slot): Entry {
  return [slotKey(sessionId, number), clientId];
}

/** Runs `work` while no other tab runs work under the same name. */
export function exclusively<T>(store: Store, name: string, work: () => Promise<T>): Promise<T> {
  if (store.rung === 'memory') return work();
  return navigator.locks.request(`${LOCK}/${name}`, work);
}

async function clientOf(store: Store, sessionId: string, number: number): Promise<string> {
  const known = (await knownSlots(store, sessionId)).get(number);
  if (known) return known;
  const clientId = newClientId();
  await store.write([[slotKey(sessionId, number), clientId]], []);
  return clientId;
}

function slotKey(sessionId: string, number: number): string {
  return `${sessionId}/slot/${String(number).padStart(4, '0')}`;
}

/** Holds a Web Lock until the returned function is called, or the page is gone. */
function takeLock(name: string, options: LockOptions): Promise<(() => void) | undefined> {
  return new Promise((resolve) => {
    const request = navigator.locks.request(name, options, (lock) => {
      if (!lock) {
        resolve(undefined);
        return;
      }
      return new Promise<void>((release) => resolve(release));
    });
    // Aborted while waiting.
    request.catch(() => resolve(undefined));
  });
}
