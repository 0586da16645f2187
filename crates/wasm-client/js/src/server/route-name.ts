/** How a route may be called, for whoever chose another name. */
export const ROUTE_NAME = "a route's name has 1 to 100 characters, none of them a control character, and is more than dots";

/** Whether the server takes it as the name of a route, also within an address. */
export function isRouteName(name: string): boolean {
  return [...name].length <= 100 && !/[\p{Cc}\p{Cs}]/u.test(name) && /[^.]/.test(name);
}
