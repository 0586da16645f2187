import type { ThroughlineError } from '../../server/error.js';
import type { ReportedDifference, RouteReport } from '../../server/types.js';
import { Deadline } from './waiting.js';

/** What came of a request of which both sides were asked. */
export type Verdict = 'equal' | 'different' | 'legacyFailed' | 'unifiedFailed';

/** How much the server takes at once. */
const MAX_ROUTES = 100;
const MAX_DIFFERENCES = 200;

const TIMEOUT_MS = 10_000;
const LONGEST_PAUSE_MS = 60_000;

interface Found {
  readonly route: string;
  readonly difference: ReportedDifference;
}

/** What was found and is not told yet. It goes to the server in the background, several requests' at once. */
export class Reports {
  readonly #send: (routes: RouteReport[], timeoutMs: number) => Promise<void>;
  readonly #pauseMs: number;
  readonly #maxDifferences: number;
  readonly #onError: (error: unknown) => void;
  /** By route: as many as a shop has. */
  readonly #counts = new Map<string, Record<Verdict, number>>();
  #differences: Found[] = [];
  #timer: Deadline | undefined;
  /** What is being sent, but for what `send` does. */
  #sending: Promise<unknown> | undefined;
  #failures = 0;
  #notBefore = -Infinity;
  #dropped = 0;

  constructor(
    send: (routes: RouteReport[], timeoutMs: number) => Promise<void>,
    options: { pauseMs: number; maxDifferences: number; onError: (error: unknown) => void },
  ) {
    this.#send = send;
    this.#pauseMs = options.pauseMs;
    this.#maxDifferences = options.maxDifferences;
    this.#onError = options.onError;
  }

  /** How many differences were not told: there were too many, or the server does not take them. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Counts a request. Also where its differences are too many to be kept, it is counted. */
  add(route: string, verdict: Verdict, differences: readonly ReportedDifference[]): void {
    this.#count(route, { [verdict]: 1 });
    this.#keep(differences.map((difference) => ({ route, difference })));
  }

  /** Sends it after a pause, in which more may come. */
  schedule(): void {
    if (this.#timer || this.#sending || this.#isEmpty) return;
    const pauseMs = Math.max(this.#pauseMs, this.#notBefore - performance.now());
    this.#timer = new Deadline(pauseMs, () => void this.#begin());
  }

  /** Sends at once what there is, unless the server has just not taken it. For who waits for nobody else's: some runtimes forbid it. */
  async send(): Promise<void> {
    if (performance.now() >= this.#notBefore) await this.#sendAll();
  }

  /** Sends all that there is, and waits for what is under way; whether nothing is left. */
  async flush(): Promise<boolean> {
    while (this.#sending) await this.#sending;
    return this.#begin();
  }

  #begin(): Promise<boolean> {
    this.#timer?.cancel();
    this.#timer = undefined;
    const sending = this.#sendAll().finally(() => {
      this.#sending = undefined;
      this.schedule();
    });
    return (this.#sending = sending);
  }

  async #sendAll(): Promise<boolean> {
    // Not what is added meanwhile: that is the next report's.
    const parts = Math.max(Math.ceil(this.#differences.length / MAX_DIFFERENCES), Math.ceil(this.#counts.size / MAX_ROUTES), 1);
    for (let part = 0; part < parts && !this.#isEmpty; part++) {
      const routes = this.#take();
      try {
        await this.#send(routes, TIMEOUT_MS);
        this.#failures = 0;
        this.#notBefore = -Infinity;
      } catch (error) {
        this.#failures++;
        this.#notBefore = performance.now() + Math.min(this.#pauseMs * 2 ** this.#failures, LONGEST_PAUSE_MS);
        this.#putBack(routes, passes(error));
        this.#onError(error);
        return false;
      }
    }
    return this.#isEmpty;
  }

  get #isEmpty(): boolean {
    return this.#counts.size === 0 && this.#differences.length === 0;
  }

  /** As much as the server takes at once. */
  #take(): RouteReport[] {
    const routes = new Map<string, RouteReport & { differences: ReportedDifference[] }>();
    const entryOf = (route: string) => {
      const entry = routes.get(route) ?? { route, differences: [] };
      if (!routes.has(route)) routes.set(route, entry);
      return entry;
    };
    const taken = this.#differences.slice(0, MAX_DIFFERENCES);
    let count = 0;
    for (const { route, difference } of taken) {
      if (!routes.has(route) && routes.size === MAX_ROUTES) break;
      entryOf(route).differences.push(difference);
      count++;
    }
    this.#differences = this.#differences.slice(count);
    for (const [route, counts] of this.#counts) {
      if (!routes.has(route) && routes.size === MAX_ROUTES) continue;
      Object.assign(entryOf(route), counts);
      this.#counts.delete(route);
    }
    return [...routes.values()];
  }

  /** Counts are sent again, whatever it was; differences only where it may pass. */
  #putBack(routes: readonly RouteReport[], areKept: boolean): void {
    for (const { route, differences: _, ...counts } of routes) this.#count(route, counts);
    const found = routes.flatMap(({ route, differences = [] }) => differences.map((difference) => ({ route, difference })));
    if (!areKept) {
      this.#dropped += found.length;
      return;
    }
    const later = this.#differences;
    this.#differences = [];
    this.#keep(found);
    this.#keep(later);
  }

  #count(route: string, more: Partial<Record<Verdict, number>>): void {
    if (Object.keys(more).length === 0) return;
    const counts = this.#counts.get(route) ?? { equal: 0, different: 0, legacyFailed: 0, unifiedFailed: 0 };
    for (const [verdict, times] of Object.entries(more) as [Verdict, number][]) counts[verdict] += times;
    this.#counts.set(route, counts);
  }

  #keep(found: readonly Found[]): void {
    const room = this.#maxDifferences - this.#differences.length;
    this.#differences.push(...found.slice(0, room));
    this.#dropped += Math.max(found.length - room, 0);
  }
}

/** Whether it is worth to tell it again. What was told, and whose answer was lost, is counted twice then. */
function passes(error: unknown): boolean {
  const { status } = error as Partial<ThroughlineError>;
  return status === undefined || status === 429 || status >= 500;
}
