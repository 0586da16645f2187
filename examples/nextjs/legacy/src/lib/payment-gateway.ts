export interface ChargeResult {
  transactionId: string;
  vaultId: string;
  customerId: string;
}

export class PaymentDeclinedError extends Error {
  override readonly name = 'PaymentDeclinedError';
}

type Source = { token: string } | { vaultId: string };

async function charge(source: Source, amount: number, orderId: string): Promise<ChargeResult> {
  const gatewayUrl = process.env.GATEWAY_URL ?? 'http://127.0.0.1:4600';
  const response = await fetch(`${gatewayUrl}/charges`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...source, amount, orderId }),
    cache: 'no-store',
  });
  const answer = (await response.json()) as ChargeResult & { error?: string };
  if (response.status === 402) throw new PaymentDeclinedError(answer.error ?? 'Declined');
  if (!response.ok) throw new Error(`Gateway answered ${response.status}: ${answer.error ?? 'no reason given'}`);
  return answer;
}

/** Charges a card by its one-time token. The card is put into the customer vault as well. */
export async function chargeCard(paymentToken: string, amount: number, orderId: string): Promise<ChargeResult> {
  return charge({ token: paymentToken }, amount, orderId);
}

/** Charges a card that is in the customer vault. */
export async function chargeVault(vaultId: string, amount: number, orderId: string): Promise<ChargeResult> {
  return charge({ vaultId }, amount, orderId);
}
