import type { CheckoutSession } from 'throughline';

const secondMs = 1000;
const minuteMs = 60 * secondMs;

/** What a clock that runs backwards shows: `4:09`. */
export function clockFace(leftMs: number): string {
  const { minutes, seconds } = parts(leftMs);
  return `${minutes}:${String(seconds).padStart(2, '0')}`;
}

/** The same to be read out: `4 minutes 9 seconds`. */
export function inWords(leftMs: number): string {
  const { minutes, seconds } = parts(leftMs);
  if (minutes === 0) return count(seconds, 'second');
  return seconds === 0 ? count(minutes, 'minute') : `${count(minutes, 'minute')} ${count(seconds, 'second')}`;
}

/** How much it is at most, in steps that a screen reader may tell each of: `10 minutes` from ten down to five. */
export function atMost(leftMs: number, steps: readonly number[]): string {
  const step = steps.findLast((step) => leftMs <= step);
  return step === undefined ? inWords(Math.ceil(leftMs / (60 * minuteMs)) * 60 * minuteMs) : inWords(step);
}

/** For a session that ends, in milliseconds. */
export const sessionSteps: readonly number[] = [60, 45, 30, 20, 10, 5, 2, 1].map((minutes) => minutes * minuteMs);

/** For an offer that closes, in milliseconds. */
export const offerSteps: readonly number[] = [600, 300, 120, 60, 30, 10].map((seconds) => seconds * secondMs);

/** The server's time in milliseconds since the Unix epoch: this device's clock may be wrong. */
export function serverNow(checkout: CheckoutSession): number {
  return checkout.getSnapshot().expiresAt.getTime() - checkout.remaining.session;
}

function parts(leftMs: number): { minutes: number; seconds: number } {
  const seconds = Math.ceil(Math.max(0, leftMs) / secondMs);
  return { minutes: Math.floor(seconds / 60), seconds: seconds % 60 };
}

function count(number: number, unit: string): string {
  return `${number} ${unit}${number === 1 ? '' : 's'}`;
}
