import { serverUrl } from '../addresses';
import { openSession, type CheckoutSession, type Receipt } from '../throughline';

/** The session that this page shows, and how far it has come to show it. */
export type Current =
  | { state: 'opening' }
  | { state: 'open'; session: CheckoutSession }
  | { state: 'failed'; reason: string };

/** All tabs show the session whose id is kept here. */
const key = 'slowpour.session';

let current: Current = { state: 'opening' };
/** Counts openings: one that was overtaken by a later one closes what it opened. */
let opening = 0;
const listeners = new Set<() => void>();

export function subscribe(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function getCurrent(): Current {
  return current;
}

/** Opens the session of the other tabs or of an earlier visit, else a new one. */
export function start(): void {
  void open(remembered());
  window.addEventListener('storage', (event) => {
    // Another tab began again: follow it.
    if (event.key === key && event.newValue !== null && event.newValue !== openId()) void open(event.newValue);
  });
}

/** Tries once more what has failed. */
export function retry(): void {
  void open(remembered());
}

/** Leaves the session as it is and begins a new one, in all tabs. */
export function startAgain(): void {
  void open(null);
}

async function open(sessionId: string | null): Promise<void> {
  const mine = ++opening;
  const previous = current;
  show({ state: 'opening' });
  if (previous.state === 'open') await previous.session.close().catch(ignore);
  try {
    const session = sessionId === null ? await openNew() : await openKnown(sessionId);
    if (mine !== opening) {
      await session.close().catch(ignore);
      return;
    }
    remember(session.id);
    show({ state: 'open', session });
  } catch (error) {
    if (mine === opening) show({ state: 'failed', reason: error instanceof Error ? error.message : String(error) });
  }
}

async function openKnown(sessionId: string): Promise<CheckoutSession> {
  try {
    return await openSession({ url: serverUrl, sessionId });
  } catch {
    // Expired, erased, or of another server's database: nothing is left to go on with.
    return openNew();
  }
}

async function openNew(): Promise<CheckoutSession> {
  const session = await openSession({ url: serverUrl });
  const snapshot = session.getSnapshot();
  if (snapshot.products.length === 0) {
    const offered = new Set(session.funnel.offers.map((offer) => offer.product));
    const packs = session.funnel.catalogue.filter((product) => !offered.has(product.id));
    const usual = packs[1] ?? packs[0];
    if (usual !== undefined) issue(session.setItems([{ id: usual.id, quantity: 1 }]));
  }
  return session;
}

/** Takes note of a receipt; `onRejected` hears the reason where the command may not happen. */
export function issue(receipt: Receipt, onRejected: (reason: string) => void = ignore): void {
  receipt.accepted.catch((error: unknown) => onRejected(error instanceof Error ? error.message : String(error)));
  receipt.durable.catch(ignore);
}

function openId(): string | undefined {
  return current.state === 'open' ? current.session.id : undefined;
}

function show(next: Current): void {
  current = next;
  for (const listener of listeners) listener();
}

function remembered(): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

function remember(sessionId: string): void {
  try {
    localStorage.setItem(key, sessionId);
  } catch {
    // Without storage the session lasts as long as this page.
  }
}

function ignore(): void {}
