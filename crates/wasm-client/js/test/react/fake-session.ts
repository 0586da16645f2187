import type { Session } from '../../generated/types.js';
import type { Remaining } from '../../src/remaining.js';
import type { CheckoutSession, SessionEventMap, SyncState } from '../../src/session.js';

/** What the hooks read of a session, under the test's hand. */
export class FakeSession {
  readonly id = 'ws_fake';
  readonly #subscribers = new Set<() => void>();
  readonly #listeners = new Map<keyof SessionEventMap, Set<(...args: never[]) => void>>();
  closings = 0;
  timeline: readonly never[] = [];
  sync = { connection: 'online', pending: 0, version: 1 } as unknown as SyncState;
  remaining: Remaining = { session: 60_000, step: null, isEnding: false };
  #snapshot: Session;

  constructor(fields: Partial<Session> = {}) {
    this.#snapshot = aSession(fields);
  }

  /** It as what the hooks take it for. */
  get asSession(): CheckoutSession {
    return this as unknown as CheckoutSession;
  }

  get subscribers(): number {
    return this.#subscribers.size;
  }

  get listeners(): number {
    return [...this.#listeners.values()].reduce((sum, { size }) => sum + size, 0);
  }

  getSnapshot = (): Session => this.#snapshot;

  subscribe = (listener: () => void): (() => void) => {
    this.#subscribers.add(listener);
    return () => this.#subscribers.delete(listener);
  };

  on(name: keyof SessionEventMap, listener: (...args: never[]) => void): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  emit(name: keyof SessionEventMap, ...args: unknown[]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) (listener as (...args: unknown[]) => void)(...args);
  }

  /** So much of it is left from now on. */
  passTo(remaining: Remaining): void {
    this.remaining = remaining;
    this.emit('remaining', remaining);
  }

  change(fields: Partial<Session>): void {
    this.#snapshot = Object.freeze({ ...this.#snapshot, ...fields });
    this.#tell();
  }

  changeSync(fields: Partial<SyncState>): void {
    this.sync = { ...this.sync, ...fields };
    this.#tell();
  }

  close = async (): Promise<void> => {
    this.closings += 1;
  };

  #tell(): void {
    for (const subscriber of [...this.#subscribers]) subscriber();
  }
}

export function aSession(fields: Partial<Session> = {}): Session {
  return Object.freeze({ id: 'ws_fake', version: 1, email: null, customer: {}, products: [], ...fields }) as Session;
}
