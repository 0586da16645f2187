/** From how many digits in a row on, whatever is between them, a number may be one of a card or a phone. */
const LONG = /\p{Nd}{9}/u;

const BETWEEN_DIGITS = /[\s().:+/_-]/g;

/** Ids that are made, not given: of sessions, and UUIDs. They may have many digits. */
const MADE = /\bws_[a-z0-9]{1,20}_[a-z0-9]{1,40}\b|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/gi;

/**
 * Not what it is for sure in nobody's interest to show, whatever its field is called: an address of an email, also as it is written in
 * addresses of the web, a signed token, or a number that is as long as one of a card or a phone. The server looks for the same.
 */
export function isHarmless(text: string): boolean {
  const decoded = decodedFrom(text);
  const digits = decoded.replace(MADE, '').replace(BETWEEN_DIGITS, '');
  return !decoded.includes('@') && !LONG.test(digits) && !/\beyJ/.test(decoded);
}

/** Without percent signs, as far as those are written so; twice, because some are. */
function decodedFrom(text: string): string {
  const decode = (text: string) => text.replace(/%([0-7][0-9a-f])/gi, (_, code: string) => String.fromCharCode(parseInt(code, 16)));
  return decode(decode(text));
}
