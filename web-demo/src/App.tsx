import { Component, type ReactNode, useSyncExternalStore } from 'react';
import { SessionError } from 'throughline';
import { SessionProvider } from 'throughline/react';

import { serverUrl } from './addresses';
import { Monitor } from './monitor/Monitor';
import { dropLink, followLink, getWanted, open, retry, startAgain, subscribe } from './session/current-session';
import { Shop } from './shop/Shop';

export function App() {
  const wanted = useSyncExternalStore(subscribe, getWanted);
  if (wanted.question !== undefined) return <LinkQuestion replaces={wanted.question === 'replace'} />;
  // Another key is another session: the one before is closed, and nothing of it stays on the page.
  return (
    <OpeningBoundary key={wanted.attempt} isLinked={wanted.handoff !== undefined}>
      <SessionProvider open={() => open(wanted)} fallback={<Opening />}>
        <div className="layout">
          <Shop />
          <Monitor />
        </div>
      </SessionProvider>
    </OpeningBoundary>
  );
}

function Opening() {
  return (
    <main className="notice" aria-busy="true">
      <p role="status">Opening the shop…</p>
    </main>
  );
}

/** A link may have been sent by somebody else, who would read what is entered into their order. */
function LinkQuestion({ replaces }: { replaces: boolean }) {
  return (
    <main className="notice">
      <h1>Go on with the order of this link?</h1>
      <p>
        {replaces && 'You have begun another order in this browser, and this page can show one at a time. '}
        Whatever you enter goes into the order that is shown: go on with the link’s only if it is from you.
      </p>
      <div className="notice-actions">
        <button type="button" className="button" onClick={followLink}>
          Go on with the link’s order
        </button>
        <button type="button" className="button quiet" onClick={dropLink}>
          {replaces ? 'Keep the order of this browser' : 'Begin an order of your own'}
        </button>
      </div>
    </main>
  );
}

/** Says why the order of a link is not shown. */
function LinkFailure({ failure }: { failure: unknown }) {
  const isRefused = failure instanceof SessionError && failure.code === 'handoffRefused';
  return (
    <main className="notice">
      <h1>{isRefused ? 'This link does not work any more' : 'The order could not be brought here'}</h1>
      <p role="alert" className="sentence">
        {isRefused
          ? `${failure.message}.`
          : 'There is no connection to the shop just now. The order is safe where you began it; try again when you are online.'}
      </p>
      <div className="notice-actions">
        {!isRefused && (
          <button type="button" className="button" onClick={retry}>
            Try again
          </button>
        )}
        <button type="button" className={isRefused ? 'button' : 'button quiet'} onClick={dropLink}>
          Go on without the link
        </button>
      </div>
    </main>
  );
}

/** Shows why the session could not be opened. */
class OpeningBoundary extends Component<{ children: ReactNode; isLinked: boolean }, { failure?: unknown }> {
  override state: { failure?: unknown } = {};

  static getDerivedStateFromError(failure: unknown) {
    return { failure };
  }

  override render() {
    const { failure } = this.state;
    if (failure === undefined) return this.props.children;
    if (this.props.isLinked) return <LinkFailure failure={failure} />;
    return (
      <main className="notice">
        <h1>The shop could not open</h1>
        <p role="alert" className="sentence">
          {failure instanceof Error ? failure.message : String(failure)} (server: {serverUrl})
        </p>
        <div className="notice-actions">
          <button type="button" className="button" onClick={retry}>
            Try again
          </button>
          <button type="button" className="button quiet" onClick={startAgain}>
            Start again
          </button>
        </div>
      </main>
    );
  }
}
