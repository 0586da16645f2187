import { useEffect, useRef, useState, type FormEvent } from 'react';
import { useSession, useSyncStatus } from 'throughline/react';

import { dropCard, groupDigits, heldCard, holdCard, isCardNumber, pay, PaymentRefused } from '../payment';
import { isSettled } from '../session/settled';
import { Field } from './Field';
import { price } from './money';
import { StepHeading } from './StepHeading';

type Attempt = 'waiting' | 'asking' | 'answered' | 'unreachable' | 'refused' | 'noCard';

/** How long to wait for the outcome of a payment that another tab, or this one before a reload, has begun. */
const patienceMs = 4000;
const askAgainMs = 700;

export function ProcessingStep() {
  const session = useSession();
  const sync = useSyncStatus();
  const [attempt, setAttempt] = useState<Attempt>('waiting');
  const [refusal, setRefusal] = useState('');
  const isAsking = useRef(false);
  const settled = isSettled(sync);
  const card = heldCard(session.id);

  useEffect(() => {
    if (!settled || attempt !== 'waiting' || isAsking.current) return;
    if (card === undefined) {
      const timer = setTimeout(() => setAttempt('noCard'), patienceMs);
      return () => clearTimeout(timer);
    }
    isAsking.current = true;
    setAttempt('asking');
    void askUntilAnswered(session.id, card)
      .then(() => {
        dropCard(session.id);
        setAttempt('answered');
      })
      .catch((error: unknown) => {
        if (error instanceof PaymentRefused) setRefusal(error.message);
        setAttempt(error instanceof PaymentRefused ? 'refused' : 'unreachable');
      })
      .finally(() => {
        isAsking.current = false;
      });
  }, [settled, attempt, card, session.id]);

  return (
    <section className="step processing">
      <StepHeading>Taking your payment</StepHeading>
      <Percolator isMoving={!['unreachable', 'refused', 'noCard'].includes(attempt)} />
      <p className="status-line" role="status" aria-live="polite">
        {attempt === 'refused'
          ? `The payment could not be recorded yet: ${refusal}. You are not charged twice.`
          : statusLine(attempt, sync.connection, settled)}
      </p>
      <p className="lede">
        {price(session.amount, session.currency)} for your order. You can close this page: the order stays where it is.
      </p>
      {(attempt === 'unreachable' || attempt === 'refused') && (
        <button type="button" className="button primary" onClick={() => setAttempt('waiting')}>
          Ask the payment service again
        </button>
      )}
      {attempt === 'noCard' && <CardAgain sessionId={session.id} onEntered={() => setAttempt('waiting')} />}
    </section>
  );
}

/** The service may hear of the order a moment after this page: it then says so, and is asked again. */
async function askUntilAnswered(sessionId: string, card: string): Promise<void> {
  for (let tries = 0; tries < 10; tries += 1) {
    const { outcome } = await pay(sessionId, card);
    if (outcome !== 'notYet') return;
    await new Promise((resolve) => setTimeout(resolve, askAgainMs));
  }
  throw new Error('the payment service does not know of the order');
}

function statusLine(attempt: Attempt, connection: string, settled: boolean): string {
  if (attempt === 'unreachable') return 'The payment service does not answer. Nothing is lost.';
  if (attempt === 'noCard') return 'This page has no card for this order.';
  if (attempt === 'answered') return 'Done; the order is being brought up to date…';
  if (connection === 'offline' || connection === 'closed') {
    return 'You are offline. Your order is kept here and goes on when you are back.';
  }
  if (!settled) return 'Telling the shop about your order…';
  return attempt === 'asking' ? 'Asking the bank…' : 'Waiting for the outcome…';
}

function CardAgain({ sessionId, onEntered }: { sessionId: string; onEntered: () => void }) {
  const [card, setCard] = useState('');
  const [error, setError] = useState<string>();
  const submit = (event: FormEvent) => {
    event.preventDefault();
    if (!isCardNumber(card)) {
      setError('Enter a card number, such as 4242 4242 4242 4242');
      return;
    }
    holdCard(sessionId, card);
    onEntered();
  };
  return (
    <form className="card-again" onSubmit={submit} noValidate>
      <Field
        id="card-again"
        label="Card number"
        hint="Cards are never kept, so a page that was reloaded has to ask. An order is charged once only."
        error={error}
        required
        inputMode="numeric"
        autoComplete="off"
        value={card}
        onChange={(event) => {
          setCard(groupDigits(event.target.value));
          setError(undefined);
        }}
      />
      <button type="submit" className="button primary">
        Pay with this card
      </button>
    </form>
  );
}

/** A coffee maker at work, drawn; stands still for those who prefer that. */
function Percolator({ isMoving }: { isMoving: boolean }) {
  return (
    <svg className={isMoving ? 'percolator moving' : 'percolator'} viewBox="0 0 120 130" aria-hidden="true" focusable="false">
      <path className="steam" d="M48 24c-6-8 6-11 0-20M60 24c-6-8 6-11 0-20M72 24c-6-8 6-11 0-20" />
      <path className="dripper" d="M28 34h64l-20 34H48z" />
      <path className="drop" d="M60 70c4 5 5.500 7 5.500 9.500a5.500 5.500 0 0 1-11 0C54.500 77 56 75 60 70z" />
      <path className="cup" d="M34 90h48v18a16 16 0 0 1-16 16H50a16 16 0 0 1-16-16zM82 96h6a8 8 0 0 1 0 16h-6" />
      <path className="coffee" d="M38 98h40v9a13 13 0 0 1-13 13H51a13 13 0 0 1-13-13z" />
    </svg>
  );
}
