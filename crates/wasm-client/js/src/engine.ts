import { Client, newClientId } from '../generated/throughline.js';
import type { Command, Funnel, RejectionReason, SessionRecord } from '../generated/types.js';
import { Connection } from './connection.js';
import { textOf } from './plain.js';
import { Rejection, SessionError } from './rejection.js';
import { slotEntry, type Slot } from './slots.js';
import type { Entry, Store } from './storage/store.js';

/** What an engine tells its owner. */
export interface EngineEvents {
  /** The session's fields that changed, or nothing but the progress. */
  changed(patch: Record<string, unknown> | undefined): void;
  confirmed(seq: number, confirmation: Confirmation): void;
  applied(record: SessionRecord): void;
  /** The pending commands got the numbers 1, 2, 3 and so on, in the place of these. */
  renumbered(before: number[]): void;
  /** The server ended the session's connection for good. */
  failed(error: SessionError): void;
  /** Records of the storage were damaged and set aside. */
  damaged(keys: string[]): void;
}

export type Confirmation = { accepted: number } | { durable: number } | { rejected: Rejection; command: Command };

/** How far an engine is. */
export interface Progress {
  pending: number;
  version: number;
  confirmedVersion: number;
  durableVersion: number;
  live: boolean;
}

/** What the core wants done; see `Client::take_outputs` in the crate. */
type Output =
  | { type: 'send'; frame: string }
  | { type: 'welcome'; funnel?: Funnel; funnelHash?: string }
  | { type: 'store'; put: Entry[]; delete: string[]; seq?: number }
  | { type: 'confirmed'; seq: number; accepted?: number; durable?: number; rejected?: RejectionReason; command?: Command }
  | { type: 'applied'; record: SessionRecord }
  | { type: 'retryAfter'; delayMs: number }
  | { type: 'serverTime'; time: number }
  | { type: 'token'; token: string }
  | { type: 'refused'; code: string; message: string; passing: boolean; retryAfterMs?: number }
  | { type: 'needsNewClient' };

/** How a session proves that it may be synced. */
export interface Credentials {
  token?: string;
  claim?: string;
}

/** The funnel definition with the server's hash of it. */
export interface KnownFunnel {
  funnel: Funnel;
  hash: string;
}

/** One client of one session: the core's replica with its storage and its connection. */
export class Engine {
  readonly sessionId: string;
  readonly #store: Store;
  readonly #slot: Slot;
  readonly #client: Client;
  readonly #events: EngineEvents;
  readonly #connection: Connection;
  #credentials: Credentials;
  /** A funnel that may be the session's; what the server says at the next greeting decides. */
  #assumed: KnownFunnel | undefined;
  /** The funnel that commands are judged by. */
  #funnel: Funnel | undefined;
  /** The slot's new client id, until it is written with what belongs to it. */
  #renamed: Entry | undefined;
  #serverAheadMs = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #storageFailed = false;
  /** The writes under way, so that closing can wait for them. */
  #writing: Promise<void> = Promise.resolve();
  #closed = false;
  #wiped = false;
  #refusal: string | undefined;

  private constructor(
    url: string,
    sessionId: string,
    store: Store,
    slot: Slot,
    client: Client,
    credentials: Credentials,
    events: EngineEvents,
  ) {
    this.sessionId = sessionId;
    this.#store = store;
    this.#slot = slot;
    this.#client = client;
    this.#credentials = credentials;
    this.#events = events;
    this.#connection = new Connection(url, {
      opened: () => this.#act(() => client.connected()),
      received: (frame) => this.#receive(frame),
      lost: () => this.#act(() => client.disconnected()),
    });
  }

  /** Opens what the storage has of the session for the client that holds `slot`. */
  static async open(
    url: string,
    sessionId: string,
    store: Store,
    slot: Slot,
    offered: Credentials,
    events: EngineEvents,
  ): Promise<Engine> {
    const credentials = { ...(await loadText<Credentials>(store, `${sessionId}/credentials`)), ...offered };
    if (offered.token || offered.claim) await saveCredentials(store, sessionId, credentials);
    const prefix = `${sessionId}/${slot.clientId}/`;
    const stored = JSON.stringify(await store.load(prefix));
    const client = Client.open(sessionId, slot.clientId, stored, credentials.token, credentials.claim);
    if (!client) throw new Error(`'${sessionId}' can't be the id of a session`);
    const engine = new Engine(url, sessionId, store, slot, client, credentials, events);
    const kept = await loadText<KnownFunnel>(store, `${sessionId}/funnel`);
    // Without telling anybody yet: nobody listens before `publish`.
    if (kept) engine.#judgeBy(kept);
    const damaged = JSON.parse(client.takeDamaged()) as string[];
    if (damaged.length > 0) {
      await setAside(store, damaged);
      events.damaged(damaged);
    }
    return engine;
  }

  get clientId(): string {
    return this.#slot.clientId;
  }

  /** The number of its place in the session's storage. */
  get slotNumber(): number {
    return this.#slot.number;
  }

  get rung(): Store['rung'] {
    return this.#storageFailed ? 'memory' : this.#store.rung;
  }

  get progress(): Progress {
    const client = this.#client;
    return {
      pending: client.pending(),
      version: client.version(),
      confirmedVersion: client.confirmedVersion(),
      durableVersion: client.durableVersion(),
      live: client.isLive(),
    };
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

  get pendingCommands(): { seq: number; type: Command['type'] }[] {
    return JSON.parse(this.#client.pendingCommands()) as { seq: number; type: Command['type'] }[];
  }

  /** The server's time, as far as it is known, in milliseconds since the Unix epoch. */
  get serverNow(): number {
    return Date.now() + this.#serverAheadMs;
  }

  /** Goes by this funnel until the server names the session's own. */
  useFunnel(known: KnownFunnel): void {
    this.#assumed = known;
    this.#act(() => this.#judgeBy(known));
  }

  #judgeBy({ funnel, hash }: KnownFunnel): void {
    const problem = this.#client.setFunnel(textOf(funnel), hash);
    if (problem !== undefined) throw new Error(problem);
    this.#funnel = funnel;
  }

  /** This funnel is the session's own: it is kept with the session, whatever becomes of newer ones. */
  pinFunnel(known: KnownFunnel): void {
    this.useFunnel(known);
    this.#keepFunnel(known);
  }

  #keepFunnel(known: KnownFunnel): void {
    this.#assumed = undefined;
    void this.#store.write([[`${this.sessionId}/funnel`, JSON.stringify(known)]], []).catch(() => undefined);
  }

  /** Shows what the storage had, before anything is heard of the server. */
  publish(): void {
    this.#act(() => undefined);
  }

  /**
   * Issues a command; its number is the answer.
   * @throws {Rejection} where the rules forbid it; then nothing was queued.
   */
  submit(command: Command): number {
    if (this.#closed) throw new SessionError('closed', 'the session was closed by the page; open it again');
    return this.#act(() => {
      const answer = JSON.parse(this.#client.submit(textOf(command), this.serverNow)) as number | RejectionReason;
      if (typeof answer !== 'number') throw new Rejection(answer);
      return answer;
    });
  }

  resume(): void {
    if (!this.#closed) this.#connection.resume();
  }

  pause(): void {
    this.#connection.pause();
  }

  wake(): void {
    this.#connection.wake();
  }

  /** Ends it once everything that was issued is stored. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#connection.pause();
    this.#closed = true;
    clearTimeout(this.#retry);
    await this.#writing;
    this.#slot.release();
    this.#client.free();
  }

  /** Ends it at once: the page is going away. Writes that are under way go on by themselves. */
  abandon(): void {
    this.#connection.pause();
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#slot.release();
  }

  #receive(frame: string): void {
    // Not a frame of this protocol: whatever it was, another connection starts from a known state.
    if (this.#act(() => this.#client.handle(frame)) === false) this.#connection.reconnectAfter(1000);
  }

  #welcomed({ funnel, funnelHash }: Extract<Output, { type: 'welcome' }>): void {
    this.#refusal = undefined;
    if (funnelHash === undefined) return;
    if (funnel) {
      this.#funnel = funnel;
      this.#keepFunnel({ funnel, hash: funnelHash });
    } else if (this.#assumed?.hash === funnelHash) this.#keepFunnel(this.#assumed);
  }

  /** Lets the core do something, then does what the core wants. */
  #act<T>(change: () => T): T {
    if (this.#closed) return undefined as T;
    const result = change();
    const outputs = this.#client.takeOutputs();
    if (outputs !== undefined) for (const output of readOutputs(outputs)) this.#perform(output);
    if (!this.#closed && !this.#wiped && this.isErased) this.#wipe();
    if (!this.#closed) {
      const patch = this.#client.takePatch();
      this.#events.changed(patch === undefined ? undefined : (JSON.parse(patch) as Record<string, unknown>));
    }
    return result;
  }

  #perform(output: Output): void {
    switch (output.type) {
      case 'send':
        this.#connection.send(output.frame);
        break;
      case 'welcome':
        this.#welcomed(output);
        break;
      case 'store':
        this.#write(output.put, output.delete, output.seq);
        break;
      case 'confirmed':
        this.#events.confirmed(output.seq, confirmationOf(output));
        break;
      case 'applied':
        this.#events.applied(output.record);
        break;
      case 'retryAfter':
        clearTimeout(this.#retry);
        this.#retry = setTimeout(() => this.#act(() => this.#client.retry()), output.delayMs);
        break;
      case 'serverTime':
        this.#serverAheadMs = output.time - Date.now();
        break;
      case 'token':
        this.#credentials = { ...this.#credentials, token: output.token };
        void saveCredentials(this.#store, this.sessionId, this.#credentials);
        break;
      case 'refused':
        this.#refused(output);
        break;
      case 'needsNewClient':
        queueMicrotask(() => this.#renewClient());
        break;
    }
  }

  /** Goes on as a new client; the slot's new name and all that belongs to it are written at once. */
  #renewClient(): void {
    if (this.#closed) return;
    this.#events.renumbered(this.pendingCommands.map(({ seq }) => seq));
    this.#slot.clientId = newClientId();
    this.#renamed = slotEntry(this.sessionId, this.#slot);
    this.#act(() => this.#client.renewClient(this.#slot.clientId));
  }

  #write(put: Entry[], remove: string[], seq: number | undefined): void {
    const { clientId } = this.#slot;
    if (this.#renamed) put = [this.#renamed, ...put];
    this.#renamed = undefined;
    const stored = () => {
      // What was written under a client id that is given up says nothing about today's numbers.
      if (seq !== undefined && clientId === this.#slot.clientId) this.#act(() => this.#client.commandsStored(seq));
    };
    if (this.#storageFailed) {
      queueMicrotask(stored);
      return;
    }
    const write = this.#store.write(put, remove).then(stored, () => {
      // Full or gone: the session goes on in memory, and the page can read that it does.
      this.#storageFailed = true;
      stored();
    });
    this.#writing = Promise.all([this.#writing, write]).then(() => undefined);
  }

  #refused({ code, message, passing, retryAfterMs }: Extract<Output, { type: 'refused' }>): void {
    this.#refusal = message;
    if (passing) {
      this.#connection.reconnectAfter(retryAfterMs ?? 1000 * Math.random());
      return;
    }
    if (code === 'tokenExpired' && this.#credentials.claim) {
      // The claim secret is proof as well; the server gives a new token for it.
      delete this.#credentials.token;
      this.#client.setToken(undefined);
      this.#connection.reconnectAfter(0);
      return;
    }
    this.#connection.pause();
    this.#events.failed(new SessionError(errorCodeOf(code), message));
  }

  /** The personal data was erased: nothing of the session stays in this browser, nor is it the one to go on with. */
  #wipe(): void {
    this.#wiped = true;
    const keys = async () => {
      const own = await this.#store.load(`${this.sessionId}/`);
      const current = (await this.#store.load('current')).filter(([key, id]) => key === 'current' && id === this.sessionId);
      return [...own, ...current].map(([key]) => key);
    };
    this.#writing = this.#writing
      .then(keys)
      .then((keys) => this.#store.write([], keys))
      .catch(() => undefined);
  }
}

/** Reads what the core wants done: a list, and the texts that it names by number. */
function readOutputs(text: string): Output[] {
  const [list, ...texts] = text.split('\u0001');
  const outputs = JSON.parse(list ?? '[]') as Output[];
  const named = (number: unknown) => texts[number as number] ?? '';
  for (const output of outputs) {
    if (output.type === 'send') output.frame = named(output.frame);
    else if (output.type === 'store') for (const entry of output.put) entry[1] = named(entry[1]);
  }
  return outputs;
}

function confirmationOf(output: Extract<Output, { type: 'confirmed' }>): Confirmation {
  if (output.rejected && output.command) {
    return { rejected: new Rejection(output.rejected), command: output.command };
  }
  return output.durable === undefined ? { accepted: output.accepted ?? 0 } : { durable: output.durable };
}

function errorCodeOf(code: string): SessionError['code'] {
  switch (code) {
    case 'sessionNotFound':
    case 'unsupportedProtocol':
      return code;
    case 'unauthorized':
    case 'tokenExpired':
      return 'unauthorized';
    default:
      return 'failed';
  }
}

/** What the storage has under this key; nothing where it is damaged. */
async function loadText<T>(store: Store, key: string): Promise<T | undefined> {
  const [entry] = await store.load(key);
  try {
    return entry && (JSON.parse(entry[1]) as T);
  } catch {
    return undefined;
  }
}

async function saveCredentials(store: Store, sessionId: string, credentials: Credentials): Promise<void> {
  await store.write([[`${sessionId}/credentials`, JSON.stringify(credentials)]], []).catch(() => undefined);
}

/** Moves damaged records out of the way, where a person can still look at them. */
async function setAside(store: Store, keys: string[]): Promise<void> {
  const moved: Entry[] = [];
  for (const key of keys) {
    const [entry] = await store.load(key);
    if (entry) moved.push([`damaged/${key}`, entry[1]]);
  }
  await store.write(moved, keys).catch(() => undefined);
}
