import { createContext, createElement, Fragment, Suspense, useEffect, useMemo, useState, useSyncExternalStore } from 'react';
import type { ReactElement, ReactNode } from 'react';

import type { Session } from '../../generated/types.js';
import type { CheckoutSession } from '../session.js';
import { Source } from './source.js';

/** @internal What the hooks below a provider read. */
export interface Provided {
  readonly source: Source;
  /** What is shown before the session is open; on the server that is all there is. */
  readonly initialSession: Session | undefined;
}

/** @internal */
export const SessionContext = createContext<Provided | undefined>(undefined);

export interface SessionProviderProps {
  /**
   * Opens the session, in the browser, when the provider is shown; it is closed when the provider is gone. It is called once:
   * give the provider another `key` to open another session, or to try again. Either this or `session`.
   */
  readonly open?: () => PromiseLike<CheckoutSession>;
  /** A session that the page opens and closes itself, or the promise of one: the same object at each render. */
  readonly session?: CheckoutSession | PromiseLike<CheckoutSession>;
  /**
   * The session as a back end has read it (`GET /v1/sessions/{id}`, its times as `Date`s), for the first rendering, on the server and in the
   * browser. Without it the server renders `fallback`.
   */
  readonly initialSession?: Session;
  /** What is shown while the session is being opened. Without it, and with `session`, the boundary around the provider shows its own. */
  readonly fallback?: ReactNode;
  readonly children?: ReactNode;
}

/**
 * Gives the components below it one session.
 *
 * Those that use it suspend until it is open. Where it can't be opened they throw what `openSession` has, for an error
 * boundary around the provider.
 */
export function SessionProvider(props: SessionProviderProps): ReactElement {
  const { open, session, initialSession, fallback, children } = props;
  if ((open === undefined) === (session === undefined)) {
    throw new TypeError('SessionProvider: give it either `open` or `session`');
  }
  // Both are read once: a function that is written within a component is another one at each render.
  const [opened] = useState(() => new Source(open));
  const source = useMemo(() => (session === undefined ? opened : sourceOf(session)), [session, opened]);
  useEffect(() => (session === undefined ? opened.hold() : undefined), [session, opened]);
  const provided = useMemo(() => ({ source, initialSession }), [source, initialSession]);

  // A server has no session to wait for. The browser's first rendering has to be the same, and goes on from there.
  const isRenderable = useIsHydrated() || initialSession !== undefined;
  // With `open` the boundary is always here: beyond it the provider itself would not be shown, and so never open anything.
  const isBoundary = session === undefined || fallback !== undefined;
  // The same element as long as nothing of it has changed: a boundary that is hydrated must not be rendered anew meanwhile.
  return useMemo(() => {
    if (!isRenderable) return createElement(Fragment, null, fallback);
    const content = createElement(SessionContext.Provider, { value: provided }, children);
    return isBoundary ? createElement(Suspense, { fallback }, content) : content;
  }, [isRenderable, isBoundary, provided, fallback, children]);
}

/** One for each session, or promise, however often the component is thrown away while it suspends. */
const sources = new WeakMap<object, Source>();

function sourceOf(session: CheckoutSession | PromiseLike<CheckoutSession>): Source {
  const known = sources.get(session) ?? Source.of(session);
  sources.set(session, known);
  return known;
}

const never = () => () => undefined;
const yes = () => true;
const no = () => false;

/** `false` on the server, and while the browser takes over what the server has rendered. */
function useIsHydrated(): boolean {
  return useSyncExternalStore(never, yes, no);
}
