/** A wasm file: an address, a response, bytes, or what was compiled of it. */
export type WasmSource = string | URL | Request | Response | BufferSource | WebAssembly.Module;

/** How an entry of this package finds the core that it brings along. */
export type FindWasm = () => WasmSource | Promise<WasmSource>;
