import type { SessionErrorCode } from './rejection.js';

/** What tabs tell each other about a session. */
export type TabMessage =
  /** From the tab that leads, when it begins to, and whenever it has met the server anew: say hello. */
  | { type: 'leads'; term: number; serverAheadMs: number }
  | { type: 'clock'; term: number; serverAheadMs: number }
  /** To the tab that leads. */
  | { type: 'hello'; clientId: string; frame: string }
  /** From the tab that leads: frames of the server for all tabs, or for the one that has said this hello. */
  | { type: 'frames'; term: number; answers?: string; frames: string[] }
  /** Commands that are stored: `[{seq, at, command}]`, as text. */
  | { type: 'announce'; clientId: string; commands: string; isAll: boolean }
  /** A tab has come back from the bfcache or from being frozen, and all that it had issued before is stored by now. */
  | { type: 'back' }
  /** From the tab that leads: whether it is connected. */
  | { type: 'link'; term: number; live: boolean }
  /** From the tab that leads: the server ended its connection for good. */
  | { type: 'failed'; term: number; code: SessionErrorCode; message: string }
  /** A sign of life is asked for, and given by the tab that leads. */
  | { type: 'ping' }
  | { type: 'pong' };

/** What a tab hears of the others. */
export interface TabsEvents {
  /** It leads from now on. */
  leads(): void;
  /** It does not lead any more: another tab took over, because this one did not answer. */
  deposed(): void;
  message(message: TabMessage): void;
  /** Another tab is gone. */
  gone(clientId: string): void;
  /** Whether it is worth knowing at once when the leading tab does not answer. */
  isWaiting(): boolean;
}

/** What says nothing of whether the leading tab is there. */
const FROM_ANY_TAB: ReadonlySet<TabMessage['type']> = new Set(['hello', 'announce', 'back']);

const LOCK = 'throughline';
const PING_EVERY_MS = 400;
/** After how long without an answer a leading tab counts as frozen. */
const PATIENCE_MS = 1000;
const LATE_MS = 2500;

/**
 * The tabs of this browser that have a session open: one of them leads, as long as it holds the session's Web Lock.
 *
 * The browser gives the lock to another tab when the leading one is closed or crashes; a tab that is hidden in the
 * bfcache or frozen gives it up before; and from one that does not answer it is taken.
 */
export class Tabs {
  readonly #sessionId: string;
  readonly #clientId: string;
  readonly #events: TabsEvents;
  #channel: BroadcastChannel | undefined;
  /** Ends when this tab takes no part any more. */
  #life = new AbortController();
  /** Ends when this life of the page does: as long as it lasts, nobody may take its commands for left behind. */
  #existence: AbortController | undefined;
  #isLeading = false;
  #isQueued = false;
  #heardAt = 0;
  #pinging: ReturnType<typeof setTimeout> | undefined;
  readonly #watched = new Set<string>();

  constructor(sessionId: string, clientId: string, events: TabsEvents) {
    this.#sessionId = sessionId;
    this.#clientId = clientId;
    this.#events = events;
  }

  /** Takes part, until {@link leave}. */
  join(): void {
    if (this.#channel) return;
    this.#life = new AbortController();
    this.#watched.clear();
    const { signal } = this.#life;
    this.#channel = new BroadcastChannel(`${LOCK}/${this.#sessionId}`);
    this.#channel.onmessage = ({ data }) => this.#hear(data as TabMessage);
    if (!this.#existence) {
      this.#existence = new AbortController();
      const existence = this.#existence.signal;
      void holdLock(this.#lockOf(`tab/${this.#clientId}`), { signal: existence }, existence, () => undefined);
    }
    void this.#queue(signal);
    this.#heardAt = performance.now();
    this.#ping();
  }

  /** It is gone: the others may bring to the server what it has left behind. */
  end(): void {
    this.leave();
    this.#existence?.abort();
    this.#existence = undefined;
  }

  /** Takes no part any more: it is to be left alone. */
  leave(): void {
    this.#channel?.close();
    this.#channel = undefined;
    this.#isLeading = false;
    this.#isQueued = false;
    clearTimeout(this.#pinging);
    this.#life.abort();
  }

  get hasJoined(): boolean {
    return this.#channel !== undefined;
  }

  post(message: TabMessage): void {
    this.#channel?.postMessage(message);
  }

  /** Tells when this tab is gone, once. */
  watch(clientId: string): void {
    if (this.#watched.has(clientId) || clientId === this.#clientId) return;
    this.#watched.add(clientId);
    const { signal } = this.#life;
    const gone = () => {
      this.#watched.delete(clientId);
      if (!signal.aborted) this.#events.gone(clientId);
    };
    navigator.locks.request(this.#lockOf(`tab/${clientId}`), { signal, mode: 'shared' }, gone).catch(() => undefined);
  }

  /** Also the tabs that keep to themselves leave something behind one day. */
  async #watchAll(): Promise<void> {
    const before = this.#lockOf('tab/');
    const { held } = await navigator.locks.query();
    const names = (held ?? []).map(({ name }) => name ?? '').filter((name) => name.startsWith(before));
    for (const name of names) this.watch(name.slice(before.length));
  }

  /** Whether the tab with this client is there. */
  async has(clientId: string): Promise<boolean> {
    const { held } = await navigator.locks.query();
    return (held ?? []).some(({ name, mode }) => name === this.#lockOf(`tab/${clientId}`) && mode === 'exclusive');
  }

  /** Gives up the lead, and waits for it again. */
  stepDown(): void {
    if (!this.#channel) return;
    this.leave();
    this.join();
  }

  /** Waits in line for the lead. */
  async #queue(signal: AbortSignal): Promise<void> {
    if (this.#isQueued) return;
    this.#isQueued = true;
    const ended = await holdLock(this.#lockOf('leader'), { signal }, signal, () => {
      this.#isQueued = false;
      this.#lead();
    });
    if (signal.aborted) return;
    // Stolen, while this tab did not answer; or the wait was ended by stealing it.
    if (ended === 'held' && this.#isLeading) this.#deposed(signal);
  }

  #lead(): void {
    this.#isLeading = true;
    void this.#watchAll();
    clearTimeout(this.#pinging);
    this.#events.leads();
  }

  #deposed(signal: AbortSignal): void {
    this.#isLeading = false;
    this.#events.deposed();
    this.#heardAt = performance.now();
    this.#ping();
    void this.#queue(signal);
  }

  #hear(message: TabMessage): void {
    if (message.type === 'ping') {
      if (this.#isLeading) this.post({ type: 'pong' });
      return;
    }
    if (!FROM_ANY_TAB.has(message.type)) this.#heardAt = performance.now();
    if (message.type !== 'pong') this.#events.message(message);
  }

  /** Asks the leading tab for a sign of life, as long as somebody looks at this one or waits for something. */
  #ping(): void {
    clearTimeout(this.#pinging);
    if (this.#isLeading || !this.#channel) return;
    const asked = performance.now();
    const isWatching = document.visibilityState === 'visible' || this.#events.isWaiting();
    if (isWatching) this.post({ type: 'ping' });
    this.#pinging = setTimeout(() => {
      const silentMs = performance.now() - this.#heardAt;
      // A timer that comes late says that this tab was frozen itself. In a hidden tab they come once in a second.
      const isLate = performance.now() - asked > LATE_MS;
      if (isWatching && !isLate && silentMs > PATIENCE_MS) this.#steal();
      else this.#ping();
    }, PING_EVERY_MS);
  }

  #steal(): void {
    const { signal } = this.#life;
    const steal = holdLock(this.#lockOf('leader'), { steal: true }, signal, () => {
      if (!this.#isLeading) this.#lead();
    });
    void steal.then((ended) => {
      if (ended === 'held' && !signal.aborted && this.#isLeading) this.#deposed(signal);
    });
  }

  #lockOf(name: string): string {
    return `${LOCK}/${this.#sessionId}/${name}`;
  }
}

/**
 * Holds a Web Lock until `life` ends or it is stolen, and calls `held` when it is got. The answer is whether it was held
 * at all.
 */
async function holdLock(
  name: string,
  options: LockOptions,
  life: AbortSignal,
  held: () => void,
): Promise<'held' | 'not held'> {
  let state: 'held' | 'not held' = 'not held';
  try {
    await navigator.locks.request(name, options, () => {
      if (life.aborted) return;
      state = 'held';
      held();
      return new Promise<void>((release) => life.addEventListener('abort', () => release()));
    });
  } catch {
    // Stolen, or given up while waiting.
  }
  return state;
}

/** Runs `work` while no other tab runs work under the same name; where tabs share nothing, just so. */
export function exclusively<T>(isShared: boolean, name: string, work: () => Promise<T>): Promise<T> {
  return isShared ? navigator.locks.request(`${LOCK}/${name}`, work) : work();
}
