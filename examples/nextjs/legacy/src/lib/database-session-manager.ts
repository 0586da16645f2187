import type { CustomerInfo, Product } from '@/types/session';

import { query } from './database';

export type DatabaseSessionStatus = 'pending' | 'processing' | 'completed' | 'failed' | 'expired';

export interface DatabaseSession {
  id: string;
  email: string;
  customer_info: CustomerInfo | null;
  products: Product[];
  status: DatabaseSessionStatus;
  amount: number;
  current_step: string;
  upsells_accepted: string[];
  upsells_declined: string[];
  vault_id: string | null;
  transaction_id: string | null;
  payment_token: string | null;
  coupon_code: string | null;
  metadata: Record<string, unknown> | null;
  created_at: string;
  updated_at: string;
  expires_at: string;
}

export interface CreateSessionData {
  /** The id that the funnel already uses in the browser. */
  id?: string;
  email: string;
  customerInfo?: CustomerInfo;
  products: Product[];
  couponCode?: string;
  metadata?: Record<string, unknown>;
}

const SESSION_DURATION_MS = 24 * 60 * 60 * 1000;

const COLUMNS = [
  'id',
  'email',
  'customer_info',
  'products',
  'status',
  'amount',
  'current_step',
  'upsells_accepted',
  'upsells_declined',
  'vault_id',
  'transaction_id',
  'payment_token',
  'coupon_code',
  'metadata',
  'created_at',
  'updated_at',
  'expires_at',
] as const satisfies readonly (keyof DatabaseSession)[];

const JSON_COLUMNS = new Set<string>(['customer_info', 'products', 'metadata']);

export class DatabaseSessionManager {
  private generateSessionId(): string {
    return `ws_${Date.now().toString(36)}_${Math.random().toString(36).substr(2, 9)}`;
  }

  async createSession(data: CreateSessionData): Promise<DatabaseSession> {
    const now = new Date();
    const amount = data.products.reduce((sum, product) => sum + product.price * product.quantity, 0);
    const session: DatabaseSession = {
      id: data.id ?? this.generateSessionId(),
      email: data.email,
      customer_info: data.customerInfo ?? null,
      products: data.products,
      status: 'pending',
      amount,
      current_step: 'checkout',
      upsells_accepted: [],
      upsells_declined: [],
      vault_id: null,
      transaction_id: null,
      payment_token: null,
      coupon_code: data.couponCode ?? null,
      metadata: data.metadata ?? null,
      created_at: now.toISOString(),
      updated_at: now.toISOString(),
      expires_at: new Date(now.getTime() + SESSION_DURATION_MS).toISOString(),
    };
    try {
      const placeholders = COLUMNS.map((_, index) => `$${index + 1}`).join(', ');
      const rows = await query<DatabaseSession>(
        `INSERT INTO funnel_sessions (${COLUMNS.join(', ')}) VALUES (${placeholders}) RETURNING *`,
        COLUMNS.map((column) => toColumn(column, session[column])),
      );
      return rows[0]!;
    } catch (error) {
      throw new Error(`Failed to create session: ${messageOf(error)}`);
    }
  }

  async getSession(id: string): Promise<DatabaseSession | null> {
    let session: DatabaseSession | undefined;
    try {
      [session] = await query<DatabaseSession>('SELECT * FROM funnel_sessions WHERE id = $1', [id]);
    } catch (error) {
      throw new Error(`Failed to get session: ${messageOf(error)}`);
    }
    if (!session) return null;
    if (new Date(session.expires_at) < new Date()) {
      await this.updateSessionStatus(id, 'expired');
      return null;
    }
    return session;
  }

  async updateSession(id: string, updates: Partial<DatabaseSession>): Promise<DatabaseSession> {
    const changes: Partial<DatabaseSession> = { ...updates, updated_at: new Date().toISOString() };
    const columns = COLUMNS.filter((column) => changes[column] !== undefined);
    const assignments = columns.map((column, index) => `${column} = $${index + 2}`).join(', ');
    let session: DatabaseSession | undefined;
    try {
      [session] = await query<DatabaseSession>(`UPDATE funnel_sessions SET ${assignments} WHERE id = $1 RETURNING *`, [
        id,
        ...columns.map((column) => toColumn(column, changes[column])),
      ]);
    } catch (error) {
      throw new Error(`Failed to update session: ${messageOf(error)}`);
    }
    if (!session) throw new Error('Failed to update session: no rows returned');
    return session;
  }

  async deleteSession(id: string): Promise<boolean> {
    try {
      const deleted = await query('DELETE FROM funnel_sessions WHERE id = $1 RETURNING id', [id]);
      return deleted.length > 0;
    } catch (error) {
      throw new Error(`Failed to delete session: ${messageOf(error)}`);
    }
  }

  async cleanupExpiredSessions(): Promise<number> {
    try {
      const deleted = await query('DELETE FROM funnel_sessions WHERE expires_at < $1 RETURNING id', [
        new Date().toISOString(),
      ]);
      return deleted.length;
    } catch (error) {
      throw new Error(`Failed to cleanup session: ${messageOf(error)}`);
    }
  }

  async getSessionsByStatus(status: DatabaseSessionStatus): Promise<DatabaseSession[]> {
    try {
      return await query<DatabaseSession>(
        'SELECT * FROM funnel_sessions WHERE status = $1 ORDER BY created_at DESC',
        [status],
      );
    } catch (error) {
      throw new Error(`Failed to list session: ${messageOf(error)}`);
    }
  }

  async updateSessionStatus(id: string, status: DatabaseSessionStatus): Promise<DatabaseSession> {
    return this.updateSession(id, { status });
  }

  async addPaymentInfo(id: string, paymentToken: string, transactionId?: string): Promise<DatabaseSession> {
    return this.updateSession(id, {
      payment_token: paymentToken,
      transaction_id: transactionId,
      status: 'processing',
      current_step: 'payment_processing',
    });
  }

  async completeSession(id: string, transactionId: string, vaultId?: string): Promise<DatabaseSession> {
    return this.updateSession(id, {
      status: 'completed',
      current_step: 'completed',
      transaction_id: transactionId,
      vault_id: vaultId,
    });
  }

  async failSession(id: string, error: string): Promise<DatabaseSession> {
    return this.updateSession(id, {
      status: 'failed',
      current_step: 'failed',
      metadata: { error, failed_at: new Date().toISOString() },
    });
  }
}

function toColumn(column: string, value: unknown): unknown {
  return JSON_COLUMNS.has(column) && value !== null ? JSON.stringify(value) : value;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message || error.name : String(error);
}

export const databaseSessionManager = new DatabaseSessionManager();
