/** What came of one side of a request. */
export interface Outcome {
  /** The answer; nothing where there is none. */
  readonly response: Response | undefined;
  /** Whether it is no answer, or one of a server that failed. */
  readonly hasFailed: boolean;
  /** Why there is no answer. */
  readonly error?: unknown;
  /** Gives on what the side gave: its answer, or what it threw. */
  deliver(): Response | Promise<Response>;
}

/** Runs a side to its end, whatever that is. */
export async function outcomeOf(run: () => Response | Promise<Response>): Promise<Outcome> {
  try {
    const answer = await run();
    if (isResponse(answer)) {
      if (!isRead(answer)) return { response: answer, hasFailed: isFailure(answer), deliver: () => answer };
      return { ...failed(new TypeError('the body of the answer was read already')), deliver: () => answer };
    }
    return { ...failed(new TypeError('the handler gave no Response')), deliver: () => answer };
  } catch (error) {
    const response = thrownAnswer(error);
    return response && !isRead(response) ? { ...failed(error), response, hasFailed: isFailure(response), error: undefined } : failed(error);
  }
}

/** What came of a side that gave no answer. */
export function failed(error: unknown): Outcome {
  const deliver = () => {
    throw error;
  };
  return { response: undefined, hasFailed: true, error, deliver };
}

/** Also one of another realm, or of a library of its own. */
function isResponse(answer: unknown): answer is Response {
  const { status, headers, clone } = (answer ?? {}) as Partial<Response>;
  return typeof status === 'number' && typeof headers?.get === 'function' && typeof clone === 'function';
}

/** Whether somebody has read its body, or does: nobody else can. */
function isRead({ body, bodyUsed }: Response): boolean {
  return bodyUsed || body?.locked === true;
}

function isFailure({ status }: Response): boolean {
  return status === 0 || status >= 500;
}

/** What is thrown to answer: a response, or what `redirect` and `notFound` of Next.js throw. */
function thrownAnswer(error: unknown): Response | undefined {
  if (isResponse(error)) return error;
  const { digest } = (error ?? {}) as { digest?: unknown };
  if (typeof digest !== 'string') return undefined;
  const [, notFound] = /^NEXT_HTTP_ERROR_FALLBACK;([45]\d\d)$/.exec(digest) ?? [];
  if (notFound) return new Response(null, { status: Number(notFound) });
  const [, address, status] = /^NEXT_REDIRECT;\w+;(.*);(3\d\d);$/.exec(digest) ?? [];
  return address === undefined ? undefined : new Response(null, { status: Number(status), headers: { location: encodeURI(address) } });
}
