import { NextResponse, type NextRequest } from 'next/server';

import { databaseSessionManager, type CreateSessionData } from '@/lib/database-session-manager';
import { counted } from '@/lib/request-counts';

export const POST = counted(async (request: NextRequest) => {
  try {
    const { email, customerInfo, products, couponCode, metadata, id } = (await request.json()) as Partial<CreateSessionData>;
    if (!email) return NextResponse.json({ error: 'Email is required' }, { status: 400 });
    if (!products?.length) return NextResponse.json({ error: 'At least one product is required' }, { status: 400 });

    const session = await databaseSessionManager.createSession({ id, email, customerInfo, products, couponCode, metadata });
    return NextResponse.json({ sessionId: session.id, expiresAt: session.expires_at });
  } catch (error) {
    console.error('Session creation failed:', error);
    return NextResponse.json({ error: 'Failed to create session' }, { status: 500 });
  }
});
