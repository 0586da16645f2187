import init from '../generated/local_storage.js';
import type { WasmSource } from './wasm-source.js';

export { forgetLegacyStorage, localStorageLoad, localStorageWrite, readLegacyStorage } from '../generated/local_storage.js';

/** Loads the module; once, as long as nobody asks for it again. */
export async function load(wasm: WasmSource | undefined): Promise<void> {
  // Written out in this form, bundlers find the file and give it its final address.
  await init({ module_or_path: wasm ?? new URL('./local_storage_bg.wasm', import.meta.url) });
}
