import type { Session, SessionRecord } from '../../generated/types.js';
import type { Replay } from '../replay.js';
import { serverAddress } from '../server-address.js';
import type { CheckoutSession } from '../session.js';
import { timeLimit } from '../time-limit.js';

/** One version of the session that can be looked at. */
export interface Version {
  readonly version: number;
  /** What the server has recorded; nothing while it has not confirmed the version. */
  readonly record: SessionRecord | undefined;
  readonly state: 'pending' | 'confirmed' | 'durable';
}

/** Whether the versions from before the page was opened are here. */
export type Past = 'complete' | 'asking' | 'unavailable';

/** The limit of one answer of the server. */
const PAGE = 500;

/** How many versions are kept that only this page has seen. */
const SEEN = 500;

/**
 * The versions of a session: those that the server has confirmed, from its records, and what this page has seen since.
 *
 * What was seen costs little: snapshots are frozen and share what did not change.
 */
export class History {
  readonly #session: CheckoutSession;
  readonly #changed: () => void;
  readonly #records = new Map<number, SessionRecord>();
  /** The session after each record from the first on, without a gap. */
  #replayed: Session[] = [];
  #replay: Replay;
  readonly #seen = new Map<number, Session>();
  readonly #life = new AbortController();
  /** The version up to which the server was asked, so that what it does not tell is not asked for again and again. */
  #asked = 0;
  past: Past = 'complete';

  constructor(session: CheckoutSession, changed: () => void) {
    this.#session = session;
    this.#changed = changed;
    this.#replay = session.replay();
  }

  /** Takes note of what the session is now. */
  note(): void {
    const snapshot = this.#session.getSnapshot();
    for (const record of this.#session.records) this.#take(record);
    // What was refused has taken its versions with it.
    for (const version of this.#seen.keys()) if (version > snapshot.version) this.#seen.delete(version);
    this.#seen.delete(snapshot.version);
    this.#seen.set(snapshot.version, snapshot);
    const oldest = this.#seen.keys().next();
    if (this.#seen.size > SEEN && !oldest.done) this.#seen.delete(oldest.value);
    void this.#complete();
  }

  /** The versions that can be looked at, the newest first. */
  get versions(): readonly Version[] {
    const { confirmedVersion, durableVersion, version: newest } = this.#session.sync;
    const found: Version[] = [];
    for (let version = newest; version > 0; version -= 1) {
      if (!this.at(version)) continue;
      const state = version > confirmedVersion ? 'pending' : version > durableVersion ? 'confirmed' : 'durable';
      found.push({ version, record: version > confirmedVersion ? undefined : this.#records.get(version), state });
    }
    return found;
  }

  /** The session as it was at this version. */
  at(version: number): Session | undefined {
    const { confirmedVersion } = this.#session.sync;
    return (version <= confirmedVersion ? this.#replayed[version - 1] : undefined) ?? this.#seen.get(version);
  }

  close(): void {
    if (this.#life.signal.aborted) return;
    this.#life.abort();
    this.#replay.end();
  }

  #take(record: SessionRecord): void {
    const isOther = this.#records.get(record.version) !== record;
    this.#records.set(record.version, record);
    if (!isOther || record.version > this.#replayed.length) return;
    // Another history has won, or the same one was told again: what was made of it is made anew.
    this.#replay.end();
    this.#replay = this.#session.replay();
    this.#replayed = [];
  }

  /** Replays what is here without a gap; what is missing before that, the server is asked for. */
  async #complete(): Promise<void> {
    this.#goOn();
    const { confirmedVersion, connection } = this.#session.sync;
    const isComplete = this.#replayed.length >= confirmedVersion;
    if (isComplete) this.past = 'complete';
    if (isComplete || this.past === 'asking') return;
    if (connection !== 'online') {
      this.past = 'unavailable';
      return;
    }
    if (this.#asked >= confirmedVersion) return;
    this.past = 'asking';
    try {
      await this.#ask();
      this.#asked = confirmedVersion;
    } catch {
      // Asked again when something changes.
    }
    if (this.#life.signal.aborted) return;
    this.#goOn();
    this.past = this.#replayed.length >= confirmedVersion ? 'complete' : 'unavailable';
    this.#changed();
  }

  /** Goes on from the version that was replayed last. */
  #goOn(): void {
    for (let record; (record = this.#records.get(this.#replayed.length + 1)); ) this.#replayed.push(this.#replay.after(record));
  }

  /** Reads the journal as the session's own browser. */
  async #ask(): Promise<void> {
    const [url, proof] = await this.#session.access();
    if (!proof) return;
    for (let after: number | undefined = this.#replayed.length; after !== undefined; ) {
      const path = `v1/sessions/${encodeURIComponent(this.#session.id)}/events?after=${after}&limit=${PAGE}`;
      const signal = timeLimit(10_000, this.#life.signal);
      const answer = await fetch(serverAddress(url, path), { ...proof, signal });
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      const { records, nextAfter } = (await answer.json()) as { records: SessionRecord[]; nextAfter?: number };
      for (const record of records) this.#take(record);
      after = nextAfter;
    }
  }
}
