import type { Session } from '../generated/types.js';

/** What time is left, by the server's clock, in milliseconds; never less than 0. */
export interface Remaining {
  /** Until the session ends; 0 where it is over. */
  readonly session: number;
  /** Until the first open offer of the current step closes; `null` where none is open that closes. */
  readonly step: number | null;
  /** The end is as near as the funnel's `lifetime.warning`: the buyer should know of it. */
  readonly isEnding: boolean;
}

/** What is left of a session at this time of the server's clock, where the buyer is to be warned this long before its end. */
export function remainingOf(session: Session, warningMs: number, now: number): Remaining {
  const isOver = session.status === 'completed' || session.status === 'expired';
  const left = isOver ? 0 : until(session.expiresAt, now);
  const closing = session.upsells.flatMap(({ state, step, closesAt }) =>
    state === 'offered' && step === session.currentStep && closesAt ? [until(closesAt, now)] : [],
  );
  const step = isOver || closing.length === 0 ? null : Math.min(...closing);
  return { session: left, step, isEnding: !isOver && left <= warningMs };
}

function until(end: Date, now: number): number {
  return Math.max(0, end.getTime() - now);
}
