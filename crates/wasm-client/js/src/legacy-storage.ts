/** The key of the legacy storage. */
const LEGACY_KEY = 'webseed_funnel_sessions';

/** Whether this browser has sessions of the legacy manager. What they are the core says. */
export function hasLegacyStorage(): boolean {
  try {
    // Some servers have a localStorage as well, but none of a buyer.
    return typeof document !== 'undefined' && localStorage.getItem(LEGACY_KEY) !== null;
  } catch {
    return false;
  }
}
