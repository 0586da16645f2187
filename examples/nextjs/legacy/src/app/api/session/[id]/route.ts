import { NextResponse, type NextRequest } from 'next/server';

import { databaseSessionManager } from '@/lib/database-session-manager';
import { counted } from '@/lib/request-counts';

interface Context {
  params: Promise<{ id: string }>;
}

export const GET = counted(async (_request: NextRequest, { params }: Context) => {
  const { id } = await params;
  try {
    const session = await databaseSessionManager.getSession(id);
    if (!session) return NextResponse.json({ success: false, message: 'Session not found or expired' }, { status: 404 });
    return NextResponse.json({ success: true, session });
  } catch (error) {
    return NextResponse.json({ success: false, message: (error as Error).message }, { status: 500 });
  }
});

export const PATCH = counted(async (request: NextRequest, { params }: Context) => {
  const { id } = await params;
  try {
    const { currentStep } = (await request.json()) as { currentStep?: string };
    if (!currentStep) return NextResponse.json({ success: false, message: 'currentStep is required' }, { status: 400 });
    const session = await databaseSessionManager.updateSession(id, { current_step: currentStep });
    return NextResponse.json({ success: true, session });
  } catch (error) {
    return NextResponse.json({ success: false, message: (error as Error).message }, { status: 500 });
  }
});
