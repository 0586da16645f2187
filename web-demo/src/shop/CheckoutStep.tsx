import { useId, useState, type FormEvent } from 'react';
import { useCheckout, useSession } from 'throughline/react';

import { declinedCard, groupDigits, holdCard, isCardNumber, workingCard } from '../payment';
import { issue } from '../session/current-session';
import { useBuyerForm, type BuyerField } from './buyer-form';
import { CouponField } from './CouponField';
import { description, Field, FieldFrame } from './Field';
import { price } from './money';
import { PackChoice } from './PackChoice';
import { states } from './states';
import { StepHeading } from './StepHeading';

export function CheckoutStep() {
  const checkout = useCheckout();
  const session = useSession();
  const buyer = useBuyerForm();
  const prefix = useId();
  const [card, setCard] = useState('');
  const [cardError, setCardError] = useState<string>();
  const [refusal, setRefusal] = useState<string>();
  const id = (name: string) => `${prefix}${name}`;
  const failure = session.status === 'failed' ? session.payment.failure : null;

  const input = (field: BuyerField) => ({
    id: id(field),
    name: field,
    value: buyer.text(field),
    error: buyer.error(field),
    required: buyer.isRequired(field),
    onChange: (event: { target: { value: string } }) => buyer.change(field, event.target.value),
    onBlur: () => buyer.leave(field),
  });

  const submit = (event: FormEvent) => {
    event.preventDefault();
    const incomplete = buyer.finish();
    const cardProblem = isCardNumber(card) ? undefined : 'Enter a card number; the demo cards below will do';
    setCardError(cardProblem);
    const first = incomplete ?? (cardProblem === undefined ? undefined : 'card');
    if (first !== undefined) {
      document.getElementById(id(first))?.focus();
      return;
    }
    setRefusal(undefined);
    holdCard(session.id, card);
    issue(checkout.beginProcessing(), setRefusal);
  };

  return (
    <form className="step checkout" onSubmit={submit} noValidate>
      <StepHeading>A better second cup</StepHeading>
      <p className="lede">
        Fitspresso stirs into the coffee you already make. Choose a pack; we post it tomorrow.
      </p>
      {failure !== null && (
        <div className="banner bad" role="alert">
          <strong>The payment did not go through.</strong> {failure.message} Nothing was charged; try another card.
        </div>
      )}

      <PackChoice />

      <fieldset>
        <legend>Contact</legend>
        <div className="grid">
          <Field {...input('email')} label="Email" type="email" autoComplete="email" inputMode="email" className="wide" />
          <Field {...input('firstName')} label="First name" autoComplete="given-name" />
          <Field {...input('lastName')} label="Last name" autoComplete="family-name" />
          <Field {...input('phone')} label="Phone" type="tel" autoComplete="tel" className="wide" />
        </div>
      </fieldset>

      <fieldset>
        <legend>Delivery</legend>
        <div className="grid">
          <Field {...input('address')} label="Street and number" autoComplete="street-address" className="wide" />
          <Field {...input('city')} label="City" autoComplete="address-level2" className="wide" />
          <FieldFrame id={id('state')} label="State" error={buyer.error('state')}>
            <select
              id={id('state')}
              name="state"
              required
              autoComplete="address-level1"
              value={buyer.text('state')}
              onChange={(event) => buyer.change('state', event.target.value)}
              onBlur={() => buyer.leave('state')}
              {...description(id('state'), undefined, buyer.error('state'))}
            >
              <option value="">Choose…</option>
              {states.map(([code, name]) => (
                <option key={code} value={code}>
                  {name}
                </option>
              ))}
            </select>
          </FieldFrame>
          <Field {...input('zipCode')} label="ZIP code" autoComplete="postal-code" inputMode="numeric" />
        </div>
      </fieldset>

      <fieldset>
        <legend>Payment</legend>
        <CouponField />
        <Field
          id={id('card')}
          name="card"
          label="Card number"
          hint="This is a demonstration: never enter a real card."
          error={cardError}
          required
          inputMode="numeric"
          autoComplete="off"
          placeholder="0000 0000 0000 0000"
          value={card}
          onChange={(event) => {
            setCard(groupDigits(event.target.value));
            setCardError(undefined);
          }}
        />
        <div className="demo-cards" role="group" aria-label="Demo cards">
          <button type="button" className="chip" onClick={() => fill(workingCard)}>
            Use a card that works
          </button>
          <button type="button" className="chip" onClick={() => fill(declinedCard)}>
            Use a card that is declined
          </button>
        </div>
      </fieldset>

      {refusal !== undefined && (
        <div className="banner bad sentence" role="alert">
          {refusal}
        </div>
      )}
      <button type="submit" className="button primary" disabled={session.products.length === 0}>
        Pay {price(session.amount, session.currency)}
      </button>
    </form>
  );

  function fill(number: string) {
    setCard(number);
    setCardError(undefined);
  }
}
