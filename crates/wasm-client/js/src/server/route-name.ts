import { isHarmless } from './harmless.js';

/** How a route may be called, for whoever chose another name. */
export const ROUTE_NAME =
  "a route's name has 1 to 100 characters, none of them a control character, is more than dots, and has no address of an email nor a number of nine digits in it";

/** Whether the server takes it as the name of a route, also within an address. */
export function isRouteName(name: string): boolean {
  return [...name].length <= 100 && !/[\p{Cc}\p{Cs}]/u.test(name) && /[^.]/.test(name) && isHarmless(name);
}
