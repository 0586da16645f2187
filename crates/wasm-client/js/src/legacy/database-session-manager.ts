import { ThroughlineError } from '../server/error.js';
import type { Command, Session } from '../server/types.js';
import type { Refusals } from './refusals.js';
import { changesOf, type FunnelSessionRow, type NewRow, type RowChanges, type RowStatus, toNewSession, toRow, wrongSums } from './row.js';
import { type Call, refusal, run, type UnifiedSessions } from './unified-sessions.js';

/** Which of today's sessions may be what a row's status says. */
const STATUSES: Record<RowStatus, readonly Session['status'][]> = {
  pending: ['pending'],
  processing: ['pending', 'processing'],
  completed: ['processing', 'completed'],
  failed: ['failed'],
  expired: ['expired'],
};

/** The commands after which it all adds up to something else. */
const REPRICING: ReadonlySet<string> = new Set(['setItems', 'setCoupon', 'setAdjustments', 'setCustomer'] satisfies Command['type'][]);

const call = (method: string, what: string): Call => ({ method, said: `Failed to ${what}` });
const CREATE = call('createSession', 'create session');
const GET = call('getSession', 'get session');
const UPDATE = call('updateSession', 'update session');
const DELETE = call('deleteSession', 'delete session');
const LIST = call('getSessionsByStatus', 'get sessions by status');
const SET_STATUS = call('updateSessionStatus', 'update session status');
const ADD_PAYMENT = call('addPaymentInfo', 'update session with payment info');
const COMPLETE = call('completeSession', 'complete session');
const FAIL = call('failSession', 'fail session');

/**
 * The legacy `DatabaseSessionManager`: rows of `funnel_sessions`, which are today's sessions. What the rules forbid is a
 * `LegacyCallRefused`, or is noted and left out in compatibility mode.
 */
export class DatabaseSessionManager {
  readonly #sessions: UnifiedSessions;
  readonly #refusals: Refusals;

  /** @internal */
  constructor(sessions: UnifiedSessions, refusals: Refusals) {
    this.#sessions = sessions;
    this.#refusals = refusals;
  }

  /**
   * Creates a session. Prices are the shop's own, tax and shipping those of the metadata; what it says besides that they add up to has
   * to be so.
   */
  async createSession(data: NewRow): Promise<FunnelSessionRow> {
    return run(CREATE, async () => {
      const { server, funnel, currency } = this.#sessions;
      const creation = toNewSession(data, currency);
      for (const why of creation.forbidden) this.#refusals.refuse(refusal(CREATE, why));
      let session: Session;
      try {
        ({ session } = await server.createSession({ ...creation.session, ...(funnel && { funnel }) }));
      } catch (error) {
        // Whether it is the caller's fault. Then it is taken over piece by piece, and each refusal is noted by itself.
        if (!(error instanceof ThroughlineError) || error.status === undefined || error.status >= 500 || error.status === 429) throw error;
        const { code, mendableBy = 'permanent', detail: message } = error;
        this.#refusals.refuse(refusal(CREATE, { code, mendableBy, message }));
        const { id } = creation.session;
        ({ session } = await server.createSession({ ...(id !== undefined && { id }), ...(funnel && { funnel }) }));
        return toRow(await this.#change(CREATE, session.id, creation.changes));
      }
      for (const why of wrongSums(creation.changes.metadata, session)) this.#refusals.refuse(refusal(CREATE, why));
      return toRow(session);
    });
  }

  /** The session; `null` where there is none, or its time is over. Nothing is written, and what was paid is there. */
  async getSession(id: string): Promise<FunnelSessionRow | null> {
    return run(GET, async () => {
      const session = await this.#sessions.find(id);
      return session && toRow(session);
    });
  }

  /**
   * Changes the columns that are named. Metadata is merged: what is not named stays, `null` removes it.
   * @throws {LegacyCallRefused} where there is no such session, or the rules forbid it.
   */
  async updateSession(id: string, changes: RowChanges): Promise<FunnelSessionRow> {
    return run(UPDATE, async () => toRow(await this.#change(UPDATE, id, changes)));
  }

  /** Removes a session's personal data for good; `false` where there is no such session. */
  async deleteSession(id: string): Promise<boolean> {
    return run(DELETE, () => this.#sessions.server.deleteSession(id));
  }

  /** 0: the server ends and deletes sessions by itself. */
  async cleanupExpiredSessions(): Promise<number> {
    return Promise.resolve(0);
  }

  /** All with this status, the newest first. What was paid is `completed`, also while offers are open. */
  async getSessionsByStatus(status: RowStatus): Promise<FunnelSessionRow[]> {
    return run(LIST, async () => {
      const rows: FunnelSessionRow[] = [];
      for await (const session of this.#sessions.server.listSessions({ status: STATUSES[status] ?? [], limit: 200 })) {
        const row = toRow(session);
        if (row.status === status) rows.push(row);
      }
      return rows;
    });
  }

  /** `processing` begins the payment. A session is not paid, over or new by being called so: that is refused. */
  async updateSessionStatus(id: string, status: RowStatus): Promise<FunnelSessionRow> {
    return run(SET_STATUS, async () => toRow(await this.#change(SET_STATUS, id, { status })));
  }

  /** Begins the payment, and keeps what the gateway has told so far. */
  async addPaymentInfo(id: string, paymentToken: string, transactionId?: string): Promise<FunnelSessionRow> {
    const told = { payment_token: paymentToken, ...(transactionId && { transaction_id: transactionId }) };
    return run(ADD_PAYMENT, async () => toRow(await this.#change(ADD_PAYMENT, id, { status: 'processing', ...told })));
  }

  /** The session was paid: what it owes, by this transaction. */
  async completeSession(id: string, transactionId: string, vaultId?: string): Promise<FunnelSessionRow> {
    const paid = { transaction_id: transactionId, ...(vaultId && { vault_id: vaultId }) };
    return run(COMPLETE, async () => toRow(await this.#change(COMPLETE, id, { status: 'completed', ...paid })));
  }

  /** The payment failed; the buyer may try again. The metadata stays, and says why. */
  async failSession(id: string, error: string): Promise<FunnelSessionRow> {
    return run(FAIL, async () => toRow(await this.#change(FAIL, id, { status: 'failed', current_step: 'failed', metadata: { error } })));
  }

  #change(call: Call, id: string, changes: RowChanges): Promise<Session> {
    return this.#sessions.change(call, id, this.#refusals, (session) => {
      const { next, ...change } = changesOf(session, changes, Date.now());
      const wrong = wrongSums(changes.metadata, session);
      if (wrong.length === 0 || !change.commands.some(({ type }) => REPRICING.has(type))) {
        return { ...change, forbidden: [...change.forbidden, ...wrong], ...(next && { next }) };
      }
      // What the same call changes, it may name the sums of.
      return {
        ...change,
        next: (after) => {
          const { forbidden, ...rest } = next?.(after) ?? { commands: [], forbidden: [] };
          return { ...rest, forbidden: [...forbidden, ...wrongSums(changes.metadata, after)] };
        },
      };
    });
  }
}
