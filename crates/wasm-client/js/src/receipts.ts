import type { Command } from '../generated/types.js';
import type { Confirmation } from './core-outputs.js';
import type { PendingCommand } from './engine.js';

/** A command on its way. Both promises reject with a {@link Rejection} where the command is refused. */
export interface Receipt {
  /** The command's number among this page's; 0 where it was refused before it got one. */
  readonly seq: number;
  /** The trace that it is part of, 32 hexadecimal digits, where the session was opened with `trace`. */
  readonly traceId: string | undefined;
  /** The server applied it. */
  readonly accepted: Promise<{ version: number }>;
  /** The database has it: nothing can undo it any more. */
  readonly durable: Promise<{ version: number }>;
}

/** A command whose receipt is not settled. */
export class Unsettled {
  seq = 0;
  command: Command;
  readonly traceparent: string | undefined;
  readonly accepted = new Outcome();
  readonly durable = new Outcome();
  readonly receipt: Receipt;

  constructor(command: Command, traceparent?: string) {
    this.command = command;
    this.traceparent = traceparent;
    this.receipt = new GivenOut(this);
  }

  accept(version: number): void {
    this.accepted.settle(Promise.resolve({ version }));
  }

  makeDurable(version: number): void {
    this.accept(version);
    this.durable.settle(Promise.resolve({ version }));
  }

  reject(reason: unknown): void {
    this.accepted.settle(Promise.reject(reason));
    this.durable.settle(Promise.reject(reason));
  }
}

/** What the page gets to see of it. */
class GivenOut implements Receipt {
  readonly #unsettled: Unsettled;

  constructor(unsettled: Unsettled) {
    this.#unsettled = unsettled;
  }

  get seq(): number {
    return this.#unsettled.seq;
  }

  get traceId(): string | undefined {
    return this.#unsettled.traceparent?.slice(3, 35);
  }

  get accepted(): Promise<{ version: number }> {
    return this.#unsettled.accepted.promise;
  }

  get durable(): Promise<{ version: number }> {
    return this.#unsettled.durable.promise;
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

/** A promise that is made when somebody asks for it: not every page looks at every receipt. */
class Outcome {
  #promise: Promise<{ version: number }> | undefined;
  #settle: ((promise: Promise<{ version: number }>) => void) | undefined;

  get promise(): Promise<{ version: number }> {
    return (this.#promise ??= new Promise((resolve) => (this.#settle = resolve)));
  }

  /** The first time counts. */
  settle(outcome: Promise<{ version: number }>): void {
    // There is `on('rejected')` for who does not look at it.
    outcome.catch(() => undefined);
    this.#promise?.catch(() => undefined);
    this.#settle?.(outcome);
    this.#promise ??= outcome;
  }
}
