import { NextResponse, type NextRequest } from 'next/server';

import { createSession } from '@/lib/cookie-session';
import { databaseSessionManager } from '@/lib/database-session-manager';
import { chargeCard, PaymentDeclinedError } from '@/lib/payment-gateway';
import { counted } from '@/lib/request-counts';
import type { BillingInfo, CustomerInfo, Product } from '@/types/session';

interface CheckoutRequest {
  sessionId?: string;
  email: string;
  customerInfo?: CustomerInfo;
  products: Product[];
  paymentToken: string;
  couponCode?: string;
  billingInfo?: BillingInfo;
}

const TAX_RATES: Record<string, number> = { CA: 0.0725, TX: 0.0625, NY: 0.08, FL: 0.06, WA: 0.065 };

export const POST = counted(async (request: NextRequest) => {
  try {
    const body = (await request.json()) as CheckoutRequest;
    const { email, customerInfo, products, paymentToken, couponCode, billingInfo } = body;
    if (!email || !paymentToken || !products?.length) {
      return failure(400, 'VALIDATION_ERROR', 'Email, products and payment token are required');
    }
    console.log('Processing checkout:', email, customerInfo, products);

    const subtotal = products.reduce((sum, product) => sum + product.price * product.quantity, 0);
    const taxState = customerInfo?.state ?? '';
    const taxRate = TAX_RATES[taxState] ?? 0;
    const tax = Number((subtotal * taxRate).toFixed(2));
    const shipping = 0;
    const totalAmount = subtotal + tax + shipping;

    const { id } = await databaseSessionManager.createSession({
      id: body.sessionId,
      email,
      customerInfo,
      products,
      couponCode,
      metadata: {
        ...(billingInfo && { billingInfo }),
        subtotal,
        tax,
        taxRate,
        shipping,
        totalAmount,
        taxState,
        createdAt: new Date().toISOString(),
      },
    });

    await databaseSessionManager.updateSession(id, {
      status: 'processing',
      current_step: 'processing',
      payment_token: paymentToken,
    });

    const verified = await databaseSessionManager.getSession(id);
    if (verified?.status !== 'processing') {
      return failure(500, 'SESSION_ERROR', 'The session could not be verified');
    }

    let payment;
    try {
      payment = await chargeCard(paymentToken, totalAmount, id);
    } catch (error) {
      if (!(error instanceof PaymentDeclinedError)) throw error;
      console.log('Payment declined:', email, error.message);
      await databaseSessionManager.failSession(id, error.message);
      return failure(402, 'PAYMENT_DECLINED', error.message);
    }

    try {
      await databaseSessionManager.completeSession(id, payment.transactionId, payment.vaultId);
    } catch (error) {
      console.error('Could not complete the session, the payment went through:', id, error);
    }

    try {
      await createSession({
        id,
        vaultId: payment.vaultId,
        customerId: payment.customerId,
        email,
        firstName: customerInfo?.firstName ?? '',
        lastName: customerInfo?.lastName ?? '',
        transactionId: payment.transactionId,
        state: customerInfo?.state,
      });
    } catch (error) {
      console.error('Could not write the upsell cookie:', id, error);
    }

    return NextResponse.json({
      success: true,
      sessionId: id,
      transactionId: payment.transactionId,
      vaultId: payment.vaultId,
      amount: totalAmount,
      tax,
    });
  } catch (error) {
    console.error('Checkout failed:', error);
    return failure(500, 'INTERNAL_ERROR', (error as Error).message);
  }
});

function failure(status: number, code: string, message: string) {
  return NextResponse.json({ success: false, error: { code, message } }, { status });
}
