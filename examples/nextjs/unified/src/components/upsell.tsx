import { useEffect } from 'react';
import { useCheckout, useSession } from 'throughline/react';

import { formatPrice } from '@/lib/format-price';
import { useRoute } from './use-route';

export function Upsell({ title, next }: { title: string; next: string }) {
  const checkout = useCheckout();
  const { id, upsells, currentStep } = useSession();
  const offers = upsells.filter(({ step }) => step === currentStep);
  const open = offers.filter(({ state }) => state === 'offered');
  const accepted = offers.find(({ state }) => state === 'accepted');
  const failed = offers.find(({ state }) => state === 'chargeFailed');
  const isCharged = offers.some(({ state }) => state === 'charged');
  const { failure, isOffline, tryAgain } = useRoute('/api/upsell/process', accepted && { sessionId: id, offer: accepted.offer });

  useEffect(() => {
    if (isCharged) checkout.goToStep(next);
  }, [isCharged, checkout, next]);

  function decline() {
    for (const { offer } of open) checkout.declineUpsell(offer);
    checkout.goToStep(next);
  }

  return (
    <>
      <h1>{title}</h1>
      {failed && (
        <p className="error" role="alert">
          {failed.name} could not be charged, and is not part of your order: {failed.failure?.message}
        </p>
      )}
      {accepted && failure && (
        <div role="alert">
          <p className="error">{failure.message}</p>
          <button type="button" onClick={tryAgain}>
            Try again
          </button>
        </div>
      )}
      <p role="status">
        {accepted && !failure && (isOffline ? 'You are offline. It is added when you are back.' : `Adding ${accepted.name}…`)}
      </p>
      {open.map(({ offer, name, price }) => (
        <section key={offer} className="offer" aria-labelledby={offer}>
          <h2 id={offer}>{name}</h2>
          <p>{checkout.funnel.offers.find((made) => made.id === offer)?.description}</p>
          <button type="button" disabled={accepted !== undefined} onClick={() => checkout.acceptUpsell(offer)}>
            Add {name} for {formatPrice(price)}
          </button>
        </section>
      ))}
      <button type="button" className="quiet" disabled={accepted !== undefined} onClick={decline}>
        No, thank you
      </button>
    </>
  );
}
