import { version as coreVersion } from '../generated/throughline.js';
import { loadCore } from './core.js';

/** The version of this package. */
export async function version(): Promise<string> {
  await loadCore();
  return coreVersion();
}
