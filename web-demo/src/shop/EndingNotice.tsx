import { useCheckout, useRemaining, useSelector } from 'throughline/react';

import { issue } from '../session/current-session';
import { atMost, sessionSteps } from './time-left';

/** Says that the order's time is nearly over, and lets the buyer have more of it. */
export function EndingNotice() {
  const checkout = useCheckout();
  const remaining = useRemaining();
  const isPaid = useSelector(({ payment }) => payment.paidAt !== null);
  const leftMs = remaining?.isEnding === true ? remaining.session : undefined;
  return (
    <div className={leftMs === undefined ? undefined : 'banner dismissible ending'}>
      {/* Here before it has something to say: screen readers tell only what changes. */}
      <span role="status">{leftMs !== undefined && sentence(leftMs, isPaid)}</span>
      {leftMs !== undefined && leftMs > 0 && (
        <button type="button" className="link" onClick={() => issue(checkout.extend())}>
          Keep it longer
        </button>
      )}
    </div>
  );
}

/** Changes a few times only, so that it can be read out each time. */
function sentence(leftMs: number, isPaid: boolean): string {
  if (leftMs === 0) return 'The time of this order is over. The shop closes it as soon as this page is connected.';
  const left = atMost(leftMs, sessionSteps);
  return isPaid
    ? `Your order is paid and safe. It is closed in less than ${left}; until then you can add to it.`
    : `This order is kept for less than ${left}. Unpaid by then, it ends and nothing is charged.`;
}
