/** The part of the package's interface that the shop uses. */

export interface OpenOptions {
  url: string;
  sessionId?: string;
  funnel?: string;
  token?: string;
  storage?: StorageRung;
}

export type OpenSession = (options: OpenOptions) => Promise<CheckoutSession>;

export type StorageRung = 'indexedDB' | 'localStorage' | 'memory';

export interface CheckoutSession {
  readonly id: string;
  getSnapshot(): Session;
  subscribe(listener: () => void): () => void;
  readonly sync: SyncState;
  readonly funnel: Funnel;
  on(event: 'rejected', listener: (rejection: Rejection, command: Command) => void): () => void;
  readonly timeline: readonly TimelineEntry[];
  setEmail(email: string): Receipt;
  setCustomer(customer: Customer): Receipt;
  setItems(items: { id: string; quantity: number }[]): Receipt;
  setCoupon(code: string | null): Receipt;
  goToStep(step: string): Receipt;
  beginProcessing(): Receipt;
  acceptUpsell(offerId: string): Receipt;
  declineUpsell(offerId: string): Receipt;
  setMetadata(patch: Record<string, unknown>): Receipt;
  extend(): Receipt;
  goOffline(): void;
  goOnline(): void;
  close(): Promise<void>;
}

export interface Command {
  readonly type: string;
}

export interface Receipt {
  seq: number;
  accepted: Promise<{ version: number }>;
  durable: Promise<{ version: number }>;
}

export interface Rejection extends Error {
  code: string;
  mendableBy: 'retry' | 'buyerInput' | 'staleVersion' | 'forbidden' | 'permanent';
}

export interface SyncState {
  connection: 'connecting' | 'online' | 'offline' | 'closed';
  pending: number;
  storage: StorageRung;
  version: number;
  confirmedVersion: number;
  durableVersion: number;
  clientId: string;
}

export interface TimelineEntry {
  version: number;
  at: Date;
  type: string;
  origin: 'this tab' | 'other client' | 'server';
  state: 'pending' | 'confirmed' | 'durable';
}

export interface Session {
  id: string;
  version: number;
  email: string | null;
  status: 'pending' | 'processing' | 'completed' | 'failed' | 'expired';
  currentStep: string;
  customer: Customer;
  products: Item[];
  couponCode: string | null;
  totals: Totals;
  amount: number;
  currency: string;
  upsells: Upsell[];
  payment: { paidAt: Date | null; failure: { code: string; message: string } | null };
  createdAt: Date;
  updatedAt: Date;
  expiresAt: Date;
  metadata: Record<string, unknown>;
}

export interface Item {
  id: string;
  name: string;
  price: number;
  quantity: number;
}

export interface Totals {
  subtotal: number;
  discount: number;
  shipping: number;
  tax: number;
  upsells: number;
  total: number;
}

export interface Upsell {
  offer: string;
  product: string;
  name: string;
  price: number;
  state: 'offered' | 'accepted' | 'declined' | 'charged' | 'chargeFailed' | 'lapsed';
}

export interface Customer {
  firstName?: string;
  lastName?: string;
  phone?: string;
  billing?: Address;
  shipping?: Address;
}

export interface Address {
  address?: string;
  city?: string;
  state?: string;
  zipCode?: string;
  country?: string;
}

export interface Funnel {
  id: string;
  version: number;
  name: string;
  currency: string;
  catalogue: { id: string; name: string; price: number; description?: string }[];
  offers: { id: string; product: string; name: string; price: number; description?: string }[];
  steps: { id: string; kind: 'form' | 'payment' | 'offer' | 'terminal'; next: string[]; offers: string[] }[];
}
