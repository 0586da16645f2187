import { useSession } from 'throughline/react';

import { Handoff } from './Handoff';
import { price } from './money';

export function OrderSummary() {
  return (
    <aside className="summary" aria-labelledby="summary-heading">
      <h2 id="summary-heading">Your order</h2>
      <OrderLines />
      <Handoff />
    </aside>
  );
}

export function OrderLines() {
  const { products, upsells, totals, couponCode, currency } = useSession();
  const bought = upsells.filter(({ state }) => state === 'accepted' || state === 'charged');
  const rows: [string, number][] = [['Subtotal', totals.subtotal]];
  if (totals.discount > 0) rows.push([couponCode === null ? 'Discount' : `Coupon ${couponCode}`, -totals.discount]);
  if (totals.upsells > 0) rows.push(['Extras', totals.upsells]);
  rows.push(['Tax', totals.tax]);
  return (
    <>
      <ul className="lines">
        {products.map((item) => (
          <li key={item.id}>
            <span>
              {item.name}
              {item.quantity > 1 && <em> × {item.quantity}</em>}
            </span>
            <span>{price(item.price * item.quantity, currency)}</span>
          </li>
        ))}
        {bought.map((upsell) => (
          <li key={upsell.offer}>
            <span>
              {upsell.name} <em>{upsell.state === 'charged' ? 'paid' : 'being added'}</em>
            </span>
            <span>{price(upsell.price, currency)}</span>
          </li>
        ))}
        {products.length === 0 && <li className="empty">Nothing chosen yet</li>}
      </ul>
      <dl className="sums">
        {rows.map(([name, amount]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{price(amount, currency)}</dd>
          </div>
        ))}
        <div>
          <dt>Delivery</dt>
          <dd>{totals.shipping === 0 ? 'Free' : price(totals.shipping, currency)}</dd>
        </div>
        <div className="total">
          <dt>Total</dt>
          <dd>{price(totals.total, currency)}</dd>
        </div>
      </dl>
    </>
  );
}
