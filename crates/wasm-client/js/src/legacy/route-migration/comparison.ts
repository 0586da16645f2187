import { orAborted } from '../../server/limit.js';
import { ELEMENT, type FieldNames, fieldOf, type Path } from './field-names.js';
import { LOCATION, MISSING } from './masking.js';

/** How much of an answer is compared, in bytes. */
const MAX_BYTES = 1024 * 1024;

/** How deep documents are compared field by field. What is deeper is compared as a whole. */
const MAX_DEPTH = 50;

/** How many fields of one request are reported at most. */
const MAX_FIELDS = 50;

/** What an answer says, as far as it is compared. */
export interface Statement {
  readonly status: number | 'threw';
  readonly location: string | null;
  /** JSON, read; a text otherwise. */
  readonly body: { readonly json: unknown } | { readonly text: string };
}

/** One field that both sides say something else of. */
export interface FieldDifference {
  readonly path: Path;
  readonly legacy: unknown;
  readonly unified: unknown;
}

/** What is not compared, or not to the last digit. */
export interface Rules {
  readonly ignored: FieldNames<true>;
  /** By how much numbers may differ. */
  readonly tolerance: FieldNames<number>;
}

/** What a side says that gave no answer. */
export const NO_ANSWER: Statement = { status: 'threw', location: null, body: { text: '' } };

/**
 * Reads what an answer says. Its body is read by that.
 * @throws where the body can't be read to its end, or not before the signal aborts.
 */
export async function statementOf(response: Response | undefined, signal: AbortSignal): Promise<Statement> {
  if (!response) return NO_ANSWER;
  const { status, headers } = response;
  const text = await readText(response, signal);
  return { status, location: headers.get('location'), body: read(text, headers.get('content-type') ?? '') };
}

function read(text: string, type: string): Statement['body'] {
  if (!/[/+]json\b/i.test(type)) return { text };
  try {
    return { json: JSON.parse(text) as unknown };
  } catch {
    return { text };
  }
}

/** The first {@link MAX_BYTES} of a body. */
async function readText({ body }: Response, signal: AbortSignal): Promise<string> {
  if (!body) return '';
  const reader = (body as ReadableStream<Uint8Array>).getReader();
  const decoder = new TextDecoder();
  let text = '';
  let bytes = 0;
  try {
    for (;;) {
      const { done, value } = await orAborted(reader.read(), signal);
      if (done) return text + decoder.decode();
      text += decoder.decode(value.subarray(0, MAX_BYTES - bytes), { stream: true });
      bytes += value.byteLength;
      if (bytes >= MAX_BYTES) return text;
    }
  } finally {
    // Whatever is left of it is nobody's; and where nothing is, it does nothing.
    reader.cancel().catch(() => undefined);
  }
}

/** The fields of two documents, and of all that was compared before, in which they differ: each once, with what differed first. */
export class Differences {
  readonly #rules: Rules;
  readonly #found = new Map<string, FieldDifference>();

  constructor(rules: Rules) {
    this.#rules = rules;
  }

  get found(): ReadonlyMap<string, FieldDifference> {
    return this.#found;
  }

  /** What both sides have answered. */
  compareAnswers({ legacy, unified }: Record<'legacy' | 'unified', Statement>): void {
    this.compare(['http', 'status'], legacy.status, unified.status);
    this.compare(LOCATION, legacy.location, unified.location);
    if ('json' in legacy.body && 'json' in unified.body) this.compare([], legacy.body.json, unified.body.json);
    else this.compare(['body'], wholeOf(legacy.body), wholeOf(unified.body));
  }

  /** Two documents in JSON. */
  compare(path: Path, legacy: unknown, unified: unknown): void {
    if (legacy === unified || this.#rules.ignored.get(path)) return;
    if (path.length < MAX_DEPTH) {
      if (isObject(legacy) && isObject(unified)) {
        for (const name of new Set([...Object.keys(legacy), ...Object.keys(unified)])) {
          this.compare([...path, name], own(legacy, name), own(unified, name));
        }
        return;
      }
      if (Array.isArray(legacy) && Array.isArray(unified)) {
        const at = (list: unknown[], index: number) => (index < list.length ? list[index] : MISSING);
        for (let index = 0; index < Math.max(legacy.length, unified.length); index++) {
          this.compare([...path, ELEMENT], at(legacy, index), at(unified, index));
        }
        return;
      }
    } else if (isSameText(legacy, unified)) return;
    const tolerance = typeof legacy === 'number' && typeof unified === 'number' ? this.#rules.tolerance.get(path) : undefined;
    if (tolerance === undefined || !isWithin(tolerance, legacy as number, unified as number)) this.add(path, { legacy, unified });
  }

  /** Something that differs. */
  add(path: Path, { legacy, unified }: Record<'legacy' | 'unified', unknown>): void {
    const field = fieldOf(path) || 'body';
    if (this.#found.size < MAX_FIELDS && !this.#found.has(field)) this.#found.set(field, { path, legacy, unified });
  }
}

/** A body that is not compared field by field. */
function wholeOf(body: Statement['body']): unknown {
  return 'json' in body ? body.json : body.text;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function own(object: Record<string, unknown>, name: string): unknown {
  return Object.hasOwn(object, name) ? object[name] : MISSING;
}

function isSameText(legacy: unknown, unified: unknown): boolean {
  try {
    return JSON.stringify(legacy) === JSON.stringify(unified);
  } catch {
    return false;
  }
}

/** Half a cent is half a cent, though it is none as a floating-point number. */
function isWithin(tolerance: number, legacy: number, unified: number): boolean {
  return Math.abs(legacy - unified) <= tolerance + 1e-9;
}
