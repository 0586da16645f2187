import { useEffect, useState } from 'react';
import { useSession, useSyncStatus } from 'throughline/react';

import { chargeOffers } from '../payment';
import { isSettled } from '../session/settled';

const retryMs = 2500;

/** Has the payment service charge what was accepted, once the server knows of it; asks again until that is done. */
export function useOfferCharges(): void {
  const session = useSession();
  const sync = useSyncStatus();
  const [tries, setTries] = useState(0);
  const accepted = session.upsells.filter(({ state }) => state === 'accepted').map(({ offer }) => offer);
  const wanted = isSettled(sync) ? accepted.join(' ') : '';

  useEffect(() => {
    if (wanted === '') return;
    let timer: number | undefined;
    const again = () => {
      timer = window.setTimeout(() => setTries((count) => count + 1), retryMs);
    };
    void chargeOffers(session.id).then(again, again);
    return () => clearTimeout(timer);
  }, [wanted, tries, session.id]);
}
