import { version } from '../generated/throughline.js';
import { loadCore } from './core.js';
import type { FindWasm } from './wasm-source.js';

/** The version of the core, which is that of the package. */
export async function coreVersion(find: FindWasm): Promise<string> {
  await loadCore(find);
  return version();
}
