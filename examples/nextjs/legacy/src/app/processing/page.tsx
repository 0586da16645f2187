'use client';

import Link from 'next/link';
import { useRouter } from 'next/navigation';
import { useEffect, useRef, useState } from 'react';

import { readStored, store } from '@/lib/checkout-storage';
import { funnelSessionManager } from '@/lib/funnel-session';

interface CheckoutAnswer {
  success: boolean;
  sessionId?: string;
  transactionId?: string;
  vaultId?: string;
  amount?: number;
  tax?: number;
  error?: { code: string; message: string };
}

export default function ProcessingPage() {
  const router = useRouter();
  const hasStarted = useRef(false);
  const [error, setError] = useState<string | null>(null);

  useEffect(() => {
    if (hasStarted.current) return;
    hasStarted.current = true;
    void pay();

    async function pay() {
      const checkout = readStored('checkout_session');
      const session = checkout && funnelSessionManager.getSession(checkout.sessionId);
      if (!session || !checkout.paymentToken) {
        router.replace('/checkout');
        return;
      }
      if (session.transactionId) {
        router.replace('/upsell-1');
        return;
      }
      funnelSessionManager.setSessionStatus(session.id, 'processing');

      let answer: CheckoutAnswer;
      try {
        const response = await fetch('/api/checkout/process', {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify(checkout),
        });
        answer = (await response.json()) as CheckoutAnswer;
      } catch {
        answer = { success: false };
      }

      const { sessionId, transactionId, vaultId, amount = 0, tax = 0 } = answer;
      if (!answer.success || !sessionId || !transactionId || !vaultId) {
        const message = answer.error?.message ?? 'The payment could not be processed.';
        funnelSessionManager.setSessionStatus(session.id, 'failed');
        funnelSessionManager.setCurrentStep(session.id, 'checkout');
        funnelSessionManager.updateSession(session.id, { metadata: { error: message, failed_at: new Date().toISOString() } });
        store('transaction_result', { success: false, sessionId: session.id, message });
        setError(message);
        return;
      }

      funnelSessionManager.setVaultId(session.id, vaultId);
      funnelSessionManager.setTransactionId(session.id, transactionId);
      funnelSessionManager.setCurrentStep(session.id, 'upsell-1');
      store('main_transaction', { sessionId, transactionId, vaultId, amount, tax });
      store('transaction_result', { success: true, sessionId, message: 'Payment approved' });
      router.push('/upsell-1');
    }
  }, [router]);

  if (error !== null) {
    return (
      <>
        <h1>Your payment did not go through</h1>
        <p className="error" role="alert">
          {error}
        </p>
        <p>
          <Link href="/checkout">Back to checkout</Link>
        </p>
      </>
    );
  }
  return (
    <>
      <h1>Processing your payment</h1>
      <p role="status">This takes a moment. Please don’t close this page.</p>
    </>
  );
}
