import { randomUUID } from 'node:crypto';

import { BoundedMap } from './bounded-map.mjs';

/**
 * The fields of a session that this service reads.
 * @typedef {object} Session
 * @property {string} id
 * @property {string} status
 * @property {number} amount
 * @property {{ paidAt: string | null, attempts?: number }} payment
 * @property {{ offer: string, price: number, tax?: number, state: string }[]} upsells
 */

/** @typedef {{ type: string } & Record<string, unknown>} Command */

const timeLimitMs = 10_000;

/** Throughline's REST interface, as far as this service needs it. */
export class ThroughlineApi {
  #url;
  #key;
  /**
   * This process is a client of each session and numbers its commands there, without gaps. The numbers begin again with
   * the process, so each process is another client.
   * @type {BoundedMap<{ clientId: string, lastSeq: number }>}
   */
  #clients = new BoundedMap();

  /**
   * @param {string} url
   * @param {string} key
   */
  constructor(url, key) {
    this.#url = url;
    this.#key = key;
  }

  /**
   * @param {string} sessionId
   * @returns {Promise<Session | undefined>} nothing where the server does not know it (yet)
   */
  async session(sessionId) {
    const response = await this.#request(`/v1/sessions/${sessionId}`);
    if (response.status === 404) return undefined;
    if (!response.ok) throw new Error(`reading a session was answered with ${response.status}`);
    return /** @type {Session} */ (await response.json());
  }

  /**
   * Issues one command. Sent again with the same number where no answer came: the server applies it once.
   * @param {string} sessionId
   * @param {Command} command
   */
  async issue(sessionId, command) {
    const client = this.#clients.get(sessionId) ?? { clientId: `payment-service-${randomUUID()}`, lastSeq: 0 };
    client.lastSeq += 1;
    this.#clients.set(sessionId, client);
    const body = JSON.stringify({ commands: [{ clientId: client.clientId, seq: client.lastSeq, ...command }] });
    for (let tries = 3; ; tries -= 1) {
      const response = await this.#request(`/v1/sessions/${sessionId}/commands`, { method: 'POST', body }).catch(
        (error) => (tries > 1 ? undefined : Promise.reject(error)),
      );
      if (response?.ok) return;
      const isPassing = response === undefined || response.status === 429 || response.status >= 500;
      if (!isPassing || tries <= 1) {
        throw new Error(`${command.type} was answered with ${response?.status}: ${await response?.text()}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  }

  /**
   * @param {string} path
   * @param {RequestInit} [init]
   */
  #request(path, init) {
    return fetch(this.#url + path, {
      ...init,
      headers: { authorization: `Bearer ${this.#key}`, 'content-type': 'application/json' },
      signal: AbortSignal.timeout(timeLimitMs),
    });
  }
}
