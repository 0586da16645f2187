import { useId, useState } from 'react';
import { useCheckout, useSession } from 'throughline/react';

import { issue } from '../session/current-session';
import { description, FieldFrame } from './Field';
import { price } from './money';

export function CouponField() {
  const checkout = useCheckout();
  const { couponCode, totals, currency } = useSession();
  const id = useId();
  const [code, setCode] = useState('');
  const [error, setError] = useState<string>();

  if (couponCode !== null) {
    return (
      <div className="coupon-applied" role="status">
        <span>
          Coupon <strong>{couponCode}</strong> takes off {price(totals.discount, currency)}
        </span>
        <button type="button" className="link" onClick={() => {
            setCode('');
            issue(checkout.setCoupon(null));
          }}>
          Remove coupon
        </button>
      </div>
    );
  }

  const apply = () => {
    if (code.trim() === '') return;
    setError(undefined);
    issue(checkout.setCoupon(code.trim()), setError);
  };

  return (
    <FieldFrame id={id} label="Coupon" isOptional hint="SAVE10 and SAVE5 are valid here" error={error}>
      <div className="with-button">
        <input
          id={id}
          name="coupon"
          value={code}
          autoComplete="off"
          autoCapitalize="characters"
          onChange={(event) => {
            setCode(event.target.value);
            setError(undefined);
          }}
          onKeyDown={(event) => {
            if (event.key !== 'Enter') return;
            event.preventDefault();
            apply();
          }}
          {...description(id, 'hint', error)}
        />
        <button type="button" className="button quiet" onClick={apply}>
          Apply
        </button>
      </div>
    </FieldFrame>
  );
}
