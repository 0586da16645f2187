import { NextResponse, type NextRequest } from 'next/server';

import { getSession, getSessionById, updateSession, type SessionData } from '@/lib/cookie-session';
import { databaseSessionManager, type DatabaseSession } from '@/lib/database-session-manager';
import { chargeVault, PaymentDeclinedError } from '@/lib/payment-gateway';
import { counted } from '@/lib/request-counts';
import type { UpsellDetails } from '@/types/session';

interface UpsellRequest {
  sessionId: string;
  productCode: string;
  amount: number;
  bottles: number;
  step: number;
}

interface Buyer {
  vaultId: string;
  email: string;
  name: string;
  state: string;
  row?: DatabaseSession;
  cookie?: SessionData;
}

const TAX_RATES: Record<string, number> = { CA: 0.0725, TX: 0.0625, NY: 0.08, FL: 0.06, WA: 0.065 };

export const POST = counted(async (request: NextRequest) => {
  try {
    const { sessionId, productCode, amount, bottles, step } = (await request.json()) as UpsellRequest;
    if (!sessionId || !productCode || !(amount > 0)) {
      return NextResponse.json({ status: 'error', errors: ['Missing required fields'] }, { status: 400 });
    }

    const buyer = await findBuyer(sessionId);
    if (!buyer) {
      return NextResponse.json({ status: 'error', errors: ['Session expired. Please check out again.'] }, { status: 401 });
    }
    console.log('Processing upsell:', productCode, 'for', buyer.name, buyer.email);

    const tax = Number((amount * (TAX_RATES[buyer.state] ?? 0)).toFixed(2));
    const payment = await chargeVault(buyer.vaultId, amount + tax, sessionId);

    const details: UpsellDetails = {
      step,
      productCode,
      amount,
      bottles,
      transactionId: payment.transactionId,
      timestamp: new Date().toISOString(),
    };
    try {
      await remember(buyer, details, tax);
    } catch (error) {
      console.error('Could not save the upsell, the payment went through:', sessionId, error);
    }

    return NextResponse.json({ status: 'ok', transactionId: payment.transactionId, amount, tax });
  } catch (error) {
    if (error instanceof PaymentDeclinedError) {
      return NextResponse.json({ status: 'error', errors: [error.message] }, { status: 402 });
    }
    console.error('Upsell failed:', error);
    return NextResponse.json({ status: 'error', errors: ['Upsell processing failed'] }, { status: 500 });
  }
});

async function findBuyer(sessionId: string): Promise<Buyer | null> {
  try {
    const row = await databaseSessionManager.getSession(sessionId);
    if (row?.vault_id) {
      return {
        vaultId: row.vault_id,
        email: row.email,
        name: `${row.customer_info?.firstName ?? ''} ${row.customer_info?.lastName ?? ''}`,
        state: row.customer_info?.state ?? '',
        row,
      };
    }
  } catch (error) {
    console.error('Database lookup failed, trying the cookie:', error);
  }

  const cookie = (await getSession()) ?? (await getSessionById(sessionId));
  if (!cookie) return null;
  return {
    vaultId: cookie.vaultId,
    email: cookie.email,
    name: `${cookie.firstName} ${cookie.lastName}`,
    state: cookie.state ?? '',
    cookie,
  };
}

async function remember({ row, cookie }: Buyer, details: UpsellDetails, tax: number): Promise<void> {
  if (row) {
    const upsells = (row.metadata?.['upsells'] ?? []) as unknown[];
    await databaseSessionManager.updateSession(row.id, {
      upsells_accepted: [...row.upsells_accepted, details.productCode],
      current_step: `upsell-${details.step}`,
      metadata: { ...row.metadata, upsells: [...upsells, { ...details, tax }] },
    });
  }
  if (cookie) await updateSession({ ...cookie, lastVaultUpdate: Date.now() });
}
