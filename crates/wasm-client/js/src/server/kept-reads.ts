import { orAborted } from './limit.js';
import type { CallOptions } from './types.js';

interface Kept {
  readonly answer: Promise<unknown>;
  /** The session that it is of; nothing where it is about several. */
  readonly sessionId: string | undefined;
  readonly controller: AbortController;
  waiting: number;
}

/** What was read, and is being read, for one request: each question goes to the server once. */
export class KeptReads {
  readonly #kept = new Map<string, Kept>();

  /** The answer to a question, as a copy: whoever changes it changes nobody else's. The limits are those of who asked first. */
  async get<T>(question: string, sessionId: string | undefined, { signal, ...options }: CallOptions, ask: (options: CallOptions) => Promise<T>): Promise<T> {
    signal?.throwIfAborted();
    const kept = this.#kept.get(question) ?? this.#begin(question, sessionId, options, ask);
    kept.waiting++;
    try {
      return structuredClone((await orAborted(kept.answer, signal)) as T);
    } finally {
      kept.waiting--;
      // Nobody waits any more: it is ended as well, and whoever comes later asks anew.
      if (signal?.aborted && kept.waiting === 0) this.#drop(question, kept);
    }
  }

  /** Forgets what a change of these sessions may have changed; of any where nothing is said. */
  forget(sessionIds: readonly string[] | undefined): void {
    for (const [question, { sessionId }] of this.#kept) {
      if (sessionId === undefined || !sessionIds || sessionIds.includes(sessionId)) this.#kept.delete(question);
    }
  }

  #begin(question: string, sessionId: string | undefined, options: CallOptions, ask: (options: CallOptions) => Promise<unknown>): Kept {
    const controller = new AbortController();
    const kept: Kept = { answer: ask({ ...options, signal: controller.signal }), sessionId, controller, waiting: 0 };
    this.#kept.set(question, kept);
    // A failure is not kept.
    kept.answer.catch(() => this.#drop(question, kept));
    return kept;
  }

  #drop(question: string, kept: Kept): void {
    if (this.#kept.get(question) === kept) this.#kept.delete(question);
    kept.controller.abort();
  }
}
