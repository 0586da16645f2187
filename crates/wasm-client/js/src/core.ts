import init from '../generated/throughline.js';
import { SessionError } from './rejection.js';
import type { FindWasm, WasmSource } from './wasm-source.js';

let loading: Promise<void> | undefined;

/**
 * Loads the WebAssembly core once; later calls share the first load.
 * A load that failed is forgotten, so that the next call tries again.
 */
export function loadCore(find: FindWasm): Promise<void> {
  loading ??= load(find);
  loading.catch(() => (loading = undefined));
  return loading;
}

async function load(find: FindWasm): Promise<void> {
  try {
    await init({ module_or_path: await find() });
  } catch (cause) {
    if (cause instanceof SessionError) throw cause;
    const mend = "serve throughline_bg.wasm beside the script or pass `wasm`, and allow 'wasm-unsafe-eval' in script-src";
    throw new SessionError('coreNotLoaded', `the WebAssembly core can't be loaded: ${mend} (${String(cause)})`, { cause });
  }
}

type LocalStorageCore = typeof import('./local-storage-core.js');

let loadingLocalStorage: Promise<LocalStorageCore> | undefined;
let localStorageWasm: WasmSource | undefined;

/** The part of the core that deals with localStorage is to be loaded from here; unless this is nothing. */
export function findLocalStorageCore(wasm: WasmSource | undefined): void {
  localStorageWasm = wasm ?? localStorageWasm;
}

/** Loads the part of the core that deals with localStorage, which few pages need. */
export function loadLocalStorageCore(): Promise<LocalStorageCore> {
  loadingLocalStorage ??= import('./local-storage-core.js').then(
    async (core) => {
      await core.load(localStorageWasm);
      return core;
    },
  );
  loadingLocalStorage.catch(() => (loadingLocalStorage = undefined));
  return loadingLocalStorage;
}
