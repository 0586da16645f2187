import { Component, type ReactNode, useSyncExternalStore } from 'react';
import { SessionProvider } from 'throughline/react';

import { serverUrl } from './addresses';
import { Monitor } from './monitor/Monitor';
import { getWanted, open, retry, startAgain, subscribe } from './session/current-session';
import { Shop } from './shop/Shop';

export function App() {
  const wanted = useSyncExternalStore(subscribe, getWanted);
  // Another key is another session: the one before is closed, and nothing of it stays on the page.
  return (
    <OpeningBoundary key={wanted.attempt}>
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

/** Shows why the session could not be opened. */
class OpeningBoundary extends Component<{ children: ReactNode }, { failure?: unknown }> {
  override state: { failure?: unknown } = {};

  static getDerivedStateFromError(failure: unknown) {
    return { failure };
  }

  override render() {
    const { failure } = this.state;
    if (failure === undefined) return this.props.children;
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
