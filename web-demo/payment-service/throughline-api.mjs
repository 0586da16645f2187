/**
 * The fields of a session that this service reads.
 * @typedef {object} Session
 * @property {string} id
 * @property {string} status
 * @property {number} amount
 * @property {string | null} [transactionId]
 * @property {{ paidAt: string | null, attempts?: number }} payment
 * @property {{ offer: string, price: number, tax?: number, state: string }[]} upsells
 */

/** @typedef {{ type: string } & Record<string, unknown>} Command */

const timeLimitMs = 10_000;
/** How often a request is sent before it is given up, and how long it waits before the second time. */
const tries = 5;
const firstDelayMs = 300;

/** The server's answer is that the command was not applied; the message is its reason. */
export class Refused extends Error {}

/** Throughline's REST interface, as far as this service needs it. */
export class ThroughlineApi {
  #url;
  #key;

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
   * Issues one command. Sent again with the same key where no answer came: the server applies it once. It repeats its
   * first answer for the key, so a command that was refused needs another one.
   * @param {string} sessionId
   * @param {Command} command
   * @param {string} idempotencyKey
   * @returns {Promise<void>} when the server has it
   * @throws {Refused} where it was not applied
   */
  async issue(sessionId, command, idempotencyKey) {
    const body = JSON.stringify({ commands: [command] });
    const headers = { 'idempotency-key': idempotencyKey };
    for (let tried = 1; ; tried += 1) {
      /** @type {Error} */
      let failure;
      try {
        const response = await this.#request(`/v1/sessions/${sessionId}/commands`, { method: 'POST', headers, body });
        const answer = await response.json().catch(() => undefined);
        if (response.ok) {
          const result = answer?.results?.[0];
          if (result?.outcome === 'accepted') return;
          if (result?.outcome === 'rejected') throw new Refused(result.reason.message);
        }
        failure = new Error(`${command.type} was answered with ${response.status}: ${answer?.detail ?? 'nothing to read'}`);
        const isUnderWay = /InProgress$/.test(answer?.code ?? '');
        const isPassing = response.ok || isUnderWay || response.status === 429 || response.status >= 500;
        if (!isPassing) throw new Refused(failure.message);
      } catch (error) {
        if (error instanceof Refused) throw error;
        failure = error instanceof Error ? error : new Error(String(error));
      }
      if (tried >= tries) throw failure;
      await new Promise((resolve) => setTimeout(resolve, firstDelayMs * 2 ** (tried - 1)));
    }
  }

  /**
   * @param {string} path
   * @param {{ method?: string, headers?: Record<string, string>, body?: string }} [init]
   */
  #request(path, init) {
    return fetch(this.#url + path, {
      ...init,
      headers: { authorization: `Bearer ${this.#key}`, 'content-type': 'application/json', ...init?.headers },
      signal: AbortSignal.timeout(timeLimitMs),
    });
  }
}
