import { useSyncStatus } from 'throughline/react';

/** How far the session's versions have come: seen here, confirmed by the server, durable in the database. */
export function Pipeline() {
  const { version, confirmedVersion, durableVersion } = useSyncStatus();
  const newest = Math.max(version, 1);
  const stages: [string, number, string][] = [
    ['This tab', version, 'seen'],
    ['Server', confirmedVersion, 'confirmed'],
    ['Database', durableVersion, 'durable'],
  ];
  return (
    <div className="pipeline" aria-hidden="true">
      {stages.map(([name, reached, kind]) => (
        <div key={kind} className={`stage ${kind} ${reached >= version ? 'level' : 'behind'}`}>
          <span className="stage-name">{name}</span>
          <span className="gauge">
            <span style={{ inlineSize: `${(100 * Math.min(reached, newest)) / newest}%` }} />
          </span>
          <span className="stage-version">v{reached}</span>
        </div>
      ))}
    </div>
  );
}
