import { defineConfig } from '@playwright/test';

const longest = '**/takeover.spec.ts';

export default defineConfig({
  testDir: '.',
  testMatch: '**/*.spec.ts',
  fullyParallel: true,
  workers: 2,
  timeout: 60_000,
  expect: { timeout: 10_000 },
  // A test that only passes when run again hides a race: none is run again.
  retries: 0,
  forbidOnly: process.env.CI !== undefined,
  reporter: 'list',
  outputDir: '../../target/test-reports/e2e',
  // One test takes minutes by itself. It begins first, so that the other worker does everything else meanwhile.
  projects: [
    { name: 'take-overs', testMatch: longest },
    { name: 'the rest', testIgnore: longest },
  ],
  use: {
    browserName: 'chromium',
    trace: 'retain-on-failure',
    // Far below a test's own limit, so that a failure names the action that hung.
    actionTimeout: 15_000,
    launchOptions: {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    },
  },
});
