import { openSession, SessionError, type CheckoutSession, type OpenOptions, type Receipt } from 'throughline';

import { serverUrl } from '../addresses';
import { followOwnOrder, hasOwnOrder } from './own-order';

/** The session that this page is to show. Each attempt to open one is another object. */
export interface Wanted extends Pick<OpenOptions, 'sessionId' | 'fresh' | 'handoff'> {
  readonly attempt: number;
  /** There is a link, and its buyer has not said yet that it is theirs; it may replace an order of this browser. */
  readonly question?: 'follow' | 'replace';
}

let wanted: Wanted = { attempt: 0, ...linked() };
const listeners = new Set<() => void>();

/** Tells the other tabs that the buyer has begun again, and where. */
const tabs = new BroadcastChannel('slowpour');
tabs.onmessage = ({ data }: MessageEvent<string>) => want({ sessionId: data });

// A link that is opened in a tab that has the shop open loads nothing anew.
addEventListener('hashchange', () => location.hash !== '' && want(linked()));

export function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function getWanted(): Wanted {
  return wanted;
}

/** Tries once more what has failed. */
export function retry(): void {
  want(location.hash === '' ? {} : { handoff: location.href });
}

/** Goes on with the order of the link, in place of this browser's own. */
export const followLink = retry;

/** Goes on as if the page had been opened without the link. */
export function dropLink(): void {
  history.replaceState(history.state, '', location.pathname + location.search);
  want({});
}

/** What the page's address asks for: all that this page ever has behind `#` is the code of a link. */
function linked(): Pick<Wanted, 'handoff' | 'question'> {
  return location.hash === '' ? {} : { handoff: location.href, question: hasOwnOrder() ? 'replace' : 'follow' };
}

/** Leaves the session as it is and begins a new one, in all tabs. */
export function startAgain(): void {
  want({ fresh: true });
}

function want(next: Omit<Wanted, 'attempt'>): void {
  wanted = { ...next, attempt: wanted.attempt + 1 };
  for (const listener of listeners) listener();
}

/** Takes note of a receipt; `onRejected` hears the reason where the command may not happen. */
export function issue(receipt: Receipt, onRejected: (reason: string) => void = ignore): void {
  receipt.accepted.catch((error: unknown) => onRejected(message(error)));
  receipt.durable.catch(ignore);
}

/** Opens the session of a link, of the other tabs or of an earlier visit, else a new one. */
export async function open({ attempt: _, question: __, ...options }: Wanted): Promise<CheckoutSession> {
  const session = chooseUsualPack(await openWanted(options));
  if (options.fresh === true || options.handoff !== undefined) tabs.postMessage(session.id);
  followOwnOrder(session);
  return session;
}

async function openWanted(options: Omit<OpenOptions, 'url'>): Promise<CheckoutSession> {
  try {
    return await openSession({ url: serverUrl, ...options });
  } catch (error) {
    const isGone = error instanceof SessionError && (error.code === 'sessionNotFound' || error.code === 'unauthorized');
    if (!isGone || options.fresh === true || options.handoff !== undefined) throw error;
    // Of another server's database, or of keys that are no more: nothing is left to go on with.
    return openSession({ url: serverUrl, fresh: true });
  }
}

/** A new order begins with the pack that most people choose. */
function chooseUsualPack(session: CheckoutSession): CheckoutSession {
  const { products, status, currentStep } = session.getSnapshot();
  if (products.length === 0 && status === 'pending' && currentStep === session.funnel.steps[0]?.id) {
    const packs = packsOf(session);
    const usual = packs[1] ?? packs[0];
    if (usual !== undefined) issue(session.setItems([{ id: usual.id, quantity: 1 }]));
  }
  return session;
}

/** What is sold at the checkout: the catalogue without what is offered later. */
export function packsOf({ funnel }: CheckoutSession) {
  const offered = new Set(funnel.offers.map((offer) => offer.product));
  return funnel.catalogue.filter((product) => !offered.has(product.id));
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function ignore(): void {}
