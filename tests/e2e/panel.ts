import type { Locator, Page } from '@playwright/test';

/** What the panel of `throughline/devtools` says: `pending`, `version`, `session` and so on. */
export function fact(page: Page, name: string): Locator {
  return page.locator(`[data-fact="${name}"]`);
}
