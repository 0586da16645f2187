import { ThroughlineError } from './error.js';
import { Http, type ServerOptions } from './http.js';
import { KeptReads } from './kept-reads.js';
import { isRouteName, ROUTE_NAME } from './route-name.js';
import type {
  CallOptions,
  Command,
  CreatedSession,
  Erasures,
  ExchangedCookie,
  FunnelChoice,
  Gone,
  Got,
  Hold,
  Imported,
  IssuedToken,
  Journal,
  JournalRange,
  LegacySession,
  ModeOfRoute,
  NewSession,
  Outcomes,
  Parity,
  PersonalData,
  RouteMode,
  RouteReport,
  Session,
  SessionFilter,
  SessionPatch,
  Statistics,
  StatisticsFilter,
  Subject,
  Validity,
  VerifiedToken,
  WriteOptions,
} from './types.js';

/** How many ids the server takes in one request. */
const MAX_IDS = 100;

/** What stands in the place of an id in other paths, or is taken for a folder. */
const NO_IDS = new Set(['stats', 'batch', '.', '..']);

/**
 * A Throughline server, as a shop's back end talks to it. Whatever fails for a moment is tried again, and done once. One object
 * serves the whole process.
 */
export class ThroughlineServer {
  readonly #http: Http;
  readonly #kept: KeptReads | undefined;

  constructor(options: ServerOptions);
  /** @internal */
  constructor(http: Http, kept: KeptReads);
  constructor(options: ServerOptions | Http, kept?: KeptReads) {
    this.#http = options instanceof Http ? options : new Http(options);
    this.#kept = kept;
  }

  /**
   * The same server for the time of one request: what was read is kept, and read once however often it is asked for. A change through
   * it forgets what it may have changed. Make one for each request, and never keep it longer.
   */
  forRequest(): ThroughlineServer {
    return new ThroughlineServer(this.#http, new KeptReads());
  }

  /** Creates a session; its token is for the buyer's browser. Back ends may name prices and an id. */
  async createSession(session: NewSession = {}, options: WriteOptions = {}): Promise<CreatedSession> {
    return this.#change(session.id ?? undefined, async () => {
      const created = await this.#http.ask('post', '/v1/sessions', { header: once(options), body: session }, options);
      return withToken(created);
    });
  }

  /** The session, or `null` where there is none. An erased one is a tombstone. */
  async getSession(id: string, options: CallOptions = {}): Promise<Session | null> {
    return this.#read(['session', id], id, options, (options) =>
      orNone(async () => this.#http.ask('get', '/v1/sessions/{id}', { path: pathOf(id) }, options)),
    );
  }

  /** What there is of each, in the order of the ids. */
  async getSessions(ids: readonly string[], options: CallOptions = {}): Promise<Got[]> {
    return this.#read(['sessions', ids], undefined, options, (options) =>
      inParts(ids, (ids) => this.#http.ask('post', '/v1/sessions/batch/get', { body: { ids } }, options)),
    );
  }

  /**
   * Changes a session, all of it or nothing. With `ifVersion` only where it is at that version still: `staleVersion` else.
   */
  async updateSession(id: string, patch: SessionPatch, options: WriteOptions & { ifVersion?: number } = {}): Promise<Session> {
    const header = { ...once(options), ...(options.ifVersion !== undefined && { 'If-Match': `"${options.ifVersion}"` }) };
    return this.#change(id, () => this.#http.ask('patch', '/v1/sessions/{id}', { path: pathOf(id), header, body: patch }, options));
  }

  /** Removes a session's personal data for good; `false` where there is no such session. */
  async deleteSession(id: string, options: CallOptions = {}): Promise<boolean> {
    const remove = async () => {
      await this.#http.ask('delete', '/v1/sessions/{id}', { path: pathOf(id) }, options);
      return true;
    };
    return this.#change(id, async () => (await orNone(remove)) ?? false);
  }

  /** As `deleteSession`, for each; what became of each is in the order of the ids. */
  async deleteSessions(ids: readonly string[], options: CallOptions = {}): Promise<Gone[]> {
    return this.#change(ids, () =>
      inParts(ids, (ids) => this.#http.ask('post', '/v1/sessions/batch/delete', { body: { ids } }, options)),
    );
  }

  /** Whether the buyer can go on, when the session ends, and what the next step lacks; `null` where there is no such session. */
  async validateSession(id: string, options: CallOptions = {}): Promise<Validity | null> {
    return this.#read(['validity', id], id, options, (options) =>
      orNone(async () => this.#http.ask('post', '/v1/sessions/{id}/validate', { path: pathOf(id) }, options)),
    );
  }

  /** Lets a session live this long from now, or for the funnel's default, up to the funnel's longest life. */
  async extendSession(id: string, ttlMs?: number, options: CallOptions = {}): Promise<Session> {
    const body = ttlMs === undefined ? {} : { ttlMs };
    return this.#change(id, () => this.#http.ask('post', '/v1/sessions/{id}/extend', { path: pathOf(id), body }, options));
  }

  /** All sessions that the filter holds for, the latest one first. They are read in parts, as far as somebody goes on. */
  async *listSessions(filter: SessionFilter = {}, options: CallOptions = {}): AsyncGenerator<Session, void, undefined> {
    const { status, ...others } = filter;
    let cursor: string | null | undefined;
    do {
      const query = { ...others, ...(status && { status: [...status] }), ...(cursor && { cursor }) };
      const part = await this.#read(['list', query], undefined, options, (options) =>
        this.#http.ask('get', '/v1/sessions', { query }, options),
      );
      yield* part.sessions;
      cursor = part.nextCursor;
    } while (cursor);
  }

  /** All sessions of a buyer, the latest one first. */
  async getByEmail(email: string, options: CallOptions = {}): Promise<Session[]> {
    const sessions: Session[] = [];
    for await (const session of this.listSessions({ email }, options)) sessions.push(session);
    return sessions;
  }

  /** How the sessions do that were created in some time: the last 24 hours where nothing is said. */
  async stats(filter: StatisticsFilter = {}, options: CallOptions = {}): Promise<Statistics> {
    return this.#read(['stats', filter], undefined, options, (options) =>
      this.#http.ask('get', '/v1/sessions/stats', { query: { ...filter } }, options),
    );
  }

  /** A part of what has happened to a session; the next one begins `after: nextAfter`. */
  async events(id: string, range: JournalRange = {}, options: CallOptions = {}): Promise<Journal> {
    return this.#read(['events', id, range], id, options, async (options) =>
      this.#http.ask('get', '/v1/sessions/{id}/events', { path: pathOf(id), query: { ...range } }, options),
    );
  }

  /** Issues a command; the session after it. Throws why it was refused, if it was. */
  async command(id: string, command: Command, options: WriteOptions = {}): Promise<Session> {
    const { results, session } = await this.commands(id, [command], options);
    for (const result of results) {
      if (result.outcome !== 'rejected') continue;
      const { code, mendableBy, message } = result.reason;
      throw new ThroughlineError(message, { code, mendableBy });
    }
    return session;
  }

  /** Issues 1 to 50 commands. Each is judged by itself: what became of each is in their order. */
  async commands(id: string, commands: readonly Command[], options: WriteOptions = {}): Promise<Outcomes> {
    const { idempotencyKey } = options;
    const header = idempotencyKey === undefined ? {} : once(options);
    const body = { commands: idempotencyKey === undefined ? numbered(commands) : [...commands] };
    return this.#change(id, () => this.#http.ask('post', '/v1/sessions/{id}/commands', { path: pathOf(id), header, body }, options));
  }

  /** A token for a browser that goes on with the session. Others stay good. */
  async issueToken(id: string, options: CallOptions = {}): Promise<IssuedToken> {
    return withToken(await this.#http.ask('post', '/v1/sessions/{id}/token', { path: pathOf(id) }, options));
  }

  /** Ends all tokens and codes of a session, for good. The session goes on, with a new token. */
  async revokeAccess(id: string, options: WriteOptions = {}): Promise<Session> {
    return this.command(id, { type: 'revokeAccess' }, options);
  }

  /** What a browser's token is good for; `null` where it is not: made up, another tenant's, over, or revoked. */
  async verifyToken(token: string, options: CallOptions = {}): Promise<VerifiedToken | null> {
    return this.#read(['token', token], undefined, options, async (options) => {
      const { active, sessionId, issuedAt, expiresAt } = await this.#http.ask('post', '/v1/tokens/introspect', { body: { token } }, options);
      return active && sessionId && issuedAt && expiresAt ? { sessionId, issuedAt, expiresAt } : null;
    });
  }

  /** Brings in what the legacy systems have of 1 to 100 sessions; what became of each is in their order. */
  async importSessions(sessions: readonly LegacySession[], funnel?: FunnelChoice, options: CallOptions = {}): Promise<Imported[]> {
    const body = { sessions: [...sessions], ...(funnel && { funnel }) };
    const ids = sessions.map(({ id }) => id);
    return this.#change(ids, async () => (await this.#http.ask('post', '/v1/sessions/batch/import', { body }, options)).results);
  }

  /**
   * A token for the value of the old shop's cookie `upsell_session`, which is good once.
   *
   * @param claim A secret of 32 to 256 bytes that the browser keeps: with it, it comes back when its token is over.
   */
  async exchangeLegacyCookie(cookie: string, { claim, ...options }: CallOptions & { claim?: string } = {}): Promise<ExchangedCookie> {
    // Whoever asks again with the same secret is answered again: nothing else tells that the answer was lost.
    const body = { cookie, claim: claim ?? crypto.randomUUID() };
    return this.#change(undefined, async () => withToken(await this.#http.ask('post', '/v1/legacy-cookie', { body }, options)));
  }

  /** All data of a buyer or session. */
  async exportData(subject: Subject, options: CallOptions = {}): Promise<PersonalData> {
    return this.#http.ask('post', '/v1/privacy/export', { body: subject }, options);
  }

  /** Erases the personal data of a buyer or session. `isComplete` says whether something is left: held, or to be asked for again. */
  async eraseData(subject: Subject, options: CallOptions = {}): Promise<Erasures> {
    // Which sessions it has changed is known when it is done, if at all.
    return this.#change(undefined, () => this.#http.ask('post', '/v1/privacy/erase', { body: subject }, options));
  }

  /** Keeps a session from being erased, and from being deleted when its retention is over. */
  async holdSession(id: string, hold: Hold, options: WriteOptions = {}): Promise<Session> {
    return this.command(id, { type: 'setHold', hold }, options);
  }

  /** Ends a hold. */
  async releaseSession(id: string, options: WriteOptions = {}): Promise<Session> {
    return this.command(id, { type: 'setHold', hold: null }, options);
  }

  /** The modes of all routes that one was ever set for. A route that is not among them is `off`. Always asked for anew. */
  async routeModes(options: CallOptions = {}): Promise<ModeOfRoute[]> {
    return (await this.#http.ask('get', '/v1/routes', {}, options)).routes;
  }

  /** Sets how a route works. The shop's back ends do so when they ask next; the audit log tells of it. */
  async setRouteMode(route: string, mode: RouteMode, options: CallOptions = {}): Promise<void> {
    await this.#http.ask('put', '/v1/routes/{route}', { path: { route: routeOf(route) }, body: { mode } }, options);
  }

  /**
   * Tells what was found by comparing: 1 to 100 routes with 200 differences at most, their values masked. It is not tried again by
   * itself: what is sent again after an answer that was lost is counted twice.
   */
  async reportParity(routes: readonly RouteReport[], options: CallOptions = {}): Promise<void> {
    await this.#http.ask('post', '/v1/parity', { body: { routes: [...routes] } }, { ...options, retries: 0 });
  }

  /** How far both sides agree, on each route that has a mode or was compared. */
  async parity(options: CallOptions = {}): Promise<Parity> {
    return this.#http.ask('get', '/v1/parity', {}, options);
  }

  /** Begins counting again: of one route, or of all where none is named. */
  async forgetParity(route?: string, options: CallOptions = {}): Promise<void> {
    await this.#http.ask('delete', '/v1/parity', { query: { ...(route !== undefined && { route: routeOf(route) }) } }, options);
  }

  #read<T>(question: unknown, sessionId: string | undefined, options: CallOptions, ask: (options: CallOptions) => Promise<T>): Promise<T> {
    return this.#kept ? this.#kept.get(JSON.stringify(question), sessionId, options, ask) : ask(options);
  }

  /** A change of these sessions; of any where nothing is said. */
  async #change<T>(ids: string | readonly string[] | undefined, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } finally {
      // After it, also where it failed: what was read meanwhile may be of before, and an answer that was lost may be a change.
      this.#kept?.forget(ids === undefined ? undefined : [ids].flat());
    }
  }
}

/** The header by which a request is done once, however often it is sent. */
function once({ idempotencyKey }: WriteOptions): { 'Idempotency-Key': string } {
  const key = idempotencyKey ?? crypto.randomUUID();
  if (/^[ -~]{1,255}$/.test(key)) return { 'Idempotency-Key': key };
  const detail = '`idempotencyKey` has to be 1 to 255 printable ASCII characters, such as a UUID';
  throw new ThroughlineError(detail, { code: 'idempotencyKeyMalformed', mendableBy: 'permanent' });
}

/**
 * The commands with numbers, under a name for this call, by which the session itself knows what it has applied. A key would do the same
 * for any request; but it is written before the change, and the answer after it.
 */
function numbered(commands: readonly Command[]): Command[] {
  const clientId = `once-${crypto.randomUUID()}`;
  let seq = 0;
  return commands.map((command) => (command.clientId == null && command.seq == null ? { ...command, clientId, seq: ++seq } : command));
}

/** The session's place in a path. What can't be an id would lead to another place. */
function pathOf(id: string): { id: string } {
  if (/^[\w.:-]{1,64}$/.test(id) && !NO_IDS.has(id)) return { id };
  throw new ThroughlineError('there is no session with this id, nor can there be one', { code: 'sessionNotFound', mendableBy: 'permanent' });
}

/** A route's name. What can be none would lead to another place, or forget all of them. */
function routeOf(route: string): string {
  if (isRouteName(route)) return route;
  throw new ThroughlineError(ROUTE_NAME, { code: 'invalidBody', mendableBy: 'permanent' });
}

async function orNone<T>(work: () => Promise<T>): Promise<T | null> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ThroughlineError && error.code === 'sessionNotFound') return null;
    throw error;
  }
}

/** As many ids as there are, in requests as large as the server takes. */
async function inParts<T>(ids: readonly string[], ask: (ids: string[]) => Promise<{ results: T[] }>): Promise<T[]> {
  const results: T[] = [];
  for (let from = 0; from < ids.length; from += MAX_IDS) results.push(...(await ask(ids.slice(from, from + MAX_IDS))).results);
  return results;
}

/** Of what back ends are answered, a token is always a part: only a browser's may be in a cookie. */
function withToken<T extends { token?: string | null }>(answer: T): T & { token: string } {
  return answer as T & { token: string };
}
