import type { Answered } from './transport.js';
import type { MendableBy, Problem, ProblemCode } from './types.js';

/** What was wrong. */
export type ThroughlineErrorCode =
  /** The server said so. */
  | ProblemCode
  /** The server could not be reached, or the connection was lost before its answer was here. */
  | 'unreachable'
  /** The call took longer than it may. */
  | 'timedOut'
  /** Something answered that is no Throughline server: a proxy, or another server. */
  | 'answerUnreadable';

/** What an error knows beside its message. */
interface Facts {
  readonly code: ThroughlineErrorCode;
  readonly status?: number | undefined;
  readonly mendableBy?: MendableBy | undefined;
  readonly requestId?: string | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly problem?: Problem | undefined;
}

/** A call failed. Neither the message nor anything else in it has the service key, or a token. */
export class ThroughlineError extends Error {
  override readonly name = 'ThroughlineError';
  /** What was wrong: stable, for programs. A newer server may say what this version does not know. */
  readonly code: ThroughlineErrorCode;
  /** The answer's HTTP status; nothing where there was no answer. */
  readonly status: number | undefined;
  /** Who can mend it. */
  readonly mendableBy: MendableBy | undefined;
  /** What was wrong this time and how to mend it: a sentence. */
  readonly detail: string;
  /** Under which id the server's log has it. */
  readonly requestId: string | undefined;
  /** After which time it makes sense to try again, where the server said. */
  readonly retryAfterMs: number | undefined;
  /** What the server said, with the facts of the kind of problem. */
  readonly problem: Problem | undefined;

  constructor(detail: string, facts: Facts, options?: ErrorOptions) {
    super(detail, options);
    this.code = facts.code;
    this.status = facts.status;
    this.mendableBy = facts.mendableBy;
    this.detail = detail;
    this.requestId = facts.requestId;
    this.retryAfterMs = facts.retryAfterMs;
    this.problem = facts.problem;
  }
}

/** What an answer says that is no success. */
export function errorOf(response: Answered, text: string): ThroughlineError {
  const { status, headers } = response;
  const requestId = headers.get('x-request-id') ?? undefined;
  const retryAfterMs = retryAfter(headers);
  const problem = problemIn(text);
  if (problem) {
    return new ThroughlineError(problem.detail ?? problem.title, {
      code: problem.code,
      status,
      mendableBy: (problem.mendableBy ?? undefined) as MendableBy | undefined,
      requestId: problem.requestId ?? requestId,
      retryAfterMs,
      problem,
    });
  }
  // What else it says is nobody's to show: a proxy's page may repeat the request.
  const detail = `something that is no Throughline server answered with ${status}; is there a proxy, and is the address right?`;
  return new ThroughlineError(detail, { code: 'answerUnreadable', status, requestId, retryAfterMs });
}

function problemIn(text: string): Problem | undefined {
  try {
    const problem = JSON.parse(text) as Problem | null;
    return typeof problem?.code === 'string' && typeof problem.title === 'string' ? problem : undefined;
  } catch {
    return undefined;
  }
}

/** `Retry-After` has seconds or, from proxies, a date. */
function retryAfter(headers: Answered['headers']): number | undefined {
  const text = headers.get('retry-after')?.trim();
  if (!text) return undefined;
  const afterMs = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Number.isFinite(afterMs) ? Math.max(afterMs, 0) : undefined;
}
