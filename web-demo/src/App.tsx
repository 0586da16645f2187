import { useSyncExternalStore } from 'react';

import { serverUrl } from './addresses';
import { Monitor } from './monitor/Monitor';
import { getCurrent, retry, startAgain, subscribe } from './session/current-session';
import { OpenSessionContext } from './session/hooks';
import { Shop } from './shop/Shop';

export function App() {
  const current = useSyncExternalStore(subscribe, getCurrent);
  switch (current.state) {
    case 'opening':
      return (
        <main className="notice" aria-busy="true">
          <p role="status">Opening the shop…</p>
        </main>
      );
    case 'failed':
      return (
        <main className="notice">
          <h1>The shop could not open</h1>
          <p role="alert" className="sentence">
            {current.reason} (server: {serverUrl})
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
    case 'open':
      return (
        <OpenSessionContext value={current.session} key={current.session.id}>
          <div className="layout">
            <Shop />
            <Monitor />
          </div>
        </OpenSessionContext>
      );
  }
}
