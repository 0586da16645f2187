import { useEffect, useState, type FormEvent } from 'react';
import type { Session } from 'throughline';
import { useCheckout, useSession } from 'throughline/react';

import { holdToken, tokenizeCard } from '@/lib/card-token';
import { formatPrice } from '@/lib/format-price';
import { CardField } from './card-field';
import { StateField } from './state-field';
import { TextField } from './text-field';

const packs = [
  { id: 'fitspresso-1-pack', label: '1 bottle' },
  { id: 'fitspresso-3-pack', label: '3 bottles' },
  { id: 'fitspresso-6-pack', label: '6 bottles' },
];

function textsOf({ email, couponCode, customer: { firstName, lastName, phone, shipping, billing } }: Session) {
  return {
    email,
    couponCode,
    firstName,
    lastName,
    phone,
    address: shipping?.address,
    city: shipping?.city,
    state: shipping?.state,
    zipCode: shipping?.zipCode,
    billingAddress: billing?.address,
    billingCity: billing?.city,
    billingState: billing?.state,
    billingZipCode: billing?.zipCode,
  };
}

type Name = keyof ReturnType<typeof textsOf>;
type Drafts = Partial<Record<Name, string>>;

export function Checkout() {
  const checkout = useCheckout();
  const session = useSession();
  const { products, totals, payment, customer } = session;
  const [product] = products;
  /** What is typed and not in the session yet. */
  const [drafts, setDrafts] = useState<Drafts>({});
  const [hasBilling, setHasBilling] = useState(customer.billing?.address !== undefined);
  const [card, setCard] = useState('');

  /** Puts what was typed into the session, field by field, so that two tabs can fill in different ones. What is refused stays a draft. */
  function save(): boolean {
    const { email, couponCode, ...others } = drafts;
    const refused: Drafts = {};
    if (email !== undefined && checkout.setEmail(email.trim()).seq === 0) refused.email = email;
    if (couponCode !== undefined && checkout.setCoupon(couponCode.trim() || null).seq === 0) refused.couponCode = couponCode;
    if (Object.keys(others).length > 0) {
      const { firstName, lastName, phone, address, city, state, zipCode } = others;
      const { billingAddress, billingCity, billingState, billingZipCode } = others;
      const billing = { address: billingAddress, city: billingCity, state: billingState, zipCode: billingZipCode, country: 'US' };
      checkout.setCustomer({
        firstName,
        lastName,
        phone,
        shipping: { address, city, state, zipCode, country: 'US' },
        billing: hasBilling ? billing : undefined,
      });
    }
    setDrafts(refused);
    return Object.keys(refused).length === 0;
  }

  // What was typed last is not lost with the page.
  useEffect(() => {
    addEventListener('beforeunload', save);
    return () => removeEventListener('beforeunload', save);
  });

  function submit(event: FormEvent) {
    event.preventDefault();
    if (!save()) return;
    holdToken(tokenizeCard(card));
    checkout.beginProcessing();
  }

  function toggleBilling(wanted: boolean) {
    setHasBilling(wanted);
    if (!wanted) checkout.setCustomer({ billing: { address: '', city: '', state: '', zipCode: '', country: '' } });
  }

  const field = (name: Name) => ({
    name,
    value: drafts[name] ?? textsOf(session)[name] ?? '',
    onChange: (value: string) => setDrafts((others) => ({ ...others, [name]: value })),
    onBlur: save,
  });

  return (
    <form onSubmit={submit}>
      <h1>Checkout</h1>
      {payment.failure && (
        <p className="error" role="alert">
          Your payment did not go through: {payment.failure.message}
        </p>
      )}

      <fieldset>
        <legend>Your pack</legend>
        {packs.map(({ id, label }) => (
          <label key={id} className="choice">
            <input
              type="radio"
              name="pack"
              value={id}
              checked={id === product?.id}
              onChange={() => checkout.setItems([{ id, quantity: product?.quantity ?? 1 }])}
            />{' '}
            {label}, {formatPrice(checkout.funnel.catalogue.find((offered) => offered.id === id)!.price)}
          </label>
        ))}
        <div className="field">
          <label htmlFor="quantity">Quantity</label>
          <select
            id="quantity"
            name="quantity"
            value={product?.quantity}
            onChange={(event) => product && checkout.setItems([{ id: product.id, quantity: Number(event.target.value) }])}
          >
            <option value={1}>1</option>
            <option value={2}>2</option>
          </select>
        </div>
      </fieldset>

      <fieldset>
        <legend>Contact</legend>
        <TextField label="Email" type="email" autoComplete="email" pattern="[^\s@]+@[^\s@]+\.[^\s@]+" required {...field('email')} />
        <TextField label="First name" autoComplete="given-name" required {...field('firstName')} />
        <TextField label="Last name" autoComplete="family-name" required {...field('lastName')} />
        <TextField label="Phone (optional)" type="tel" autoComplete="tel" {...field('phone')} />
      </fieldset>

      <fieldset>
        <legend>Delivery</legend>
        <TextField label="Street and number" autoComplete="street-address" required {...field('address')} />
        <TextField label="City" autoComplete="address-level2" required {...field('city')} />
        <StateField label="State" {...field('state')} />
        <TextField label="ZIP code" autoComplete="postal-code" inputMode="numeric" required {...field('zipCode')} />
        <label className="choice">
          <input type="checkbox" checked={hasBilling} onChange={(event) => toggleBilling(event.target.checked)} /> My billing
          address is a different one
        </label>
      </fieldset>

      {hasBilling && (
        <fieldset>
          <legend>Billing address</legend>
          <TextField label="Billing street and number" required {...field('billingAddress')} />
          <TextField label="Billing city" required {...field('billingCity')} />
          <StateField label="Billing state" {...field('billingState')} />
          <TextField label="Billing ZIP code" inputMode="numeric" required {...field('billingZipCode')} />
        </fieldset>
      )}

      <fieldset>
        <legend>Payment</legend>
        <TextField label="Coupon (optional)" hint="Discounts are taken off at once." autoComplete="off" {...field('couponCode')} />
        <CardField value={card} onChange={setCard} />
      </fieldset>

      {/* Always the same lines: a coupon that is saved as the button is pressed must not move the button away. */}
      <p>
        Subtotal: <strong>{formatPrice(totals.subtotal)}</strong>, discount: {formatPrice(totals.discount)}. Tax is added for your
        state; delivery is free.
      </p>
      <button type="submit">Complete my order</button>
    </form>
  );
}
