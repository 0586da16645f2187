import type { ThroughlineServer } from '../server/client.js';
import { ThroughlineError } from '../server/error.js';
import type { Session } from '../server/types.js';
import { LegacyCallRefused, type Refusal, type Refusals } from './refusals.js';
import { type Change, isPaid } from './row.js';

/** What is to be known of a shop's sessions. */
export interface UnifiedOptions {
  /** The currency in which the legacy code names prices: `USD` where nothing is said. */
  currency?: string;
  /** The funnel that new sessions follow; `default` where nothing is said. */
  funnel?: string;
  /**
   * The row that the legacy database still has of a session, in which case it is brought in. Without this, a session that nobody has
   * brought in is not there.
   */
  legacyRow?: (id: string) => Promise<object | null | undefined>;
}

/** A legacy call: its method, and what its errors began with. */
export interface Call {
  method: string;
  said: string;
}

/** How many sessions are remembered as heard of; then it begins anew. */
const HEARD = 10_000;

/** Today's sessions as the legacy calls need them. */
export class UnifiedSessions {
  readonly currency: string;
  readonly funnel: { id: string } | undefined;
  readonly #legacyRow: UnifiedOptions['legacyRow'];
  /** The sessions whose row was asked for. */
  readonly #heard = new Set<string>();

  constructor(
    readonly server: ThroughlineServer,
    { currency = 'USD', funnel, legacyRow }: UnifiedOptions,
  ) {
    this.currency = currency;
    this.funnel = funnel === undefined ? undefined : { id: funnel };
    this.#legacyRow = legacyRow;
  }

  /** The session, if it is there: neither erased nor, unpaid, over. What was paid does not end. */
  async find(id: string): Promise<Session | null> {
    const known = await this.server.getSession(id);
    // What a browser has brought under this id may lack what the row says.
    const isBrought = known?.source === 'migration' && !this.#heard.has(id);
    const session = known && !isBrought ? known : ((await this.#bringIn(id)) ?? known);
    if (!session || session.status === 'expired' || (!isPaid(session) && Date.parse(session.expiresAt) <= Date.now())) return null;
    // An erased order keeps what holds no personal data.
    if (session.email != null || !isPaid(session)) return session;
    const validity = await this.server.validateSession(id);
    return validity?.problems.some(({ code }) => code === 'sessionErased') ? null : session;
  }

  /** Changes a session; what it is then. What must not be set by hand is known before anything is changed. */
  async change(call: Call, id: string, refusals: Refusals, changeOf: (session: Session) => Change): Promise<Session> {
    let session = await this.find(id);
    if (!session) {
      throw refusal(call, { code: 'sessionNotFound', mendableBy: 'permanent', message: 'there is no such session, or its time is over' });
    }
    for (let change: Change | undefined = changeOf(session); change; change = change.next?.(session)) {
      const { commands, forbidden } = change;
      for (const why of forbidden) refusals.refuse(refusal(call, why));
      if (commands.length === 0) continue;
      const { results, session: after } = await this.server.commands(id, commands);
      for (const result of results) if (result.outcome === 'rejected') refusals.refuse(refusal(call, result.reason as Refusal));
      session = after;
    }
    return session;
  }

  async #bringIn(id: string): Promise<Session | null> {
    const row = await this.#legacyRow?.(id);
    if (this.#heard.size >= HEARD) this.#heard.clear();
    this.#heard.add(id);
    if (!row) return null;
    await this.server.importSessions([{ id, legacy: { database: { ...row } } }], this.funnel);
    return this.server.getSession(id);
  }
}

/** Runs a legacy call: its errors begin as they did, and say what was wrong as today's do. */
export async function run<T>(call: Call, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof ThroughlineError)) throw error;
    const { code, mendableBy = 'permanent', detail: message } = error;
    throw new LegacyCallRefused(call.method, { code, mendableBy, message }, { said: call.said, cause: error });
  }
}

export function refusal({ method, said }: Call, why: Refusal): LegacyCallRefused {
  return new LegacyCallRefused(method, why, { said });
}
