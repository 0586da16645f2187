import type { Proof } from './credentials.js';
import { SessionError } from './rejection.js';
import { serverAddress } from './server-address.js';
import { timeLimit } from './time-limit.js';

/** With this, one other browser can go on with the session. A secret until it is used. */
export interface Handoff {
  /** A link to the page, with the code in the part that browsers don't send to servers. */
  readonly url: string;
  /** The code alone. */
  readonly code: string;
  /** Until when it can be used: 5 minutes from when it was asked for. */
  readonly expiresAt: Date;
}

const PARAMETER = 'throughline-handoff';

/** The code among the parameters behind `#`, with what stands before and behind it: there may be a route there, and others. */
const CODE = new RegExp(`(^|[?&])${PARAMETER}=[^&]*(&|$)`);

const LIMIT_MS = 10_000;

/** Asks the server for a code, and puts it into a link to this page. */
export async function askForHandoff(
  server: string,
  sessionId: string,
  proof: Proof,
  page: string | URL,
  signal?: AbortSignal,
): Promise<Handoff> {
  const path = `v1/sessions/${encodeURIComponent(sessionId)}/handoff`;
  const { code, expiresAt } = await post<{ code: string; expiresAt: string }>(server, path, {}, signal, proof);
  return Object.freeze({ url: linkTo(page, code), code, expiresAt: new Date(expiresAt) });
}

/** What stands behind `#` stays: the code is the last of its parameters. */
function linkTo(page: string | URL, code: string): string {
  const url = new URL(page);
  const hash = withoutCode(url.hash);
  const isRoute = /^!?\//.test(hash);
  const separator = hash === '' || hash.endsWith('?') ? '' : isRoute && !hash.includes('?') ? '?' : '&';
  url.hash = `${hash}${separator}${PARAMETER}=${code}`;
  return url.href;
}

/** Exchanges a code for the session's id and a token; the claim secret is what this browser comes back with later on. */
export function exchangeHandoff(
  server: string,
  code: string,
  claim: string,
  signal?: AbortSignal,
): Promise<{ sessionId: string; token: string }> {
  return post(server, 'v1/handoff', { code, claim }, signal);
}

/** The code in a link, which may be relative to the page, or the code itself; nothing where the link has none. */
export function handoffCodeIn(given: string | URL): string | undefined {
  const text = String(given);
  if (/^[\w.-]+$/.test(text)) return text;
  return new URLSearchParams(CODE.exec(behindHash(text))?.[0]).get(PARAMETER) ?? undefined;
}

/** Who loads the page again must not show a code again that was used or refused. */
export function removeHandoffCode(): void {
  if (typeof location === 'undefined' || !CODE.test(behindHash(location.hash))) return;
  const url = new URL(location.href);
  url.hash = withoutCode(url.hash);
  history.replaceState(history.state, '', url.href);
}

/** What stands behind `#` besides the code. */
function withoutCode(hash: string): string {
  return behindHash(hash).replace(CODE, (_code, before: string, behind: string) => (behind === '' ? '' : before));
}

function behindHash(text: string): string {
  const [, ...parts] = text.split('#');
  return parts.join('#');
}

async function post<T>(
  server: string,
  path: string,
  body: unknown,
  signal?: AbortSignal,
  proof?: Proof,
): Promise<T> {
  const response = await fetch(serverAddress(server, path), {
    method: 'POST',
    ...proof,
    headers: { 'content-type': 'application/json', ...proof?.headers },
    body: JSON.stringify(body),
    signal: timeLimit(LIMIT_MS, signal),
  }).catch((error: unknown) => {
    if (signal?.aborted) throw signal.reason;
    throw new SessionError('unreachable', `the server can't be asked for the other device: ${(error as Error).message}`);
  });
  const answer = (await response.json().catch(() => ({}))) as T & { detail?: string };
  if (response.ok) return answer;
  // Too much to do, or nothing done: a code is as good as before. And who asks for one may not be known any more.
  const isBusy = response.status === 429 || response.status >= 500;
  const code = isBusy ? 'unreachable' : proof !== undefined && response.status === 401 ? 'unauthorized' : 'handoffRefused';
  throw new SessionError(code, answer.detail ?? `the server answered ${response.status}`);
}
