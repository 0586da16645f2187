// @vitest-environment happy-dom
import { act, Component, createElement, type ReactNode, StrictMode, Suspense, useState } from 'react';
import { createRoot, hydrateRoot, type Root } from 'react-dom/client';
import { renderToString } from 'react-dom/server';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import type { CheckoutSession } from '../../src/session.js';
import {
  SessionProvider,
  type SessionProviderProps,
  useCheckout,
  useRemaining,
  useSelector,
  useSession,
  useSessionEvent,
  useSyncStatus,
} from '../../src/react.js';
import { aSession, FakeSession } from './fake-session.js';

(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;

let container: HTMLElement;
let root: Root;

beforeEach(() => {
  container = document.body.appendChild(document.createElement('div'));
  root = createRoot(container);
});

afterEach(async () => {
  await act(async () => root.unmount());
  container.remove();
});

const show = (element: ReactNode) => act(async () => root.render(element));
const provider = (props: Omit<SessionProviderProps, 'children'>, ...children: ReactNode[]) =>
  createElement(SessionProvider, props, ...children);

/** An opening that the test ends. */
function opening() {
  let resolve!: (session: CheckoutSession) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<CheckoutSession>((yes, no) => ([resolve, reject] = [yes, no]));
  return { promise, resolve, reject };
}

function Email() {
  return createElement('p', null, useSelector(({ email }) => email) ?? 'nobody');
}

function Connection() {
  return createElement('p', null, useSyncStatus().connection);
}

function TimeLeft() {
  const remaining = useRemaining();
  return createElement('p', null, remaining ? `${remaining.session} left` : 'unknown');
}

class Boundary extends Component<{ children?: ReactNode }, { error?: Error }> {
  override state: { error?: Error } = {};
  static getDerivedStateFromError(error: Error) {
    return { error };
  }
  override render() {
    return this.state.error ? `failed: ${this.state.error.message}` : this.props.children;
  }
}

test('strict mode opens one session, and it is closed once, with the provider', async () => {
  const session = new FakeSession({ email: 'ada@example.com' });
  const open = vi.fn(async () => session.asSession);
  await show(createElement(StrictMode, null, provider({ open, fallback: 'Opening' }, createElement(Email))));
  expect(container.textContent).toBe('ada@example.com');
  expect(open).toHaveBeenCalledTimes(1);
  expect(session.closings).toBe(0);
  await show(null);
  expect(session.closings).toBe(1);
  expect(session.subscribers).toBe(0);
  expect(open).toHaveBeenCalledTimes(1);
});

test('the fallback is shown until the session is there', async () => {
  const { promise, resolve } = opening();
  await show(provider({ open: () => promise, fallback: 'Opening' }, createElement(Email), createElement(Connection)));
  expect(container.textContent).toBe('Opening');
  await act(async () => resolve(new FakeSession().asSession));
  expect(container.textContent).toBe('nobodyonline');
});

test('a session that is there only after the provider is gone is closed', async () => {
  const { promise, resolve } = opening();
  const session = new FakeSession();
  await show(provider({ open: () => promise }, createElement(Email)));
  await show(null);
  await act(async () => resolve(session.asSession));
  expect(session.closings).toBe(1);
  expect(session.subscribers).toBe(0);
});

test.each([
  ['is rejected', () => Promise.reject(new Error('no server'))],
  ['throws', () => { throw new Error('no server'); }],
])('an opening that %s goes to the error boundary, and another key tries again', async (_, fail) => {
  vi.spyOn(console, 'error').mockImplementation(() => undefined);
  const session = new FakeSession({ email: 'ada@example.com' });
  const tries = [fail as () => Promise<CheckoutSession>, async () => session.asSession];
  const open = vi.fn(() => tries[open.mock.calls.length - 1]!());
  await show(createElement(Boundary, { key: 1 }, provider({ open }, createElement(Email))));
  expect(container.textContent).toBe('failed: no server');
  await show(createElement(Boundary, { key: 2 }, provider({ open }, createElement(Email))));
  expect(container.textContent).toBe('ada@example.com');
  expect(open).toHaveBeenCalledTimes(2);
  vi.restoreAllMocks();
});

test('a session of the page is used and not closed; the promise of one suspends to the boundary around the provider', async () => {
  const session = new FakeSession({ email: 'ada@example.com' });
  await show(createElement(StrictMode, null, provider({ session: session.asSession }, createElement(Email))));
  expect(container.textContent).toBe('ada@example.com');
  await show(null);
  expect(session.closings).toBe(0);

  const { promise, resolve } = opening();
  await show(createElement(Suspense, { fallback: 'around' }, provider({ session: promise }, createElement(Email))));
  expect(container.textContent).toBe('around');
  await act(async () => resolve(session.asSession));
  expect(container.textContent).toBe('ada@example.com');
  expect(session.closings).toBe(0);
});

test('a component renders again only for what it selected', async () => {
  const session = new FakeSession({ email: 'ada@example.com' });
  const renders = { email: 0, whole: 0, sync: 0, name: 0 };
  const Mail = () => {
    renders.email += 1;
    useSelector(({ email }) => email);
    return null;
  };
  const Whole = () => {
    renders.whole += 1;
    useSession();
    return null;
  };
  const Sync = () => {
    renders.sync += 1;
    useSyncStatus();
    return null;
  };
  const Name = () => {
    renders.name += 1;
    // A new object each time, and a new function at each render.
    const { first } = useSelector(
      ({ customer }) => ({ first: customer.firstName }),
      (before, after) => before.first === after.first,
    );
    return first ?? 'nameless';
  };
  await show(
    provider(
      { session: session.asSession },
      ...[Mail, Whole, Sync, Name].map((kind) => createElement(kind, { key: kind.name })),
    ),
  );
  expect(renders).toEqual({ email: 1, whole: 1, sync: 1, name: 1 });
  await act(async () => session.change({ customer: { phone: '555' } }));
  expect(renders).toEqual({ email: 1, whole: 2, sync: 1, name: 1 });
  await act(async () => session.change({ customer: { firstName: 'Ada' } }));
  expect(renders).toEqual({ email: 1, whole: 3, sync: 1, name: 2 });
  expect(container.textContent).toBe('Ada');
  await act(async () => session.changeSync({ pending: 1 }));
  expect(renders).toEqual({ email: 1, whole: 3, sync: 2, name: 2 });
  await act(async () => session.change({ email: 'grace@example.com' }));
  expect(renders).toEqual({ email: 2, whole: 4, sync: 2, name: 2 });
});

test('a selector that reads what the component is given selects anew when that changes', async () => {
  const session = new FakeSession({ email: 'ada@example.com', couponCode: 'SAVE10' });
  let choose!: (field: 'email' | 'couponCode') => void;
  const Field = () => {
    const [field, setField] = useState<'email' | 'couponCode'>('email');
    choose = setField;
    return useSelector((session) => session[field]);
  };
  await show(provider({ session: session.asSession }, createElement(Field)));
  expect(container.textContent).toBe('ada@example.com');
  await act(async () => choose('couponCode'));
  expect(container.textContent).toBe('SAVE10');
});

test('a selector that makes a new object each time renders no endless loop', async () => {
  const session = new FakeSession({ email: 'ada@example.com' });
  let renders = 0;
  const Loops = () => {
    renders += 1;
    return useSelector(({ email }) => ({ email })).email;
  };
  await show(provider({ session: session.asSession }, createElement(Loops)));
  expect(renders).toBe(1);
  await act(async () => session.change({ couponCode: 'SAVE10' }));
  expect(renders).toBe(2);
});

test('events reach the listener that was rendered last, and nobody after the component is gone', async () => {
  const session = new FakeSession();
  const heard: string[] = [];
  const Listens = ({ name }: { name: string }) => {
    useSessionEvent('rejected', ({ code }) => heard.push(`${name} ${code}`));
    return null;
  };
  const tree = (name: string) =>
    createElement(StrictMode, null, provider({ session: session.asSession }, createElement(Listens, { name })));
  await show(tree('first'));
  expect(session.listeners).toBe(1);
  await show(tree('second'));
  session.emit('rejected', { code: 'alreadyPaid' });
  expect(heard).toEqual(['second alreadyPaid']);
  await show(null);
  expect(session.listeners).toBe(0);
});

test('the browser takes over what the server has rendered without a difference, then shows the session', async () => {
  const errors = vi.spyOn(console, 'error').mockImplementation(() => undefined);
  const recovered: unknown[] = [];
  for (const initialSession of [undefined, aSession({ email: 'from@server.example' })]) {
    const session = new FakeSession({ email: 'ada@example.com' });
    const { promise, resolve } = opening();
    const tree = createElement(
      StrictMode,
      null,
      provider(
        { open: () => promise, fallback: 'Opening', ...(initialSession && { initialSession }) },
        createElement(Email),
        createElement(Connection),
        createElement(TimeLeft),
      ),
    );
    const before = initialSession ? 'from@server.exampleconnectingunknown' : 'Opening';
    const host = document.body.appendChild(document.createElement('div'));
    host.innerHTML = renderToString(tree);
    expect(host.textContent).toBe(before);
    const hydrated = await act(async () => hydrateRoot(host, tree, { onRecoverableError: (error) => recovered.push(error) }));
    expect(host.textContent).toBe(before);
    await act(async () => resolve(session.asSession));
    expect(host.textContent).toBe('ada@example.comonline60000 left');
    await act(async () => hydrated.unmount());
    expect(session.closings).toBe(1);
    host.remove();
  }
  expect(recovered).toEqual([]);
  expect(errors).not.toHaveBeenCalled();
  errors.mockRestore();
});

test('a component that issues commands waits for the session, where others show the initial one', async () => {
  const { promise, resolve } = opening();
  const Id = () => useCheckout().id;
  const suspending = createElement(Suspense, { fallback: ' waits' }, createElement(Id));
  const initialSession = aSession({ email: 'ada@example.com' });
  await show(provider({ open: () => promise, initialSession }, createElement(Email), suspending));
  expect(container.textContent).toBe('ada@example.com waits');
  await act(async () => resolve(new FakeSession({ email: 'ada@example.com' }).asSession));
  expect(container.textContent).toBe('ada@example.comws_fake');
});

test('the time that is left is told again as it goes by, and to nobody after the component is gone', async () => {
  const session = new FakeSession();
  const { promise, resolve } = opening();
  const renders = { clock: 0, other: 0 };
  const Clock = () => {
    renders.clock += 1;
    return TimeLeft();
  };
  const Other = () => {
    renders.other += 1;
    useSession();
    return null;
  };
  const initialSession = aSession();
  await show(provider({ open: () => promise, initialSession }, createElement(Clock), createElement(Other)));
  // Without a session there is no clock to go by; nothing waits for it.
  expect(container.textContent).toBe('unknown');
  await act(async () => resolve(session.asSession));
  expect(container.textContent).toBe('60000 left');

  const before = { ...renders };
  await act(async () => session.passTo({ session: 59_000, step: null, isEnding: true }));
  expect(container.textContent).toBe('59000 left');
  expect(renders).toEqual({ clock: before.clock + 1, other: before.other });
  await act(async () => session.changeSync({ pending: 1 }));
  expect(renders).toEqual({ clock: before.clock + 1, other: before.other });

  expect(session.listeners).toBe(1);
  await show(null);
  expect(session.listeners).toBe(0);
});

test('another session has its own time left', async () => {
  const [first, second] = [new FakeSession(), new FakeSession()];
  second.remaining = { session: 7, step: null, isEnding: true };
  await show(provider({ session: first.asSession }, createElement(TimeLeft)));
  await show(provider({ session: second.asSession }, createElement(TimeLeft)));
  expect(container.textContent).toBe('7 left');
  expect([first.listeners, second.listeners]).toEqual([0, 1]);
  await act(async () => first.passTo({ session: 1, step: null, isEnding: true }));
  expect(container.textContent).toBe('7 left');
});
