// What `throughline` is in Vercel's and Next.js' edge runtime, which compiles WebAssembly only ahead of time. Its types are those of `index.ts`.
import module from './throughline_bg.wasm?module';

import { open, type OpenOptions } from './open.js';
import { coreVersion } from './version.js';

export * from './exports.js';

const wasm = () => module;

export const openSession = (options: OpenOptions) => open(options, wasm);
export const version = () => coreVersion(wasm);
