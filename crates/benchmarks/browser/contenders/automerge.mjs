// The session as an Automerge document; what goes over the wire is each change.
import * as Automerge from '@automerge/automerge/slim';

import { atFirstOffer, goOn, prices } from './funnel.mjs';

let fixture;
let sent = [];

export async function load(given) {
  fixture = given;
  await Automerge.initializeWasm(new URL('./automerge.wasm', import.meta.url));
}

export async function prepare(count) {
  const first = Automerge.from(atFirstOffer(fixture));
  return Array.from({ length: count }, () => ({ doc: Automerge.clone(first) }));
}

export function run(session) {
  for (const { accept, step } of goOn) {
    session.doc = Automerge.change(session.doc, (doc) => {
      const offer = doc.upsells.find(({ offer }) => offer === accept);
      if (offer) (offer.state = 'accepted'), (offer.answeredAt = new Date().toISOString());
      doc.amount += prices[accept];
      doc.flow.steps[doc.flow.steps.length - 1].leftAt = new Date().toISOString();
      doc.flow.steps.push({ step, enteredAt: new Date().toISOString(), leftAt: null });
      doc.currentStep = step;
    });
    sent.push(Automerge.getLastLocalChange(session.doc));
    // The document is the snapshot.
    if (session.doc.currentStep !== step) throw new Error('the change is not in the snapshot');
  }
}

export function sentBytes() {
  const bytes = sent.map((change) => change.length);
  sent = [];
  return bytes;
}

export async function finish() {
  // Documents are freed with their objects.
  sent = [];
}
