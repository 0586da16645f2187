// What `throughline` is in Node.js, where `fetch` reads no files. Its types are those of `index.ts`.
import { readFile } from 'node:fs/promises';

import { open, type OpenOptions } from './open.js';
import { coreVersion } from './version.js';

export * from './exports.js';

const wasm = () => readFile(new URL('./throughline_bg.wasm', import.meta.url));

export const openSession = (options: OpenOptions) => open(options, wasm);
export const version = () => coreVersion(wasm);
