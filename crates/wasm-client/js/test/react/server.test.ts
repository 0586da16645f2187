import { createElement, Suspense } from 'react';
import { renderToPipeableStream, renderToString } from 'react-dom/server';
import { Writable } from 'node:stream';
import { expect, test, vi } from 'vitest';

import { SessionProvider, useCheckout, useRemaining, useSelector, useSession, useSyncStatus, useTimeline } from '../../src/react.js';
import { aSession } from './fake-session.js';

test('this runs where there is no browser', () => {
  expect(typeof window).toBe('undefined');
});

function Email() {
  return createElement('p', null, useSelector(({ email }) => email) ?? 'nobody');
}

function Everything() {
  return createElement('p', null, `${useSession().email} ${useSyncStatus().connection} ${useTimeline().length} ${useRemaining()}`);
}

function Commands() {
  return createElement('button', null, useCheckout().id);
}

test('without a session the server renders the fallback, and opens nothing', () => {
  const open = vi.fn(() => new Promise<never>(() => undefined));
  const html = renderToString(createElement(SessionProvider, { open, fallback: 'Opening' }, createElement(Email)));
  expect(html).toContain('Opening');
  expect(html).not.toContain('nobody');
  expect(open).not.toHaveBeenCalled();
});

test('with an initial session the server renders it', () => {
  const open = vi.fn(() => new Promise<never>(() => undefined));
  const initialSession = aSession({ email: 'ada@example.com' });
  const html = renderToString(createElement(SessionProvider, { open, initialSession }, createElement(Everything)));
  expect(html).toContain('ada@example.com connecting 0 undefined');
  expect(open).not.toHaveBeenCalled();
});

test('what issues commands is left to the browser: a stream ends with the fallback around it', async () => {
  const errors: unknown[] = [];
  const initialSession = aSession({ email: 'ada@example.com' });
  const element = createElement(
    SessionProvider,
    { open: () => new Promise<never>(() => undefined), initialSession },
    createElement(Email),
    createElement(Suspense, { fallback: 'a moment' }, createElement(Commands)),
  );
  const html = await new Promise<string>((resolve, reject) => {
    let text = '';
    const sink = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        text += chunk.toString();
        done();
      },
      final: (done) => {
        resolve(text);
        done();
      },
    });
    const stream = renderToPipeableStream(element, {
      onAllReady: () => stream.pipe(sink),
      onError: (error) => void errors.push(error),
      onShellError: reject,
    });
  });
  expect(html).toContain('ada@example.com');
  expect(html).toContain('a moment');
  expect(errors).toEqual([expect.objectContaining({ message: expect.stringContaining('there is no session on the server') })]);
});

test('a hook outside of a provider says so', () => {
  expect(() => renderToString(createElement(Email))).toThrow('outside of a <SessionProvider>');
});

test('a provider is told where its session comes from, once', () => {
  expect(() => renderToString(createElement(SessionProvider, {}))).toThrow('either `open` or `session`');
});
