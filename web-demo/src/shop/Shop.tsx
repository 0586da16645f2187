import { useState } from 'react';
import type { Rejection, SessionError } from 'throughline';
import { useCheckout, useSelector, useSessionEvent } from 'throughline/react';

import { startAgain } from '../session/current-session';
import { CheckoutStep } from './CheckoutStep';
import { EndingNotice } from './EndingNotice';
import { useOfferCharges } from './offer-charges';
import { OrderSummary } from './OrderSummary';
import { ProcessingStep } from './ProcessingStep';
import { StepHeading } from './StepHeading';
import { SuccessStep } from './SuccessStep';
import { UpsellStep } from './UpsellStep';

export function Shop() {
  const checkout = useCheckout();
  const currentStep = useSelector((session) => session.currentStep);
  const isExpired = useSelector(({ status }) => status === 'expired');
  useOfferCharges();
  const kind = checkout.funnel.steps.find(({ id }) => id === currentStep)?.kind;

  return (
    <div className="shop">
      <header className="masthead">
        <p className="brand">
          <img src="./icon.svg" alt="" width="32" height="32" /> Slowpour
        </p>
        <Progress />
        <button type="button" className="link" onClick={startAgain}>
          Start again
        </button>
      </header>
      <EndingNotice />
      <Refusals />
      <div className="columns">
        <main>
          <Step kind={isExpired ? 'expired' : kind} key={currentStep} />
        </main>
        {kind !== 'terminal' && <OrderSummary />}
      </div>
      <footer className="colophon">
        Slowpour is a demonstration. Nothing here is sold, nobody is charged, and no drink makes promises.
      </footer>
    </div>
  );
}

function Step({ kind }: { kind: string | undefined }) {
  switch (kind) {
    case 'form':
      return <CheckoutStep />;
    case 'payment':
      return <ProcessingStep />;
    case 'offer':
      return <UpsellStep />;
    case 'terminal':
      return <SuccessStep />;
    case 'expired':
      return (
        <section className="step">
          <StepHeading>This order has run out</StepHeading>
          <p className="lede">It was not paid in time. Nothing was charged.</p>
          <button type="button" className="button primary" onClick={startAgain}>
            Start again
          </button>
        </section>
      );
    default:
      return null;
  }
}

const stepNames: Readonly<Record<string, string>> = {
  checkout: 'Details',
  processing: 'Payment',
  'upsell-1': 'Extra 1',
  'upsell-2': 'Extra 2',
  success: 'Done',
};

function Progress() {
  const checkout = useCheckout();
  const currentStep = useSelector((session) => session.currentStep);
  const { steps } = checkout.funnel;
  const reached = steps.findIndex(({ id }) => id === currentStep);
  const name = (id: string) => stepNames[id] ?? id;
  return (
    <nav className="progress" aria-label="Progress">
      <ol>
        {steps.map(({ id }, index) => (
          <li
            key={id}
            className={index < reached ? 'done' : index === reached ? 'current' : ''}
            aria-current={index === reached ? 'step' : undefined}
          >
            {name(id)}
          </li>
        ))}
      </ol>
      <p className="visually-hidden" aria-live="polite">
        Step {reached + 1} of {steps.length}: {name(currentStep)}
      </p>
    </nav>
  );
}

/** What can't be mended in a field: refused commands, and a session that can't be kept in step any more. */
function Refusals() {
  const [refused, setRefused] = useState<Rejection>();
  const [broken, setBroken] = useState<SessionError>();
  // What the buyer can mend is told beside the field.
  useSessionEvent('rejected', (reason) => reason.mendableBy !== 'buyerInput' && setRefused(reason));
  useSessionEvent('failed', setBroken);
  return (
    <div aria-live="assertive">
      {broken !== undefined && (
        <div className="banner bad dismissible">
          <span>
            This order can’t be kept in step with the shop: {broken.message} <code>{broken.code}</code>
          </span>
          <button type="button" className="link" onClick={startAgain}>
            Start again
          </button>
        </div>
      )}
      {refused !== undefined && (
        <div className="banner bad dismissible">
          <span>
            {refused.code === 'awaitingConfirmation'
              ? 'This order can’t be paid yet:'
              : 'The shop could not do that:'}{' '}
            {refused.message} <code>{refused.code}</code>
          </span>
          <button type="button" className="link" onClick={() => setRefused(undefined)}>
            Dismiss
          </button>
        </div>
      )}
    </div>
  );
}
