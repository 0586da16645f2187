import { createContext, use, useCallback, useEffect, useState, useSyncExternalStore } from 'react';

import type { CheckoutSession, Session, SyncState } from 'throughline';

export const OpenSessionContext = createContext<CheckoutSession | null>(null);

export function useCheckout(): CheckoutSession {
  const checkout = use(OpenSessionContext);
  if (checkout === null) throw new Error('used outside of an open session');
  return checkout;
}

/** The session as it is now, with what was just entered already in it. */
export function useSession(): Session {
  const checkout = useCheckout();
  const subscribe = useCallback((listener: () => void) => checkout.subscribe(listener), [checkout]);
  return useSyncExternalStore(subscribe, () => checkout.getSnapshot());
}

export function useSync(): SyncState {
  const checkout = useCheckout();
  const subscribe = useCallback((listener: () => void) => checkout.subscribe(listener), [checkout]);
  return useSyncExternalStore(subscribe, () => checkout.sync);
}

/** Whether the server has heard everything that this browser did. */
export function isSettled(sync: SyncState): boolean {
  return sync.connection === 'online' && sync.pending === 0;
}

export function useMediaQuery(query: string): boolean {
  const [matches, setMatches] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const list = matchMedia(query);
    const update = () => setMatches(list.matches);
    update();
    list.addEventListener('change', update);
    return () => list.removeEventListener('change', update);
  }, [query]);
  return matches;
}
