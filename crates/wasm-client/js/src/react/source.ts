import type { CheckoutSession } from '../session.js';

type Opening = PromiseLike<CheckoutSession>;

/**
 * Where the hooks read from: a session, or one that is being opened. It lies outside of React's state, which is thrown away
 * when a component suspends before it was ever shown.
 */
export class Source {
  readonly #open: (() => Opening) | undefined;
  readonly #subscribers = new Set<() => void>();
  #holders = 0;
  /** The opening that counts; one that was given up closes what it opens. */
  #opening: Opening | undefined;
  #session: CheckoutSession | undefined;
  #failure: { error: unknown } | undefined;
  /** What suspended components wait for. */
  #wait: { promise: Promise<void>; end(): void } | undefined;
  #unsubscribe: (() => void) | undefined;

  /** @param open Opens the session, once somebody {@link hold}s it. */
  constructor(open?: () => Opening) {
    this.#open = open;
  }

  /** Reads from what the page has opened, or opens, and closes itself. */
  static of(given: CheckoutSession | Opening): Source {
    const source = new Source();
    if ('then' in given) source.#follow(given);
    else source.#show(given);
    return source;
  }

  /**
   * Opens the session, where nobody has; the answer gives it back, and who is last to do so closes it.
   *
   * Strict mode gives it back and takes it again at once: then it stays open.
   */
  hold = (): (() => void) => {
    this.#holders += 1;
    if (this.#open && !this.#opening) this.#follow(begin(this.#open));
    return () => {
      this.#holders -= 1;
      queueMicrotask(() => {
        if (this.#holders === 0) this.#giveUp();
      });
    };
  };

  /** Calls `listener` when the session is open, and whenever something of it has changed. */
  subscribe = (listener: () => void): (() => void) => {
    this.#subscribers.add(listener);
    return () => this.#subscribers.delete(listener);
  };

  /** The session, where it is open. */
  get session(): CheckoutSession | undefined {
    return this.#session;
  }

  /**
   * The session. A component that asks for it while it is being opened suspends.
   * @throws what opening it has failed with; else the promise that React waits for.
   */
  read(): CheckoutSession {
    if (this.#session) return this.#session;
    if (this.#failure) throw this.#failure.error;
    this.#wait ??= waiting();
    throw this.#wait.promise;
  }

  #follow(opening: Opening): void {
    this.#opening = opening;
    opening.then(
      (session) => {
        if (opening === this.#opening) this.#show(session);
        else void session.close();
      },
      (error: unknown) => {
        if (opening !== this.#opening) return;
        this.#failure = { error };
        this.#settled();
      },
    );
  }

  #show(session: CheckoutSession): void {
    this.#session = session;
    this.#unsubscribe = session.subscribe(() => this.#notify());
    this.#settled();
  }

  #giveUp(): void {
    this.#unsubscribe?.();
    void this.#session?.close();
    this.#session = this.#failure = this.#opening = undefined;
  }

  #settled(): void {
    this.#wait?.end();
    this.#wait = undefined;
    this.#notify();
  }

  #notify(): void {
    for (const subscriber of [...this.#subscribers]) subscriber();
  }
}

function begin(open: () => Opening): Opening {
  try {
    return open();
  } catch (error) {
    return Promise.reject(error);
  }
}

function waiting(): { promise: Promise<void>; end(): void } {
  let end!: () => void;
  const promise = new Promise<void>((resolve) => (end = resolve));
  return { promise, end };
}
