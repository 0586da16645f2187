import { useSession } from 'throughline/react';

import { startAgain } from '../session/current-session';
import { OrderLines } from './OrderSummary';
import { StepHeading } from './StepHeading';

export function SuccessStep() {
  const session = useSession();
  const { firstName, shipping } = session.customer;
  return (
    <section className="step success">
      <StepHeading>{firstName === undefined ? 'Thank you' : `Thank you, ${firstName}`}</StepHeading>
      <p className="lede">
        Your order is complete. In a real shop a confirmation would go to {session.email ?? 'you'} and a parcel
        {shipping?.city === undefined ? '' : ` to ${shipping.city}`}.
      </p>
      <div className="receipt">
        <h2>
          Order <span className="order-number">{orderNumber(session.id)}</span>
        </h2>
        <OrderLines />
      </div>
      <button type="button" className="button primary" onClick={startAgain}>
        Start again
      </button>
    </section>
  );
}

function orderNumber(sessionId: string): string {
  return sessionId.slice(-8).toUpperCase();
}
