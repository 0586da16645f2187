import type { ThroughlineError } from '../../server/error.js';
import type { ReportedDifference, RouteReport } from '../../server/types.js';
import { Deadline } from './waiting.js';

/** What came of a request of which both sides were asked. */
export type Verdict = 'equal' | 'different' | 'legacyFailed' | 'unifiedFailed';

/** How much the server takes at once: the bytes are those of the body, less what is around the entries. */
const MAX_ROUTES = 100;
const MAX_DIFFERENCES = 200;
const MAX_BYTES = 60_000;

/** What the server says to a body that is larger than it takes. */
const TOO_LARGE = 413;

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
    const reports = this.#takeAll();
    for (let report = reports.shift(); report; report = reports.shift()) {
      try {
        await this.#send(report, TIMEOUT_MS);
        this.#failures = 0;
        this.#notBefore = -Infinity;
      } catch (error) {
        // What is between here and the server may take less than the server does.
        const halves = (error as Partial<ThroughlineError>).status === TOO_LARGE ? halvesOf(report) : [];
        if (halves.length > 0) {
          reports.unshift(...halves);
          continue;
        }
        this.#failures++;
        this.#notBefore = performance.now() + Math.min(this.#pauseMs * 2 ** this.#failures, LONGEST_PAUSE_MS);
        this.#putBack(report, passes(error), reports);
        this.#onError(error);
        return false;
      }
    }
    return this.#isEmpty;
  }

  get #isEmpty(): boolean {
    return this.#counts.size === 0 && this.#differences.length === 0;
  }

  /** All that there is, in parts that the server takes at once. */
  #takeAll(): RouteReport[][] {
    const parts = new Parts();
    for (const { route, difference } of this.#differences) parts.add({ route, differences: [difference] });
    for (const [route, counts] of this.#counts) parts.add({ route, ...counts });
    this.#differences = [];
    this.#counts.clear();
    return parts.all;
  }

  /** Counts are sent again, whatever it was, and what was not sent yet; the differences of `report` only where it may pass. */
  #putBack(report: readonly RouteReport[], areKept: boolean, unsent: readonly (readonly RouteReport[])[]): void {
    const later = this.#differences;
    this.#differences = [];
    const found = foundIn(report);
    if (areKept) this.#keep(found);
    else this.#dropped += found.length;
    for (const routes of unsent) this.#keep(foundIn(routes));
    this.#keep(later);
    for (const { route, differences: _, ...counts } of [report, ...unsent].flat()) this.#count(route, counts);
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

/** Reports that are filled one after the other, each with as much as the server takes at once. */
class Parts {
  readonly all: RouteReport[][] = [];
  /** The routes of the last one. */
  #routes = new Map<string, RouteReport>();
  #differences = 0;
  #bytes = 0;

  add({ route, differences = [], ...counts }: RouteReport): void {
    const bytes = bytesOf([counts, differences]);
    const isFull = this.#bytes + bytesOf(route) + bytes > MAX_BYTES || this.#differences + differences.length > MAX_DIFFERENCES;
    if (this.all.length === 0 || isFull || (!this.#routes.has(route) && this.#routes.size === MAX_ROUTES)) this.#begin();
    let entry = this.#routes.get(route);
    if (!entry) {
      this.#routes.set(route, (entry = { route }));
      this.all.at(-1)!.push(entry);
      this.#bytes += bytesOf(route);
    }
    Object.assign(entry, counts);
    if (differences.length > 0) (entry.differences ??= []).push(...differences);
    this.#bytes += bytes;
    this.#differences += differences.length;
  }

  #begin(): void {
    this.all.push([]);
    this.#routes = new Map();
    this.#differences = 0;
    this.#bytes = 0;
  }
}

/** What an entry adds to a body in JSON, with what is around it. */
function bytesOf(value: unknown): number {
  return new TextEncoder().encode(JSON.stringify(value)).byteLength + 32;
}

/** The same in two reports; none where it can't be less. */
function halvesOf(report: readonly RouteReport[]): RouteReport[][] {
  const entries = report.flatMap(({ route, differences = [], ...counts }) => [
    ...(Object.keys(counts).length > 0 ? [{ route, ...counts }] : []),
    ...differences.map((difference): RouteReport => ({ route, differences: [difference] })),
  ]);
  if (entries.length < 2) return [];
  const middle = Math.ceil(entries.length / 2);
  return [entries.slice(0, middle), entries.slice(middle)].flatMap((half) => {
    const parts = new Parts();
    for (const entry of half) parts.add(entry);
    return parts.all;
  });
}

function foundIn(routes: readonly RouteReport[]): Found[] {
  return routes.flatMap(({ route, differences = [] }) => differences.map((difference) => ({ route, difference })));
}

/** Whether it is worth to tell it again. What was told, and whose answer was lost, is counted twice then. */
function passes(error: unknown): boolean {
  const { status } = error as Partial<ThroughlineError>;
  return status === undefined || status === 429 || status >= 500;
}
