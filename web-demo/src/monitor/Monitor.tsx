import { useRef, useState } from 'react';

import { useMediaQuery, useSync } from '../session/hooks';
import { Ledger } from './Ledger';

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

const connectionNames = { connecting: 'Connecting', online: 'Online', offline: 'Offline', closed: 'Closed' } as const;

function Drawer() {
  const sync = useSync();
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
        {isOpen && <Ledger />}
      </dialog>
    </>
  );
}
