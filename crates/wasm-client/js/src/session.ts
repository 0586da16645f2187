import type { Command, Create, Customer, Funnel, ItemRequest, OfferId, Session, SessionRecord, StepId } from '../generated/types.js';
import type { Confirmation } from './core-outputs.js';
import { type Credentials, type Proof, proofOf } from './credentials.js';
import { Engine, type EngineEvents, type PendingCommand } from './engine.js';
import { askForHandoff, type Handoff } from './handoff.js';
import { plainCopy } from './plain.js';
import { type Receipt, Receipts, Unsettled } from './receipts.js';
import { Rejection, SessionError } from './rejection.js';
import { type Remaining, remainingOf } from './remaining.js';
import { Replay } from './replay.js';
import { patched } from './snapshot.js';
import type { Storage } from './storage/ladder.js';
import type { StorageRung } from './storage/store.js';
import { Timeline, type TimelineEntry } from './timeline.js';
import { type Trace, traceparentOf } from './trace.js';

/** How the session is connected, and how far it is confirmed. Replaced, never changed. */
export interface SyncState {
  readonly connection: 'connecting' | 'online' | 'offline' | 'closed';
  /** Commands that are not durable yet. */
  readonly pending: number;
  /** Where this browser keeps the session. */
  readonly storage: StorageRung;
  /** Whether this tab talks to the server for all tabs of the browser. */
  readonly leading: boolean;
  /** How it does: over a WebSocket, or in requests where none is let through; `null` while it does not. */
  readonly transport: 'webSocket' | 'requests' | null;
  /** The version shown, this client's unconfirmed commands included. */
  readonly version: number;
  readonly confirmedVersion: number;
  readonly durableVersion: number;
  readonly clientId: string;
}

/** What can be listened to with {@link CheckoutSession.on}. */
export interface SessionEventMap {
  /** A command was refused, here or by the server. */
  rejected: (rejection: Rejection, command: Command) => void;
  /** The session can't be kept in step any more; see the error's code. */
  failed: (error: SessionError) => void;
  /** Records of this browser's storage were damaged; they were set aside and the server is asked instead. */
  damaged: (keys: readonly string[]) => void;
  /** The session is kept in another place from now on: the one before is full, blocked or broken. */
  storage: (rung: StorageRung) => void;
  /**
   * What this browser has of the session was stored by a newer version of this package. It is left alone, for that
   * version; here the session is kept in memory, and what is pending ends with the page.
   */
  newerStorage: () => void;
  /** What time is left: each second, and whenever something has changed. */
  remaining: (remaining: Remaining) => void;
}

const SECOND_MS = 1000;

/** What is found while the session is opened, when the page can't listen yet. */
const TOLD_LATER: ReadonlySet<keyof SessionEventMap> = new Set(['damaged', 'newerStorage', 'storage']);

/**
 * One checkout session in this browser. Everything works without a connection; what was done is kept until the
 * database has it.
 */
export class CheckoutSession {
  readonly id: string;
  readonly #url: string;
  readonly #storage: Storage;
  #engine: Engine;
  #snapshot: Session | undefined;
  #sync: SyncState;
  /** Something may have changed since `#sync` was read. */
  #isSyncStale = false;
  readonly #timeline = new Timeline();
  readonly #receipts = new Receipts();
  /** What was issued while the page comes back from the bfcache; `undefined` while there is an engine to take it. */
  #held: Unsettled[] | undefined;
  readonly #subscribers = new Set<() => void>();
  readonly #listeners: { [Name in keyof SessionEventMap]: Set<SessionEventMap[Name]> } = {
    rejected: new Set(),
    failed: new Set(),
    damaged: new Set(),
    storage: new Set(),
    newerStorage: new Set(),
    remaining: new Set(),
  };
  /** What happened of {@link TOLD_LATER}, for who listens first. */
  /** @internal Asked with each command. */
  trace: Trace | undefined;
  readonly #untold = new Map<keyof SessionEventMap, unknown[][]>();
  readonly #life = new AbortController();
  #tick: ReturnType<typeof setTimeout> | undefined;
  #offlineByChoice = false;
  #closed = false;
  #closing: Promise<void> | undefined;
  #isReopening = false;
  /** The page is in the bfcache, frozen, or on its way there. */
  #isGone = false;
  /** How often it was. */
  #absences = 0;
  #error: SessionError | undefined;

  private constructor(url: string, storage: Storage, engine: Engine) {
    this.id = engine.sessionId;
    this.#url = url;
    this.#storage = storage;
    this.#engine = engine;
    this.#sync = this.#readSync();
    this.#followPage();
    this.#followStorage();
  }

  /** @internal */
  static async open(
    url: string,
    storage: Storage,
    sessionId: string,
    credentials: Credentials,
  ): Promise<CheckoutSession> {
    // The engine speaks up only after this function has returned, so the session is there by then.
    let session: CheckoutSession | undefined;
    const engine = await Engine.open(url, sessionId, storage, credentials, eventsFor(() => session));
    return (session = new CheckoutSession(url, storage, engine));
  }

  /** @internal A session that there was not before. */
  static begin(url: string, storage: Storage, sessionId: string, credentials: Credentials): CheckoutSession {
    let session: CheckoutSession | undefined;
    const engine = Engine.begin(url, sessionId, storage, credentials, eventsFor(() => session));
    return (session = new CheckoutSession(url, storage, engine));
  }

  /** @internal */
  get engine(): Engine {
    return this.#engine;
  }

  /** @internal The session without the check that it is there yet. */
  get snapshotOrUndefined(): Session | undefined {
    return this.#snapshot;
  }

  /** @internal Goes through the session's story from its beginning, whatever it is now. */
  replay(): Replay {
    return new Replay(this.id);
  }

  /** @internal The latest records that this page was told of. */
  get records(): readonly SessionRecord[] {
    return this.#timeline.records;
  }

  /** @internal Whether the page keeps it away from the network. */
  get isOfflineByChoice(): boolean {
    return this.#offlineByChoice;
  }

  /** @internal Where the server is, and how it is asked about the session. */
  async access(): Promise<[url: string, proof: Proof | undefined]> {
    return [this.#url, proofOf(await this.#engine.credentials())];
  }

  /** @internal What ended it, if something did. */
  get error(): SessionError | undefined {
    return this.#error;
  }

  /** The session as it is now: the same object until something changes. It and all in it are frozen. */
  getSnapshot = (): Session => {
    if (!this.#snapshot) throw new SessionError('unreachable', 'nothing is known of this session yet');
    return this.#snapshot;
  };

  /** Calls `listener` whenever the snapshot or the sync state has changed; the answer ends that. */
  subscribe = (listener: () => void): (() => void) => {
    this.#subscribers.add(listener);
    return () => this.#subscribers.delete(listener);
  };

  /** Calls `listener` whenever this happens; the answer ends that. */
  on<Name extends keyof SessionEventMap>(name: Name, listener: SessionEventMap[Name]): () => void {
    this.#listeners[name].add(listener);
    const untold = this.#untold.get(name) ?? [];
    this.#untold.delete(name);
    for (const args of untold) queueMicrotask(() => call(listener as (...args: unknown[]) => void, ...args));
    if (name === 'remaining') queueMicrotask(() => this.#tellRemaining());
    return () => this.#listeners[name].delete(listener);
  }

  /**
   * What time is left, as of now, by the server's clock: also without a connection, after a reload, and where this device's
   * clock is wrong. `on('remaining', …)` tells it each second.
   */
  get remaining(): Remaining {
    return remainingOf(this.getSnapshot(), this.#engine.warningMs, this.#engine.serverNow);
  }

  /** Tells it to who listens, now and when the next second of it has gone by. */
  #tellRemaining(): void {
    if (this.#listeners.remaining.size === 0) return;
    clearTimeout(this.#tick);
    if (!this.#snapshot || this.#closed) return;
    const { remaining } = this;
    this.#emit('remaining', remaining);
    // The second that a page shows changes when the rest of it has gone by.
    if (remaining.session > 0) this.#tick = setTimeout(() => this.#tellRemaining(), (remaining.session % SECOND_MS) + 1);
  }

  /** How it is connected and how far it is confirmed: the same object until something changes. */
  get sync(): SyncState {
    if (this.#isSyncStale) {
      this.#isSyncStale = false;
      const sync = this.#closed ? Object.freeze({ ...this.#sync, connection: 'closed' as const }) : this.#readSync();
      const keys = Object.keys(sync) as (keyof SyncState)[];
      if (keys.some((key) => sync[key] !== this.#sync[key])) this.#sync = sync;
    }
    return this.#sync;
  }

  /** The funnel that the session is pinned to. */
  get funnel(): Funnel {
    const funnel = this.#engine.funnel;
    if (!funnel) throw new SessionError('unreachable', 'the funnel is not known yet; connect once');
    return funnel;
  }

  /** What has happened since this page was opened, and what is pending; the newest last. */
  get timeline(): readonly TimelineEntry[] {
    return this.#timeline.entries(this.#engine);
  }

  /** Sets the buyer's email address; an empty text removes it. */
  setEmail(email: string): Receipt {
    return this.issue({ type: 'setEmail', email });
  }

  /** Takes over the fields that are named; an empty text removes one. */
  setCustomer(customer: Customer): Receipt {
    return this.issue({ type: 'setCustomer', customer });
  }

  /** Replaces the products. Prices come from the funnel's catalogue. */
  setItems(items: ItemRequest[]): Receipt {
    return this.issue({ type: 'setItems', items });
  }

  /** Applies a coupon, or removes it with `null`. */
  setCoupon(code: string | null): Receipt {
    return this.issue(code === null ? { type: 'setCoupon' } : { type: 'setCoupon', code });
  }

  /** Moves along the funnel, or back where it allows that. */
  goToStep(step: StepId): Receipt {
    return this.issue({ type: 'goToStep', step });
  }

  /** The buyer wants to pay: locks products and prices. */
  beginProcessing(): Receipt {
    return this.issue({ type: 'beginProcessing' });
  }

  /** Accepts an offer. Accepting twice is one acceptance. */
  acceptUpsell(offer: OfferId): Receipt {
    return this.issue({ type: 'acceptUpsell', offer });
  }

  /** Declines an offer, for good. */
  declineUpsell(offer: OfferId): Receipt {
    return this.issue({ type: 'declineUpsell', offer });
  }

  /** Merges into the metadata (RFC 7396: `null` removes a key). */
  setMetadata(metadata: Record<string, unknown>): Receipt {
    return this.issue({ type: 'setMetadata', metadata });
  }

  /** Lets the session live longer: this many milliseconds from now, or as long as the funnel says. */
  extend(ttlMs?: number): Receipt {
    return this.issue(ttlMs === undefined ? { type: 'extend' } : { type: 'extend', ttlMs });
  }

  /** Issues any command; the methods above are its short forms. */
  issue(command: Command): Receipt {
    const unsettled = new Unsettled(command, traceparentOf(this.trace));
    try {
      unsettled.command = plainCopy(command);
    } catch (reason) {
      this.#refuse(unsettled, reason);
      return unsettled.receipt;
    }
    // While the page goes away it is stored at once: there may be no later.
    if (this.#held && !this.#isGone) this.#held.push(unsettled);
    else this.#submit(unsettled);
    return unsettled.receipt;
  }

  #submit(unsettled: Unsettled): void {
    try {
      unsettled.seq = this.#engine.submit(unsettled.command, unsettled.traceparent);
      this.#receipts.add(this.#engine.clientId, unsettled);
    } catch (reason) {
      this.#refuse(unsettled, reason);
    }
  }

  #refuse(unsettled: Unsettled, reason: unknown): void {
    if (reason instanceof Rejection) this.#emit('rejected', reason, unsettled.command);
    unsettled.reject(reason);
  }

  /**
   * Lets one other browser go on with this session, within 5 minutes: show the link, for instance as a QR code. The page
   * there opens the session with `openSession({ handoff: location.href })`. This browser goes on as well.
   *
   * @param page - where the link leads; this page where it is left out.
   * @throws {SessionError} where the server can't be asked (`unreachable`) or refuses (`handoffRefused`), or the session was
   * `closed`.
   */
  async handoff({ page = location.href, signal }: { page?: string | URL; signal?: AbortSignal } = {}): Promise<Handoff> {
    if (this.#closed) throw new SessionError('closed', 'the session was closed by the page; open it again');
    const proof = proofOf(await this.#engine.credentials());
    if (proof) return askForHandoff(this.#url, this.id, proof, page, signal);
    throw new SessionError('unreachable', 'the server does not know this session yet; try again when it is connected');
  }

  /** Stays away from the network until {@link goOnline}. */
  goOffline(): void {
    if (this.#closed) return;
    this.#offlineByChoice = true;
    this.#connect();
  }

  /** Connects again after {@link goOffline}. */
  goOnline(): void {
    if (this.#closed) return;
    this.#offlineByChoice = false;
    this.#connect();
  }

  /** Ends it here, once everything that was issued is stored. The session itself goes on. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    // It is still told when nothing more can be asked.
    void this.timeline;
    this.#closed = true;
    this.#life.abort();
    // The page had only just come back.
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const unsettled of held) this.#submit(unsettled);
    // What it was stays readable.
    void this.timeline;
    await this.#engine.close();
    this.#giveUpReceipts([]);
    this.#storage.close();
    this.#notify();
  }

  #giveUpReceipts(pending: readonly PendingCommand[]): void {
    const message = 'the session was closed by the page; the command goes on when it is opened again';
    this.#receipts.giveUp(new SessionError('closed', message), pending);
  }

  /** @internal */
  connect(): void {
    this.#engine.publish();
    this.#connect();
  }

  #connect(): void {
    if (this.#offlineByChoice) this.#engine.withdraw();
    else {
      this.#engine.resume();
      if (this.#isAway || this.#error) this.#engine.pause();
    }
    this.#notify();
  }

  get #isAway(): boolean {
    const online = typeof navigator === 'undefined' || navigator.onLine !== false;
    return this.#offlineByChoice || !online || this.#closed;
  }

  #followPage(): void {
    if (typeof document === 'undefined') return;
    const { signal } = this.#life;
    addEventListener('online', () => this.#connect(), { signal });
    addEventListener('offline', () => this.#connect(), { signal });
    addEventListener('visibilitychange', () => document.visibilityState === 'visible' && this.#engine.wake(), { signal });
    // A page with an open socket or a held lock is not kept for going back; and in there, or frozen, it must not be the
    // one that other tabs wait for.
    addEventListener('pagehide', () => this.#leave(), { signal });
    addEventListener('pageshow', (event) => event.persisted && this.#comeBack(), { signal });
    document.addEventListener('freeze', () => this.#leave(), { signal });
    document.addEventListener('resume', () => this.#comeBack(), { signal });
  }

  #followStorage(): void {
    this.#storage.listen({
      rungChanged: () => {
        if (!this.#closed && !this.#held) this.#engine.storeAgain();
        this.#emit('storage', this.#storage.rung);
        this.#notify();
      },
      cleared: () => {
        if (this.#closed || this.#held || this.#engine.isErased) return;
        this.#engine.storeAgain();
        // The next page is to find it.
        void this.#storage.write([['current', this.id]]).catch(() => undefined);
      },
    });
  }

  #leave(): void {
    this.#isGone = true;
    this.#absences += 1;
    this.#engine.abandon();
    this.#held ??= [];
    this.#notify();
  }

  #comeBack(): void {
    this.#isGone = false;
    void this.#reopen();
  }

  /** Back again: other tabs may have gone on with what this page had stored, so start from the storage. */
  async #reopen(): Promise<void> {
    if (this.#closed || this.#isReopening) return;
    this.#isReopening = true;
    const absences = this.#absences;
    const { funnel, place } = this.#engine;
    await this.#engine.written();
    const engine = await Engine.open(this.#url, this.id, this.#storage, place, eventsFor(() => this));
    this.#isReopening = false;
    if (this.#closed || absences !== this.#absences) {
      // It was left again meanwhile: one that is gone must not be waited for, and one that is back starts from the storage.
      engine.abandon();
      if (!this.#isGone) void this.#reopen();
      return;
    }
    this.#engine = engine;
    // What is not there any more was told to the server by another tab, which heard the answer.
    this.#giveUpReceipts(this.#engine.pendingCommands);
    // Without storage it is only here; its hash is not, so that the server sends the definition once more.
    if (funnel && !this.#engine.funnel) this.#engine.useFunnel({ funnel, hash: '' });
    const held = this.#held ?? [];
    this.#held = undefined;
    this.connect();
    this.#engine.tellBack();
    for (const unsettled of held) this.#submit(unsettled);
  }

  #readSync(): SyncState {
    const { pending, version, confirmedVersion, durableVersion, live } = this.#engine.progress;
    const isOffline = this.#offlineByChoice || (typeof navigator !== 'undefined' && navigator.onLine === false);
    const connection = this.#closed || this.#error ? 'closed' : isOffline ? 'offline' : live ? 'online' : 'connecting';
    const { rung: storage, isLeading: leading, clientId } = this.#engine;
    const transport = this.#engine.transport ?? null;
    return Object.freeze({ connection, pending, storage, leading, transport, version, confirmedVersion, durableVersion, clientId });
  }

  #notify(): void {
    if (!this.#closed) this.#timeline.invalidate();
    this.#isSyncStale = true;
    for (const subscriber of [...this.#subscribers]) call(subscriber);
    this.#tellRemaining();
  }

  #emit<Name extends keyof SessionEventMap>(name: Name, ...args: Parameters<SessionEventMap[Name]>): void {
    if (TOLD_LATER.has(name) && this.#listeners[name].size === 0) {
      this.#untold.set(name, [...(this.#untold.get(name) ?? []), args]);
    }
    for (const listener of [...this.#listeners[name]]) call(listener as (...args: unknown[]) => void, ...args);
  }

  /** @internal */
  changed(patch: Record<string, unknown> | undefined): void {
    if (patch) this.#snapshot = patched(this.#snapshot ?? ({} as Session), patch);
    this.#notify();
  }

  /** @internal */
  confirmed(clientId: string, seq: number, confirmation: Confirmation): void {
    this.#receipts.confirm(clientId, seq, confirmation);
    if ('rejected' in confirmation && clientId === this.#engine.clientId) {
      this.#emit('rejected', confirmation.rejected, confirmation.command);
    }
  }

  /** @internal A command was refused whose page is gone, and has nobody else to tell. */
  orphanRejected(rejection: Rejection, command: Command): void {
    this.#emit('rejected', rejection, command);
  }

  /** @internal */
  applied(record: SessionRecord): void {
    this.#timeline.add(record);
  }

  /** @internal */
  failed(error: SessionError): void {
    this.#error = error;
    this.#emit('failed', error);
    this.#notify();
  }

  /** @internal */
  damaged(keys: string[]): void {
    this.#emit('damaged', keys);
  }

  /** @internal */
  newerStorage(): void {
    this.#emit('newerStorage');
  }
}

/** Something that creates a session; the server judges it like any other command. */
export type NewSession = Omit<Create, 'claims' | 'source'>;

/** What a page's listener throws is the page's matter: it is reported, and nothing here is left half done. */
function call<Args extends unknown[]>(listener: (...args: Args) => void, ...args: Args): void {
  try {
    listener(...args);
  } catch (error) {
    if (typeof reportError === 'function') reportError(error);
    else queueMicrotask(() => { throw error; });
  }
}

function eventsFor(session: () => CheckoutSession | undefined): EngineEvents {
  return {
    changed: (patch) => session()?.changed(patch),
    confirmed: (clientId, seq, confirmation) => session()?.confirmed(clientId, seq, confirmation),
    orphanRejected: (rejection, command) => session()?.orphanRejected(rejection, command),
    applied: (record) => session()?.applied(record),
    failed: (error) => session()?.failed(error),
    // Found while opening, when there is no session yet.
    damaged: (keys) => setTimeout(() => session()?.damaged(keys)),
    newerStorage: () => setTimeout(() => session()?.newerStorage()),
  };
}
