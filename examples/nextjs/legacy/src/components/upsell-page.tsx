'use client';

import { useRouter } from 'next/navigation';
import { useEffect, useState } from 'react';

import { readStored } from '@/lib/checkout-storage';
import { funnelSessionManager, type FunnelSessionData, type FunnelStep } from '@/lib/funnel-session';
import { formatPrice, offersByStep, type Offer } from '@/lib/products';

interface UpsellAnswer {
  status: 'ok' | 'error';
  transactionId?: string;
  tax?: number;
  errors?: string[];
}

interface UpsellPageProps {
  step: 1 | 2;
  title: string;
  next: Extract<FunnelStep, 'upsell-2' | 'success'>;
}

export function UpsellPage({ step, title, next }: UpsellPageProps) {
  const router = useRouter();
  const [session, setSession] = useState<FunnelSessionData | null>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const offers = offersByStep[step];

  useEffect(() => {
    const transaction = readStored('main_transaction');
    const found = transaction && funnelSessionManager.getSession(transaction.sessionId);
    if (!found) {
      router.replace('/checkout');
      return;
    }
    setSession(found);
  }, [router]);

  if (!session) return <p role="status">Loading your order…</p>;
  const { id } = session;

  async function accept(offer: Offer) {
    setBusy(true);
    setError(null);
    const { productCode, amount, bottles } = offer;
    try {
      const response = await fetch('/api/upsell/process', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ sessionId: id, productCode, amount, bottles, step }),
      });
      const answer = (await response.json()) as UpsellAnswer;
      if (answer.status !== 'ok' || !answer.transactionId) throw new Error(answer.errors?.join(' '));
      const current = funnelSessionManager.acceptUpsell(id, productCode);
      const details = { step, productCode, amount, bottles, transactionId: answer.transactionId, timestamp: new Date().toISOString() };
      const upsellTax = Number(current?.metadata?.['upsellTax'] ?? 0) + (answer.tax ?? 0);
      funnelSessionManager.updateSession(id, {
        upsells: [...(current?.upsells ?? []), details],
        metadata: { ...current?.metadata, upsellTax },
      });
      goOn();
    } catch (failure) {
      setError((failure as Error).message || 'This could not be added to your order. You can try again.');
      setBusy(false);
    }
  }

  function decline() {
    setBusy(true);
    for (const { productCode } of offers) funnelSessionManager.declineUpsell(id, productCode);
    goOn();
  }

  function goOn() {
    funnelSessionManager.setCurrentStep(id, next);
    router.push(`/${next}`);
  }

  return (
    <>
      <h1>{title}</h1>
      {error && (
        <p className="error" role="alert">
          {error}
        </p>
      )}
      {offers.map((offer) => (
        <section key={offer.productCode} className="offer" aria-labelledby={offer.productCode}>
          <h2 id={offer.productCode}>{offer.name}</h2>
          <p>{offer.description}</p>
          <button type="button" disabled={busy} onClick={() => void accept(offer)}>
            Add {offer.name} for {formatPrice(offer.amount)}
          </button>
        </section>
      ))}
      <button type="button" className="quiet" disabled={busy} onClick={decline}>
        No, thank you
      </button>
    </>
  );
}
