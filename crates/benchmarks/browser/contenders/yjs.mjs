// The session as a Y.Map; what goes over the wire are the document's updates.
import * as Y from 'yjs';

import { atFirstOffer, goOn, prices } from './funnel.mjs';

let fixture;
let sent = [];

function toShared(value) {
  if (Array.isArray(value)) return Y.Array.from(value.map(toShared));
  if (value === null || typeof value !== 'object') return value;
  const map = new Y.Map();
  for (const [key, inner] of Object.entries(value)) map.set(key, toShared(inner));
  return map;
}

export async function load(given) {
  fixture = given;
}

export async function prepare(count) {
  const docs = Array.from({ length: count }, () => {
    const doc = new Y.Doc();
    const session = doc.getMap('session');
    doc.transact(() => {
      for (const [key, value] of Object.entries(atFirstOffer(fixture))) session.set(key, toShared(value));
    });
    doc.on('update', (update) => sent.push(update));
    return { doc, session };
  });
  sent = [];
  return docs;
}

export function run({ doc, session }) {
  for (const { accept, step } of goOn) {
    doc.transact(() => {
      for (const offer of session.get('upsells')) {
        if (offer.get('offer') !== accept) continue;
        offer.set('state', 'accepted');
        offer.set('answeredAt', new Date().toISOString());
      }
      session.set('amount', session.get('amount') + prices[accept]);
      const steps = session.get('flow').get('steps');
      steps.get(steps.length - 1).set('leftAt', new Date().toISOString());
      steps.push([toShared({ step, enteredAt: new Date().toISOString(), leftAt: null })]);
      session.set('currentStep', step);
    });
    const shown = session.toJSON();
    if (shown.currentStep !== step) throw new Error('the change is not in the snapshot');
  }
}

export function sentBytes() {
  const bytes = sent.map((update) => update.length);
  sent = [];
  return bytes;
}

export async function finish(docs) {
  for (const { doc } of docs) doc.destroy();
  sent = [];
}
