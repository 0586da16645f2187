import { useEffect, useRef, useState } from 'react';
import { mountDevtools } from 'throughline/devtools';
import { useCheckout, useSyncStatus } from 'throughline/react';

import { Pipeline } from './Pipeline';

/** What happens behind the shop: beside it where there is room, else in a drawer. */
export function Monitor() {
  const isBeside = useMediaQuery('(min-width: 1100px)');
  return isBeside ? (
    <aside className="monitor" aria-label="Behind the counter">
      <header>
        <h2>Behind the counter</h2>
      </header>
      <Ledger />
    </aside>
  ) : (
    <Drawer />
  );
}

function Ledger() {
  const checkout = useCheckout();
  const panel = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (panel.current === null) return;
    const { unmount } = mountDevtools(checkout, { target: panel.current, theme: 'dark' });
    return unmount;
  }, [checkout]);
  return (
    <div className="ledger">
      <Pipeline />
      <div ref={panel} />
    </div>
  );
}

const connectionNames = { connecting: 'Connecting', online: 'Online', offline: 'Offline', closed: 'Closed' } as const;

function Drawer() {
  const sync = useSyncStatus();
  const dialog = useRef<HTMLDialogElement>(null);
  const [isOpen, setOpen] = useState(false);
  return (
    <>
      <div className="drawer-bar">
        <button
          type="button"
          aria-haspopup="dialog"
          aria-expanded={isOpen}
          onClick={() => {
            dialog.current?.showModal();
            setOpen(true);
          }}
        >
          <span className={`lamp ${sync.connection}`} aria-hidden="true" />
          <span>{connectionNames[sync.connection]}</span>
          <span className="drawer-count">
            {sync.pending === 0 ? `version ${sync.version}` : `${sync.pending} to send`}
          </span>
          <span className="drawer-hint">Behind the counter</span>
        </button>
      </div>
      <dialog ref={dialog} className="monitor drawer" aria-label="Behind the counter" onClose={() => setOpen(false)}>
        <header>
          <h2>Behind the counter</h2>
          <button type="button" className="drawer-close" onClick={() => dialog.current?.close()}>
            Close
          </button>
        </header>
        <Ledger />
      </dialog>
    </>
  );
}

function useMediaQuery(query: string): boolean {
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
