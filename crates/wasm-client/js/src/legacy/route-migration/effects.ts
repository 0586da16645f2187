/**
 * What a request does outside of the shop's own stores: charging a card, sending a mail. Both sides of a request share it, so that
 * it is done once.
 */
export interface Effects {
  /** Whether the answer of this side is the buyer's. Cookies that a framework sets beside the answer are for this side alone. */
  readonly answers: boolean;
  /** When the request came, in milliseconds since 1970: the same on both sides. */
  readonly now: number;
  /**
   * Does `work`, unless it was done under this name for this request before: then its result is given again, or its error. What
   * both sides have to have the same of, such as a new id or a random number, comes from here as well.
   *
   * The result is shared: do not change it.
   *
   * @param details What it is done with, such as the amount: JSON, which is compared where both sides are.
   * @throws {EffectNotAllowed} where this side is not the one that answers, or took too long to be, and the other has not asked for it.
   */
  once<T>(name: string, work: () => T | Promise<T>, details?: unknown): Promise<T>;
}

/** The side that does not answer, or not any more, asked for an effect that the other one did not ask for. It was not done. */
export class EffectNotAllowed extends Error {
  override readonly name = 'EffectNotAllowed';
  /** The effect, as the side called it. */
  readonly effect: string;

  constructor(effect: string, reason = 'the side that answers has not asked for it') {
    super(`the effect '${effect}' was not done: ${reason}`);
    this.effect = effect;
  }
}

/** The effects of one request, and which side asked for which. */
export class RecordedEffects {
  readonly #now = Date.now();
  readonly #results = new Map<string, Promise<unknown>>();
  /** By name, with what they were to be done with. */
  readonly #askedByFirst = new Map<string, unknown>();
  readonly #askedBySecond = new Map<string, unknown>();
  readonly #refused = new Set<string>();
  #firstMayBegin = true;
  #secondAnswers = false;

  /** What the side is given that runs first. */
  readonly first: Effects = {
    answers: true,
    now: this.#now,
    once: (name, work, details) => {
      // What it still asks for when it was given up is nothing that the other one would have to take up.
      if (!this.#firstMayBegin) return this.#recorded(name) ?? unwatched(Promise.reject(new EffectNotAllowed(name, 'this side took too long')));
      note(this.#askedByFirst, name, details);
      return this.#recorded(name) ?? this.#begin(name, work);
    },
  };

  /**
   * What the other side is given.
   *
   * @param answers Whether it answers in place of the first, which has failed.
   */
  second(answers: boolean): Effects {
    this.#secondAnswers = answers;
    const once: Effects['once'] = (name, work, details) => {
      note(this.#askedBySecond, name, details);
      return this.#recorded(name) ?? (this.#secondMayBegin() ? this.#begin(name, work) : this.#refuse(name));
    };
    return { answers, now: this.#now, once };
  }

  /** From now on the first side begins nothing any more: the other one answers. */
  closeFirst(): void {
    this.#firstMayBegin = false;
  }

  /** From now on the second side begins nothing any more: nobody waits for its answer. */
  closeSecond(): void {
    this.#secondAnswers = false;
  }

  /** Whether the first side asked for any. */
  get isEmpty(): boolean {
    return this.#askedByFirst.size === 0;
  }

  /** Whether the second side was refused one. */
  get wasRefused(): boolean {
    return this.#refused.size > 0;
  }

  /** The names that the first side alone asked for, and those that the second did. */
  get onlyBy(): { first: string[]; second: string[] } {
    return { first: missingIn(this.#askedBySecond, this.#askedByFirst), second: missingIn(this.#askedByFirst, this.#askedBySecond) };
  }

  /** Those that both asked for, with what they were to be done with. */
  get byBoth(): { name: string; first: unknown; second: unknown }[] {
    const names = [...this.#askedByFirst.keys()].filter((name) => this.#askedBySecond.has(name));
    return names.map((name) => ({ name, first: this.#askedByFirst.get(name), second: this.#askedBySecond.get(name) }));
  }

  /**
   * A side that answers in place of the other may do what that has not done. But as long as something of the other was not taken up,
   * it may be the same under another name, and would be done twice.
   */
  #secondMayBegin(): boolean {
    return this.#secondAnswers && this.onlyBy.first.length === 0;
  }

  #refuse(name: string): Promise<never> {
    this.#refused.add(name);
    return unwatched(Promise.reject(new EffectNotAllowed(name)));
  }

  #recorded<T>(name: string): Promise<T> | undefined {
    return this.#results.get(name) as Promise<T> | undefined;
  }

  #begin<T>(name: string, work: () => T | Promise<T>): Promise<T> {
    const result = unwatched((async () => work())());
    this.#results.set(name, result);
    return result;
  }
}

/** Whoever asks for an effect and does not wait for it must not end the process by its failure. */
function unwatched<T>(work: Promise<T>): Promise<T> {
  work.catch(() => undefined);
  return work;
}

function note(asked: Map<string, unknown>, name: string, details: unknown): void {
  if (!asked.has(name)) asked.set(name, details);
}

function missingIn(some: ReadonlyMap<string, unknown>, others: ReadonlyMap<string, unknown>): string[] {
  return [...others.keys()].filter((name) => !some.has(name));
}
