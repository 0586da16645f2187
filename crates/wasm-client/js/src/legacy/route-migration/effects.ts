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
   * Does `work`, unless the other side has for this request: then its result is given again, or its error. What both sides have to
   * have the same of, such as a new id or a random number, comes from here as well.
   *
   * A side that asks again under the same name asks for another one: its second charge is the second one of the other side, and so on.
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

/** An effect that a side asked for. */
export interface Asked {
  readonly name: string;
  /** Whether it is the side's first one of this name, its second, and so on: from 1. */
  readonly ordinal: number;
  /** What it is to be done with. */
  readonly details: unknown;
}

/** What one side asked for. */
class AskedBy {
  readonly #effects = new Map<string, Asked>();
  readonly #times = new Map<string, number>();

  /** Under what the next effect of this name is known to both sides. */
  next(name: string): string {
    return keyOf(name, this.#timesOf(name) + 1);
  }

  /** Takes note of the next one. */
  note(name: string, details: unknown): void {
    const ordinal = this.#timesOf(name) + 1;
    this.#times.set(name, ordinal);
    this.#effects.set(keyOf(name, ordinal), { name, ordinal, details });
  }

  get isEmpty(): boolean {
    return this.#effects.size === 0;
  }

  /** Those that the other side asked for as well, with what that said of it. */
  alsoBy(other: AskedBy): [Asked, Asked][] {
    return [...this.#effects].flatMap(([key, asked]) => {
      const same = other.#effects.get(key);
      return same ? [[asked, same] as [Asked, Asked]] : [];
    });
  }

  /** Those that the other side did not ask for. */
  notBy(other: AskedBy): Asked[] {
    return [...this.#effects].filter(([key]) => !other.#effects.has(key)).map(([, asked]) => asked);
  }

  #timesOf(name: string): number {
    return this.#times.get(name) ?? 0;
  }
}

/** The effects of one request, and which side asked for which. */
export class RecordedEffects {
  readonly #now = Date.now();
  readonly #results = new Map<string, Promise<unknown>>();
  readonly #askedByFirst = new AskedBy();
  readonly #askedBySecond = new AskedBy();
  #firstMayBegin = true;
  #secondAnswers = false;
  #wasRefused = false;

  /** What the side is given that runs first. */
  readonly first: Effects = {
    answers: true,
    now: this.#now,
    once: (name, work, details) => {
      const key = this.#askedByFirst.next(name);
      // What it still asks for when it was given up is nothing that the other one would have to take up.
      if (!this.#firstMayBegin) return this.#recorded(key) ?? unwatched(Promise.reject(new EffectNotAllowed(name, 'this side took too long')));
      this.#askedByFirst.note(name, details);
      return this.#recorded(key) ?? this.#begin(key, work);
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
      const key = this.#askedBySecond.next(name);
      this.#askedBySecond.note(name, details);
      return this.#recorded(key) ?? (this.#secondMayBegin() ? this.#begin(key, work) : this.#refuse(name));
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
    return this.#askedByFirst.isEmpty;
  }

  /** Whether the second side was refused one. */
  get wasRefused(): boolean {
    return this.#wasRefused;
  }

  /** Those that the first side alone asked for, and those that the second did. */
  get onlyBy(): { first: Asked[]; second: Asked[] } {
    return { first: this.#askedByFirst.notBy(this.#askedBySecond), second: this.#askedBySecond.notBy(this.#askedByFirst) };
  }

  /** Those that both asked for, as each has. */
  get byBoth(): { first: Asked; second: Asked }[] {
    return this.#askedByFirst.alsoBy(this.#askedBySecond).map(([first, second]) => ({ first, second }));
  }

  /**
   * A side that answers in place of the other may do what that has not done. But as long as something of the other was not taken up,
   * it may be the same under another name, and would be done twice.
   */
  #secondMayBegin(): boolean {
    return this.#secondAnswers && this.onlyBy.first.length === 0;
  }

  #refuse(name: string): Promise<never> {
    this.#wasRefused = true;
    return unwatched(Promise.reject(new EffectNotAllowed(name)));
  }

  #recorded<T>(key: string): Promise<T> | undefined {
    return this.#results.get(key) as Promise<T> | undefined;
  }

  #begin<T>(key: string, work: () => T | Promise<T>): Promise<T> {
    const result = unwatched((async () => work())());
    this.#results.set(key, result);
    return result;
  }
}

/** Whoever asks for an effect and does not wait for it must not end the process by its failure. */
function unwatched<T>(work: Promise<T>): Promise<T> {
  work.catch(() => undefined);
  return work;
}

function keyOf(name: string, ordinal: number): string {
  return `${ordinal} ${name}`;
}
