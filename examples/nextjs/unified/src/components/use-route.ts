import { useEffect, useState } from 'react';
import { useSyncStatus } from 'throughline/react';

/** Why a route did not do what it was asked for; it can be asked again. */
export interface Failure {
  code: string;
  message: string;
}

const limitMs = 30_000;

/**
 * Asks a route of the shop, as soon as the server knows everything that was done here: now, when the connection is back, and when the
 * buyer wants to try again. The routes do a thing once, however often they are asked. What became of it is in the session.
 */
export function useRoute(path: string, request: object | undefined) {
  const { connection, pending } = useSyncStatus();
  const [tries, setTries] = useState(0);
  const [failure, setFailure] = useState<Failure>();
  const body = request && connection === 'online' && pending === 0 ? JSON.stringify(request) : undefined;
  useEffect(() => {
    if (body === undefined) return;
    let isWanted = true;
    setFailure(undefined);
    void ask(path, body).then((found) => isWanted && setFailure(found));
    return () => {
      isWanted = false;
    };
  }, [path, body, tries]);
  return { failure, isOffline: connection === 'offline', tryAgain: () => setTries(tries + 1) };
}

async function ask(path: string, body: string): Promise<Failure | undefined> {
  try {
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(path, { method: 'POST', headers, body, signal: AbortSignal.timeout(limitMs) });
    return response.ok ? undefined : ((await response.json()) as Failure);
  } catch {
    return { code: 'unanswered', message: 'There is no answer yet. You are charged once, also if you try again.' };
  }
}
