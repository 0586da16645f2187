import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import { freePort } from './ports.js';
import { inRepository } from './repository.js';
import type { ThroughlineServer } from './server.js';

const readyLimitMs = 10_000;
const pollMs = 50;

/** The demo shop's payment service, as a process of its own. */
export class PaymentService {
  readonly url: string;
  readonly #process: ChildProcess;

  private constructor(url: string, child: ChildProcess) {
    this.url = url;
    this.#process = child;
  }

  static async start(server: ThroughlineServer, shopOrigin: string): Promise<PaymentService> {
    const address = `127.0.0.1:${await freePort()}`;
    const child = spawn(process.execPath, [inRepository('web-demo/payment-service/main.mjs')], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: {
        ...process.env,
        PAYMENT_LISTEN: address,
        PAYMENT_DELAY_MS: '50',
        SHOP_ORIGINS: shopOrigin,
        THROUGHLINE_URL: server.url,
        THROUGHLINE_SERVICE_KEY: server.serviceKey,
      },
    });
    const service = new PaymentService(`http://${address}`, child);
    const deadline = Date.now() + readyLimitMs;
    while (Date.now() < deadline && child.exitCode === null) {
      const answer = await fetch(`${service.url}/livez`).catch(() => undefined);
      if (answer?.ok === true) return service;
      await sleep(pollMs);
    }
    await service.stop();
    throw new Error('the payment service did not start');
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = once(this.#process, 'exit');
    this.#process.kill('SIGTERM');
    await ended;
  }
}
