import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { expect, test } from '@playwright/test';

import { inRepository } from './repository.js';
import { StaticSite } from './static-site.js';

const run = promisify(execFile);

/** A project of somebody who installed the tarball. */
async function consumer(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'throughline-consumer-'));
  const packed = (await readdir(inRepository('target/npm'))).filter((name) => name.endsWith('.tgz'));
  expect(packed).toHaveLength(1);
  await writeFile(join(folder, 'package.json'), JSON.stringify({ name: 'consumer', private: true, type: 'module' }));
  await run('npm', ['install', '--offline', '--no-audit', inRepository(`target/npm/${packed[0]}`)], { cwd: folder });
  await writeFile(
    join(folder, 'index.html'),
    '<!doctype html><html lang="en"><title>loading</title><script type="module" src="/main.js"></script></html>',
  );
  await writeFile(
    join(folder, 'main.js'),
    `import { version } from 'throughline';
     version().then((text) => (document.title = text), (error) => (document.title = 'failed: ' + error.message));`,
  );
  return folder;
}

test('Vite bundles the packed tarball, its module included', async ({ page }) => {
  const folder = await consumer();
  try {
    await run(inRepository('web-demo/node_modules/.bin/vite'), ['build', '--logLevel', 'warn'], { cwd: folder });
    const site = await StaticSite.start({ folders: { '/': join(folder, 'dist') } });
    await page.goto(site.url);
    await expect(page).toHaveTitle(/^\d+\.\d+\.\d+$/);
    await site.stop();
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
