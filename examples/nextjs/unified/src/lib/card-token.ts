const DECLINED_CARD = '4000000000000002';

/** Stands in for the script of the gateway, which takes the card's number and gives a one-time token. */
export function tokenizeCard(cardNumber: string): string {
  if (cardNumber.replace(/\D/g, '') === DECLINED_CARD) return 'tok_declined';
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return `tok_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}

/** The token, until the payment route has it: in this page's memory and nowhere else. */
let held: string | undefined;

export function holdToken(token: string): void {
  held = token;
}

export function heldToken(): string | undefined {
  return held;
}
