// The funnel as a state machine; what would go over the wire is the event as JSON. Nothing here merges or syncs.
import { assign, createActor, createMachine } from 'xstate';

import { atFirstOffer, goOn, prices } from './funnel.mjs';

let fixture;
let sent = [];
let machine;

const accept = assign(({ context, event }) => ({
  amount: context.amount + prices[event.offer],
  upsells: context.upsells.map((upsell) =>
    upsell.offer === event.offer ? { ...upsell, state: 'accepted', answeredAt: new Date().toISOString() } : upsell,
  ),
}));

const enter = assign(({ context, event }) => {
  const steps = [...context.flow.steps];
  steps[steps.length - 1] = { ...steps[steps.length - 1], leftAt: new Date().toISOString() };
  steps.push({ step: event.step, enteredAt: new Date().toISOString(), leftAt: null });
  return { currentStep: event.step, flow: { ...context.flow, steps } };
});

const goTo = (step) => ({ guard: ({ event }) => event.step === step, target: step, actions: enter });

export async function load(given) {
  fixture = given;
  machine = createMachine({
    id: 'funnel',
    initial: 'upsell-1',
    context: atFirstOffer(fixture),
    on: { accept: { actions: accept } },
    states: { 'upsell-1': { on: { goTo: goTo('upsell-2') } }, 'upsell-2': { on: { goTo: goTo('success') } }, success: {} },
  });
}

export async function prepare(count) {
  return Array.from({ length: count }, () => createActor(machine).start());
}

export function run(actor) {
  const send = (event) => {
    actor.send(event);
    sent.push(JSON.stringify(event));
    return actor.getSnapshot().context;
  };
  for (const { accept, step } of goOn) {
    send({ type: 'accept', offer: accept });
    const shown = send({ type: 'goTo', step });
    if (shown.currentStep !== step) throw new Error('the change is not in the snapshot');
  }
}

export function sentBytes() {
  const bytes = sent.map((event) => event.length);
  sent = [];
  return bytes;
}

export async function finish(actors) {
  for (const actor of actors) actor.stop();
  sent = [];
}
