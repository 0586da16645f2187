import type { ThroughlineServer } from '../server/client.js';
import { durationMs } from '../server/limit.js';
import { isRouteName, ROUTE_NAME } from '../server/route-name.js';
import type { RouteMode } from '../server/types.js';
import { BothSides, type Side, type SideHandler, type StateReader } from './route-migration/both-sides.js';
import { RecordedEffects } from './route-migration/effects.js';
import { FieldNames } from './route-migration/field-names.js';
import { Masking } from './route-migration/masking.js';
import { Modes } from './route-migration/modes.js';
import { Reports } from './route-migration/reports.js';
import { endsWithin } from './route-migration/waiting.js';

export type { Side, SideHandler, StateReader, StoredStates } from './route-migration/both-sides.js';
export { EffectNotAllowed, type Effects } from './route-migration/effects.js';

/** Where something went wrong that the buyer is not told of. */
export interface FailureSite {
  /** The route; nothing where it is about all of them. */
  readonly route?: string;
  /** One of the sides, reading what is stored, asking for the modes, or reporting. */
  readonly during: Side | 'state' | 'modes' | 'report';
}

/** What a migration needs, and how it goes about it. */
export interface RouteMigrationOptions {
  /** The server that keeps the modes. Its service key needs `sessions:read` and `sessions:write`. */
  server: Pick<ThroughlineServer, 'routeModes' | 'reportParity'>;
  /** How old the modes may be, in milliseconds; 1 s where nothing is said. */
  refreshMs?: number;
  /** How long an answer waits for the other side, in milliseconds; 2 s where nothing is said. */
  limitMs?: number;
  /** How long each side may take, in milliseconds; 30 s where nothing is said. Then it counts as failed: less than the runtime gives a request. */
  maximumMs?: number;
  /**
   * How large the body of a request may be, in bytes, that both sides are given: it is kept in memory for that. 1 MiB where nothing is
   * said. Of one that is larger the answering side alone is asked, and the other counts as failed.
   */
  maxBodyBytes?: number;
  /** How long is collected before it is reported, in milliseconds; 1 s where nothing is said. */
  reportMs?: number;
  /** How many differences are kept while they can't be reported; 1,000 where nothing is said. */
  maxDifferences?: number;
  /** Keeps the runtime going until this is done: `after` of Next.js, `waitUntil` of Vercel. A route may have its own. */
  waitUntil?: (work: Promise<unknown>) => void;
  /** Hears of what the buyer does not; else the console is told where it was and of which kind. An error may have personal data. */
  onError?: (error: unknown, site: FailureSite) => void;
}

/** The two sides of a route, and how they are compared. */
export interface RouteOptions<Context = unknown, R extends Request = Request> {
  /** The old implementation. A route without it is `only`, whatever the server says. */
  legacy?: SideHandler<Context, R>;
  /** The new one. */
  unified: SideHandler<Context, R>;
  /** How it works as long as the server has not been heard of since the process began; `off` where nothing is said. */
  initialMode?: RouteMode;
  /** Fields that may differ: `updatedAt` is each of this name, `session.version` or `products[].id` the one in this place, with all within. */
  ignore?: readonly string[];
  /** Fields in which nothing personal is, named in the same way: their texts are reported as they are. */
  shown?: readonly string[];
  /** By how much numbers may differ, for fields that are named in the same way. Where nothing is said they have to be equal. */
  tolerance?: Readonly<Record<string, number>>;
  /** Reads what both sides have stored after the request, to be compared as well, as `state.…`. */
  state?: StateReader<Context, R>;
  /** As the migration's, for runtimes where it comes with each request. */
  waitUntil?: (work: Promise<unknown>, context: Context) => void;
}

/** Answers requests, as Next.js and others call it. */
export type RouteHandler<Context = unknown, R extends Request = Request> = (
  request: R,
  ...rest: unknown extends Context ? [context?: Context] : [context: Context]
) => Promise<Response>;

const MAX_BODY_BYTES = 1024 * 1024;
const PAUSE_BETWEEN_WARNINGS_MS = 60_000;

/**
 * A shop that moves to Throughline route by route. How each route works is kept by the server and may be changed at any time:
 * `off` (the legacy side alone), `shadow` (it answers, the unified one runs as well), `compare` (and what both say is compared),
 * `on` (the unified one answers, and the legacy one runs as well and is compared), `only` (the unified one alone).
 *
 * ```ts
 * const migration = new RouteMigration({ server });
 *
 * export const POST = migration.route('POST /api/upsell/process', { legacy, unified });
 * ```
 *
 * One object serves the whole process.
 */
export class RouteMigration {
  readonly #options: RouteMigrationOptions;
  readonly #limitMs: number;
  readonly #maximumMs: number;
  readonly #modes: Modes;
  readonly #reports: Reports;
  readonly #masking = new Masking();
  /** What goes on after its answer. */
  readonly #running = new Set<Promise<unknown>>();
  readonly #warnedAt = new Map<string, number>();

  /** @throws {TypeError} where one of the times is none. */
  constructor(options: RouteMigrationOptions) {
    this.#options = options;
    const { server, refreshMs = 1_000, limitMs = 2_000, maximumMs = 30_000, reportMs = 1_000, maxDifferences = 1_000 } = options;
    this.#limitMs = durationMs('limitMs', limitMs);
    this.#maximumMs = durationMs('maximumMs', maximumMs);
    this.#modes = new Modes((timeoutMs) => server.routeModes({ timeoutMs }), durationMs('refreshMs', refreshMs), (error) => this.#fail(error, { during: 'modes' }));
    this.#reports = new Reports((routes, timeoutMs) => server.reportParity(routes, { timeoutMs }), {
      pauseMs: durationMs('reportMs', reportMs),
      maxDifferences,
      onError: (error) => this.#fail(error, { during: 'report' }),
    });
  }

  /**
   * A route: what answers its requests.
   *
   * @param name The route, as the server is to call it: 1 to 100 characters.
   * @throws {TypeError} where that can't be its name.
   */
  route<Context = unknown, R extends Request = Request>(name: string, options: RouteOptions<Context, R>): RouteHandler<Context, R> {
    if (!isRouteName(name)) throw new TypeError(ROUTE_NAME);
    const { legacy, unified, initialMode = 'off', ignore = [], shown = [], tolerance = {}, state } = options;
    const all = (names: readonly string[]) => new FieldNames(names.map((name) => [name, true as const]));
    const rules = { ignored: all(ignore), tolerance: new FieldNames(Object.entries(tolerance)) };
    const shownFields = all(shown);

    return async (request, ...[context]) => {
      const given = context as Context;
      if (!legacy) return unified(request, given, new RecordedEffects().first);
      const waitUntil = options.waitUntil ? (work: Promise<unknown>) => options.waitUntil!(work, given) : this.#options.waitUntil;
      const mode = (await this.#modes.of(name, (work) => this.#keepAlive(work, waitUntil))) ?? initialMode;
      if (mode === 'off' || mode === 'only') {
        const handler = mode === 'off' ? legacy : unified;
        return handler(request, given, new RecordedEffects().first);
      }
      const both = new BothSides<Context, R>(
        {
          handlers: { legacy, unified },
          state,
          rules,
          shown: shownFields,
          masking: this.#masking,
          limitMs: this.#limitMs,
          maximumMs: this.#maximumMs,
          maxBodyBytes: this.#options.maxBodyBytes ?? MAX_BODY_BYTES,
          onFailure: (error, during) => this.#fail(error, { route: name, during }),
          onCompared: (verdict, differences) => this.#reports.add(name, verdict, differences),
          // A runtime that ends with its requests reports in them.
          keepAlive: (work) => this.#keepAlive(work.then(() => this.#report(waitUntil !== undefined)), waitUntil),
        },
        mode,
        request,
        given,
      );
      return both.answer();
    };
  }

  /** How many differences could not be reported: they were too many at once, or the server did not take them. */
  get dropped(): number {
    return this.#reports.dropped;
  }

  /**
   * Waits for what goes on after its answer, and reports all that is not reported yet. For the end of a process.
   *
   * @returns Whether the server has all of it.
   */
  async flush(): Promise<boolean> {
    while (this.#running.size > 0 && (await endsWithin(Promise.all(this.#running), durationMs('maximumMs', 2 * this.#maximumMs))));
    return this.#reports.flush();
  }

  async #report(isAtOnce: boolean): Promise<void> {
    if (isAtOnce) await this.#reports.send();
    else this.#reports.schedule();
  }

  /** @param work Is never rejected. */
  #keepAlive(work: Promise<unknown>, waitUntil: ((work: Promise<unknown>) => void) | undefined): void {
    this.#running.add(work);
    void work.then(() => this.#running.delete(work));
    try {
      waitUntil?.(work);
    } catch {
      // It goes on as long as the runtime lets it.
    }
  }

  /** Nothing of it ever reaches the buyer. */
  #fail(error: unknown, site: FailureSite): void {
    try {
      if (this.#options.onError) this.#options.onError(error, site);
      else this.#warn(error, site);
    } catch {
      // Who hears of failures has failed.
    }
  }

  /** Without the message, which may name what the buyer has entered; and not for each request. */
  #warn(error: unknown, { route, during }: FailureSite): void {
    const place = route === undefined ? during : `${during} of ${route}`;
    const now = performance.now();
    if (now - (this.#warnedAt.get(place) ?? -Infinity) < PAUSE_BETWEEN_WARNINGS_MS) return;
    this.#warnedAt.set(place, now);
    const { name, code } = (error ?? {}) as { name?: unknown; code?: unknown };
    const kind = [code, name].find((word) => typeof word === 'string' && /^\w{1,40}$/.test(word)) ?? 'unknown';
    // Written out: of what is said to `console`, which is the bindings' alone, the bundle has nothing.
    globalThis.console.warn(`throughline/legacy: ${place} failed (${kind})`);
  }
}
