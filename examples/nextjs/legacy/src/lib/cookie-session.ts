import { jwtVerify, SignJWT } from 'jose';
import { cookies } from 'next/headers';

import { countCookieRead } from './request-counts';

export interface SessionData {
  id: string;
  vaultId: string;
  customerId: string;
  email: string;
  firstName: string;
  lastName: string;
  transactionId: string;
  state?: string;
  createdAt: number;
  expiresAt: number;
  lastVaultUpdate?: number;
}

const COOKIE_NAME = 'upsell_session';
const SESSION_DURATION_MS = 30 * 60 * 1000;
const SWEEP_INTERVAL_MS = 5 * 60 * 1000;

const secret = new TextEncoder().encode(process.env.SESSION_SECRET || 'your-secret-key-change-in-production');

const sessionCache = new Map<string, SessionData>();

setInterval(() => {
  const now = Date.now();
  for (const [id, session] of sessionCache) {
    if (session.expiresAt < now) sessionCache.delete(id);
  }
}, SWEEP_INTERVAL_MS);

async function writeCookie(session: SessionData): Promise<void> {
  const token = await new SignJWT({ ...session })
    .setProtectedHeader({ alg: 'HS256' })
    .setIssuedAt()
    .setExpirationTime(Math.floor(session.expiresAt / 1000))
    .sign(secret);
  const domain = process.env.COOKIE_DOMAIN;
  const store = await cookies();
  store.set(COOKIE_NAME, token, {
    httpOnly: true,
    secure: process.env.NODE_ENV === 'production',
    sameSite: 'lax',
    maxAge: SESSION_DURATION_MS / 1000,
    path: '/',
    ...(domain ? { domain } : {}),
  });
}

export async function createSession(data: Omit<SessionData, 'createdAt' | 'expiresAt'>): Promise<string> {
  const now = Date.now();
  const session: SessionData = { ...data, createdAt: now, expiresAt: now + SESSION_DURATION_MS };
  await writeCookie(session);
  sessionCache.set(session.id, session);
  return session.id;
}

export async function getSession(): Promise<SessionData | null> {
  countCookieRead();
  try {
    const store = await cookies();
    const token = store.get(COOKIE_NAME)?.value;
    if (!token) return null;
    const { payload } = await jwtVerify(token, secret, { algorithms: ['HS256'] });
    const { iat, exp, ...session } = payload as unknown as SessionData & { iat: number; exp: number };
    if (session.expiresAt < Date.now()) return null;
    return session;
  } catch {
    return null;
  }
}

export async function getSessionById(id: string): Promise<SessionData | null> {
  return sessionCache.get(id) ?? null;
}

export async function updateSession(session: SessionData): Promise<void> {
  await writeCookie(session);
  sessionCache.set(session.id, session);
}

export async function deleteSession(): Promise<void> {
  const store = await cookies();
  store.delete(COOKIE_NAME);
}
