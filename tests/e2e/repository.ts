import { fileURLToPath } from 'node:url';

const root = new URL('../../', import.meta.url);

/** A file or folder of the repository. */
export function inRepository(path: string): string {
  return fileURLToPath(new URL(path, root));
}

/** The npm package as users get it. */
export const packageFolder = inRepository('target/npm/throughline/dist');

/** The built demo shop. */
export const demoFolder = inRepository('web-demo/dist');
