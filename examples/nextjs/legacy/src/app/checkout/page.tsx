'use client';

import { useRouter } from 'next/navigation';
import { useEffect, useState, type FormEvent } from 'react';

import { StateField } from '@/components/state-field';
import { TextField } from '@/components/text-field';
import { tokenizeCard } from '@/lib/card-token';
import { readStored, store } from '@/lib/checkout-storage';
import { funnelSessionManager, type FunnelSessionData } from '@/lib/funnel-session';
import { formatPrice, packs } from '@/lib/products';
import type { BillingInfo, CustomerInfo, Product } from '@/types/session';

const emptyForm = {
  email: '',
  firstName: '',
  lastName: '',
  phone: '',
  address: '',
  city: '',
  state: '',
  zipCode: '',
  couponCode: '',
  billingAddress: '',
  billingCity: '',
  billingState: '',
  billingZipCode: '',
};

export default function CheckoutPage() {
  const router = useRouter();
  const [sessionId, setSessionId] = useState<string | null>(null);
  const [form, setForm] = useState(emptyForm);
  const [packId, setPackId] = useState('fitspresso-3-pack');
  const [quantity, setQuantity] = useState(1);
  const [hasBilling, setHasBilling] = useState(false);
  const [card, setCard] = useState('');
  const [error, setError] = useState<string | null>(null);
  const [isLoaded, setLoaded] = useState(false);

  useEffect(() => {
    setLoaded(true);
    const stored = readStored('checkout_session');
    const session = stored && funnelSessionManager.getSession(stored.sessionId);
    if (!session) return;
    const { customerInfo, products, billingInfo } = session;
    setSessionId(session.id);
    setForm({
      ...emptyForm,
      ...customerInfo,
      email: session.email,
      couponCode: session.couponCode ?? '',
      billingAddress: billingInfo?.address ?? '',
      billingCity: billingInfo?.city ?? '',
      billingState: billingInfo?.state ?? '',
      billingZipCode: billingInfo?.zipCode ?? '',
    });
    setHasBilling(billingInfo !== undefined);
    if (products[0]) {
      setPackId(products[0].id);
      setQuantity(products[0].quantity);
    }
    if (session.status === 'failed') setError(readStored('transaction_result')?.message ?? 'Your payment did not go through.');
  }, []);

  const pack = packs.find(({ id }) => id === packId) ?? packs[0]!;
  const products: Product[] = [{ id: pack.id, name: pack.name, price: pack.price, quantity }];
  const amount = products.reduce((sum, product) => sum + product.price * product.quantity, 0);

  const customerInfo: CustomerInfo = {
    firstName: form.firstName,
    lastName: form.lastName,
    ...(form.phone && { phone: form.phone }),
    address: form.address,
    city: form.city,
    state: form.state,
    zipCode: form.zipCode,
    country: 'US',
  };

  function saveProgress(): FunnelSessionData | null {
    if (!form.email.includes('@')) return null;
    const couponCode = form.couponCode.trim().toUpperCase() || undefined;
    const existing = sessionId ? funnelSessionManager.getSession(sessionId) : null;
    const isOpen = existing?.status === 'initiated';
    const session = isOpen
      ? funnelSessionManager.updateSession(existing.id, { email: form.email, customerInfo, products, amount, couponCode })
      : funnelSessionManager.createSession({ email: form.email, products, customerInfo, couponCode, metadata: visit() });
    if (!session) return null;
    setSessionId(session.id);
    store('checkout_session', { sessionId: session.id, email: session.email, customerInfo, products, couponCode });
    return session;
  }

  function submit(event: FormEvent) {
    event.preventDefault();
    setError(null);
    const session = saveProgress();
    if (!session) {
      setError('Please enter a valid email address.');
      return;
    }
    const billingInfo: BillingInfo | undefined = hasBilling
      ? {
          address: form.billingAddress,
          city: form.billingCity,
          state: form.billingState,
          zipCode: form.billingZipCode,
          country: 'US',
        }
      : undefined;
    if (billingInfo) {
      const { firstName, lastName, address, city, state, zipCode } = form;
      funnelSessionManager.setBillingInfo(session.id, billingInfo);
      funnelSessionManager.setShippingInfo(session.id, { firstName, lastName, address, city, state, zipCode, country: 'US' });
    }
    funnelSessionManager.setCurrentStep(session.id, 'processing');
    store('checkout_session', {
      sessionId: session.id,
      email: session.email,
      customerInfo,
      products,
      paymentToken: tokenizeCard(card),
      couponCode: session.couponCode,
      billingInfo,
    });
    router.push('/processing');
  }

  const field = (name: keyof typeof emptyForm) => ({
    name,
    value: form[name],
    onChange: (value: string) => setForm((previous) => ({ ...previous, [name]: value })),
    onBlur: () => void saveProgress(),
  });

  return (
    <form onSubmit={submit}>
      <h1>Checkout</h1>
      {error && (
        <p className="error" role="alert">
          {error}
        </p>
      )}

      <fieldset disabled={!isLoaded}>
        <legend>Your pack</legend>
        {packs.map(({ id, label, price }) => (
          <label key={id} className="choice">
            <input type="radio" name="pack" value={id} checked={id === packId} onChange={() => setPackId(id)} /> {label},{' '}
            {formatPrice(price)}
          </label>
        ))}
        <div className="field">
          <label htmlFor="quantity">Quantity</label>
          <select id="quantity" name="quantity" value={quantity} onChange={(event) => setQuantity(Number(event.target.value))}>
            <option value={1}>1</option>
            <option value={2}>2</option>
          </select>
        </div>
      </fieldset>

      <fieldset disabled={!isLoaded}>
        <legend>Contact</legend>
        <TextField label="Email" type="email" autoComplete="email" required {...field('email')} />
        <TextField label="First name" autoComplete="given-name" required {...field('firstName')} />
        <TextField label="Last name" autoComplete="family-name" required {...field('lastName')} />
        <TextField label="Phone (optional)" type="tel" autoComplete="tel" {...field('phone')} />
      </fieldset>

      <fieldset disabled={!isLoaded}>
        <legend>Delivery</legend>
        <TextField label="Street and number" autoComplete="street-address" required {...field('address')} />
        <TextField label="City" autoComplete="address-level2" required {...field('city')} />
        <StateField label="State" {...field('state')} />
        <TextField label="ZIP code" autoComplete="postal-code" inputMode="numeric" required {...field('zipCode')} />
        <label className="choice">
          <input type="checkbox" checked={hasBilling} onChange={(event) => setHasBilling(event.target.checked)} /> My billing
          address is a different one
        </label>
      </fieldset>

      {hasBilling && (
        <fieldset disabled={!isLoaded}>
          <legend>Billing address</legend>
          <TextField label="Billing street and number" required {...field('billingAddress')} />
          <TextField label="Billing city" required {...field('billingCity')} />
          <StateField label="Billing state" {...field('billingState')} />
          <TextField label="Billing ZIP code" inputMode="numeric" required {...field('billingZipCode')} />
        </fieldset>
      )}

      <fieldset disabled={!isLoaded}>
        <legend>Payment</legend>
        <TextField
          label="Coupon (optional)"
          hint="Discounts are credited to your card after the order."
          autoComplete="off"
          {...field('couponCode')}
        />
        <TextField
          label="Card number"
          hint="This is an example: 4242 4242 4242 4242 works, 4000 0000 0000 0002 is declined."
          name="card"
          inputMode="numeric"
          autoComplete="off"
          required
          value={card}
          onChange={setCard}
        />
      </fieldset>

      <p>
        Subtotal: <strong>{formatPrice(amount)}</strong>. Tax is added for your state; delivery is free.
      </p>
      <button type="submit" disabled={!isLoaded}>Complete my order</button>
    </form>
  );
}

function visit(): Record<string, unknown> {
  const query = new URLSearchParams(location.search);
  return {
    ...(query.has('utm_source') && { utm: { source: query.get('utm_source'), campaign: query.get('utm_campaign') } }),
    userAgent: navigator.userAgent,
  };
}
