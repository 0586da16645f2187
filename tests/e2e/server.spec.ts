import { expect, test } from '@playwright/test';

import { ThroughlineServer } from './server.js';

test('a killed server comes back on the same address with the same keys', async () => {
  const server = await ThroughlineServer.start();
  try {
    const before = await server.request('/metrics');
    expect(before.status).toBe(200);
    await server.kill9();
    await expect(fetch(`${server.url}/livez`)).rejects.toThrow();
    await server.restart();
    const after = await server.request('/metrics');
    expect(after.status).toBe(200);
  } finally {
    await server.stop();
  }
});
