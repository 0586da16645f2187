import type { MendableBy, RejectionCode } from '../../generated/types.js';
import type { ThroughlineErrorCode } from '../server/error.js';

/** Why a legacy call can't have what it asks for. */
export interface Refusal {
  code: LegacyCallRefused['code'];
  mendableBy: MendableBy;
  message: string;
}

/** Something that is not for legacy code to set. */
export function byHand(what: string, code: 'notPermitted' | 'amountMismatch' = 'notPermitted'): Refusal {
  return { code, mendableBy: 'forbidden', message: `nobody may set ${what}` };
}

/** A column is named that there is not. */
export function unknownField(name: string): Refusal {
  return { code: 'unknownField', mendableBy: 'permanent', message: `there is no column '${name}'; what is the shop's own goes into the metadata` };
}

/** A value is none. */
export function unreadable(message: string): Refusal {
  return { code: 'invalidField', mendableBy: 'permanent', message };
}

/** How often legacy calls asked for what the rules forbid. */
export interface LegacyException {
  readonly method: string;
  readonly code: LegacyCallRefused['code'];
  readonly count: number;
}

/** A legacy call asked for what can't be. What it asked for besides, before that, has happened. */
export class LegacyCallRefused extends Error {
  override readonly name = 'LegacyCallRefused';
  /** The legacy method. */
  readonly method: string;
  /** What was wrong; `notReady` where something has to be set up first, `unknownField` where a column is named that there is not. */
  readonly code: RejectionCode | ThroughlineErrorCode | 'notReady' | 'unknownField';
  /** Who can mend it. */
  readonly mendableBy: MendableBy;

  /** @param said What the legacy message began with; the method's name where nothing is said. */
  constructor(method: string, { code, mendableBy, message }: Refusal, { said = method, ...options }: ErrorOptions & { said?: string } = {}) {
    super(`${said}: ${message}`, options);
    this.method = method;
    this.code = code;
    this.mendableBy = mendableBy;
  }
}

/** How refusals are taken. */
export interface RefusalOptions {
  /** What the rules forbid is noted and left out, where it would throw otherwise. For the time of a migration. */
  compatibility?: boolean;
  /**
   * Hears of what was left out, and of what the server refuses later on; else the console is told the code. A refusal's message may
   * name what the caller gave.
   */
  onRefused?: (refusal: LegacyCallRefused) => void;
}

/** Takes refusals: throws them, or notes and counts them. */
export class Refusals {
  readonly #exceptions = new Map<string, LegacyException>();
  readonly #options: () => RefusalOptions;

  constructor(options: () => RefusalOptions) {
    this.#options = options;
  }

  /** What was noted, by method and code. */
  get exceptions(): readonly LegacyException[] {
    return [...this.#exceptions.values()];
  }

  /** Throws; in compatibility mode it only takes note. */
  refuse(refusal: LegacyCallRefused): void {
    if (!this.#options().compatibility) throw refusal;
    this.note(refusal);
  }

  /** Counts it, and tells of it. */
  note(refusal: LegacyCallRefused): void {
    const { method, code } = refusal;
    const key = `${method} ${code}`;
    this.#exceptions.set(key, { method, code, count: (this.#exceptions.get(key)?.count ?? 0) + 1 });
    const { onRefused } = this.#options();
    // Without the message, which may name what the buyer has entered.
    if (onRefused) onRefused(refusal);
    // Written out: of what is said to `console`, which is the bindings' alone, the bundle has nothing.
    else globalThis.console.warn(`throughline/legacy: ${method} was refused (${code})`);
  }
}
