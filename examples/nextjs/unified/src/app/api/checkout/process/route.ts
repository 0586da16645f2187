import { type Session, ThroughlineError } from 'throughline/server';

import { charge, PaymentDeclinedError } from '@/lib/payment-gateway';
import { problem } from '@/lib/problem';
import { sessions } from '@/lib/sessions';

/** Takes the payment that a session has begun. Ask again where no answer came: it is taken once. */
export async function POST(request: Request): Promise<Response> {
  const { sessionId, paymentToken } = (await request.json()) as { sessionId: string; paymentToken?: string };
  // Also without a token: a command is judged by the state that counts, and answers with that. The token stays for whoever asks again.
  let session: Session;
  try {
    session = await sessions().command(sessionId, { type: 'setPaymentReferences', paymentToken: paymentToken || undefined });
  } catch (error) {
    if (!(error instanceof ThroughlineError) || error.mendableBy === 'retry') throw error;
    return problem(error.status ?? 409, error.code, error.message);
  }
  const { payment, status, amount, paymentToken: token } = session;
  if (payment.paidAt) return Response.json({ status: 'paid' });
  if (status !== 'processing') return problem(409, 'paymentNotBegun', 'No payment has been begun for this order.');
  if (!token) return problem(409, 'cardNeeded', 'Please enter your card once more. You are charged once.');

  const idempotencyKey = `${sessionId}/payment/${payment.attempts}`;
  try {
    const { transactionId, vaultId, customerId } = await charge({ source: { token }, cents: amount, orderId: sessionId, idempotencyKey });
    await sessions().command(sessionId, { type: 'recordPayment', transactionId, vaultId, customerId, amount });
    return Response.json({ status: 'paid' });
  } catch (error) {
    if (!(error instanceof PaymentDeclinedError)) throw error;
    // With a key: one who is late with this news must not fail the next attempt.
    const { message } = error;
    await sessions().command(sessionId, { type: 'failPayment', code: 'declined', message }, { idempotencyKey: `${idempotencyKey}/declined` });
    return problem(402, 'declined', message);
  }
}
