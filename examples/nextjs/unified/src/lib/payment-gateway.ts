export interface ChargeResult {
  transactionId: string;
  vaultId: string;
  customerId: string;
}

export class PaymentDeclinedError extends Error {
  override readonly name = 'PaymentDeclinedError';
}

interface Charge {
  source: { token: string } | { vaultId: string };
  cents: number;
  orderId: string;
  /** The same for the same charge: the gateway makes it once, and answers the same however often it is asked. */
  idempotencyKey: string;
}

/** Charges a card by its one-time token, and puts it into the customer vault; or one that is in the vault. */
export async function charge({ source, cents, orderId, idempotencyKey }: Charge): Promise<ChargeResult> {
  const gatewayUrl = process.env.GATEWAY_URL ?? 'http://127.0.0.1:4600';
  const response = await fetch(`${gatewayUrl}/charges`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'idempotency-key': idempotencyKey },
    body: JSON.stringify({ ...source, amount: cents / 100, orderId }),
    cache: 'no-store',
  });
  const answer = (await response.json()) as ChargeResult & { error?: string };
  if (response.status === 402) throw new PaymentDeclinedError(answer.error ?? 'Declined');
  if (!response.ok) throw new Error(`Gateway answered ${response.status}: ${answer.error ?? 'no reason given'}`);
  return answer;
}
