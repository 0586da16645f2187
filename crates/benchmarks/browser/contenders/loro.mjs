// The session as a LoroMap; what goes over the wire are updates since the last ones.
import { LoroDoc, LoroList, LoroMap } from 'loro-crdt';

import { atFirstOffer, goOn, prices } from './funnel.mjs';

let fixture;
let sent = [];

function fill(map, object) {
  for (const [key, value] of Object.entries(object)) {
    if (Array.isArray(value)) {
      const list = map.setContainer(key, new LoroList());
      for (const item of value) fill(list.pushContainer(new LoroMap()), item);
    } else if (value !== null && typeof value === 'object') fill(map.setContainer(key, new LoroMap()), value);
    else map.set(key, value);
  }
}

export async function load(given) {
  fixture = given;
}

export async function prepare(count) {
  const first = new LoroDoc();
  fill(first.getMap('session'), atFirstOffer(fixture));
  first.commit();
  const bytes = first.export({ mode: 'snapshot' });
  return Array.from({ length: count }, () => {
    const doc = LoroDoc.fromSnapshot(bytes);
    doc.subscribeLocalUpdates((update) => sent.push(update));
    return { doc, session: doc.getMap('session') };
  });
}

export function run({ doc, session }) {
  for (const { accept, step } of goOn) {
    const upsells = session.get('upsells');
    for (let index = 0; index < upsells.length; index += 1) {
      const offer = upsells.get(index);
      if (offer.get('offer') === accept) offer.set('state', 'accepted'), offer.set('answeredAt', new Date().toISOString());
    }
    session.set('amount', session.get('amount') + prices[accept]);
    const steps = session.get('flow').get('steps');
    steps.get(steps.length - 1).set('leftAt', new Date().toISOString());
    fill(steps.pushContainer(new LoroMap()), { step, enteredAt: new Date().toISOString(), leftAt: null });
    session.set('currentStep', step);
    doc.commit();
    const shown = session.toJSON();
    if (shown.currentStep !== step) throw new Error('the change is not in the snapshot');
  }
}

export function sentBytes() {
  const bytes = sent.map((update) => update.length);
  sent = [];
  return bytes;
}

export async function finish(sessions) {
  for (const { doc } of sessions) doc.free();
  sent = [];
}
