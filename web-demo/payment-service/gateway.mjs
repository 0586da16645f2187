import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { BoundedMap } from './bounded-map.mjs';

/** @typedef {{ outcome: 'charged', transactionId: string } | { outcome: 'declined', code: string, message: string }} Charge */

const workingCard = '4242424242424242';
const declinedCard = '4000000000000002';

/** Stands in for a bank. Like a real one, it charges once for each idempotency key. */
export class DemoGateway {
  /** @type {BoundedMap<Charge>} */
  #charges = new BoundedMap();
  #delayMs;

  constructor(delayMs = Number(process.env.PAYMENT_DELAY_MS ?? 900)) {
    this.#delayMs = delayMs;
  }

  /**
   * @param {string} idempotencyKey
   * @param {string} cardNumber
   * @returns {Promise<Charge>}
   */
  async charge(idempotencyKey, cardNumber) {
    const known = this.#charges.get(idempotencyKey);
    if (known !== undefined) return known;
    await sleep(this.#delayMs);
    const charge = this.decide(cardNumber.replace(/\D/g, ''));
    this.#charges.set(idempotencyKey, charge);
    return charge;
  }

  /**
   * @protected
   * @param {string} digits
   * @returns {Charge}
   */
  decide(digits) {
    switch (digits) {
      case workingCard:
        return { outcome: 'charged', transactionId: `demo_${randomUUID()}` };
      case declinedCard:
        return { outcome: 'declined', code: 'card_declined', message: 'The bank declined this card.' };
      default:
        return { outcome: 'declined', code: 'unknown_card', message: 'Only the demo cards work here.' };
    }
  }
}
