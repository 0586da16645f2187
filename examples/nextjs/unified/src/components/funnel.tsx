'use client';

import { usePathname } from 'next/navigation';
import { useEffect, useRef, useState } from 'react';
import { openSession, SessionError, type CheckoutSession } from 'throughline';
import { SessionProvider, useSelector, useSessionEvent } from 'throughline/react';

import { Checkout } from './checkout';
import { Processing } from './processing';
import { Success } from './success';
import { Upsell } from './upsell';

/** The buyer's order, at the step that its session is at. */
export function Funnel({ url }: { url: string }) {
  const [startedOver, setStartedOver] = useState(0);
  const startOver = () => setStartedOver((times) => times + 1);
  const loading = <p role="status">Loading your order…</p>;
  return (
    <SessionProvider key={startedOver} open={() => open(url, startedOver > 0)} fallback={loading}>
      <CurrentStep startOver={startOver} />
    </SessionProvider>
  );
}

async function open(url: string, fresh: boolean): Promise<CheckoutSession> {
  const create = { products: [{ id: 'fitspresso-3-pack', quantity: 1 }], metadata: visit() };
  try {
    return await openSession({ url, fresh, create });
  } catch (error) {
    const isGone = error instanceof SessionError && (error.code === 'sessionNotFound' || error.code === 'unauthorized');
    if (!isGone || fresh) throw error;
    return open(url, true);
  }
}

function visit(): Record<string, unknown> {
  const query = new URLSearchParams(location.search);
  return {
    ...(query.has('utm_source') && { utm: { source: query.get('utm_source'), campaign: query.get('utm_campaign') } }),
    userAgent: navigator.userAgent,
  };
}

function CurrentStep({ startOver }: { startOver: () => void }) {
  const step = useSelector(({ currentStep }) => currentStep);
  const isExpired = useSelector(({ status }) => status === 'expired');
  const [refusal, setRefusal] = useState<string>();
  useSessionEvent('rejected', ({ message }) => setRefusal(message));
  useAddressOf(step);
  // What the buyer does next makes a refusal old.
  const forget = () => setRefusal(undefined);
  return (
    <div onPointerDownCapture={forget} onKeyDownCapture={forget}>
      {isExpired ? <Expired startOver={startOver} /> : <Step key={step} step={step} startOver={startOver} />}
      {refusal && (
        <p className="error" role="alert">
          {refusal}
        </p>
      )}
    </div>
  );
}

/** The address follows the session, in every tab. Going back leads to no step that is over. */
function useAddressOf(step: string) {
  const path = usePathname();
  const shown = useRef(step);
  useEffect(() => {
    const hasMoved = shown.current !== step;
    shown.current = step;
    if (path === `/${step}`) return;
    if (hasMoved) history.pushState(null, '', `/${step}`);
    else history.replaceState(null, '', `/${step}`);
  }, [path, step]);
}

function Step({ step, startOver }: { step: string; startOver: () => void }) {
  switch (step) {
    case 'processing':
      return <Processing />;
    case 'upsell-1':
      return <Upsell title="Wait, your order isn’t complete yet" next="upsell-2" />;
    case 'upsell-2':
      return <Upsell title="One last thing for quieter nights" next="success" />;
    case 'success':
      return <Success startOver={startOver} />;
    default:
      return <Checkout />;
  }
}

function Expired({ startOver }: { startOver: () => void }) {
  return (
    <>
      <h1>Session expired</h1>
      <p>Nothing was charged. Please check out again.</p>
      <button type="button" onClick={startOver}>
        Start a new order
      </button>
    </>
  );
}
