// The manager that funnels had before, rebuilt from its analysis: one JSON object of all sessions in localStorage, which is
// written whole on each change.
import { atFirstOffer, goOn, prices } from './funnel.mjs';

const KEY = 'webseed_funnel_sessions';
const DATES = ['createdAt', 'updatedAt', 'expiresAt'];

class FunnelSessionManager {
  sessions = new Map();

  load() {
    this.sessions.clear();
    const stored = JSON.parse(localStorage.getItem(KEY) ?? '{}');
    for (const [id, session] of Object.entries(stored)) {
      for (const name of DATES) session[name] = new Date(session[name]);
      this.sessions.set(id, session);
    }
  }

  save() {
    localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(this.sessions)));
  }

  getSession(id) {
    const session = this.sessions.get(id);
    return session && session.expiresAt > new Date() ? session : null;
  }

  updateSession(id, fields) {
    const session = this.getSession(id);
    if (!session) return null;
    const updated = { ...session, ...fields, updatedAt: new Date() };
    this.sessions.set(id, updated);
    this.save();
    return updated;
  }

  setCurrentStep(id, currentStep) {
    return this.updateSession(id, { currentStep });
  }

  acceptUpsell(id, productId) {
    const session = this.getSession(id);
    if (!session) return null;
    const upsellsAccepted = [...new Set([...session.upsellsAccepted, productId])];
    const upsellsDeclined = session.upsellsDeclined.filter((declined) => declined !== productId);
    return this.updateSession(id, { upsellsAccepted, upsellsDeclined, amount: session.amount + prices[productId] });
  }
}

let fixture;
let manager;
/** How many sessions lie in the storage while the changes are measured. */
let stored = 1;

export async function load(given, { storedSessions = 1 } = {}) {
  fixture = given;
  stored = storedSessions;
}

export async function prepare(count) {
  const { email, customer, products, amount, metadata, createdAt, updatedAt, expiresAt } = atFirstOffer(fixture);
  const session = (id) => ({
    id, email, customerInfo: customer, products, status: 'completed', amount, currentStep: 'upsell-1', upsellsAccepted: [],
    upsellsDeclined: [], createdAt, updatedAt, expiresAt, metadata,
  });
  const ids = Array.from({ length: stored }, (_, index) => `ws_bench_${index}`);
  localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(ids.map((id) => [id, session(id)]))));
  manager = new FunnelSessionManager();
  manager.load();
  // It has no limit on how often a session goes through the funnel.
  return Array.from({ length: count }, (_, index) => ids[index % ids.length]);
}

export function run(id) {
  for (const { accept, step } of goOn) {
    manager.acceptUpsell(id, accept);
    if (manager.setCurrentStep(id, step)?.currentStep !== step) throw new Error('the change is not in the snapshot');
  }
}

/** It sends nothing. */
export function sentBytes() {
  return [];
}

export async function finish() {
  localStorage.removeItem(KEY);
}
