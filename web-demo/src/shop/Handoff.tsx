import { generate } from 'lean-qr';
import { toSvgPath } from 'lean-qr/extras/svg';
import { useEffect, useId, useMemo, useRef, useState } from 'react';
import { SessionError, type CheckoutSession, type Handoff as Link } from 'throughline';
import { useCheckout, useRemaining, useTimeline } from 'throughline/react';

import { clockFace, inWords, serverNow } from './time-left';

/** Lets another device go on with the order: a button, and the dialog with the link that it opens. */
export function Handoff() {
  const dialog = useRef<HTMLDialogElement>(null);
  const heading = useId();
  const [isOpen, setOpen] = useState(false);
  const open = () => {
    dialog.current?.showModal();
    setOpen(true);
  };
  return (
    <>
      <button type="button" className="button quiet" aria-haspopup="dialog" onClick={open}>
        Go on on another device
      </button>
      <dialog
        ref={dialog}
        className="handoff"
        aria-labelledby={heading}
        onClose={() => setOpen(false)}
        // Beside the dialog's content there is only what lies behind it.
        onClick={({ target, currentTarget }) => target === currentTarget && currentTarget.close()}
      >
        <div className="handoff-content">
          <header>
            <h2 id={heading}>Go on on another device</h2>
            <button type="button" className="link" onClick={() => dialog.current?.close()}>
              Close
            </button>
          </header>
          {isOpen && <AskedLink />}
        </div>
      </dialog>
    </>
  );
}

/** A link, what came instead of one, or neither yet. */
interface Answer {
  readonly link?: Link;
  /** How often the session had been handed over when the link came. */
  readonly uses?: number;
  readonly failure?: unknown;
}

/** Asks for a link when it is shown. */
function AskedLink() {
  const checkout = useCheckout();
  const [attempt, setAttempt] = useState(0);
  const [{ link, uses, failure }, setAnswer] = useState<Answer>({});
  const isUsed = useTimeline().filter(isHandedOff).length > (uses ?? Infinity);
  // Renders each second.
  useRemaining();
  const leftMs = link === undefined ? 0 : link.expiresAt.getTime() - serverNow(checkout);

  useEffect(() => {
    const abort = new AbortController();
    const answer = (answer: Answer) => !abort.signal.aborted && setAnswer(answer);
    answer({});
    checkout.handoff({ signal: abort.signal }).then(
      (link) => answer({ link, uses: checkout.timeline.filter(isHandedOff).length }),
      (failure: unknown) => answer({ failure }),
    );
    return () => abort.abort();
  }, [checkout, attempt]);

  const isAsking = link === undefined && failure === undefined;
  const isGood = link !== undefined && !isUsed && leftMs > 0;
  return (
    <>
      {failure !== undefined && (
        <p className="banner bad sentence" role="alert">
          {inPlainWords(failure)}
        </p>
      )}
      <p className="status-line" role="status">
        {isAsking && 'Asking the shop for a link…'}
        {isUsed && 'Another device has your order now. You can go on here or there: each shows what the other does.'}
        {link !== undefined && !isUsed && leftMs <= 0 && 'This link has ended.'}
      </p>
      {isGood && <GoodLink url={link.url} leftMs={leftMs} />}
      {!isAsking && !isGood && (
        <button type="button" className="button primary" autoFocus onClick={() => setAttempt(attempt + 1)}>
          {failure === undefined ? 'Ask for a new link' : 'Try again'}
        </button>
      )}
    </>
  );
}

function GoodLink({ url, leftMs }: { url: string; leftMs: number }) {
  const field = useId();
  const input = useRef<HTMLInputElement>(null);
  const [copied, setCopied] = useState('');
  const copy = async () => {
    input.current?.select();
    try {
      await navigator.clipboard.writeText(url);
      setCopied('Copied');
    } catch {
      // No permission, or a page without a secure connection.
      setCopied('Your browser does not let this page copy. The link is selected: copy it with the keyboard or the menu.');
    }
  };
  return (
    <>
      <p>Point the other device’s camera at this picture, or open the link there.</p>
      <QrCode text={url} />
      <div className="field">
        <label htmlFor={field}>Link</label>
        <div className="with-button">
          <input ref={input} id={field} readOnly value={url} onFocus={({ target }) => target.select()} />
          <button type="button" className="button quiet" onClick={() => void copy()}>
            Copy
          </button>
        </div>
        <span className="hint" role="status">
          {copied}
        </span>
      </div>
      <p className="hint">
        It works once, for another{' '}
        <span role="timer" className="clock">
          <span aria-hidden="true">{clockFace(leftMs)}</span>
          <span className="visually-hidden">{inWords(leftMs)}</span>
        </span>
        . Whoever opens it goes on with your order: show it to nobody else.
      </p>
      {isOnlyHere && (
        <p className="hint">
          This demonstration is at {location.hostname}, which other devices can’t reach: open the link in another browser
          here.
        </p>
      )}
    </>
  );
}

const isOnlyHere = /^(localhost|127\.|\[::1\])/.test(location.hostname);

/** In black on white with a margin of four modules, as the standard wants it for cameras. */
function QrCode({ text }: { text: string }) {
  const { path, size } = useMemo(() => {
    const code = generate(text);
    return { path: toSvgPath(code), size: code.size };
  }, [text]);
  const margin = 4;
  return (
    <svg
      className="qr-code"
      role="img"
      aria-label="QR code of the link"
      viewBox={`${-margin} ${-margin} ${size + 2 * margin} ${size + 2 * margin}`}
      shapeRendering="crispEdges"
    >
      <path d={path} />
    </svg>
  );
}

function isHandedOff({ type }: CheckoutSession['timeline'][number]): boolean {
  return type === 'handedOff';
}

function inPlainWords(failure: unknown): string {
  if (failure instanceof SessionError && failure.code === 'unreachable') {
    return 'There is no connection to the shop just now. Your order is kept here; try again when you are online.';
  }
  return failure instanceof Error ? failure.message : String(failure);
}
