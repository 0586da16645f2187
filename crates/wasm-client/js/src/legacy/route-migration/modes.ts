import type { ModeOfRoute, RouteMode } from '../../server/types.js';
import { endsWithin } from './waiting.js';

/** How long the server may take to say the modes, in milliseconds. */
const TIMEOUT_MS = 2_000;

const KNOWN: ReadonlySet<string> = new Set<RouteMode>(['off', 'shadow', 'compare', 'on', 'only']);

/**
 * The modes of the routes, as the server said last. They are asked for when somebody wants to know, and never by a timer. Where the
 * server can't be asked, they stay as they were.
 */
export class Modes {
  readonly #ask: (timeoutMs: number) => Promise<ModeOfRoute[]>;
  readonly #refreshMs: number;
  readonly #onError: (error: unknown) => void;
  #modes: ReadonlyMap<string, RouteMode | undefined> | undefined;
  /** When they were told, and when they were asked for last, whatever came of it. */
  #toldAt = -Infinity;
  #askedAt = -Infinity;
  #asking: Promise<void> | undefined;
  #hasFailed = false;

  constructor(ask: (timeoutMs: number) => Promise<ModeOfRoute[]>, refreshMs: number, onError: (error: unknown) => void) {
    this.#ask = ask;
    this.#refreshMs = refreshMs;
    this.#onError = onError;
  }

  /**
   * The mode of a route; nothing where the server has not said one yet.
   *
   * @param keepAlive Is given what goes on after the answer.
   */
  async of(route: string, keepAlive: (work: Promise<unknown>) => void): Promise<RouteMode | undefined> {
    const asking = this.#refresh(keepAlive);
    // What is much older than it should be is of before a pause: the answer is waited for, unless the server does not give any.
    const isOld = performance.now() - this.#toldAt > 2 * this.#refreshMs;
    if (asking && isOld && !this.#hasFailed && !(await endsWithin(asking, TIMEOUT_MS))) this.#hasFailed = true;
    return this.#modes?.has(route) === false ? 'off' : this.#modes?.get(route);
  }

  #refresh(keepAlive: (work: Promise<unknown>) => void): Promise<void> | undefined {
    const now = performance.now();
    // Some runtimes end what a request began with that request: it is not waited for any longer than it may take.
    const isAsking = this.#asking !== undefined && now - this.#askedAt < 2 * TIMEOUT_MS;
    if (isAsking || now - this.#askedAt < this.#refreshMs) return this.#asking;
    this.#askedAt = now;
    const asking = this.#take(now).finally(() => {
      if (this.#asking === asking) this.#asking = undefined;
    });
    this.#asking = asking;
    keepAlive(asking);
    return asking;
  }

  async #take(askedAt: number): Promise<void> {
    try {
      const modes = await this.#ask(TIMEOUT_MS);
      // One that was asked for later may have been told before.
      if (askedAt < this.#toldAt) return;
      this.#toldAt = askedAt;
      this.#hasFailed = false;
      this.#modes = new Map(modes.map(({ route, mode }) => [route, this.#known(route, mode)]));
    } catch (error) {
      this.#hasFailed = true;
      this.#onError(error);
    }
  }

  /** A newer server may know modes that this version does not: what was, stays. */
  #known(route: string, mode: RouteMode): RouteMode | undefined {
    if (KNOWN.has(mode)) return mode;
    this.#onError(new TypeError('a route has a mode that this version of the package does not know; update it'));
    return this.#modes?.get(route);
  }
}
