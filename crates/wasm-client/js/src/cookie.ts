import { type Credentials, IN_COOKIE } from './credentials.js';
import { serverAddress } from './server-address.js';
import { timeLimit } from './time-limit.js';

const LIMIT_MS = 10_000;

/**
 * Has the server put what lets this browser into the session into a cookie, which no script can read, or renew what is there.
 *
 * @returns whether it is there; nothing where that can't be told just now.
 */
export async function fetchCookie(server: string, sessionId: string, proof: Credentials): Promise<boolean | undefined> {
  const address = serverAddress(server, `v1/sessions/${encodeURIComponent(sessionId)}/cookie`);
  const ask = async ({ token, claim }: Credentials) => {
    const { status } = await fetch(address, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...IN_COOKIE, ...(token && { authorization: `Bearer ${token}` }) },
      body: JSON.stringify({ claim }),
      signal: timeLimit(LIMIT_MS),
      credentials: 'include',
    });
    return status < 400 ? true : status === 429 || status >= 500 ? undefined : false;
  };
  try {
    const isSet = await ask(proof);
    // A browser that blocks the cookie says so to nobody. The page must not forget what it has before it comes back.
    return isSet && (proof.token || proof.claim) ? await ask({}) : isSet;
  } catch {
    return undefined;
  }
}
