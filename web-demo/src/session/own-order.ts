import type { CheckoutSession, Session } from 'throughline';

const key = 'slowpour-own-order';

/** Notes whether this browser has an order that its buyer has entered something in: a link must not replace it unasked. */
export function followOwnOrder(session: CheckoutSession): void {
  let noted: boolean | undefined;
  const note = () => {
    const isBegun = hasSomething(session.getSnapshot());
    if (isBegun !== noted) write((noted = isBegun));
  };
  note();
  session.subscribe(note);
}

export function hasOwnOrder(): boolean {
  try {
    return localStorage.getItem(key) !== null;
  } catch {
    return false;
  }
}

function hasSomething({ email, customer, couponCode, status }: Session): boolean {
  const isOver = status === 'completed' || status === 'expired';
  return !isOver && (email !== null || couponCode !== null || Object.keys(customer).length > 0);
}

function write(isBegun: boolean): void {
  try {
    if (isBegun) localStorage.setItem(key, 'yes');
    else localStorage.removeItem(key);
  } catch {
    // Where nothing can be stored there is no order from before, either.
  }
}
