import { useSession } from 'throughline/react';

import { formatPrice } from '@/lib/format-price';

export function Success({ startOver }: { startOver: () => void }) {
  const { id, status, email, products, upsells, totals } = useSession();
  const lines = [
    ...products.map(({ name, quantity, price }) => [`${name} × ${quantity}`, price * quantity] as const),
    ...upsells.filter(({ state }) => state === 'charged').map(({ name, price }) => [name, price] as const),
    ...(totals.discount > 0 ? [['Discount', -totals.discount] as const] : []),
    ['Tax', totals.tax] as const,
    ['Total', totals.total] as const,
  ];
  return (
    <>
      <h1>Thank you for your order</h1>
      <p>
        Order number ORDER-{id.slice(-8).toUpperCase()}, status: <strong role="status">{status}</strong>
      </p>
      <table className="lines">
        <caption>What you ordered</caption>
        <tbody>
          {lines.map(([name, amount]) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td>{formatPrice(amount)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <p>A receipt goes to {email}.</p>
      <button type="button" className="quiet" onClick={startOver}>
        Start a new order
      </button>
    </>
  );
}
