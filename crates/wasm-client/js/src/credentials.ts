import type { Storage } from './storage/ladder.js';

/** How a session proves that it may be synced. */
export interface Credentials {
  token?: string;
  claim?: string;
  /** The claim came with a link from another device, and is good for some time only. */
  isLent?: boolean;
}

/** Keeps them with the session; where nothing can be written, they last as long as the page. */
export async function saveCredentials(storage: Storage, sessionId: string, credentials: Credentials): Promise<void> {
  await storage.write([[`${sessionId}/credentials`, JSON.stringify(credentials)]]).catch(() => undefined);
}
