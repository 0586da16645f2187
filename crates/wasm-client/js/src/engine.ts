import { Client, newClientId } from '../generated/throughline.js';
import type { Command, Funnel, RejectionReason, SessionRecord } from '../generated/types.js';
import { fetchCookie } from './cookie.js';
import {
  type Confirmation,
  type ConfirmedOutput,
  confirmationOf,
  type Output,
  readOutputs,
  readWrites,
  type Write,
} from './core-outputs.js';
import { type Credentials, isMoved, saveCredentials } from './credentials.js';
import { textOf, valueIn } from './plain.js';
import { Rejection, SessionError } from './rejection.js';
import { ServerClock } from './server-clock.js';
import type { Storage } from './storage/ladder.js';
import type { Entry, Guard, StorageRung } from './storage/store.js';
import { type TabMessage, Tabs } from './tabs.js';
import { Connection } from './transport/connection.js';

/** What an engine tells its owner. */
export interface EngineEvents {
  /** The session's fields that changed, or nothing but the progress. */
  changed(patch: Record<string, unknown> | undefined): void;
  /** A command of this browser went one step further. */
  confirmed(clientId: string, seq: number, confirmation: Confirmation): void;
  /** A command of a tab that is gone was refused. */
  orphanRejected(rejection: Rejection, command: Command): void;
  applied(record: SessionRecord): void;
  /** The server ended the session's connection for good. */
  failed(error: SessionError): void;
  /** Records of the storage were damaged and set aside. */
  damaged(keys: string[]): void;
  /** The storage is a newer version's. */
  newerStorage(): void;
}

/** How far an engine is. */
export interface Progress {
  pending: number;
  version: number;
  confirmedVersion: number;
  durableVersion: number;
  live: boolean;
}

/** A command that is not durable yet. */
export interface PendingCommand {
  clientId: string;
  seq: number;
  type: Command['type'];
  /** Accepted by the server, but perhaps not in the database yet; sent; stored in this browser; or not even that. */
  stage: 'issued' | 'stored' | 'sent' | 'accepted';
}

/** The token is over, or was revoked, as by a payment: another proof is as good as before. */
const IS_TOKEN_AT_FAULT = /^token(Expired|Revoked)$/;

/** Clocks that differ by less are kept as they were, in milliseconds: it saves writes. */
const CLOCK_STEP_MS = 500;

/** When a cookie is asked for again that could not be had, in milliseconds: at first, and at the latest. */
const COOKIE_AGAIN_MS = 2000;
const COOKIE_LATEST_MS = 120_000;

/** How other tabs are to hear of a frame; see `heard` in the crate. */
const AS_IT_IS = 1;
const AGAIN = 2;

/** The funnel definition with the server's hash of it. */
export interface KnownFunnel {
  funnel: Funnel;
  hash: string;
}

/**
 * This page's client of one session: the core's replica with its storage, the other tabs, and the connection while this
 * tab leads.
 *
 * Every life of a page is a client of its own, so no number of a command is used twice, whatever the storage lost.
 */
export class Engine {
  readonly sessionId: string;
  readonly clientId: string;
  readonly #url: string;
  readonly #storage: Storage;
  readonly #client: Client;
  readonly #events: EngineEvents;
  readonly #connection: Connection;
  /** Nothing where the storage is this tab's alone. */
  readonly #tabs: Tabs | undefined;
  #credentials: Credentials;
  /** Whether they go into the storage with what is written first: no command without them, nor they without a command. */
  #areCredentialsNew = false;
  /** A funnel that may be the session's; what the server says at the next greeting decides. */
  #assumed: KnownFunnel | undefined;
  /** The funnel that the storage has with the session. */
  #kept: KnownFunnel | undefined;
  /** The funnel that commands are judged by. */
  #funnel: Funnel | undefined;
  readonly #clock: ServerClock;
  /** What the storage has of {@link ServerClock.aheadMs}. */
  #keptAheadMs: number;
  /** Which of this browser's leaders this tab is, was, or follows. */
  #term = 0;
  /** Counts how often the lead was got or lost. */
  #turn = 0;
  /** Whether the tab that leads is connected to the server. */
  #isLeaderLive = false;
  #retry: ReturnType<typeof setTimeout> | undefined;
  /** The writes under way, so that closing can wait for them. */
  #writing: Promise<void> | undefined;
  /** The writes under way of what is not the core's. */
  readonly #keeping = new Set<Promise<unknown>>();
  #isWanted = false;
  /** The page goes away: what it still does is stored, and not sent or told. */
  #closed = false;
  /** Nothing more can be asked of the core. */
  #ended = false;
  #warningMs = 0;
  #wiped = false;
  #refusal: string | undefined;
  /** The server has refused what is in the cookie, since it let this tab in the last time. */
  #isCookieRefused = false;
  #cookieRetry: ReturnType<typeof setTimeout> | undefined;
  #isFetchingCookie = false;

  private constructor(
    url: string,
    sessionId: string,
    clientId: string,
    storage: Storage,
    client: Client,
    credentials: Credentials,
    aheadMs: number,
    events: EngineEvents,
  ) {
    this.sessionId = sessionId;
    this.clientId = clientId;
    this.#url = url;
    this.#storage = storage;
    this.#client = client;
    this.#credentials = credentials;
    this.#keptAheadMs = aheadMs;
    this.#clock = new ServerClock(aheadMs);
    this.#events = events;
    this.#connection = new Connection(url, {
      opened: () => this.#act(() => client.connected()),
      received: (frame) => this.#receive(frame),
      lost: () => this.#act(() => client.disconnected()),
      hello: () => (this.#closed || !client.isLeading() ? undefined : client.hello()),
      isInCookie: () => this.#credentials.isInCookie === true,
    });
    if (!storage.isShared) return;
    client.follow();
    this.#tabs = new Tabs(sessionId, clientId, {
      leads: () => void this.#lead(),
      deposed: () => this.#follow(),
      message: (message) => this.#hear(message),
      gone: () => void this.#recover(),
      isWaiting: () => !this.#closed && client.pending() > 0,
    });
  }

  /** Opens what the storage has of the session. */
  static async open(
    url: string,
    sessionId: string,
    storage: Storage,
    offered: Credentials,
    events: EngineEvents,
  ): Promise<Engine> {
    const { entries, damaged } = await storage.load(`${sessionId}/`);
    const kept = new Map(entries);
    const credentials = { ...valueIn<Credentials>(kept.get(`${sessionId}/credentials`)), ...offered };
    const clientId = newClientId();
    const { token, claim } = credentials;
    let client = Client.open(sessionId, clientId, JSON.stringify(entries), token, claim);
    if (client?.isStorageNewer()) {
      // What it means is not known here: the session goes on without it, and without a trace of this version in it.
      storage.leaveAlone();
      client.free();
      client = Client.open(sessionId, clientId, '[]', token, claim);
      damaged.length = 0;
      events.newerStorage();
    }
    if (!client) throw new SessionError('failed', `'${sessionId}' can't be the id of a session`);
    // A claim alone is for a session that is yet to be created.
    if (offered.token) await saveCredentials(storage, sessionId, credentials);
    const aheadMs = Number(kept.get(`${sessionId}/clock`)) || 0;
    const engine = new Engine(url, sessionId, clientId, storage, client, credentials, aheadMs, events);
    engine.#areCredentialsNew = offered.claim !== undefined && offered.token === undefined;
    const funnel = valueIn<KnownFunnel>(kept.get(`${sessionId}/funnel`));
    // Without telling anybody yet: nobody listens before `publish`.
    if (funnel) engine.#judgeBy((engine.#kept = funnel));
    damaged.push(...(JSON.parse(client.takeDamaged()) as string[]));
    if (damaged.length > 0) {
      await storage.setAside(damaged).catch(() => undefined);
      events.damaged(damaged);
    }
    return engine;
  }

  /** Begins with nothing, as a new session does; the claim secret is stored together with the first command. */
  static begin(url: string, sessionId: string, storage: Storage, credentials: Credentials, events: EngineEvents): Engine {
    const clientId = newClientId();
    const client = Client.open(sessionId, clientId, '[]', undefined, credentials.claim)!;
    const engine = new Engine(url, sessionId, clientId, storage, client, credentials, 0, events);
    engine.#areCredentialsNew = true;
    return engine;
  }

  /** How this tab talks to the server; nothing where it does not. */
  get transport(): 'webSocket' | 'requests' | undefined {
    return this.#connection.transport;
  }

  get rung(): StorageRung {
    return this.#storage.rung;
  }

  get progress(): Progress {
    const client = this.#client;
    return {
      pending: client.pending(),
      version: client.version(),
      confirmedVersion: client.confirmedVersion(),
      durableVersion: client.durableVersion(),
      live: client.isLive() && (client.isLeading() || this.#isLeaderLive),
    };
  }

  /** Whether this tab speaks for all. */
  get isLeading(): boolean {
    return this.#client.isLeading();
  }

  get funnel(): Funnel | undefined {
    return this.#funnel;
  }

  /** Whether the session's personal data was erased. */
  get isErased(): boolean {
    return this.#client.isErased();
  }

  /** Why the server did not let this client in when it was asked last, where it said so. */
  get refusal(): string | undefined {
    return this.#refusal;
  }

  get pendingCommands(): PendingCommand[] {
    return JSON.parse(this.#client.pendingCommands()) as PendingCommand[];
  }

  /** The server's time, as far as it is known, in milliseconds since the Unix epoch. */
  get serverNow(): number {
    return this.#clock.now();
  }

  /** Where what lets this browser in is to be, for a page that comes back. */
  get place(): Credentials {
    return this.#credentials.isInCookie ? { isInCookie: true } : {};
  }

  /** What lets this browser in, as the tab that leads has it. */
  async credentials(): Promise<Credentials> {
    const kept = await this.#storage.get(`${this.sessionId}/credentials`).catch(() => undefined);
    return valueIn<Credentials>(kept) ?? this.#credentials;
  }

  /** How long before the session's end the buyer is to be warned. */
  get warningMs(): number {
    if (!this.#ended) this.#warningMs = this.#client.warningMs();
    return this.#warningMs;
  }

  /** Goes by this funnel until the server names the session's own. */
  useFunnel(known: KnownFunnel): void {
    this.#assumed = known;
    this.#act(() => this.#judgeBy(known));
  }

  #judgeBy({ funnel, hash }: KnownFunnel): void {
    const problem = this.#client.setFunnel(textOf(funnel), hash);
    if (problem !== undefined) throw new SessionError('failed', `the funnel can't be used: ${problem}`);
    this.#funnel = funnel;
  }

  /** This funnel is the session's own: it is kept with the session, whatever becomes of newer ones. */
  pinFunnel(known: KnownFunnel): void {
    this.useFunnel(known);
    this.#keepFunnel(known);
  }

  /** A page that opens without a connection goes by it. */
  #keepClock(): void {
    const { aheadMs } = this.#clock;
    if (Math.abs(aheadMs - this.#keptAheadMs) < CLOCK_STEP_MS) return;
    this.#keptAheadMs = aheadMs;
    if (this.isLeading) this.#tabs?.post({ type: 'clock', term: this.#term, serverAheadMs: aheadMs });
    void this.#keep('clock', String(aheadMs));
  }

  #keepFunnel(known: KnownFunnel): void {
    this.#assumed = undefined;
    this.#kept = known;
    void this.#keep('funnel', JSON.stringify(known));
  }

  #keepCredentials(): void {
    if (!this.#areCredentialsNew) void this.#keep('credentials', JSON.stringify(this.#credentials));
  }

  /** Writes what is not the core's, beside the session; nothing more once the session was erased. */
  async #keep(name: string, text: string): Promise<void> {
    if (this.#wiped) return;
    const write = this.#storage.write([[`${this.sessionId}/${name}`, text]]).catch(() => undefined);
    this.#keeping.add(write);
    await write;
    this.#keeping.delete(write);
  }

  /** Shows what the storage had, before anything is heard of the server. */
  publish(): void {
    this.#act(() => undefined);
  }

  /**
   * Issues a command; its number is the answer.
   * @throws {Rejection} where the rules forbid it; then nothing was queued.
   */
  submit(command: Command, traceparent?: string): number {
    if (this.#ended) throw new SessionError('closed', 'the session was closed by the page; open it again');
    const submit = () => {
      const refusal = this.#client.submit(textOf(command), this.serverNow, traceparent);
      if (refusal !== undefined) throw new Rejection(JSON.parse(refusal) as RejectionReason);
      return this.#client.lastSeq();
    };
    return this.#closed ? this.#storeOnly(submit) : this.#act(submit);
  }

  /** Takes part: with the other tabs, and with the server while this tab leads. */
  resume(): void {
    if (this.#closed) return;
    this.#isWanted = true;
    if (this.#tabs && !this.#tabs.hasJoined) {
      this.#tabs.join();
      this.#act(() => this.#client.connected());
    }
    if (this.isLeading) this.#connection.resume();
  }

  /** There is no network: the tabs stay together. */
  pause(): void {
    this.#isWanted = false;
    clearTimeout(this.#cookieRetry);
    this.#connection.pause();
    this.#tellLink();
  }

  /** Keeps to itself: neither the server nor other tabs hear of it. */
  withdraw(): void {
    this.#tabs?.leave();
    this.pause();
    if (this.#tabs && !this.#closed) this.#act(() => this.#client.follow());
  }

  wake(): void {
    if (this.isLeading) this.#connection.wake();
  }

  /** What was stored is gone: everything that this tab has is stored again. */
  storeAgain(): void {
    if (this.#wiped) return;
    if (this.#kept) this.#keepFunnel(this.#kept);
    this.#keptAheadMs = 0;
    this.#keepClock();
    this.#keepCredentials();
    this.#act(() => this.#client.storeAgain());
  }

  /** Ends it once everything that was issued is stored. */
  async close(): Promise<void> {
    if (this.#ended) return;
    this.abandon();
    this.#ended = true;
    await this.#writing;
    this.#client.free();
  }

  /** Resolves when everything that was issued is stored. */
  async written(): Promise<void> {
    await this.#writing;
  }

  /** This page was away: what its former engine has stored since is not known to the tab that leads. */
  tellBack(): void {
    this.#tabs?.post({ type: 'back' });
  }

  /** Ends it at once: the page is going away. Writes that are under way go on by themselves. */
  abandon(): void {
    this.#connection.pause();
    this.#closed = true;
    this.#tabs?.end();
    // Nor does it say that it was connected, or that it led.
    if (this.#tabs) this.#client.follow();
    clearTimeout(this.#retry);
    clearTimeout(this.#cookieRetry);
  }

  /** The lock was given to this tab. */
  async #lead(): Promise<void> {
    this.#turn += 1;
    const turn = this.#turn;
    // The lock may be lost, and got again, while this waits for the storage.
    const isOver = () => this.#closed || !this.#tabs?.hasJoined || turn !== this.#turn;
    const last = Number.parseInt((await this.#storage.get(`${this.sessionId}/leader`).catch(() => undefined)) ?? '0', 10) || 0;
    if (isOver()) return;
    const term = Math.max(last, this.#term) + 1;
    // From here on nothing counts that a former leader still writes; and it is read after that.
    await this.#keep('leader', this.#markOf(term));
    const { entries } = await this.#storage.load(`${this.sessionId}/`);
    if (isOver()) return;
    this.#term = term;
    const kept = valueIn<Credentials>(new Map(entries).get(`${this.sessionId}/credentials`));
    // Without what has moved into a cookie meanwhile; and this page may be the first that wants it there.
    this.#credentials = kept ? { ...kept, ...this.place } : this.#credentials;
    const { token, claim } = this.#credentials;
    this.#connection.pause();
    // Also where there is neither: what the core has had is over then.
    this.#client.setCredentials(token, claim);
    this.#act(() => this.#client.lead(JSON.stringify(entries)));
    this.#tellLead();
    if (this.#isWanted) this.#connection.resume();
  }

  /** What lies in the storage while this tab leads in this term: no two tabs write the same. */
  #markOf(term: number): string {
    return `${term} ${this.clientId}`;
  }

  #tellLead(): void {
    this.#tabs?.post({ type: 'leads', term: this.#term, serverAheadMs: this.#clock.aheadMs });
    this.#tellLink();
  }

  #tellLink(): void {
    if (this.isLeading) this.#tabs?.post({ type: 'link', term: this.#term, live: this.#client.isLive() });
  }

  /** Another tab leads. */
  #follow(): void {
    if (this.#closed) return;
    this.#turn += 1;
    this.#connection.pause();
    this.#isLeaderLive = false;
    this.#act(() => {
      this.#client.follow();
      this.#client.connected();
    });
  }

  /** A tab is gone: what it had stored without telling anybody is brought to the server. */
  async #recover(): Promise<void> {
    const { entries } = await this.#storage.load(`${this.sessionId}/command/`);
    if (this.isLeading) this.#act(() => this.#client.recover(JSON.stringify(entries)));
  }

  #hear(message: TabMessage): void {
    if (this.#closed) return;
    switch (message.type) {
      case 'leads':
        if (message.term < this.#term || (message.term === this.#term && this.isLeading)) return;
        this.#term = message.term;
        this.#clock.follow(message.serverAheadMs);
        // It was taken from this tab, and the browser has not said so yet.
        if (this.isLeading) this.#tabs?.stepDown(), this.#follow();
        else this.#act(() => this.#client.connected());
        break;
      case 'hello':
        if (!this.isLeading) return;
        this.#tabs?.watch(message.clientId);
        this.#tellLink();
        this.#act(() => this.#client.greeted(message.frame));
        void this.#moveWhatIsLeft();
        break;
      case 'frames':
        if (this.isLeading || message.term < this.#term) return;
        this.#term = message.term;
        if (message.answers === undefined || this.#client.isAnswer(message.answers)) {
          for (const frame of message.frames) this.#act(() => this.#client.handle(frame));
        }
        break;
      case 'announce':
        this.#act(() => this.#client.observe(message.clientId, message.commands, message.isAll));
        break;
      case 'back':
        if (this.isLeading) void this.#recover();
        break;
      case 'clock':
        if (!this.isLeading && message.term >= this.#term) this.#clock.follow(message.serverAheadMs);
        break;
      case 'link':
        if (this.isLeading || message.term < this.#term || message.live === this.#isLeaderLive) return;
        this.#isLeaderLive = message.live;
        this.#act(() => undefined);
        break;
      case 'failed':
        if (!this.isLeading && message.term >= this.#term) {
          this.#events.failed(new SessionError(message.code, message.message));
        }
        break;
    }
  }

  #receive(frame: string): void {
    const heard = this.#act(() => this.#client.handle(frame));
    // Not a frame of this protocol: whatever it was, another connection starts from a known state.
    if (heard === undefined) this.#connection.reconnectAfter(1000);
    else if (heard === AS_IT_IS) this.#tabs?.post({ type: 'frames', term: this.#term, frames: [frame] });
    else if (heard === AGAIN) this.#tellLead();
  }

  #welcomed({ funnel, funnelHash }: Extract<Output, { type: 'welcome' }>): void {
    this.#refusal = undefined;
    this.#isCookieRefused = false;
    if (funnelHash === undefined) return;
    if (funnel) {
      this.#funnel = funnel;
      this.#keepFunnel({ funnel, hash: funnelHash });
    } else if (this.#assumed?.hash === funnelHash) this.#keepFunnel(this.#assumed);
  }

  /** Lets the core do something, and does no more of what it wants than to store: whoever opens the session next goes on. */
  #storeOnly<T>(change: () => T): T {
    const result = change();
    this.#client.takeOutputs();
    if (this.#client.hasWrites()) this.#writing ??= this.#write();
    return result;
  }

  /** Lets the core do something, then does what the core wants. */
  #act<T>(change: () => T): T {
    if (this.#closed) return undefined as T;
    const [wasLive, wasWiped] = [this.#client.isLive(), this.#wiped];
    const result = change();
    const outputs = this.#client.takeOutputs();
    let patch: Record<string, unknown> | undefined;
    for (const output of outputs === undefined ? [] : readOutputs(outputs)) {
      if (output.type === 'changed') patch = output.patch;
      else this.#perform(output);
    }
    if (this.isErased) this.#wiped = true;
    if (this.#wiped !== wasWiped || (this.#client.hasWrites() && !this.#wiped)) this.#writing ??= this.#write();
    if (!this.#closed && wasLive !== this.#client.isLive()) this.#tellLink();
    if (!this.#closed) this.#events.changed(patch);
    return result;
  }

  #perform(output: Exclude<Output, { type: 'changed' }>): void {
    switch (output.type) {
      case 'send':
        if (this.isLeading) this.#connection.send(output.frame);
        else this.#tabs?.post({ type: 'hello', clientId: this.clientId, frame: output.frame });
        break;
      case 'announce':
        this.#tabs?.post(output);
        break;
      case 'relay':
        this.#tabs?.post({ ...output, type: 'frames', term: this.#term });
        break;
      case 'confirmed':
        this.#confirmed(output);
        break;
      case 'applied':
        this.#events.applied(output.record);
        break;
      case 'retryAfter':
        clearTimeout(this.#retry);
        this.#retry = setTimeout(() => this.#act(() => this.#client.retry()), output.delayMs);
        break;
      case 'serverTime':
        this.#clock.heard(output.time);
        this.#keepClock();
        break;
      case 'token':
        this.#credentials = { ...this.#credentials, token: output.token };
        this.#keepCredentials();
        break;
      case 'cookieDue':
        void this.#moveToCookie();
        break;
      case 'welcome':
        this.#welcomed(output);
        break;
      case 'refused':
        this.#refused(output);
        break;
      case 'missing':
        void this.#skip(output.clientId);
        break;
    }
  }

  #confirmed(output: ConfirmedOutput): void {
    const confirmation = confirmationOf(output);
    this.#events.confirmed(output.clientId, output.seq, confirmation);
    // The tab that issued it tells its page itself, if it is still there.
    if ('rejected' in confirmation && output.clientId !== this.clientId && this.isLeading) {
      const { rejected, command } = confirmation;
      void this.#tabs?.has(output.clientId).then((isThere) => {
        if (!isThere) this.#events.orphanRejected(rejected, command);
      });
    }
  }

  /** The server waits for commands of another tab that are not here. */
  async #skip(clientId: string): Promise<void> {
    if (await this.#tabs?.has(clientId)) return;
    // What it may have stored in its last moment comes first.
    await this.#recover();
    if (this.isLeading) this.#act(() => this.#client.skip(clientId));
  }

  /** Writes what waits, one transaction after the other; what comes meanwhile is written together. */
  async #write(): Promise<void> {
    // Whatever a page does in one go is one transaction.
    await undefined;
    try {
      for (let text = this.#client.takeWrites(); text !== undefined; text = this.#client.takeWrites()) {
        for (const write of readWrites(text)) if (!this.#wiped) await this.#writeOne(write);
      }
      if (this.#wiped) await this.#wipe();
    } finally {
      this.#writing = undefined;
    }
  }

  async #writeOne({ asLeader, changes, stored }: Write): Promise<void> {
    const last = new Map(changes.map(([key, text]) => [key, text]));
    const put = [...last].filter((entry): entry is Entry => entry[1] !== undefined);
    const firstCredentials = this.#areCredentialsNew ? this.#credentials : undefined;
    if (firstCredentials) put.push([`${this.sessionId}/credentials`, JSON.stringify(firstCredentials)]);
    const remove = [...last].filter(([, text]) => text === undefined).map(([key]) => key);
    const term = this.#term;
    const guard: Guard | undefined = asLeader && this.#tabs ? [`${this.sessionId}/leader`, this.#markOf(term)] : undefined;
    const written = await this.#storage.write(put, remove, guard).catch(() => true);
    if (firstCredentials && written) {
      this.#areCredentialsNew = false;
      if (firstCredentials !== this.#credentials) this.#keepCredentials();
    }
    if (this.#closed || this.#wiped) return;
    if (!written && term === this.#term && this.isLeading) {
      // Another tab has taken over, and the browser has not said so yet.
      this.#tabs?.stepDown();
      this.#follow();
    }
    if (stored !== undefined) this.#act(() => this.#client.commandsStored(stored));
  }

  #refused({ code, message, passing, retryAfterMs }: Extract<Output, { type: 'refused' }>): void {
    this.#refusal = message;
    if (passing) {
      this.#connection.reconnectAfter(retryAfterMs ?? 1000 * Math.random());
      return;
    }
    const { claim, isInCookie } = this.#credentials;
    if (IS_TOKEN_AT_FAULT.test(code) && (claim || (isInCookie && !this.#isCookieRefused))) {
      // The claim secret is proof as well, here or in the cookie; the server gives a new token for it.
      this.#isCookieRefused = true;
      delete this.#credentials.token;
      this.#client.setCredentials(undefined, claim);
      this.#connection.reconnectAfter(0);
      return;
    }
    this.#connection.pause();
    const error = new SessionError(errorCodeOf(code), message);
    this.#tabs?.post({ type: 'failed', term: this.#term, code: error.code, message });
    this.#events.failed(error);
  }

  /** What lets this browser in goes where no script reads it, and from here. */
  async #moveToCookie(againMs = COOKIE_AGAIN_MS): Promise<void> {
    clearTimeout(this.#cookieRetry);
    if (this.#isFetchingCookie) return;
    this.#isFetchingCookie = true;
    const proof = this.#credentials;
    const isThere = await fetchCookie(this.#url, this.sessionId, proof);
    this.#isFetchingCookie = false;
    if (this.#closed || !this.isLeading) return;
    // Also where it has got something else meanwhile: nobody says again that it is due.
    if (isThere === undefined || proof !== this.#credentials) {
      const next = Math.min(2 * againMs, COOKIE_LATEST_MS);
      if (this.#isWanted) this.#cookieRetry = setTimeout(() => void this.#moveToCookie(next), againMs * (1 + Math.random()));
    } else if (isThere) {
      this.#keepThese({ isInCookie: true });
    } else if (!isMoved(proof)) {
      // This browser blocks it. From here on it goes on as if it had never been asked for.
      const { isInCookie: _, ...stays } = proof;
      this.#keepThese(stays);
      this.#connection.reconnectAfter(0);
    }
  }

  /** A link that was followed in another tab leaves in the storage what lets this browser in; here the session is in its cookie. */
  async #moveWhatIsLeft(): Promise<void> {
    const kept = await this.credentials();
    if (this.#closed || isMoved(kept) || !isMoved(this.#credentials)) return;
    this.#keepThese({ ...kept, ...this.place });
    await this.#moveToCookie();
  }

  #keepThese(credentials: Credentials): void {
    this.#credentials = credentials;
    this.#client.setCredentials(credentials.token, credentials.claim);
    this.#keepCredentials();
  }

  /** The personal data was erased: nothing of the session stays in this browser, nor is it the one to go on with. */
  async #wipe(): Promise<void> {
    await Promise.all(this.#keeping);
    await this.#storage.wipe(this.sessionId).catch(() => undefined);
    // The answer takes the cookie out.
    if (this.#credentials.isInCookie && this.isLeading) await fetchCookie(this.#url, this.sessionId, {});
  }
}

function errorCodeOf(code: string): SessionError['code'] {
  switch (code) {
    case 'sessionNotFound':
    case 'unsupportedProtocol':
      return code;
    case 'unauthorized':
    case 'tokenExpired':
    case 'tokenRevoked':
      return 'unauthorized';
    default:
      return 'failed';
  }
}
