import { expect, test } from '@playwright/test';

import { DemoGateway } from '../../web-demo/payment-service/gateway.mjs';
import { Payments } from '../../web-demo/payment-service/payments.mjs';
import type { Command, Session, ThroughlineApi } from '../../web-demo/payment-service/throughline-api.mjs';

const id = 'ws_mwor0dc0_0123456789abcdefghijklmno';
const workingCard = '4242 4242 4242 4242';
const declinedCard = '4000 0000 0000 0002';

/** One session, changed by commands as the server would change it. */
class OneSession {
  readonly commands: Command[] = [];
  /** Commands that the server applies, but whose answer is lost. */
  answersToLose = 0;
  session: Session = {
    id,
    status: 'processing',
    amount: 17_700,
    payment: { paidAt: null, attempts: 1 },
    upsells: [],
  };

  async read(): Promise<Session> {
    return structuredClone(this.session);
  }

  async issue(_: string, command: Command): Promise<void> {
    this.commands.push(command);
    const { session } = this;
    switch (command.type) {
      case 'recordPayment':
        session.payment.paidAt = '2026-11-20T09:12:16.662Z';
        break;
      case 'failPayment':
        session.status = 'failed';
        break;
      case 'recordUpsellCharge':
        for (const upsell of session.upsells) if (upsell.offer === command['offer']) upsell.state = 'charged';
        break;
    }
    if (this.answersToLose > 0) {
      this.answersToLose -= 1;
      throw new Error('the answer was lost');
    }
  }

  payments(): Payments {
    const api = { session: () => this.read(), issue: (sessionId: string, command: Command) => this.issue(sessionId, command) };
    return new Payments(api as unknown as ThroughlineApi, new DemoGateway(5));
  }

  types(): string[] {
    return this.commands.map(({ type }) => type);
  }
}

test('a payment asked for by two tabs at once is charged once', async () => {
  const one = new OneSession();
  const payments = one.payments();
  const outcomes = await Promise.all([payments.pay(id, workingCard), payments.pay(id, workingCard)]);
  expect(outcomes).toEqual([{ outcome: 'paid' }, { outcome: 'paid' }]);
  expect(one.types()).toEqual(['recordPayment']);
  expect(one.commands[0]).toMatchObject({ amount: 17_700 });
});

test('a payment whose record was not acknowledged is not charged again', async () => {
  const one = new OneSession();
  one.answersToLose = 1;
  const payments = one.payments();
  await expect(payments.pay(id, workingCard)).rejects.toThrow('the answer was lost');
  expect(await payments.pay(id, workingCard)).toEqual({ outcome: 'paid' });
  expect(one.types()).toEqual(['recordPayment']);
});

test('a record that never arrived is sent again with the same transaction', async () => {
  const one = new OneSession();
  const payments = one.payments();
  one.answersToLose = 1;
  await expect(payments.pay(id, workingCard)).rejects.toThrow();
  one.session.payment.paidAt = null;
  await payments.pay(id, workingCard);
  const [first, second] = one.commands;
  expect(second?.['transactionId']).toBe(first?.['transactionId']);
});

test('a declined card is told, and the next attempt may use another', async () => {
  const one = new OneSession();
  const payments = one.payments();
  expect(await payments.pay(id, declinedCard)).toMatchObject({ outcome: 'declined' });
  expect(one.types()).toEqual(['failPayment']);
  one.session.status = 'processing';
  one.session.payment.attempts = 2;
  expect(await payments.pay(id, workingCard)).toEqual({ outcome: 'paid' });
});

test('an order that is not to be paid yet is not charged', async () => {
  const one = new OneSession();
  one.session.status = 'pending';
  expect(await one.payments().pay(id, workingCard)).toEqual({ outcome: 'notYet' });
  expect(one.commands).toEqual([]);
});

test('accepted offers are charged once, with their tax, and others are not', async () => {
  const one = new OneSession();
  one.session.upsells = [
    { offer: 'RC6', price: 19_900, tax: 1443, state: 'accepted' },
    { offer: 'RC12', price: 29_600, tax: 2146, state: 'declined' },
  ];
  const payments = one.payments();
  await Promise.all([payments.chargeOffers(id), payments.chargeOffers(id)]);
  expect(one.types()).toEqual(['recordUpsellCharge']);
  expect(one.commands[0]).toMatchObject({ offer: 'RC6', amount: 21_343 });
});
