import type { IndexedDbStore } from './indexed-db.js';

const ALGORITHM = 'AES-GCM';
const NONCE_BYTES = 12;
/** Where keys lie while IndexedDB is away. */
const LOCAL_KEY = 'throughline/key/';

/**
 * Encrypts what lies in the storage: a key for each session, AES-GCM with 256 bits, that no script can read.
 *
 * The name of a record is authenticated with it, so none can take another's place, and whatever was damaged is found.
 * Where IndexedDB can't be used a key can't be kept without being readable: then it lies in localStorage, beside what it
 * locks ({@link isKeyReadable}).
 */
export class Vault {
  readonly #database: IndexedDbStore | undefined;
  readonly #keys = new Map<string, Promise<CryptoKey>>();
  /** Whether a key of this page lies where a script can read it. */
  isKeyReadable = false;

  constructor(database: IndexedDbStore | undefined) {
    this.#database = database;
  }

  async seal(scope: string, name: string, text: string): Promise<string> {
    const nonce = crypto.getRandomValues(new Uint8Array(NONCE_BYTES));
    const key = await this.#key(scope);
    const sealed = await crypto.subtle.encrypt(parameters(nonce, name), key, new TextEncoder().encode(text));
    const bytes = new Uint8Array(NONCE_BYTES + sealed.byteLength);
    bytes.set(nonce);
    bytes.set(new Uint8Array(sealed), NONCE_BYTES);
    return toBase64(bytes);
  }

  /** @throws where it is not what was sealed under this name. */
  async open(scope: string, name: string, sealed: string): Promise<string> {
    const bytes = fromBase64(sealed);
    const key = await this.#key(scope);
    const nonce = bytes.subarray(0, NONCE_BYTES);
    const text = await crypto.subtle.decrypt(parameters(nonce, name), key, bytes.subarray(NONCE_BYTES));
    return new TextDecoder().decode(text);
  }

  /** Destroys a key: what it locked can't be read any more, wherever it still lies. */
  async destroy(scope: string): Promise<void> {
    this.#keys.delete(scope);
    await this.#database?.forget(scope);
    forgetLocalKey(scope);
  }

  /** Keeps again the keys that this page has: the storage was cleared. */
  async keepAgain(): Promise<void> {
    for (const [scope, key] of this.#keys) await this.#database?.keep(scope, await key);
  }

  #key(scope: string): Promise<CryptoKey> {
    let key = this.#keys.get(scope);
    if (!key) {
      key = this.#findKey(scope);
      this.#keys.set(scope, key);
      key.catch(() => this.#keys.delete(scope));
    }
    return key;
  }

  async #findKey(scope: string): Promise<CryptoKey> {
    // One that was made while IndexedDB was away goes on being used.
    const local = readLocalKey(scope);
    if (local) return this.#importReadable(local);
    try {
      const known = await this.#database?.keep(scope, undefined);
      if (known) return known;
      const key = await crypto.subtle.generateKey({ name: ALGORITHM, length: 256 }, false, ['encrypt', 'decrypt']);
      const kept = await this.#database?.keep(scope, key);
      if (kept) return kept;
    } catch {
      // Full, or broken.
    }
    return this.#importReadable(makeLocalKey(scope));
  }

  #importReadable(bytes: Uint8Array<ArrayBuffer>): Promise<CryptoKey> {
    this.isKeyReadable = true;
    return crypto.subtle.importKey('raw', bytes, ALGORITHM, false, ['encrypt', 'decrypt']);
  }
}

function parameters(iv: Uint8Array<ArrayBuffer>, name: string): AesGcmParams {
  return { name: ALGORITHM, iv, additionalData: new TextEncoder().encode(name) };
}

function readLocalKey(scope: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    const text = localStorage.getItem(LOCAL_KEY + scope);
    return text === null ? undefined : fromBase64(text);
  } catch {
    return undefined;
  }
}

function makeLocalKey(scope: string): Uint8Array<ArrayBuffer> {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  try {
    localStorage.setItem(LOCAL_KEY + scope, toBase64(bytes));
  } catch {
    // It ends with the page then, as everything else does.
  }
  return bytes;
}

function forgetLocalKey(scope: string): void {
  try {
    localStorage.removeItem(LOCAL_KEY + scope);
  } catch {
    // Then there is none.
  }
}

function toBase64(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
