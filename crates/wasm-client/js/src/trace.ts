/**
 * Which trace a command belongs to. A function is asked for the W3C `traceparent` of what goes on in the page, as its
 * OpenTelemetry has it; with `true` each command begins a trace of its own.
 */
export type Trace = boolean | (() => string | undefined);

/** The `traceparent` of a command that is issued now; nothing where there is none, or none that is one. */
export function traceparentOf(trace: Trace | undefined): string | undefined {
  if (trace === true) {
    const bytes = crypto.getRandomValues(new Uint8Array(24));
    const hex = Array.from(bytes, (byte) => (byte + 256).toString(16).slice(1)).join('');
    return `00-${hex.slice(0, 32)}-${hex.slice(32)}-01`;
  }
  try {
    const given = (trace && trace()) || '';
    return /^[\da-f]{2}-[\da-f]{32}-[\da-f]{16}-[\da-f]{2}$/.test(given) ? given : undefined;
  } catch {
    // No command is lost because of it.
    return undefined;
  }
}
