import { paymentUrl } from './addresses';

/** What the demo payment service answers. */
export type PaymentOutcome = { outcome: 'paid' } | { outcome: 'declined'; message: string } | { outcome: 'notYet' };

/** The session does not take what became of a payment; the message is its reason. */
export class PaymentRefused extends Error {}

/** Asks the service to charge the session's amount. Asking again is safe: it charges once. */
export async function pay(sessionId: string, cardNumber: string): Promise<PaymentOutcome> {
  return post<PaymentOutcome>('/payments', { sessionId, cardNumber });
}

/** Asks the service to charge the offers that were accepted. Asking again is safe. */
export async function chargeOffers(sessionId: string): Promise<void> {
  await post('/offers', { sessionId });
}

async function post<Answer>(path: string, body: unknown): Promise<Answer> {
  const response = await fetch(paymentUrl + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(20_000),
  });
  const answer: unknown = await response.json().catch(() => undefined);
  if (response.ok) return answer as Answer;
  const reason = (answer as { error?: string } | undefined)?.error;
  if (response.status === 409 && reason !== undefined) throw new PaymentRefused(reason);
  throw new Error(`the payment service answered ${response.status}`);
}

/** Card numbers stay in this page's memory and go to the payment service only, never into the session. */
const cards = new Map<string, string>();

export function holdCard(sessionId: string, cardNumber: string): void {
  cards.clear();
  cards.set(sessionId, cardNumber);
}

export function heldCard(sessionId: string): string | undefined {
  return cards.get(sessionId);
}

export function dropCard(sessionId: string): void {
  cards.delete(sessionId);
}

/** Demo cards: any other number is refused by the demo service. */
export const workingCard = '4242 4242 4242 4242';
export const declinedCard = '4000 0000 0000 0002';

/** The digits in groups of four. */
export function groupDigits(text: string): string {
  const digits = text.replace(/\D/g, '').slice(0, 19);
  return digits.replace(/(.{4})(?=.)/g, '$1 ');
}

/** Luhn's check digit, as on every card. */
export function isCardNumber(text: string): boolean {
  const digits = [...text.replace(/\D/g, '')].map(Number).reverse();
  if (digits.length < 12) return false;
  const sum = digits.reduce((total, digit, index) => {
    const doubled = index % 2 === 1 ? digit * 2 : digit;
    return total + (doubled > 9 ? doubled - 9 : doubled);
  }, 0);
  return sum % 10 === 0;
}
