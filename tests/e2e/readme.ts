import { readFileSync } from 'node:fs';

import { inRepository } from './repository.js';

/** What a code block begins with: the name of the file that it is, in a comment; a header has its own. */
const nameOfBlock = /^(?:\/\/ |<!-- )([^\s]+)(?: -->)?\n|^([\w-]+): /;

/** The code blocks of the package's README, by the names of their files. */
export const readme: ReadonlyMap<string, string> = blocksOf('crates/wasm-client/js/README.md');

/** The code blocks of a document, by the names of their files. */
export function blocksOf(document: string): Map<string, string> {
  const markdown = readFileSync(inRepository(document), 'utf8');
  const blocks = new Map<string, string>();
  for (const [, language, text] of markdown.matchAll(/^```(.*)\n([^]*?)^```$/gm)) {
    const match = nameOfBlock.exec(text!);
    const name = match?.[1] ?? match?.[2];
    if (name === undefined) throw new Error(`a ${language} block of ${document} does not say which file it is:\n${text}`);
    if (blocks.has(name)) throw new Error(`${document} has two blocks that are ${name}`);
    blocks.set(name, text!);
  }
  return blocks;
}

/** One block as it is. */
export function block(name: string): string {
  const text = readme.get(name);
  if (text === undefined) throw new Error(`the README has no block that is ${name}`);
  return text;
}

/** The addresses that the README uses, and what they are in a test. */
export interface Addresses {
  server: string;
  cdn?: string;
}

/** One block, for a server of a test. */
export function blockFor(name: string, { server, cdn }: Addresses): string {
  return block(name)
    .replaceAll('https://checkout.shop.example', server)
    .replaceAll('wss://checkout.shop.example', server.replace(/^http/, 'ws'))
    .replaceAll('https://cdn.shop.example', cdn ?? 'https://cdn.shop.example');
}
