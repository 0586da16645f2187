import { orAborted } from '../../server/limit.js';
import type { ReportedDifference, RouteMode } from '../../server/types.js';
import { Differences, NO_ANSWER, type Rules, type Statement, statementOf } from './comparison.js';
import { type Asked, type Effects, RecordedEffects } from './effects.js';
import { type FieldNames, isPlainName, type Path } from './field-names.js';
import { isSession, LOCATION, type Masking, MISSING } from './masking.js';
import { failed, type Outcome, outcomeOf } from './outcome.js';
import type { Verdict } from './reports.js';
import { RequestCopies } from './request-copies.js';
import { Deadline, endsWithin } from './waiting.js';

/** One of the two implementations of a route. */
export type Side = 'legacy' | 'unified';

/** How one side answers. */
export type SideHandler<Context = unknown, R extends Request = Request> = (request: R, context: Context, effects: Effects) => Response | Promise<Response>;

/** What both sides have stored: any JSON. */
export interface StoredStates {
  legacy: unknown;
  unified: unknown;
}

/** Reads what both sides have stored. */
export type StateReader<Context = unknown, R extends Request = Request> = (
  request: R,
  answer: Response,
  context: Context,
) => StoredStates | null | undefined | Promise<StoredStates | null | undefined>;

/** How both sides of a route are run and compared. */
export interface BothSidesOptions<Context, R extends Request> {
  readonly handlers: Readonly<Record<Side, SideHandler<Context, R>>>;
  readonly state: StateReader<Context, R> | undefined;
  readonly rules: Rules;
  readonly shown: FieldNames<true>;
  readonly masking: Masking;
  /** How long the answer waits for the other side. */
  readonly limitMs: number;
  /** How long each side may take. */
  readonly maximumMs: number;
  /** How large the body of a request may be that the other side is given as well. */
  readonly maxBodyBytes: number;
  readonly onFailure: (error: unknown, during: Side | 'state') => void;
  readonly onCompared: (verdict: Verdict, differences: ReportedDifference[]) => void;
  /** Is given all that goes on after the answer. */
  readonly keepAlive: (work: Promise<unknown>) => void;
}

/** What came of the side that does not answer. */
interface Ended {
  readonly outcome: Outcome;
  readonly statement: Statement;
  /** What both have stored, where it was asked for. */
  readonly states?: StoredStates | 'unreadable' | undefined;
}

/** A request that both sides are asked. */
export class BothSides<Context, R extends Request> {
  readonly #options: BothSidesOptions<Context, R>;
  readonly #isCompared: boolean;
  readonly #answering: Side;
  readonly #other: Side;
  readonly #request: R;
  readonly #context: Context;
  readonly #copies: RequestCopies<R>;
  readonly #effects = new RecordedEffects();
  /** Aborts when the other side has had all the time that it may have. */
  readonly #life = new AbortController();
  #deadline: Deadline | undefined;

  constructor(options: BothSidesOptions<Context, R>, mode: Exclude<RouteMode, 'off' | 'only'>, request: R, context: Context) {
    this.#options = options;
    this.#isCompared = mode !== 'shadow';
    [this.#answering, this.#other] = mode === 'on' ? ['unified', 'legacy'] : ['legacy', 'unified'];
    this.#request = request;
    this.#context = context;
    this.#copies = new RequestCopies(request, options.maxBodyBytes);
  }

  /** The answer, once the other side is up to date as well, or has taken too long. */
  async answer(): Promise<Response> {
    const { limitMs, maximumMs, onFailure, keepAlive } = this.#options;
    const { signal } = this.#request;
    const first = await this.#runAnswering();
    const hasLeft = !first.response && signal?.aborted;
    // The buyer has left before anything was done outside: there is nothing that the other side would lack.
    if (hasLeft && this.#effects.isEmpty) {
      this.#copies.end();
      return first.deliver();
    }
    const isReplaced = first.hasFailed && this.#isCompared && !hasLeft;
    if (isReplaced && !first.response) onFailure(first.error, this.#answering);

    const { outcome, ended } = this.#runOther(first, isReplaced);
    // Before the answer is given away, with its body.
    keepAlive(this.#conclude(first, this.#isCompared ? copyOf(first) : undefined, ended, !hasLeft));
    if (!isReplaced) {
      await endsWithin(ended, limitMs, signal);
      return first.deliver();
    }
    const second = (await endsWithin(outcome, maximumMs, signal)) ? await outcome : first;
    return second.hasFailed ? first.deliver() : second.deliver();
  }

  /**
   * Runs the side that answers; one that does not end in time has failed. Where the other one may answer in its place, it begins nothing
   * outside any more: that could be done twice. Where none may, as in `shadow`, the buyer waits for it as without the other one.
   */
  async #runAnswering(): Promise<Outcome> {
    const { handlers, maximumMs, onFailure } = this.#options;
    const running = outcomeOf(() => handlers[this.#answering](this.#request, this.#context, this.#effects.first));
    if (await endsWithin(running, maximumMs)) return running;
    const late = failed(tookTooLong(this.#answering, maximumMs));
    if (!this.#isCompared) {
      onFailure(late.error, this.#answering);
      return { ...late, deliver: async () => (await running).deliver() };
    }
    this.#effects.closeFirst();
    return late;
  }

  /** Begins the other side. Both promises are kept. */
  #runOther(first: Outcome, answers: boolean): { outcome: Promise<Outcome>; ended: Promise<Ended> } {
    const { handlers, maximumMs } = this.#options;
    const { signal } = this.#life;
    const effects = this.#effects.second(answers);
    this.#deadline = new Deadline(maximumMs, () => {
      this.#effects.closeSecond();
      this.#life.abort(tookTooLong(this.#other, maximumMs));
    });
    const run = async () => handlers[this.#other](await this.#copies.copy(signal), this.#context, effects);
    const outcome = orAborted(outcomeOf(run), signal).catch(failed);
    const ended = orAborted(this.#finish(first, outcome, answers), signal).catch(
      (error: unknown): Ended => ({ outcome: failed(error), statement: NO_ANSWER }),
    );
    return { outcome, ended };
  }

  /** Reads the other side's answer to its end, and what both have stored. */
  async #finish(first: Outcome, running: Promise<Outcome>, answers: boolean): Promise<Ended> {
    const { state } = this.#options;
    const isAsked = state !== undefined && this.#isCompared && !first.hasFailed;
    const answer = isAsked ? copyOf(first) : undefined;
    const outcome = await running;
    // What answers in place of the first is read by the buyer as well.
    const statement = await statementOf(answers ? copyOf(outcome) : outcome.response, this.#life.signal);
    if (!isAsked || !answer || outcome.hasFailed) return { outcome, statement };
    try {
      const states = await state(await this.#copies.copy(this.#life.signal), answer, this.#context);
      return { outcome, statement, states: states ? { legacy: asJson(states.legacy), unified: asJson(states.unified) } : undefined };
    } catch (error) {
      this.#options.onFailure(error, 'state');
      return { outcome, statement, states: 'unreadable' };
    }
  }

  /** Compares and tells what came of it. It goes on after the answer, and never rejects. */
  async #conclude(first: Outcome, answer: Response | undefined, ending: Promise<Ended>, isCounted: boolean): Promise<void> {
    const { onFailure, onCompared } = this.#options;
    try {
      const reading = statementOf(answer, this.#life.signal).catch((error: unknown): typeof BROKEN | undefined => {
        // One that does not end in time may be meant so.
        if (this.#life.signal.aborted) return undefined;
        onFailure(error, this.#answering);
        return BROKEN;
      });
      const ended = await ending;
      if (!ended.outcome.response) onFailure(ended.outcome.error, this.#other);
      if (!isCounted) return;
      const differences = new Differences(this.#options.rules);
      const statement = await reading;
      const verdict = this.#judge(differences, first, statement, ended);
      const said = [statement === BROKEN ? undefined : statement, ended.statement];
      if (verdict) onCompared(verdict, await this.#masked(differences, said));
    } catch (error) {
      onFailure(error, this.#other);
    } finally {
      this.#deadline?.cancel();
      this.#copies.end();
    }
  }

  /** What came of the request; nothing where that is not counted. */
  #judge(differences: Differences, first: Outcome, statement: Statement | typeof BROKEN | undefined, ended: Ended): Verdict | undefined {
    const second = ended.outcome;
    if ((first.hasFailed || statement === BROKEN) && !second.hasFailed) return `${this.#answering}Failed`;
    // After a side that has failed, the other one is refused what that has not come to.
    const wasRefused = this.#effects.wasRefused && !first.hasFailed;
    const hasSecondFailed = second.hasFailed && !first.hasFailed;
    if (hasSecondFailed && !wasRefused) return `${this.#other}Failed`;
    if (!this.#isCompared && !wasRefused) return undefined;
    if (!first.hasFailed) this.#compareEffects(differences);
    if (this.#isCompared && !hasSecondFailed) {
      // Its body did not end in time.
      if (!statement || statement === BROKEN) return undefined;
      differences.compareAnswers(this.#ofSides(statement, ended.statement));
      if (ended.states === 'unreadable') differences.add(['state'], { legacy: MISSING, unified: MISSING });
      else if (ended.states) differences.compare(['state'], ended.states.legacy, ended.states.unified);
    }
    return differences.found.size > 0 ? 'different' : 'equal';
  }

  #compareEffects(differences: Differences): void {
    for (const { first, second } of this.#effects.byBoth) {
      const { legacy, unified } = this.#ofSides(detailsOf(first.details), detailsOf(second.details));
      differences.compare([...EFFECTS, first.name], legacy, unified);
    }
    const { first, second } = this.#effects.onlyBy;
    if (first.length + second.length === 0) return;
    // Their names may have been put together of something.
    const nameOf = ({ name, ordinal }: Asked) => (isPlainName(name) ? name : '*') + (ordinal > 1 ? ` (${ordinal})` : '');
    const names = (list: Asked[]) => list.map(nameOf).join(', ') || 'nothing';
    differences.add(EFFECTS, this.#ofSides(names(first), names(second)));
  }

  #ofSides<T>(answering: T, other: T): Record<Side, T> {
    return this.#answering === 'legacy' ? { legacy: answering, unified: other } : { legacy: other, unified: answering };
  }

  async #masked(differences: Differences, statements: (Statement | undefined)[]): Promise<ReportedDifference[]> {
    const { masking, shown } = this.#options;
    const at = new Date(this.#effects.first.now).toISOString();
    const sessionId = statements.map((statement) => sessionIn(statement)).find((id) => id !== undefined);
    const masked = async (path: Path, value: unknown): Promise<string> => {
      // By what they are, not by how they are called: an answer may have fields of these names as well.
      if (path === EFFECTS) return String(value).slice(0, 200);
      if (path === LOCATION) return masking.address(value as string | null, shown);
      return masking.value(path, value, shown);
    };
    const reported: ReportedDifference[] = [];
    for (const [field, { path, legacy, unified }] of differences.found) {
      const values = { legacy: await masked(path, legacy), unified: await masked(path, unified) };
      reported.push({ field, ...values, ...(sessionId !== undefined && { sessionId }), at });
    }
    return reported;
  }
}

/** What an answer says whose body has broken off. */
const BROKEN = Symbol('broken');

/** Where the names of effects are reported. */
const EFFECTS: Path = ['effects'];

function tookTooLong(side: Side, maximumMs: number): DOMException {
  return new DOMException(`the ${side} side did not end within ${maximumMs} ms`, 'TimeoutError');
}

function copyOf({ response }: Outcome): Response | undefined {
  return response?.clone();
}

/** What an effect is done with. What can't be JSON is not compared. */
function detailsOf(details: unknown): unknown {
  try {
    return details === undefined ? MISSING : asJson(details);
  } catch {
    return MISSING;
  }
}

/** Texts instead of dates, and whatever else a store gives. */
function asJson(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value ?? null)) as unknown;
}

/** The session that an answer is about, as far as it says so. */
function sessionIn(statement: Statement | undefined): string | undefined {
  if (!statement || !('json' in statement.body)) return undefined;
  const { sessionId, session_id, id, session } = (statement.body.json ?? {}) as Record<string, unknown>;
  const within = (session ?? {}) as Record<string, unknown>;
  return [sessionId, session_id, within['id'], id].find((id): id is string => typeof id === 'string' && isSession(id));
}
