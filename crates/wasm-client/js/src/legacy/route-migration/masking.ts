import { isHarmless } from '../../server/harmless.js';
import { type FieldNames, lastName, type Path, wordsOf } from './field-names.js';
import { isKnownWord } from './known-words.js';

/** Stands for a field that is not there. */
export const MISSING = Symbol('missing');

/** Fields whose texts are words of a program, as far as these are known. */
const SHOWN = new Set([
  ...['status', 'step', 'currentStep', 'current_step', 'code', 'errorCode', 'error_code', 'type', 'kind', 'outcome', 'source'],
  ...['offer', 'product', 'productCode', 'product_code', 'upsellsAccepted', 'upsells_accepted', 'upsellsDeclined', 'upsells_declined'],
]);

/** Those of them that have codes of a catalogue as well, such as `RC6`. */
const OF_CATALOGUE = /^(offer|product|upsells?)/;
const CATALOGUE_CODE = /^[A-Z]{1,4}-?\d{1,3}$/;

/** Fields with the id of a session, which grants nothing. */
const SESSION_IDS = new Set(['id', 'sessionId', 'session_id']);

/** Words in the names of fields that even the numbers and times of are a buyer's, or secret. */
const PERSONAL = new Set([
  ...['account', 'address', 'age', 'apartment', 'auth', 'bank', 'bic', 'birth', 'birthdate', 'birthday', 'born', 'card', 'cc', 'city', 'customer'],
  ...['cvc', 'cvv', 'dob', 'email', 'exp', 'expiry', 'fax', 'gender', 'house', 'iban', 'income', 'ip', 'lat', 'latitude', 'licence', 'license'],
  ...['lng', 'longitude', 'mail', 'mobile', 'name', 'nationality', 'otp', 'pan', 'passcode', 'passport', 'password', 'person', 'phone', 'pin'],
  ...['plz', 'postal', 'postcode', 'salary', 'secret', 'security', 'sex', 'signature', 'ssn', 'street', 'tel', 'telephone', 'token', 'user'],
  ...['verification', 'zip'],
]);

/** The same, of more than a word: there are times that are last, and taxes. */
const PERSONAL_NAME = /last_?(4|four)|(tax|vat)_?(id|no|number)/i;

/** From here on what is called a code is one that somebody was sent, not one of an error. */
const LONG_CODE = 1_000;

/** Where the header `location` is reported. */
export const LOCATION: Path = ['http', 'location'];

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
    const isPersonal = !isShown && path.some(isPersonalName);
    if (typeof value === 'number') {
      return !isPersonal && isShortNumber(value, path, isShown) ? String(value) : `a number (${await this.#mark(String(value))})`;
    }
    const text = String(value);
    if (!isPersonal && TIME.test(text)) return text;
    if (!isPersonal && isWordOf(lastName(path) ?? '', text)) return text;
    if (!isPersonal && SESSION_IDS.has(path.at(-1) ?? '') && isSession(text)) return text;
    if (isShown && isShort(text) && isHarmless(text)) return text;
    return `text of ${[...text].length} characters (${await this.#mark(text)})`;
  }

  /** An address on the web: its path, as far as that is known words and ids of sessions, and nothing of its query. */
  async address(address: string | null, shown: FieldNames<true>): Promise<string> {
    if (address === null) return 'missing';
    const [path = ''] = address.replace(/^[a-z][\w+.-]*:\/\/[^/?#]*/i, '').split(/[?#]/);
    const isNamed = shown.get(LOCATION) === true && isHarmless(path);
    const names = path.split('/').map((name) => (name === '' || isNamed || isKnownWord(name) || isSession(name) ? name : '*'));
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

function isPersonalName(name: string): boolean {
  return PERSONAL_NAME.test(name) || wordsOf(name).some((word) => PERSONAL.has(word));
}

function isShortNumber(value: number, path: Path, isShown: boolean): boolean {
  const name = lastName(path) ?? '';
  const isCode = !isShown && /code$/i.test(name);
  if (Math.abs(value) < (isCode ? LONG_CODE : LONG_NUMBER)) return true;
  const isTime = /(At|_at|Time|_time|Ms|_ms)$/.test(name);
  return isTime && value >= TIMES_MS[0] && value < TIMES_MS[1];
}

function isWordOf(field: string, text: string): boolean {
  if (field === 'currency') return /^[A-Za-z]{3}$/.test(text);
  return SHOWN.has(field) && (isKnownWord(text) || (OF_CATALOGUE.test(field) && CATALOGUE_CODE.test(text)));
}

function isShort(text: string): boolean {
  return text.length <= 100 && !/[\p{Cc}\p{Cs}]/u.test(text);
}

/** Whether it is the id of a session, of the legacy shop or of today. */
export function isSession(text: string): boolean {
  return /^ws_[a-z0-9]{1,20}_[a-z0-9]{1,40}$/.test(text);
}
