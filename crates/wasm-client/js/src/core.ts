import init, { type InitInput } from '../generated/throughline.js';

let loading: Promise<void> | undefined;

/**
 * Loads the WebAssembly core once; later calls share the first load.
 * A load that failed is forgotten, so that the next call tries again.
 * @internal
 */
export function loadCore(module?: InitInput): Promise<void> {
  // Written out in this form, bundlers find the file and give it its final address.
  const source = module ?? new URL('./throughline_bg.wasm', import.meta.url);
  loading ??= init({ module_or_path: source }).then(
    () => undefined,
    (error: unknown) => {
      loading = undefined;
      throw error;
    },
  );
  return loading;
}

type LocalStorageCore = typeof import('./local-storage-core.js');

let loadingLocalStorage: Promise<LocalStorageCore> | undefined;

/** Loads the part of the core that deals with localStorage, which few pages need. */
export function loadLocalStorageCore(): Promise<LocalStorageCore> {
  loadingLocalStorage ??= import('./local-storage-core.js').then(
    async (core) => {
      await core.load();
      return core;
    },
  );
  loadingLocalStorage.catch(() => (loadingLocalStorage = undefined));
  return loadingLocalStorage;
}
