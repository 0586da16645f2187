import { useState, type FormEvent } from 'react';
import { useSession } from 'throughline/react';

import { heldToken, holdToken, tokenizeCard } from '@/lib/card-token';
import { CardField } from './card-field';
import { useRoute } from './use-route';

/** The payment route is asked until the session says what became of the payment; then the session is at another step. */
export function Processing() {
  const { id } = useSession();
  const [card, setCard] = useState('');
  const [paymentToken, setPaymentToken] = useState(heldToken);
  const { failure, isOffline, tryAgain } = useRoute('/api/checkout/process', { sessionId: id, paymentToken });

  function enterAgain(event: FormEvent) {
    event.preventDefault();
    holdToken(tokenizeCard(card));
    setPaymentToken(heldToken());
  }

  return (
    <>
      <h1>Processing your payment</h1>
      {isOffline ? (
        <p role="status">You are offline. Your order is kept here, and goes on when you are back.</p>
      ) : failure?.code === 'cardNeeded' ? (
        <form onSubmit={enterAgain}>
          <p role="alert">{failure.message}</p>
          <CardField value={card} onChange={setCard} />
          <button type="submit">Pay</button>
        </form>
      ) : failure ? (
        <>
          <p className="error" role="alert">
            {failure.message}
          </p>
          <button type="button" onClick={tryAgain}>
            Try again
          </button>
        </>
      ) : (
        <p role="status">This takes a moment. You can close this page: your order stays where it is.</p>
      )}
    </>
  );
}
