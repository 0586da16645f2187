import { BoundedMap } from './bounded-map.mjs';
import { Refused } from './throughline-api.mjs';

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
   * Money that was taken and that the session does not know of yet, by what it was taken for. A real service keeps this
   * in its database.
   * @type {Map<string, { sessionId: string, command: import('./throughline-api.mjs').Command }>}
   */
  #unrecorded = new Map();
  /** How often the server refused a record, by what it is of. @type {BoundedMap<number>} */
  #refusals = new BoundedMap();

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
      await this.#recordRest(sessionId);
      const session = await this.#throughline.session(sessionId);
      if (session === undefined) return { outcome: 'notYet' };
      if (session.payment.paidAt !== null) return { outcome: 'paid' };
      if (session.status !== 'processing') return { outcome: 'notYet' };

      const purpose = `${sessionId}/payment/${session.payment.attempts ?? 0}`;
      const charge = await this.#gateway.charge(purpose, cardNumber);
      if (charge.outcome === 'declined') {
        const { code, message } = charge;
        await this.#record(sessionId, purpose, { type: 'failPayment', code, message });
        return { outcome: 'declined', message };
      }
      this.#cards.set(sessionId, cardNumber);
      await this.#record(sessionId, purpose, {
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
      await this.#recordRest(sessionId);
      const session = await this.#throughline.session(sessionId);
      const accepted = session?.upsells.filter(({ state }) => state === 'accepted') ?? [];
      for (const { offer, price, tax } of accepted) {
        // After a restart the card is gone; the vault of a real gateway would still have it.
        const card = this.#cards.get(sessionId) ?? '4242 4242 4242 4242';
        const purpose = `${sessionId}/offer/${offer}`;
        const charge = await this.#gateway.charge(purpose, card);
        await this.#record(
          sessionId,
          purpose,
          charge.outcome === 'charged'
            ? { type: 'recordUpsellCharge', offer, transactionId: charge.transactionId, amount: price + (tax ?? 0) }
            : { type: 'failUpsellCharge', offer, code: charge.code, message: charge.message },
        );
      }
    });
  }

  /** Tries once more to record what was taken and is not recorded. What fails again is kept, and told in the log. */
  async recordUnrecorded() {
    const sessions = new Set([...this.#unrecorded.values()].map(({ sessionId }) => sessionId));
    for (const sessionId of sessions) {
      await this.#alone(sessionId, () => this.#recordRest(sessionId)).catch(() => undefined);
    }
  }

  /**
   * @param {string} sessionId
   */
  async #recordRest(sessionId) {
    for (const [purpose, kept] of [...this.#unrecorded]) {
      if (kept.sessionId === sessionId) await this.#record(sessionId, purpose, kept.command);
    }
  }

  /**
   * Tells the session what became of a charge.
   * @param {string} sessionId
   * @param {string} purpose what the charge was for: the same as the gateway was given
   * @param {import('./throughline-api.mjs').Command} command
   */
  async #record(sessionId, purpose, command) {
    const { type, transactionId } = command;
    const isMoney = transactionId !== undefined;
    // Kept before it is sent: whatever happens then, it is not forgotten.
    if (isMoney) this.#unrecorded.set(purpose, { sessionId, command });
    const refusals = this.#refusals.get(purpose) ?? 0;
    try {
      await this.#throughline.issue(sessionId, command, `${purpose}/${type}/${refusals}`);
    } catch (error) {
      if (error instanceof Refused) this.#refusals.set(purpose, refusals + 1);
      if (isMoney) {
        const reason = error instanceof Error ? error.message : error;
        console.error(`payment service: MONEY WAS TAKEN BUT IS NOT RECORDED: ${transactionId} of ${purpose}: ${reason}`);
      }
      throw error;
    }
    this.#unrecorded.delete(purpose);
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
