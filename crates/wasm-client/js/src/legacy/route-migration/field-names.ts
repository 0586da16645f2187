/** Where something is in a document: the names that lead there. A position in a list is {@link ELEMENT}. */
export type Path = readonly string[];

/** A position in a list, whichever it is. */
export const ELEMENT = '[]';

/** How long the server takes the name of a field, in characters. */
const MAX_FIELD_CHARS = 100;

/**
 * A path as it is reported: `products[].price`. A key that looks as if it were data, not a name, is `*`: there are objects whose
 * keys are addresses or numbers of cards.
 */
export function fieldOf(path: Path): string {
  let field = '';
  for (const name of path) {
    if (name === ELEMENT) field += ELEMENT;
    else field += (field && '.') + (isPlainName(name) ? name : '*');
  }
  return field.length > MAX_FIELD_CHARS ? `${field.slice(0, MAX_FIELD_CHARS - 1)}…` : field;
}

/** Whether it is a name that a programmer gives: a few words, in letters, with two digits at most. */
export function isPlainName(name: string): boolean {
  if (!/^[a-z_$][\w$-]{0,39}$/.test(name) || name.replace(/\D/g, '').length > 2) return false;
  const words = wordsOf(name);
  const letters = words.join('').length;
  // Tokens change between capitals and others all the time.
  return words.every((word) => word.length <= 20) && (words.length <= 3 || letters / words.length >= 3);
}

/** `zip` and `code` of `zipCode`, `zip_code` and `zip-code`. */
export function wordsOf(name: string): string[] {
  return (name.match(/[A-Z]?[a-z]+|[A-Z]+(?![a-z])/g) ?? []).map((word) => word.toLowerCase());
}

/** The last name of a path, in whichever list it may be. */
export function lastName(path: Path): string | undefined {
  return path.findLast((name) => name !== ELEMENT);
}

/**
 * Names of fields as a shop gives them: `updatedAt` is each field of this name, `session.version` or `products[].id` is the one in
 * this place.
 */
export class FieldNames<T> {
  readonly #names: ReadonlyMap<string, T>;

  constructor(names: Iterable<readonly [string, T]>) {
    this.#names = new Map(names);
  }

  /** What is said of this field; nothing where nothing is. */
  get(path: Path): T | undefined {
    if (this.#names.size === 0) return undefined;
    const inPlace = this.#names.get(fieldOf(path));
    const last = path.at(-1);
    return inPlace ?? (last === undefined || /[.[\]]/.test(last) ? undefined : this.#names.get(last));
  }
}
