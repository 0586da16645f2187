import { type FieldNames, isPlainName, lastName, type Path, wordsOf } from './field-names.js';

/** Stands for a field that is not there. */
export const MISSING = Symbol('missing');

/** Fields whose texts are words of a program, not a buyer's. */
const SHOWN = new Set([
  ...['status', 'step', 'currentStep', 'current_step', 'code', 'errorCode', 'error_code', 'type', 'kind', 'outcome', 'currency'],
  ...['source', 'offer', 'product', 'productCode', 'product_code', 'upsellsAccepted', 'upsells_accepted', 'upsellsDeclined', 'upsells_declined'],
]);

/** Fields with the id of a session, which grants nothing. */
const SESSION_IDS = new Set(['id', 'sessionId', 'session_id']);

/** Words in the names of fields that even the numbers and times of are a buyer's, or secret. */
const PERSONAL = new Set([
  ...['account', 'bank', 'bic', 'birth', 'birthdate', 'birthday', 'born', 'card', 'cc', 'cvc', 'cvv', 'dob', 'email', 'fax', 'iban', 'ip', 'lat'],
  ...['latitude', 'lng', 'longitude', 'mail', 'mobile', 'name', 'pan', 'passport', 'password', 'phone', 'pin', 'postal', 'postcode', 'secret'],
  ...['ssn', 'tel', 'telephone', 'token', 'zip'],
]);

const TIME = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$/;

/** From here on a number may be one of a card or a phone. */
const LONG_NUMBER = 1e9;

/** Milliseconds since 1970, between the years 2001 and 2065. */
const TIMES_MS = [1e12, 3e12] as const;

/** Writes values so that nothing of a buyer's is in them, nor anything that could be guessed from. */
export class Masking {
  #key: Promise<CryptoKey> | undefined;

  /** @param shown Fields whose texts the shop knows to be nobody's. */
  async value(path: Path, value: unknown, shown: FieldNames<true>): Promise<string> {
    if (value === MISSING) return 'missing';
    if (value === null || typeof value === 'boolean') return String(value);
    if (Array.isArray(value)) return `a list of ${value.length}`;
    if (typeof value === 'object') return 'an object';
    const isShown = shown.get(path) === true;
    const isPersonal = !isShown && path.some((name) => wordsOf(name).some((word) => PERSONAL.has(word)));
    if (typeof value === 'number') {
      return !isPersonal && isShortNumber(value, path) ? String(value) : `a number (${await this.#mark(String(value))})`;
    }
    const text = String(value);
    if (!isPersonal && TIME.test(text)) return text;
    if (!isPersonal && SHOWN.has(lastName(path) ?? '') && isWord(text)) return text;
    if (!isPersonal && SESSION_IDS.has(path.at(-1) ?? '') && isSession(text)) return text;
    if (isShown && isHarmless(text)) return text;
    return `text of ${[...text].length} characters (${await this.#mark(text)})`;
  }

  /** An address on the web: its path, as far as that is names, and nothing of its query. */
  async address(address: string | null): Promise<string> {
    if (address === null) return 'missing';
    const [path = ''] = address.replace(/^[a-z][\w+.-]*:\/\/[^/?#]*/i, '').split(/[?#]/);
    const names = path.split('/').map((name) => (name === '' || isPlainName(name) || isSession(name) ? name : '*'));
    return `${names.join('/').slice(0, 80)} (${await this.#mark(address)})`;
  }

  /** Tells equal from different without telling what it is. The key is this process's alone, and nowhere else. */
  async #mark(text: string): Promise<string> {
    // Not before it is needed: some runtimes at the edge have no random numbers outside of a request.
    this.#key ??= crypto.subtle.generateKey({ name: 'HMAC', hash: 'SHA-256' }, false, ['sign']) as Promise<CryptoKey>;
    const digest = new Uint8Array(await crypto.subtle.sign('HMAC', await this.#key, new TextEncoder().encode(text)));
    return `#${[...digest.slice(0, 2)].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`;
  }
}

function isShortNumber(value: number, path: Path): boolean {
  if (Math.abs(value) < LONG_NUMBER) return true;
  const isTime = /(At|_at|Time|_time|Ms|_ms)$/.test(lastName(path) ?? '');
  return isTime && value >= TIMES_MS[0] && value < TIMES_MS[1];
}

/** A word of a program: not a sentence, an address, a number or a token. */
function isWord(text: string): boolean {
  const isCode = /^[\w.:-]{1,40}$/.test(text) && text.replace(/\D/g, '').length <= 4;
  // Digits within a word are those of a token.
  return isCode && !/[a-z]\d+[a-z]/i.test(text) && isHarmless(text);
}

/** Not what it is for sure in nobody's interest to show, whatever its field is called. */
function isHarmless(text: string): boolean {
  const digits = text.replace(/[\s().:+/_-]/g, '');
  return text.length <= 100 && !/[@\p{Cc}\p{Cs}]/u.test(text) && !/\d{9}/.test(digits) && !/\beyJ/.test(text);
}

/** Whether it is the id of a session, of the legacy shop or of today. */
export function isSession(text: string): boolean {
  return /^ws_[a-z0-9]{1,20}_[a-z0-9]{1,40}$/.test(text);
}
