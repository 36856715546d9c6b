/** Waiting in tests, while the event loop goes on. */

const PATIENCE_MS = 60_000;
const POLL_MS = 10;

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits for a condition, for longer than a busy machine takes, and says what it waited for when it never comes. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`Waited ${PATIENCE_MS} ms in vain until ${what}`);
    await pause(POLL_MS);
  }
}
