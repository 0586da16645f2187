/**
 * A panel that shows what happens to a session: its versions, with time travel, its outbox, what was refused, and how it is connected.
 *
 * ```ts
 * if (location.hash === '#devtools') {
 *   const { mountDevtools } = await import('throughline/devtools');
 *   mountDevtools(session);
 * }
 * ```
 *
 * @packageDocumentation
 */
import type { CheckoutSession } from './session.js';
import { element } from './devtools/element.js';
import { Panel } from './devtools/panel.js';
import { styleSheet } from './devtools/style.js';

export interface DevtoolsOptions {
  /** Where the panel stands; without it, it floats above the page, behind a button. */
  target?: Element;
  /** `auto`, unless given: what the buyer's system prefers. */
  theme?: 'auto' | 'light' | 'dark';
}

/** A panel that is there. */
export interface Devtools {
  /** What was added to the page. All that it shows lies in its shadow root. */
  readonly element: HTMLElement;
  /** Takes it away. The session goes on. */
  unmount(): void;
}

/**
 * Shows a session in a panel. It is for developers: whoever sees it sees the buyer's data.
 *
 * Looking at the past changes nothing. Versions from before the page was opened are read from the server with the session's own token.
 */
export function mountDevtools(session: CheckoutSession, { target, theme = 'auto' }: DevtoolsOptions = {}): Devtools {
  const host = element('div', { 'data-theme': theme });
  const shadow = host.attachShadow({ mode: 'open' });
  shadow.adoptedStyleSheets = [styleSheet()];
  const panel = new Panel(session);
  const frame = element('div', { class: 'frame' }, panel.root);
  if (!target) {
    host.toggleAttribute('data-floating', true);
    panel.root.id = 'panel';
    frame.append(opener(panel.root));
  }
  shadow.append(frame);
  (target ?? document.body).append(host);
  return {
    element: host,
    unmount() {
      panel.close();
      host.remove();
    },
  };
}

function opener(panel: HTMLElement): HTMLElement {
  const button = element('button', { type: 'button', class: 'opener', 'aria-controls': panel.id }, 'Session');
  const show = (isOpen: boolean) => {
    panel.hidden = !isOpen;
    button.setAttribute('aria-expanded', String(isOpen));
  };
  button.addEventListener('click', () => show(panel.hidden !== false));
  panel.addEventListener('keydown', ({ key }) => {
    if (key !== 'Escape') return;
    show(false);
    button.focus();
  });
  show(false);
  return button;
}
