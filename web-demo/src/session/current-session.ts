import { openSession, SessionError, type CheckoutSession, type OpenOptions, type Receipt } from 'throughline';

import { serverUrl } from '../addresses';

/** The session that this page shows, and how far it has come to show it. */
export type Current =
  | { state: 'opening' }
  | { state: 'open'; session: CheckoutSession }
  | { state: 'failed'; reason: string };

let current: Current = { state: 'opening' };
/** Counts openings: one that was overtaken by a later one closes what it opened. */
let opening = 0;
const listeners = new Set<() => void>();

/** Tells the other tabs that the buyer has begun again, and where. */
const tabs = new BroadcastChannel('slowpour');

export function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function getCurrent(): Current {
  return current;
}

/** Opens the session of the other tabs or of an earlier visit, else a new one. */
export function start(): void {
  tabs.onmessage = ({ data }: MessageEvent<string>) => void show({ sessionId: data });
  retry();
}

/** Tries once more what has failed. */
export function retry(): void {
  void show({});
}

/** Leaves the session as it is and begins a new one, in all tabs. */
export function startAgain(): void {
  void show({ fresh: true }).then((session) => session && tabs.postMessage(session.id));
}

/** Takes note of a receipt; `onRejected` hears the reason where the command may not happen. */
export function issue(receipt: Receipt, onRejected: (reason: string) => void = ignore): void {
  receipt.accepted.catch((error: unknown) => onRejected(message(error)));
  receipt.durable.catch(ignore);
}

type Wanted = Pick<OpenOptions, 'sessionId' | 'fresh'>;

async function show(wanted: Wanted): Promise<CheckoutSession | undefined> {
  const mine = ++opening;
  const previous = current;
  set({ state: 'opening' });
  if (previous.state === 'open') await previous.session.close().catch(ignore);
  try {
    const session = await open(wanted);
    if (mine === opening) {
      set({ state: 'open', session });
      return session;
    }
    await session.close().catch(ignore);
  } catch (error) {
    if (mine === opening) set({ state: 'failed', reason: message(error) });
  }
  return undefined;
}

async function open(wanted: Wanted): Promise<CheckoutSession> {
  try {
    return chooseUsualPack(await openSession({ url: serverUrl, ...wanted }));
  } catch (error) {
    const isGone = error instanceof SessionError && (error.code === 'sessionNotFound' || error.code === 'unauthorized');
    if (!isGone || wanted.fresh === true) throw error;
    // Of another server's database, or of keys that are no more: nothing is left to go on with.
    return chooseUsualPack(await openSession({ url: serverUrl, fresh: true }));
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

function set(next: Current): void {
  current = next;
  for (const listener of listeners) listener();
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function ignore(): void {}
