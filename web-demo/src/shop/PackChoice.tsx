import { useId } from 'react';
import { useCheckout, useSession } from 'throughline/react';

import { issue, packsOf } from '../session/current-session';
import { Bottles } from './Bottles';
import { price } from './money';
import { story } from './products';

const most = 9;

export function PackChoice() {
  const checkout = useCheckout();
  const session = useSession();
  const group = useId();
  const chosen = session.products[0];
  const quantity = chosen?.quantity ?? 1;
  const set = (id: string, count: number) => issue(checkout.setItems([{ id, quantity: count }]));

  return (
    <fieldset className="packs">
      <legend>Your pack</legend>
      <div className="pack-grid">
        {packsOf(checkout).map((pack) => {
          const { title, note, bottles } = story(pack.id);
          return (
            <label className="pack" key={pack.id}>
              <input
                type="radio"
                name={group}
                value={pack.id}
                checked={chosen?.id === pack.id}
                onChange={() => set(pack.id, quantity)}
              />
              <Bottles product={pack.id} />
              <span className="pack-title">{title ?? pack.name}</span>
              <span className="pack-note">{note}</span>
              <span className="pack-price">
                {price(pack.price, session.currency)}
                {bottles > 1 && <small> {price(pack.price / bottles, session.currency)} a bottle</small>}
              </span>
            </label>
          );
        })}
      </div>
      {chosen !== undefined && (
        <div className="quantity" role="group" aria-label="Number of packs">
          <span>Packs</span>
          <button
            type="button"
            aria-label="One pack fewer"
            disabled={quantity <= 1}
            onClick={() => set(chosen.id, quantity - 1)}
          >
            −
          </button>
          <output aria-live="polite">{quantity}</output>
          <button
            type="button"
            aria-label="One pack more"
            disabled={quantity >= most}
            onClick={() => set(chosen.id, quantity + 1)}
          >
            +
          </button>
        </div>
      )}
    </fieldset>
  );
}
