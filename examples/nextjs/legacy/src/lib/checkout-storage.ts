import type { BillingInfo, CustomerInfo, Product } from '@/types/session';

/** What the pages hand on to each other in this tab. */
export interface StoredByPages {
  checkout_session: {
    sessionId: string;
    email: string;
    customerInfo: CustomerInfo;
    products: Product[];
    paymentToken?: string;
    couponCode?: string;
    billingInfo?: BillingInfo;
  };
  main_transaction: { sessionId: string; transactionId: string; vaultId: string; amount: number; tax: number };
  transaction_result: { success: boolean; sessionId: string; message: string };
}

export function readStored<Key extends keyof StoredByPages>(key: Key): StoredByPages[Key] | null {
  try {
    const text = sessionStorage.getItem(key);
    return text === null ? null : (JSON.parse(text) as StoredByPages[Key]);
  } catch {
    return null;
  }
}

export function store<Key extends keyof StoredByPages>(key: Key, value: StoredByPages[Key]): void {
  sessionStorage.setItem(key, JSON.stringify(value));
}

export function clearStored(): void {
  for (const key of ['checkout_session', 'main_transaction', 'transaction_result']) sessionStorage.removeItem(key);
}
