import type { Command, Event, SessionRecord } from '../generated/types.js';
import type { Engine } from './engine.js';

/** One entry of the session's story, as this client knows it. */
export interface TimelineEntry {
  /** The session's version after it; `null` while the server has not confirmed it. */
  readonly version: number | null;
  /** When the server decided it; `null` while it has not. */
  readonly at: Date | null;
  /** The kind of event, or of the command while it is pending. */
  readonly type: Event['type'] | Command['type'];
  readonly origin: 'this tab' | 'other tab' | 'other client' | 'server';
  readonly state: 'pending' | 'confirmed' | 'durable';
}

/** How many entries are kept. */
const LENGTH = 200;

/** What has happened since the page was opened. */
export class Timeline {
  readonly #records: SessionRecord[] = [];
  #entries: readonly TimelineEntry[] | undefined;

  add(record: SessionRecord): void {
    this.#records.push(record);
    if (this.#records.length > LENGTH) this.#records.shift();
  }

  /** The latest of what the server has confirmed, as this client was told. */
  get records(): readonly SessionRecord[] {
    return this.#records;
  }

  /** Something has changed: the entries are made anew when somebody asks. */
  invalidate(): void {
    this.#entries = undefined;
  }

  /** The entries, with what `engine` has pending; the newest last, and the same array until something changes. */
  entries(engine: Engine): readonly TimelineEntry[] {
    this.#entries ??= this.#read(engine);
    return this.#entries;
  }

  #read(engine: Engine): readonly TimelineEntry[] {
    const { durableVersion } = engine.progress;
    const originOf = (clientId: string | undefined): 'this tab' | 'other tab' | 'other client' =>
      clientId === undefined ? 'other client' : clientId === engine.clientId ? 'this tab' : 'other tab';
    const confirmed = this.#records.map(
      (record): TimelineEntry => ({
        version: record.version,
        at: new Date(record.at),
        type: record.event.type,
        origin: record.by === 'browser' ? originOf(record.origin?.clientId) : 'server',
        state: record.version <= durableVersion ? 'durable' : 'confirmed',
      }),
    );
    const applied = new Set(this.#records.map(({ origin }) => `${origin?.clientId} ${origin?.seq}`));
    const pending = engine.pendingCommands
      .filter(({ clientId, seq }) => !applied.has(`${clientId} ${seq}`))
      .map(({ clientId, type }): TimelineEntry => {
        return { version: null, at: null, type, origin: originOf(clientId), state: 'pending' };
      });
    return Object.freeze([...confirmed, ...pending]);
  }
}
