import type { BillingInfo, CustomerInfo, Product, ShippingInfo, UpsellDetails } from '@/types/session';

export type FunnelStatus = 'initiated' | 'processing' | 'completed' | 'failed';
export type FunnelStep = 'checkout' | 'processing' | 'upsell-1' | 'upsell-2' | 'success';

export interface FunnelSessionData {
  id: string;
  email: string;
  customerInfo?: CustomerInfo;
  products: Product[];
  vaultId?: string;
  transactionId?: string;
  status: FunnelStatus;
  amount: number;
  currentStep: FunnelStep;
  upsellsAccepted: string[];
  upsellsDeclined: string[];
  upsells?: UpsellDetails[];
  orderId?: string;
  couponCode?: string;
  billingInfo?: BillingInfo;
  shippingInfo?: ShippingInfo;
  createdAt: Date;
  updatedAt: Date;
  expiresAt: Date;
  metadata?: Record<string, unknown>;
}

export interface CreateFunnelSessionData {
  email: string;
  products: Product[];
  customerInfo?: CustomerInfo;
  couponCode?: string;
  metadata?: Record<string, unknown>;
}

export interface FunnelSessionStats {
  total: number;
  byStatus: Record<string, number>;
  byStep: Record<string, number>;
  expired: number;
}

const STORAGE_KEY = 'webseed_funnel_sessions';
const SESSION_DURATION_MS = 24 * 60 * 60 * 1000;
const CLEANUP_INTERVAL_MS = 60 * 60 * 1000;

export class FunnelSessionManager {
  private static instance: FunnelSessionManager | undefined;

  private sessions = new Map<string, FunnelSessionData>();
  private cleanupInterval: ReturnType<typeof setInterval> | undefined;

  private constructor() {
    if (typeof window === 'undefined') return;
    this.loadFromStorage();
    this.cleanupInterval = setInterval(() => this.cleanupExpiredSessions(), CLEANUP_INTERVAL_MS);
  }

  static getInstance(): FunnelSessionManager {
    FunnelSessionManager.instance ??= new FunnelSessionManager();
    return FunnelSessionManager.instance;
  }

  createSession(data: CreateFunnelSessionData): FunnelSessionData {
    const now = new Date();
    const session: FunnelSessionData = {
      id: this.generateSessionId(),
      email: data.email,
      ...(data.customerInfo && { customerInfo: data.customerInfo }),
      products: data.products,
      status: 'initiated',
      amount: data.products.reduce((sum, product) => sum + product.price * product.quantity, 0),
      currentStep: 'checkout',
      upsellsAccepted: [],
      upsellsDeclined: [],
      ...(data.couponCode && { couponCode: data.couponCode }),
      createdAt: now,
      updatedAt: now,
      expiresAt: new Date(now.getTime() + SESSION_DURATION_MS),
      ...(data.metadata && { metadata: data.metadata }),
    };
    this.sessions.set(session.id, session);
    this.saveToStorage();
    return session;
  }

  getSession(id: string): FunnelSessionData | null {
    const session = this.sessions.get(id);
    if (!session) return null;
    if (session.expiresAt < new Date()) {
      this.deleteSession(id);
      return null;
    }
    return session;
  }

  updateSession(id: string, updates: Partial<FunnelSessionData>): FunnelSessionData | null {
    const session = this.getSession(id);
    if (!session) return null;
    const updated: FunnelSessionData = { ...session, ...updates, updatedAt: new Date() };
    this.sessions.set(id, updated);
    this.saveToStorage();
    return updated;
  }

  setSessionStatus(id: string, status: FunnelStatus): FunnelSessionData | null {
    return this.updateSession(id, { status });
  }

  setCurrentStep(id: string, currentStep: FunnelStep): FunnelSessionData | null {
    return this.updateSession(id, { currentStep });
  }

  setVaultId(id: string, vaultId: string): FunnelSessionData | null {
    return this.updateSession(id, { vaultId });
  }

  setTransactionId(id: string, transactionId: string): FunnelSessionData | null {
    return this.updateSession(id, { transactionId });
  }

  acceptUpsell(id: string, productId: string): FunnelSessionData | null {
    const session = this.getSession(id);
    if (!session) return null;
    return this.updateSession(id, {
      upsellsAccepted: [...session.upsellsAccepted.filter((accepted) => accepted !== productId), productId],
      upsellsDeclined: session.upsellsDeclined.filter((declined) => declined !== productId),
    });
  }

  declineUpsell(id: string, productId: string): FunnelSessionData | null {
    const session = this.getSession(id);
    if (!session) return null;
    return this.updateSession(id, {
      upsellsAccepted: session.upsellsAccepted.filter((accepted) => accepted !== productId),
      upsellsDeclined: [...session.upsellsDeclined.filter((declined) => declined !== productId), productId],
    });
  }

  setBillingInfo(id: string, billingInfo: BillingInfo): FunnelSessionData | null {
    return this.updateSession(id, { billingInfo });
  }

  setShippingInfo(id: string, shippingInfo: ShippingInfo): FunnelSessionData | null {
    return this.updateSession(id, { shippingInfo });
  }

  getSessionsByEmail(email: string): FunnelSessionData[] {
    return this.getAllActiveSessions().filter((session) => session.email === email);
  }

  deleteSession(id: string): boolean {
    const deleted = this.sessions.delete(id);
    if (deleted) this.saveToStorage();
    return deleted;
  }

  cleanupExpiredSessions(): number {
    const now = new Date();
    let cleaned = 0;
    for (const [id, session] of this.sessions) {
      if (session.expiresAt < now) {
        this.sessions.delete(id);
        cleaned += 1;
      }
    }
    if (cleaned > 0) this.saveToStorage();
    return cleaned;
  }

  getSessionStats(): FunnelSessionStats {
    const now = new Date();
    const stats: FunnelSessionStats = { total: this.sessions.size, byStatus: {}, byStep: {}, expired: 0 };
    for (const session of this.sessions.values()) {
      stats.byStatus[session.status] = (stats.byStatus[session.status] ?? 0) + 1;
      stats.byStep[session.currentStep] = (stats.byStep[session.currentStep] ?? 0) + 1;
      if (session.expiresAt < now) stats.expired += 1;
    }
    return stats;
  }

  getAllActiveSessions(): FunnelSessionData[] {
    const now = new Date();
    return [...this.sessions.values()].filter((session) => session.expiresAt >= now);
  }

  stopCleanupInterval(): void {
    if (this.cleanupInterval) clearInterval(this.cleanupInterval);
    this.cleanupInterval = undefined;
  }

  private generateSessionId(): string {
    return `ws_${Date.now().toString(36)}_${Math.random().toString(36).substr(2, 9)}`;
  }

  private loadFromStorage(): void {
    try {
      const stored = localStorage.getItem(STORAGE_KEY);
      if (!stored) return;
      const parsed = JSON.parse(stored) as Record<string, FunnelSessionData>;
      for (const [id, session] of Object.entries(parsed)) {
        this.sessions.set(id, {
          ...session,
          createdAt: new Date(session.createdAt),
          updatedAt: new Date(session.updatedAt),
          expiresAt: new Date(session.expiresAt),
        });
      }
    } catch {
      localStorage.removeItem(STORAGE_KEY);
    }
  }

  private saveToStorage(): void {
    if (typeof window === 'undefined') return;
    try {
      localStorage.setItem(STORAGE_KEY, JSON.stringify(Object.fromEntries(this.sessions)));
    } catch (error) {
      console.error('Failed to save funnel sessions:', error);
    }
  }
}

export const funnelSessionManager = FunnelSessionManager.getInstance();
