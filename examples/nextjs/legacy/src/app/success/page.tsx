'use client';

import { useRouter } from 'next/navigation';
import { useEffect, useState } from 'react';

import { clearStored, readStored } from '@/lib/checkout-storage';
import { funnelSessionManager, type FunnelSessionData } from '@/lib/funnel-session';
import { formatPrice, offerName } from '@/lib/products';

interface SessionAnswer {
  success: boolean;
  session?: { status: string };
}

export default function SuccessPage() {
  const router = useRouter();
  const [session, setSession] = useState<FunnelSessionData | null>(null);
  const [tax, setTax] = useState(0);
  const [orderStatus, setOrderStatus] = useState('Checking…');

  useEffect(() => {
    const transaction = readStored('main_transaction');
    const found = transaction && funnelSessionManager.getSession(transaction.sessionId);
    if (!found) {
      router.replace('/checkout');
      return;
    }
    const { id } = found;
    funnelSessionManager.setSessionStatus(id, 'completed');
    funnelSessionManager.setCurrentStep(id, 'success');
    if (!found.orderId) funnelSessionManager.updateSession(id, { orderId: `ORDER-${Math.floor(Date.now() / 1000)}` });
    setSession(funnelSessionManager.getSession(id));
    setTax(transaction.tax + Number(found.metadata?.['upsellTax'] ?? 0));
    void confirm(id);

    async function confirm(id: string) {
      try {
        await fetch(`/api/session/${id}`, {
          method: 'PATCH',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ currentStep: 'success' }),
        });
        const response = await fetch(`/api/session/${id}`);
        const answer = (await response.json()) as SessionAnswer;
        setOrderStatus(answer.session?.status ?? 'unknown');
      } catch {
        setOrderStatus('unknown');
      }
    }
  }, [router]);

  if (!session) return <p role="status">Loading your order…</p>;

  const upsells = session.upsells ?? [];
  const total = session.amount + tax + upsells.reduce((sum, { amount }) => sum + amount, 0);

  function startOver() {
    clearStored();
    router.push('/checkout');
  }

  return (
    <>
      <h1>Thank you for your order</h1>
      <p>
        Order number {session.orderId}, status: <strong role="status">{orderStatus}</strong>
      </p>
      <table className="lines">
        <caption>What you ordered</caption>
        <tbody>
          {session.products.map((product) => (
            <tr key={product.id}>
              <th scope="row">
                {product.name} × {product.quantity}
              </th>
              <td>{formatPrice(product.price * product.quantity)}</td>
            </tr>
          ))}
          {upsells.map((upsell) => (
            <tr key={upsell.transactionId}>
              <th scope="row">{offerName(upsell.productCode)}</th>
              <td>{formatPrice(upsell.amount)}</td>
            </tr>
          ))}
          <tr>
            <th scope="row">Tax</th>
            <td>{formatPrice(tax)}</td>
          </tr>
          <tr>
            <th scope="row">Total</th>
            <td>{formatPrice(total)}</td>
          </tr>
        </tbody>
      </table>
      <p>A receipt goes to {session.email}.</p>
      <button type="button" className="quiet" onClick={startOver}>
        Start a new order
      </button>
    </>
  );
}
