/** Whether it is an object, and no list. */
export function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A field's text, whichever way its name is written. A number is one as well; `null` empties the field. */
export function textIn(object: object, camel: string, snake = camel): string | undefined {
  const { [camel]: first, [snake]: value = first } = object as Record<string, unknown>;
  const text = first ?? value;
  return text === null ? '' : typeof text === 'number' ? String(text) : typeof text === 'string' ? text : undefined;
}

/** What an object holds beside the texts of these fields. */
export function leftOf(object: object, fields: Readonly<Record<string, string>>): Record<string, unknown> {
  const known = new Set(Object.entries(fields).flat());
  const isText = (value: unknown) => value === null || value === undefined || typeof value === 'string' || typeof value === 'number';
  return Object.fromEntries(Object.entries(object).filter(([name, value]) => value !== undefined && !(known.has(name) && isText(value))));
}

/** Without what is not there. */
export function present<T extends object>(object: T): { [K in keyof T]: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined && value !== null)) as never;
}

/** What an object says under the names of columns, however they are written, and the names that are none. */
export function columnsIn<Column extends string>(given: object, columns: readonly Column[]): { known: { [C in Column]?: unknown }; unknown: string[] } {
  const known: { [C in Column]?: unknown } = {};
  const unknown: string[] = [];
  const named = Object.entries(given).filter(([, value]) => value !== undefined);
  // Where a name is written in both ways, that in camel case counts.
  for (const [name, value] of named.sort(([one], [other]) => Number(isCamel(one)) - Number(isCamel(other)))) {
    const column = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`) as Column;
    if (columns.includes(column)) known[column] = value;
    else unknown.push(name);
  }
  return { known, unknown };
}

function isCamel(name: string): boolean {
  return /[A-Z]/.test(name);
}
