import type { Command } from '../generated/types.js';
import type { Confirmation, PendingCommand } from './engine.js';

/** A command on its way. Both promises reject with a {@link Rejection} where the command is refused. */
export interface Receipt {
  /** The command's number among this page's; 0 where it was refused before it got one. */
  readonly seq: number;
  /** The server applied it. */
  readonly accepted: Promise<{ version: number }>;
  /** The database has it: nothing can undo it any more. */
  readonly durable: Promise<{ version: number }>;
}

/** A command whose receipt is not settled. */
export class Unsettled {
  seq = 0;
  command: Command;
  readonly receipt: Receipt;
  readonly #accepted = settle();
  readonly #durable = settle();

  constructor(command: Command) {
    this.command = command;
    const unsettled = this;
    this.receipt = {
      get seq() {
        return unsettled.seq;
      },
      accepted: this.#accepted.promise,
      durable: this.#durable.promise,
    };
  }

  accept(version: number): void {
    this.#accepted.resolve({ version });
  }

  makeDurable(version: number): void {
    this.#accepted.resolve({ version });
    this.#durable.resolve({ version });
  }

  reject(reason: unknown): void {
    this.#accepted.reject(reason);
    this.#durable.reject(reason);
  }
}

/** The receipts that this page has given out, by the clients and numbers of their commands. */
export class Receipts {
  readonly #unsettled = new Map<string, Unsettled>();

  add(clientId: string, unsettled: Unsettled): void {
    this.#unsettled.set(name(clientId, unsettled.seq), unsettled);
  }

  confirm(clientId: string, seq: number, confirmation: Confirmation): void {
    const unsettled = this.#unsettled.get(name(clientId, seq));
    if ('accepted' in confirmation) return unsettled?.accept(confirmation.accepted);
    this.#unsettled.delete(name(clientId, seq));
    if ('durable' in confirmation) unsettled?.makeDurable(confirmation.durable);
    else unsettled?.reject(confirmation.rejected);
  }

  /** Nobody here will hear of these commands any more, except of those that are pending. */
  giveUp(reason: unknown, pending: readonly PendingCommand[] = []): void {
    const kept = new Set(pending.map(({ clientId, seq }) => name(clientId, seq)));
    for (const [key, unsettled] of [...this.#unsettled]) {
      if (kept.has(key)) continue;
      this.#unsettled.delete(key);
      unsettled.reject(reason);
    }
  }
}

function name(clientId: string, seq: number): string {
  return `${clientId}/${seq}`;
}

interface Settle {
  promise: Promise<{ version: number }>;
  resolve(value: { version: number }): void;
  reject(reason: unknown): void;
}

function settle(): Settle {
  let resolve!: Settle['resolve'];
  let reject!: Settle['reject'];
  const promise = new Promise<{ version: number }>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  // Not every page looks at every receipt; there is `on('rejected')` for that.
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}
