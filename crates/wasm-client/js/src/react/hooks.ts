import { useCallback, useContext, useEffect, useMemo, useRef, useSyncExternalStore } from 'react';

import type { Session } from '../../generated/types.js';
import type { Remaining } from '../remaining.js';
import type { CheckoutSession, SessionEventMap, SyncState } from '../session.js';
import type { TimelineEntry } from '../timeline.js';
import { type Provided, SessionContext } from './provider.js';

/** The session object, with its commands. Suspends until it is open, also where there is an `initialSession`. */
export function useCheckout(): CheckoutSession {
  const { source } = useProvided();
  return useSyncExternalStore(
    source.subscribe,
    () => source.read(),
    () => source.session ?? notOnTheServer(),
  );
}

/** The session as it is now, this page's unconfirmed commands included. Renders again with each of its changes. */
export function useSession(): Session {
  return useSelector(itself);
}

/**
 * What `selector` makes of the session. Renders again only where that is another value: by `isEqual`, else `Object.is`.
 *
 * What did not change within a session is the same object from one to the next, so parts of it can be selected as they are.
 */
export function useSelector<Selected>(
  selector: (session: Session) => Selected,
  isEqual: (before: Selected, after: Selected) => boolean = Object.is,
): Selected {
  const { source, initialSession } = useProvided();
  /** What was rendered last: a selector that is new at each render, and makes a new object each time, must not render for ever. */
  const shown = useRef<{ selected: Selected } | undefined>(undefined);
  const select = useMemo(() => {
    let last: { session: Session; selected: Selected } | undefined;
    return (session: Session): Selected => {
      if (last?.session === session) return last.selected;
      const selected = selector(session);
      const before = last ?? shown.current;
      last = { session, selected: before && isEqual(before.selected, selected) ? before.selected : selected };
      return last.selected;
    };
  }, [selector, isEqual]);
  const selected = useSyncExternalStore(
    source.subscribe,
    () => select(source.session?.getSnapshot() ?? initialSession ?? source.read().getSnapshot()),
    // What the server has rendered comes first, whatever is here by now.
    () => select(initialSession ?? source.session?.getSnapshot() ?? notOnTheServer()),
  );
  useEffect(() => {
    shown.current = { selected };
  });
  return selected;
}

/** How the session is connected, and how far it is confirmed. */
export function useSyncStatus(): SyncState {
  const { source, initialSession } = useProvided();
  const before = useMemo(() => initialSession && unconnected(initialSession), [initialSession]);
  return useSyncExternalStore(
    source.subscribe,
    () => source.session?.sync ?? before ?? source.read().sync,
    () => before ?? source.session?.sync ?? notOnTheServer(),
  );
}

/** What has happened since the page was opened, and what is pending; the newest last. Empty until the session is open. */
export function useTimeline(): readonly TimelineEntry[] {
  const { source } = useProvided();
  return useSyncExternalStore(source.subscribe, () => source.session?.timeline ?? nothing, () => nothing);
}

/**
 * Calls `listener` whenever this happens, as {@link CheckoutSession.on} does: the latest one that was rendered.
 *
 * ```tsx
 * useSessionEvent('rejected', (rejection) => toast(rejection.message));
 * ```
 */
export function useSessionEvent<Name extends keyof SessionEventMap>(name: Name, listener: SessionEventMap[Name]): void {
  const { source } = useProvided();
  const latest = useRef(listener);
  useEffect(() => {
    latest.current = listener;
  });
  const session = useSyncExternalStore(source.subscribe, () => source.session, none);
  const tell = useCallback((...args: unknown[]) => (latest.current as (...args: unknown[]) => void)(...args), []);
  useEffect(() => session?.on(name, tell as SessionEventMap[Name]), [session, name, tell]);
}

/**
 * What time is left, by the server's clock: renders again each second. `undefined` until the session is open, on the server
 * therefore always: what would be rendered there is over when the browser takes it over.
 */
export function useRemaining(): Remaining | undefined {
  const { source } = useProvided();
  const session = useSyncExternalStore(source.subscribe, () => source.session, none);
  const told = useMemo(() => {
    let latest = session?.remaining;
    const subscribe = (notify: () => void) => {
      const listener: SessionEventMap['remaining'] = (remaining) => {
        latest = remaining;
        notify();
      };
      return session?.on('remaining', listener) ?? (() => undefined);
    };
    return { subscribe, read: () => latest };
  }, [session]);
  return useSyncExternalStore(told.subscribe, told.read, none);
}

function useProvided(): Provided {
  const provided = useContext(SessionContext);
  if (!provided) throw new Error('a hook of throughline/react is used outside of a <SessionProvider>');
  return provided;
}

const nothing: readonly TimelineEntry[] = Object.freeze([]);
const none = () => undefined;
const itself = (session: Session) => session;

/** What is said of a session that is not open yet. */
function unconnected({ version }: Session): SyncState {
  return Object.freeze({
    connection: 'connecting',
    pending: 0,
    storage: 'memory',
    leading: false,
    transport: null,
    version,
    confirmedVersion: version,
    durableVersion: version,
    clientId: '',
  });
}

/** React shows the fallback of the boundary around the component, and renders it in the browser. */
function notOnTheServer(): never {
  throw new Error('there is no session on the server: put what issues commands into a <Suspense>, or give the provider an initialSession');
}
