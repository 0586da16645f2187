import type { Page } from '@playwright/test';

/** Opens the link of another device in the demo shop, and says that it is one's own. */
export async function followLink(page: Page, link: string): Promise<void> {
  await page.goto(link);
  await page.getByRole('button', { name: 'Go on with the link’s order' }).click();
}
