import { useState } from 'react';

import { useCheckout, useSession, useSync } from '../session/hooks';
import type { StorageRung, SyncState } from 'throughline';
import { Timeline } from './Timeline';

const rungs: readonly [StorageRung, string][] = [
  ['indexedDB', 'IndexedDB'],
  ['localStorage', 'localStorage'],
  ['memory', 'Memory'],
];

/** Which sessions the buyer took offline; it outlives the drawer being closed. */
const takenOffline = new Set<string>();

export function Ledger() {
  const sync = useSync();
  const session = useSession();
  return (
    <div className="ledger">
      <div className="connection">
        <p role="status" aria-live="polite">
          <span className={`lamp ${sync.connection}`} aria-hidden="true" />
          {describe(sync)}
        </p>
        <OfflineSwitch />
      </div>
      <Pipeline sync={sync} />
      <dl className="facts">
        <div>
          <dt>Pending commands</dt>
          <dd data-testid="pending">{sync.pending}</dd>
        </div>
        <div>
          <dt>Confirmed version</dt>
          <dd data-testid="confirmed-version">{sync.confirmedVersion}</dd>
        </div>
        <div>
          <dt>Durable version</dt>
          <dd data-testid="durable-version">{sync.durableVersion}</dd>
        </div>
        <div>
          <dt>Status</dt>
          <dd data-testid="status">{session.status}</dd>
        </div>
      </dl>
      <div className="ladder">
        <h3 id="ladder-heading">Kept in this browser by</h3>
        <ol aria-labelledby="ladder-heading">
          {rungs.map(([rung, name]) => (
            <li key={rung} aria-current={rung === sync.storage ? 'true' : undefined}>
              {name}
            </li>
          ))}
        </ol>
      </div>
      <Timeline />
      <p className="ids">
        <span>session</span> <code data-testid="session-id">{session.id}</code>
        <br />
        <span>client</span> <code>{sync.clientId}</code>
      </p>
    </div>
  );
}

function describe(sync: SyncState): string {
  switch (sync.connection) {
    case 'online':
      return sync.pending === 0 ? 'Online, all told' : `Online, ${sync.pending} to confirm`;
    case 'connecting':
      return 'Connecting…';
    case 'offline':
      return sync.pending === 0 ? 'Offline' : `Offline, ${sync.pending} waiting`;
    case 'closed':
      return 'Closed';
  }
}

function OfflineSwitch() {
  const checkout = useCheckout();
  const [isOn, setOn] = useState(takenOffline.has(checkout.id));
  const toggle = () => {
    if (isOn) {
      takenOffline.delete(checkout.id);
      checkout.goOnline();
    } else {
      takenOffline.add(checkout.id);
      checkout.goOffline();
    }
    setOn(!isOn);
  };
  return (
    <button type="button" role="switch" aria-checked={isOn} className="switch" onClick={toggle}>
      <span>Go offline</span>
      <span className="track" aria-hidden="true" />
    </button>
  );
}

/** How far the session's versions have come: seen here, confirmed by the server, durable in the database. */
function Pipeline({ sync }: { sync: SyncState }) {
  const newest = Math.max(sync.version, 1);
  const stages: [string, number, string][] = [
    ['This tab', sync.version, 'seen'],
    ['Server', sync.confirmedVersion, 'confirmed'],
    ['Database', sync.durableVersion, 'durable'],
  ];
  return (
    <div className="pipeline" aria-hidden="true">
      {stages.map(([name, version, kind]) => (
        <div key={kind} className={`stage ${kind} ${version >= sync.version ? 'level' : 'behind'}`}>
          <span className="stage-name">{name}</span>
          <span className="gauge">
            <span style={{ inlineSize: `${(100 * Math.min(version, newest)) / newest}%` }} />
          </span>
          <span className="stage-version">v{version}</span>
        </div>
      ))}
    </div>
  );
}
