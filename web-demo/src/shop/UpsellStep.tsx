import { useEffect, useState } from 'react';
import type { Upsell } from 'throughline';
import { useCheckout, useRemaining, useSelector, useSession, useSyncStatus } from 'throughline/react';

import { issue } from '../session/current-session';
import { Bottles } from './Bottles';
import { price } from './money';
import { OfferCountdown } from './OfferCountdown';
import { story } from './products';
import { StepHeading } from './StepHeading';

export function UpsellStep() {
  const checkout = useCheckout();
  const session = useSession();
  const sync = useSyncStatus();
  const leftMs = useRemaining()?.step ?? null;
  const [isLeaving, setLeaving] = useState(false);
  const [refusal, setRefusal] = useState<string>();
  const step = checkout.funnel.steps.find(({ id }) => id === session.currentStep);
  const made = session.upsells.filter(({ offer }) => step?.offers.includes(offer));
  const unanswered = made.filter(({ state }) => state === 'offered');
  // A step's offers are made together and close together.
  const isOver = leftMs === 0 && unanswered.length > 0;
  const open = isOver ? [] : unanswered;
  const isCharging = made.some(({ state }) => state === 'accepted');
  const failed = made.find(({ state }) => state === 'chargeFailed');
  const next = step?.next[0];

  // The tab in which the buyer answered goes on as soon as what was accepted is paid; offline that comes later.
  const waits = isCharging && sync.connection !== 'offline';
  const goesOn = isLeaving && open.length === 0 && !waits && failed === undefined;
  useEffect(() => {
    if (goesOn && next !== undefined) issue(checkout.goToStep(next), setRefusal);
  }, [goesOn, next, checkout]);

  const refuse = (reason: string) => {
    setRefusal(reason);
    setLeaving(false);
  };
  const answer = (accepted: Upsell | undefined) => {
    setRefusal(undefined);
    setLeaving(true);
    if (accepted !== undefined) issue(checkout.acceptUpsell(accepted.offer), refuse);
    for (const { offer } of open) {
      if (offer !== accepted?.offer) issue(checkout.declineUpsell(offer), refuse);
    }
  };

  return (
    <section className="step upsell">
      {/* Another key is another heading: it takes the focus, which was on what is gone. */}
      <StepHeading key={String(isOver)}>
        {isOver ? 'This offer has ended' : open.length > 0 ? 'One thing before we pack' : 'Noted'}
      </StepHeading>
      {isOver && <p className="lede">Your order is paid and safe, and goes on as it is.</p>}
      {open.length > 0 && (
        <p className="lede">Your order is paid and safe. This goes into the same parcel, at a price for this order only.</p>
      )}
      <p className="status-line" role="status" aria-live="polite">
        {isCharging &&
          (sync.connection === 'online'
            ? 'Adding it to your order…'
            : 'You are offline. It is kept here and added when you are back.')}
      </p>
      {failed !== undefined && (
        <div className="banner bad" role="alert">
          {failed.name} could not be charged and is not part of your order.
        </div>
      )}
      {refusal !== undefined && (
        <div className="banner bad sentence" role="alert">
          {refusal}
        </div>
      )}

      {leftMs !== null && leftMs > 0 && open.length > 0 && <OfferCountdown leftMs={leftMs} />}
      <ul className="offers">
        {open.map((upsell) => (
          <OfferCard key={upsell.offer} upsell={upsell} onAccept={() => answer(upsell)} />
        ))}
      </ul>
      {open.length > 0 ? (
        <button type="button" className="button quiet decline" onClick={() => answer(undefined)}>
          No, thank you
        </button>
      ) : (
        !waits &&
        next !== undefined && (
          <button type="button" className="button primary" onClick={() => issue(checkout.goToStep(next), setRefusal)}>
            Continue
          </button>
        )
      )}
    </section>
  );
}

function OfferCard({ upsell, onAccept }: { upsell: Upsell; onAccept: () => void }) {
  const checkout = useCheckout();
  const currency = useSelector((session) => session.currency);
  const product = checkout.funnel.catalogue.find(({ id }) => id === upsell.product);
  const offer = checkout.funnel.offers.find(({ id }) => id === upsell.offer);
  const heading = `offer-${upsell.offer}`;
  return (
    <li className={`offer look-${story(upsell.product).look}`} aria-labelledby={heading}>
      <div className="offer-picture">
        <Bottles product={upsell.product} />
      </div>
      <div className="offer-text">
        <p className="offer-note">{story(upsell.product).note}</p>
        <h2 id={heading}>{upsell.name}</h2>
        {offer?.description !== undefined && <p>{offer.description}</p>}
        <p className="offer-price">
          <strong>{price(upsell.price, currency)}</strong>
          {product !== undefined && product.price > upsell.price && (
            <s>
              <span className="visually-hidden">usually </span>
              {price(product.price, currency)}
            </s>
          )}
        </p>
        <button type="button" className="button primary" onClick={onAccept}>
          Yes, add it for {price(upsell.price, currency)}
          <span className="visually-hidden">: {upsell.name}</span>
        </button>
      </div>
    </li>
  );
}
