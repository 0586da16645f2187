import type { Storage } from './storage/ladder.js';

/** How a session proves that it may be synced. */
export interface Credentials {
  token?: string;
  claim?: string;
  /** It is to be in a cookie; where there is neither token nor claim, it is there. */
  isInCookie?: boolean;
  /** The claim came with a link from another device, and is good for some time only. */
  isLent?: boolean;
}

/** What says to the server that the session's cookie counts for a request: no page sends it that the server has not let in. */
export const IN_COOKIE = { 'throughline-credentials': 'cookie' };

/** How a request proves that it may be about the session; nothing while the server has not let this browser in. */
export type Proof = Pick<RequestInit, 'headers' | 'credentials'>;

export function proofOf(credentials: Credentials): Proof | undefined {
  const { token } = credentials;
  if (token !== undefined) return { headers: { authorization: `Bearer ${token}` }, credentials: 'omit' };
  return isMoved(credentials) ? { headers: IN_COOKIE, credentials: 'include' } : undefined;
}

/** Whether nothing of it is anywhere but in the cookie. */
export function isMoved({ token, claim, isInCookie }: Credentials): boolean {
  return isInCookie === true && (token ?? claim) === undefined;
}

/** Keeps them with the session; where nothing can be written, they last as long as the page. */
export async function saveCredentials(storage: Storage, sessionId: string, credentials: Credentials): Promise<void> {
  await storage.write([[`${sessionId}/credentials`, JSON.stringify(credentials)]]).catch(() => undefined);
}
