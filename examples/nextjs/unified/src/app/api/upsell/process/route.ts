import { charge, PaymentDeclinedError } from '@/lib/payment-gateway';
import { problem } from '@/lib/problem';
import { sessions } from '@/lib/sessions';

/** Charges an offer that the buyer has accepted in the session. Ask again where no answer came: it is charged once. */
export async function POST(request: Request): Promise<Response> {
  const { sessionId, offer } = (await request.json()) as { sessionId: string; offer: string };
  const session = await sessions().getSession(sessionId);
  const upsell = session?.upsells.find((made) => made.offer === offer);
  if (upsell?.state === 'charged') return Response.json({ status: 'charged' });
  if (!session?.vaultId || upsell?.state !== 'accepted') return problem(409, 'offerNotAccepted', 'This offer is not accepted.');

  const amount = upsell.price + upsell.tax;
  const idempotencyKey = `${sessionId}/offer/${offer}`;
  try {
    const { transactionId } = await charge({ source: { vaultId: session.vaultId }, cents: amount, orderId: sessionId, idempotencyKey });
    await sessions().command(sessionId, { type: 'recordUpsellCharge', offer, transactionId, amount });
    return Response.json({ status: 'charged' });
  } catch (error) {
    if (!(error instanceof PaymentDeclinedError)) throw error;
    await sessions().command(sessionId, { type: 'failUpsellCharge', offer, code: 'declined', message: error.message });
    return problem(402, 'declined', error.message);
  }
}
