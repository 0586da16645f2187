import { execFile } from 'node:child_process';
import { cp, mkdir, readdir, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { buildShop, legacyShop } from './nextjs-shops.js';
import { inRepository } from './repository.js';

const run = promisify(execFile);

/** The patches, in their order. */
export const phases = ['1-interface', '2-routes', '3-client', '4-removal'];

/** The shop's routes, as it calls them. */
export const routes = [
  'POST /api/session/create',
  'GET /api/session/[id]',
  'PATCH /api/session/[id]',
  'POST /api/checkout/process',
  'POST /api/upsell/process',
];

/** What is installed or built, and none of a shop's sources. */
export const made = new Set(['.next', 'node_modules', 'next-env.d.ts']);

/** A copy of the legacy shop in an empty folder, where everything is installed that it needs on the way. */
export async function copyLegacy(shop: string): Promise<void> {
  await cp(legacyShop, shop, { recursive: true, filter: (path) => !made.has(path.slice(legacyShop.length + 1)) });
  const [from, to] = [join(legacyShop, 'node_modules'), join(shop, 'node_modules')];
  await mkdir(to);
  const names = (await readdir(from)).filter((name) => !name.startsWith('.'));
  for (const name of names) await symlink(join(from, name), join(to, name));
  await symlink(inRepository('target/npm/throughline'), join(to, 'throughline'));
}

/** Applies the patch of a phase. */
export async function apply(shop: string, phase: string): Promise<void> {
  // The folder is in nobody's repository, whatever is above it.
  const env = { ...process.env, GIT_CEILING_DIRECTORIES: join(shop, '..') };
  await run('git', ['apply', '--whitespace=error-all', inRepository(`examples/nextjs/phases/${phase}.patch`)], { cwd: shop, env });
}

/** The folder of the shop as it is after a phase, built. */
export async function built(phase: string): Promise<string> {
  const shop = inRepository(`target/shops/${phase}`);
  // What was built stays: it is built again where something has changed.
  for (const name of await readdir(shop).catch(() => [])) if (name !== '.next') await rm(join(shop, name), { recursive: true });
  await copyLegacy(shop);
  for (const applied of phases.slice(0, phases.indexOf(phase) + 1)) await apply(shop, applied);
  await buildShop(shop);
  return shop;
}
