/** The longest time that a timer can be set to, in milliseconds: some 24 days. One that is set to more is over at once. */
const LONGEST_MS = 2 ** 31 - 1;

/**
 * A time as a timer can have it; where it is endless, the longest.
 *
 * @throws {TypeError} where it is no time.
 */
export function durationMs(name: string, ms: number): number {
  if (typeof ms !== 'number' || !(ms >= 0)) throw new TypeError(`\`${name}\` has to be a time in milliseconds, 0 or more`);
  return Math.min(ms, LONGEST_MS);
}

/**
 * A time limit that also ends with a signal. Its timer and its ear are gone with `end()`: a server makes thousands of calls in the
 * time that one of them may take.
 */
export class Limit {
  readonly #controller = new AbortController();
  readonly #timer: ReturnType<typeof setTimeout>;
  readonly #outer: AbortSignal | undefined;
  readonly #abort = () => this.#controller.abort(this.#outer!.reason);
  #isOver = false;

  constructor(limitMs: number, outer: AbortSignal | undefined) {
    this.#outer = outer;
    this.#timer = setTimeout(() => {
      this.#isOver = true;
      this.#controller.abort(new DOMException('the time is over', 'TimeoutError'));
    }, limitMs);
    if (outer?.aborted) this.#abort();
    else outer?.addEventListener('abort', this.#abort);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Whether it was the time that ended it. */
  get isOver(): boolean {
    return this.#isOver;
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#outer?.removeEventListener('abort', this.#abort);
  }
}

/** Waits for `work`, no longer than until the signal aborts: for its reason. */
export function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort);
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/** Lets the time pass; rejects with the signal's reason if that aborts. */
export async function pause(durationMs: number, signal: AbortSignal | undefined): Promise<void> {
  let timer: ReturnType<typeof setTimeout>;
  const passed = new Promise<void>((resolve) => (timer = setTimeout(resolve, durationMs)));
  await orAborted(passed, signal).finally(() => clearTimeout(timer));
}
