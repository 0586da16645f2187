import { useCheckout, useSession, useSync } from '../session/hooks';
import type { TimelineEntry } from 'throughline';

const shown = 40;
const rowHeight = 34;
const lanes: Readonly<Record<TimelineEntry['origin'], number>> = {
  'this tab': 10,
  'other tab': 26,
  'other client': 42,
  server: 58,
};

/** The session's events, newest first, each on the lane of the one who caused it. */
export function Timeline() {
  // Both announce new entries.
  useSession();
  useSync();
  const entries = useCheckout().timeline.slice(-shown).reverse();
  return (
    <section className="timeline" aria-labelledby="timeline-heading">
      <h3 id="timeline-heading">What happened</h3>
      <p className="legend" aria-hidden="true">
        <span className="pending">on its way</span>
        <span className="confirmed">confirmed</span>
        <span className="durable">durable</span>
      </p>
      <div className="chart">
        <svg
          className="lanes"
          width="68"
          height={entries.length * rowHeight}
          viewBox={`0 0 68 ${entries.length * rowHeight}`}
          aria-hidden="true"
          focusable="false"
        >
          {Object.values(lanes).map((x) => (
            <line key={x} className="lane" x1={x} x2={x} y1="0" y2={entries.length * rowHeight} />
          ))}
          <path className="thread" d={thread(entries)} />
          {entries.map((entry, index) => (
            <circle
              key={index}
              className={`bead ${entry.state}`}
              cx={lanes[entry.origin]}
              cy={index * rowHeight + rowHeight / 2}
              r="5.500"
            />
          ))}
        </svg>
        <ol reversed>
          {entries.map((entry, index) => (
            <li key={entries.length - index} style={{ blockSize: rowHeight }}>
              <span className="event-type">{words(entry.type)}</span>
              <span className="event-facts">
                {entry.origin}
                <span className="visually-hidden">, {entry.state},</span>{' '}
                {entry.at !== null && (
                  <time dateTime={entry.at.toISOString()}>{entry.at.toLocaleTimeString('en-GB')}</time>
                )}
              </span>
              <span className="event-version">{entry.version === null ? '…' : `v${entry.version}`}</span>
            </li>
          ))}
        </ol>
      </div>
      {entries.length === 0 && <p className="empty">Nothing since this page was opened</p>}
    </section>
  );
}

/** One curve through all beads. */
function thread(entries: readonly TimelineEntry[]): string {
  return entries
    .map((entry, index) => {
      const x = lanes[entry.origin];
      const y = index * rowHeight + rowHeight / 2;
      const before = entries[index - 1];
      if (before === undefined) return `M${x} ${y}`;
      const middle = y - rowHeight / 2;
      return `C${lanes[before.origin]} ${middle} ${x} ${middle} ${x} ${y}`;
    })
    .join('');
}

/** `customerSet` as `Customer set`. */
function words(type: string): string {
  const text = type.replace(/([a-z])([A-Z])/g, (_, last: string, first: string) => `${last} ${first.toLowerCase()}`);
  return text.charAt(0).toUpperCase() + text.slice(1);
}
