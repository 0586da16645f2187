import type { Command, MendableBy, SessionRecord } from '../../generated/types.js';
import type { PendingCommand } from '../engine.js';
import type { Rejection } from '../rejection.js';
import type { CheckoutSession } from '../session.js';
import { brief, changes } from './changes.js';
import { element, setText } from './element.js';
import { History, type Past, type Version } from './history.js';

/** How many rejections are kept. */
const REJECTIONS = 50;

const MENDABLE: Readonly<Record<MendableBy, string>> = {
  retry: 'Mended by time: the same may be accepted later',
  buyerInput: 'Mended by the buyer, who enters something else',
  staleVersion: 'Mended by the page, which reads the session again',
  forbidden: 'Mended by nobody with these rights',
  permanent: 'Mended by nobody: the answer will not change',
};

interface Refused {
  readonly at: Date;
  readonly rejection: Rejection;
  readonly type: Command['type'];
}

/** What the panel shows of one session. It reads; the only thing that it changes is whether the session is offline. */
export class Panel {
  readonly root: HTMLElement;
  readonly #session: CheckoutSession;
  readonly #history: History;
  readonly #stops: (() => void)[];
  readonly #refused: Refused[] = [];
  /** The version that is looked at; nothing while that is the latest. */
  #past: number | undefined;
  #versions: readonly Version[] = [];
  #isDrawing = false;
  #isClosed = false;
  /** What each list shows, so that one that is the same is left alone. */
  readonly #drawn = new Map<HTMLElement, string>();

  readonly #connection = element('p', { class: 'connection', role: 'status' });
  readonly #switch = element('button', { type: 'button', role: 'switch', class: 'switch' }, 'Go offline', element('span', { class: 'track', 'aria-hidden': 'true' }));
  readonly #facts = new Map<string, HTMLElement>();
  readonly #list = element('ol', { class: 'versions', role: 'listbox', tabindex: '0', 'aria-label': 'Versions, the newest first' });
  readonly #pastNote = element('p', { class: 'hint' });
  readonly #viewed = element('p', { role: 'status' });
  readonly #live = element('button', { type: 'button', class: 'live' }, 'Back to live');
  readonly #changes = element('ul', { class: 'changes', 'aria-label': 'What changed in this version' });
  readonly #json = element('pre', { tabindex: '0', role: 'region', 'aria-label': 'The session at this version' });
  readonly #whole = element('details', {}, element('summary', {}, 'The whole session'), this.#json);
  readonly #view = element('div', { class: 'view' }, element('div', { class: 'viewed' }, this.#viewed, this.#live), this.#changes, this.#whole);
  readonly #outboxCount = element('output');
  readonly #outbox = element('ol', { class: 'list', 'aria-label': 'Pending commands' });
  readonly #rejectionCount = element('output');
  readonly #rejections = element('ol', { class: 'list', 'aria-label': 'Refused commands' });

  constructor(session: CheckoutSession) {
    this.#session = session;
    this.#history = new History(session, () => this.#schedule());
    this.root = this.#build();
    this.#stops = [
      session.subscribe(() => this.#note()),
      session.on('rejected', (rejection, { type }) => {
        this.#refused.unshift({ at: new Date(), rejection, type });
        this.#refused.splice(REJECTIONS);
        this.#schedule();
      }),
    ];
    this.#history.note();
    this.#draw();
  }

  close(): void {
    this.#isClosed = true;
    for (const stop of this.#stops) stop();
    this.#history.close();
  }

  #build(): HTMLElement {
    this.#switch.addEventListener('click', () => {
      if (this.#session.isOfflineByChoice) this.#session.goOnline();
      else this.#session.goOffline();
    });
    this.#live.addEventListener('click', () => {
      this.#look(undefined);
      // It is about to be hidden, and the focus with it.
      this.#list.focus();
    });
    this.#list.addEventListener('click', ({ target }) => {
      const option = (target as Element).closest('li');
      if (option) this.#look(Number(option.dataset['version']));
    });
    this.#list.addEventListener('keydown', (event) => this.#key(event));
    this.#whole.addEventListener('toggle', () => this.#schedule());
    const facts = element('dl', { class: 'facts' });
    for (const [name, label] of FACTS) {
      const value = element('dd', { 'data-fact': name });
      this.#facts.set(name, value);
      facts.append(element('div', name === 'session' || name === 'client' ? { class: 'long' } : {}, element('dt', {}, label), value));
    }
    return element(
      'div',
      { class: 'panel', role: 'group', 'aria-label': 'Throughline devtools' },
      section('Sync', [], element('div', { class: 'top' }, this.#connection, this.#switch), facts),
      section('Timeline', [], this.#list, this.#pastNote, this.#view),
      section('Outbox', [this.#outboxCount], this.#outbox),
      section('Rejections', [this.#rejectionCount], this.#rejections),
    );
  }

  #key(event: KeyboardEvent): void {
    const at = this.#versions.findIndex(({ version }) => version === this.#shownVersion);
    const steps: Record<string, number> = {
      ArrowDown: at + 1,
      ArrowLeft: at + 1,
      ArrowUp: at - 1,
      ArrowRight: at - 1,
      Home: 0,
      End: this.#versions.length - 1,
      Escape: 0,
    };
    const next = steps[event.key];
    if (next === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    // Escape leaves the past, and what is around the panel only when there is nothing to leave.
    if (event.key === 'Escape' && this.#past === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const version = this.#versions[Math.max(0, Math.min(next, this.#versions.length - 1))]?.version;
    if (version !== undefined) this.#look(version);
  }

  /** Shows this version; nothing, or the newest, is what the session is now, whatever it becomes. */
  #look(version: number | undefined): void {
    this.#past = version === this.#versions[0]?.version ? undefined : version;
    this.#draw();
    this.#list.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: 'nearest' });
  }

  get #shownVersion(): number {
    return this.#past ?? this.#versions[0]?.version ?? 0;
  }

  /** The session has changed. Its snapshot is taken now: by the time it is drawn there may be another one. */
  #note(): void {
    this.#history.note();
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isDrawing || this.#isClosed) return;
    this.#isDrawing = true;
    queueMicrotask(() => {
      this.#isDrawing = false;
      if (!this.#isClosed) this.#draw();
    });
  }

  #draw(): void {
    this.#versions = this.#history.versions;
    // A version that was refused is not there any more.
    if (this.#past !== undefined && !this.#history.at(this.#past)) this.#past = undefined;
    this.#drawSync();
    this.#drawVersions();
    this.#drawView();
    this.#drawOutbox();
    this.#drawRejections();
  }

  #drawSync(): void {
    const { sync, id } = this.#session;
    this.#connection.dataset['connection'] = sync.connection;
    setText(this.#connection, describe(sync.connection, sync.pending));
    this.#switch.setAttribute('aria-checked', String(this.#session.isOfflineByChoice));
    const { status } = this.#session.getSnapshot();
    const values: Record<string, string | number> = {
      ...sync,
      status,
      leading: sync.leading ? 'this tab' : 'not this tab',
      transport: sync.transport === null ? 'none' : TRANSPORTS[sync.transport],
      session: id,
      client: sync.clientId,
    };
    for (const [name, target] of this.#facts) setText(target, String(values[name]));
  }

  #drawVersions(): void {
    const shown = this.#shownVersion;
    const rows = this.#versions.map(({ version, record, state }, index) => {
      const before = this.#versions[index + 1];
      return { version, state, ...(record ? told(record) : this.#untold(version, before?.version)) };
    });
    this.#redraw(this.#list, { rows, shown }, () =>
      rows.map(({ version, state, what, detail }) =>
        element(
          'li',
          { role: 'option', id: `version-${version}`, 'data-version': String(version), 'aria-selected': String(version === shown) },
          element('span', { class: 'number' }, `v${version}`),
          element('span', { class: 'what' }, what),
          element('span', { class: 'stage', 'data-stage': state }, state),
          element('span', { class: 'detail' }, detail),
        ),
      ),
    );
    this.#list.setAttribute('aria-activedescendant', `version-${shown}`);
    setText(this.#pastNote, PAST[this.#history.past]);
  }

  /** What is known of a version without the server's word: the fields in which it differs from the one before it here. */
  #untold(version: number, before: number | undefined): Told {
    const found = before === undefined ? [] : changes(this.#history.at(before), this.#history.at(version));
    const field = found[0]?.path.split('.')[0];
    return { what: field === undefined ? 'as this page saw it' : `${words(field)} changed`, detail: 'not confirmed yet' };
  }

  #drawView(): void {
    const version = this.#shownVersion;
    const isPast = this.#past !== undefined;
    this.#view.toggleAttribute('data-past', isPast);
    this.#live.hidden = !isPast;
    setText(this.#viewed, isPast ? `Version ${version}, as it was` : `Version ${version}, live`);
    const session = this.#history.at(version) ?? this.#session.getSnapshot();
    // One command may make several versions; of those that are pending, only the last of each was seen.
    const earlier = this.#versions.find((other) => other.version < version);
    const found = version === 1 || earlier ? changes(earlier && this.#history.at(earlier.version), session) : [];
    const lines = found.map(({ path, before, after }) => [path, brief(before), brief(after)] as const);
    this.#redraw(this.#changes, lines, () =>
      lines.map(([path, before, after]) =>
        element('li', {}, element('span', { class: 'path' }, path), ...(before === '' ? [] : [element('del', {}, before), ' → ']), element('ins', {}, after || 'nothing')),
      ),
    );
    // Nobody sees it while it is folded up.
    if (this.#whole.open) setText(this.#json, JSON.stringify(session, undefined, 2));
  }

  #drawOutbox(): void {
    const { connection, clientId: own } = this.#session.sync;
    // Of a session that was closed nothing can be asked any more.
    if (connection === 'closed' && this.#drawn.has(this.#outbox)) return;
    const commands = connection === 'closed' ? [] : this.#session.engine.pendingCommands;
    setText(this.#outboxCount, String(commands.length));
    this.#redraw(this.#outbox, commands, () =>
      commands.length === 0
        ? [element('li', { class: 'empty' }, 'Nothing waits: the database has it all')]
        : commands.map(({ type, stage, seq, clientId }) =>
            element(
              'li',
              {},
              element('span', { class: 'what' }, words(type)),
              element('span', { class: 'stage', 'data-stage': stage, title: STAGES[stage] }, stage),
              element('span', { class: 'detail' }, `number ${seq} of ${clientId === own ? 'this page' : 'another page'}`),
            ),
          ),
    );
  }

  #drawRejections(): void {
    setText(this.#rejectionCount, String(this.#refused.length));
    this.#redraw(this.#rejections, this.#refused.map(({ at, rejection }) => [at, rejection.code]), () =>
      this.#refused.length === 0
        ? [element('li', { class: 'empty' }, 'None since the panel is here')]
        : this.#refused.map(({ at, rejection: { code, message, mendableBy }, type }) =>
            element(
              'li',
              { class: 'rejection' },
              element('span', { class: 'what' }, words(type)),
              element('code', {}, code),
              element('span', { class: 'sentence' }, message),
              element('span', { class: 'detail' }, `${MENDABLE[mendableBy]}, ${time(at)}`),
            ),
          ),
    );
  }

  /** Fills a list anew where it shows something else than `what`. */
  #redraw(list: HTMLElement, what: unknown, fill: () => Node[]): void {
    const key = JSON.stringify(what);
    if (this.#drawn.get(list) === key) return;
    this.#drawn.set(list, key);
    list.replaceChildren(...fill());
  }
}

const FACTS = [
  ['status', 'Status'],
  ['pending', 'Pending'],
  ['version', 'Version'],
  ['confirmedVersion', 'Confirmed'],
  ['durableVersion', 'Durable'],
  ['transport', 'Transport'],
  ['storage', 'Kept in'],
  ['leading', 'Led by'],
  ['session', 'Session'],
  ['client', 'Client'],
] as const;

const TRANSPORTS = { webSocket: 'WebSocket', requests: 'requests' } as const;

const STAGES: Readonly<Record<PendingCommand['stage'], string>> = {
  issued: 'not stored in this browser yet',
  stored: 'stored in this browser, to be sent',
  sent: 'on its way to the server, or applied there',
  accepted: 'applied by the server, not in the database yet',
};

function section(heading: string, beside: Node[], ...content: Node[]): HTMLElement {
  const name = element('h3', { id: `heading-${heading}` }, heading, ...beside);
  return element('section', { 'aria-labelledby': name.id }, name, ...content);
}

function describe(connection: string, pending: number): string {
  const rest = pending === 0 ? '' : `, ${pending} ${connection === 'online' ? 'to confirm' : 'waiting'}`;
  switch (connection) {
    case 'online':
      return pending === 0 ? 'Online, all told' : `Online${rest}`;
    case 'connecting':
      return `Connecting${rest || '…'}`;
    case 'offline':
      return `Offline${rest}`;
    default:
      return 'Closed';
  }
}

const PAST: Readonly<Record<Past, string>> = {
  complete: 'Arrow keys go back and forth, Escape back to live.',
  asking: 'Asking the server for the versions before…',
  unavailable: 'Earlier versions come from the server, once it can be reached.',
};

interface Told {
  readonly what: string;
  readonly detail: string;
}

/** What a record tells in two lines. */
function told({ event, by, at }: SessionRecord): Told {
  return { what: words(event.type), detail: `${by}, ${time(new Date(at))}` };
}

function time(at: Date): string {
  return at.toLocaleTimeString('en-GB');
}

/** `customerSet` as `customer set`. */
function words(type: string): string {
  return type.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
