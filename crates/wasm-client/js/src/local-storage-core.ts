import init from '../generated/local_storage.js';

export { forgetLegacyStorage, localStorageLoad, localStorageWrite, readLegacyStorage } from '../generated/local_storage.js';

/** Loads the module; once, as long as nobody asks for it again. */
export async function load(): Promise<void> {
  // Written out in this form, bundlers find the file and give it its final address.
  await init({ module_or_path: new URL('./local_storage_bg.wasm', import.meta.url) });
}
