import { BoundedMap } from './bounded-map.mjs';

/** @typedef {{ outcome: 'paid' } | { outcome: 'declined', message: string } | { outcome: 'notYet' }} Outcome */

/**
 * Charges what a session owes, once: the session's state is read first, work on one session never overlaps, and the
 * gateway is given a key that stays the same however often it is asked.
 */
export class Payments {
  #throughline;
  #gateway;
  /** The end of the queue of each session that is being worked on. @type {Map<string, Promise<unknown>>} */
  #queues = new Map();
  /** The card of each paid session, for its offers. A real gateway keeps this in its vault. @type {BoundedMap<string>} */
  #cards = new BoundedMap();

  /**
   * @param {import('./throughline-api.mjs').ThroughlineApi} throughline
   * @param {import('./gateway.mjs').DemoGateway} gateway
   */
  constructor(throughline, gateway) {
    this.#throughline = throughline;
    this.#gateway = gateway;
  }

  /**
   * @param {string} sessionId
   * @param {string} cardNumber
   * @returns {Promise<Outcome>}
   */
  pay(sessionId, cardNumber) {
    return this.#alone(sessionId, async () => {
      const session = await this.#throughline.session(sessionId);
      if (session === undefined) return { outcome: 'notYet' };
      if (session.payment.paidAt !== null) return { outcome: 'paid' };
      if (session.status !== 'processing') return { outcome: 'notYet' };

      const key = `${sessionId} payment ${session.payment.attempts ?? 0}`;
      const charge = await this.#gateway.charge(key, cardNumber);
      if (charge.outcome === 'declined') {
        const { code, message } = charge;
        await this.#throughline.issue(sessionId, { type: 'failPayment', code, message });
        return { outcome: 'declined', message };
      }
      this.#cards.set(sessionId, cardNumber);
      await this.#throughline.issue(sessionId, {
        type: 'recordPayment',
        transactionId: charge.transactionId,
        amount: session.amount,
        vaultId: `vault_${charge.transactionId}`,
      });
      return { outcome: 'paid' };
    });
  }

  /**
   * @param {string} sessionId
   * @returns {Promise<void>}
   */
  chargeOffers(sessionId) {
    return this.#alone(sessionId, async () => {
      const session = await this.#throughline.session(sessionId);
      const accepted = session?.upsells.filter(({ state }) => state === 'accepted') ?? [];
      for (const { offer, price, tax } of accepted) {
        // After a restart the card is gone; the vault of a real gateway would still have it.
        const card = this.#cards.get(sessionId) ?? '4242 4242 4242 4242';
        const charge = await this.#gateway.charge(`${sessionId} offer ${offer}`, card);
        await this.#throughline.issue(
          sessionId,
          charge.outcome === 'charged'
            ? { type: 'recordUpsellCharge', offer, transactionId: charge.transactionId, amount: price + (tax ?? 0) }
            : { type: 'failUpsellCharge', offer, code: charge.code, message: charge.message },
        );
      }
    });
  }

  /**
   * @template Result
   * @param {string} sessionId
   * @param {() => Promise<Result>} work
   * @returns {Promise<Result>}
   */
  async #alone(sessionId, work) {
    const before = this.#queues.get(sessionId) ?? Promise.resolve();
    const mine = before.then(work, work);
    this.#queues.set(sessionId, mine);
    try {
      return await mine;
    } finally {
      if (this.#queues.get(sessionId) === mine) this.#queues.delete(sessionId);
    }
  }
}
