import { Client, newClientId } from '../generated/throughline.js';
import type { Session, SessionRecord } from '../generated/types.js';
import { patchIn } from './core-outputs.js';
import { textOf } from './plain.js';
import { patched } from './snapshot.js';

/** A session once more, record by record from its creation on: as a page that is told of nothing else would see it. */
export class Replay {
  readonly #client: Client;
  #first: SessionRecord | undefined;
  #session = {} as Session;

  constructor(sessionId: string) {
    this.#client = Client.open(sessionId, newClientId(), '[]')!;
  }

  /** The session after this record, which follows the one before. */
  after(record: SessionRecord): Session {
    this.#first ??= record;
    // The creation's `epoch` is that of all of them.
    this.#client.handle(textOf({ ...this.#first.event, type: 'events', records: [record] }));
    return (this.#session = patched(this.#session, patchIn(this.#client.takeOutputs())));
  }

  end(): void {
    this.#client.free();
  }
}
