const LIGHT = `
--back: #fbfcfa; --raised: #eef1ec; --ink: #17211b; --muted: #55625a; --line: #c6cfc8;
--accent: #14587a; --on-accent: #ffffff; --way: #7a5200; --confirmed: #14587a; --durable: #1d6b3c; --bad: #a02417; --past: #fdf1d3;
color-scheme: light;`;

const DARK = `
--back: #10221b; --raised: #1b332a; --ink: #e6eee4; --muted: #a9bdb0; --line: #3a5548;
--accent: #86c5ee; --on-accent: #0c1a22; --way: #f0c05a; --confirmed: #86c5ee; --durable: #7fd8a0; --bad: #f5a093; --past: #3b3216;
color-scheme: dark;`;

const CSS = `
:host { all: initial; display: block; ${LIGHT} }
:host([data-theme='dark']) { ${DARK} }
@media (prefers-color-scheme: dark) { :host([data-theme='auto']) { ${DARK} } }
:host([data-floating]) { position: fixed; inset: auto 1rem 1rem auto; z-index: 2147483000; max-inline-size: calc(100vw - 2rem); }
*, *::before, *::after { box-sizing: border-box; }
h2, h3, p, ol, ul, dl, dd { margin: 0; padding: 0; }
ol, ul { list-style: none; }
button { font: inherit; color: inherit; cursor: pointer; }
.frame { font: 14px/1.45 var(--throughline-devtools-font, system-ui, sans-serif); color: var(--ink); }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.opener { display: block; margin-inline-start: auto; min-block-size: 44px; padding: 0 1rem; border: 1px solid var(--line); border-radius: 999px; background: var(--back); box-shadow: 0 2px 10px rgb(0 0 0 / 20%); }
.panel { display: grid; gap: 1.1rem; padding: 1rem; background: var(--back); }
:host([data-floating]) .panel { inline-size: 24rem; max-inline-size: 100%; max-block-size: min(42rem, calc(100vh - 6rem)); overflow-y: auto; margin-block-end: 0.5rem; border: 1px solid var(--line); border-radius: 12px; box-shadow: 0 4px 24px rgb(0 0 0 / 25%); }
.panel[hidden] { display: none; }
section { min-inline-size: 0; }
h2 { font-size: 1.1rem; }
h3 { margin-block-end: 0.4rem; font-size: 0.85rem; font-weight: 650; color: var(--muted); }
h3 output { margin-inline-start: 0.35rem; color: var(--ink); }
.top { display: flex; flex-wrap: wrap; gap: 0.35rem 1rem; align-items: center; justify-content: space-between; }
.connection { font-weight: 600; }
.connection::before { content: ''; display: inline-block; inline-size: 10px; block-size: 10px; margin-inline-end: 0.5rem; border: 2px solid var(--way); border-radius: 50%; }
.connection[data-connection='online']::before { border-color: var(--durable); background: var(--durable); }
.connection[data-connection='offline']::before, .connection[data-connection='closed']::before { border-color: var(--bad); }
.switch { display: inline-flex; gap: 0.6rem; align-items: center; min-block-size: 44px; padding: 0; border: 0; background: none; }
.track { inline-size: 44px; block-size: 24px; padding: 2px; border: 2px solid var(--muted); border-radius: 999px; }
.track::after { content: ''; display: block; inline-size: 16px; block-size: 16px; border-radius: 50%; background: var(--muted); transition: translate 0.15s; }
.switch[aria-checked='true'] .track { border-color: var(--bad); }
.switch[aria-checked='true'] .track::after { background: var(--bad); translate: 20px 0; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)); gap: 0.6rem 0.75rem; margin-block-start: 0.6rem; }
.facts dt { font-size: 0.8rem; color: var(--muted); }
.facts dd { font-weight: 650; overflow-wrap: anywhere; }
.facts .long { grid-column: 1 / -1; }
.long dd { font: 12px/1.5 ui-monospace, monospace; font-weight: 400; }
.versions { max-block-size: 15rem; overflow-y: auto; border: 1px solid var(--line); border-radius: 8px; }
.versions li { display: grid; grid-template-columns: 3rem 1fr auto; gap: 0.1rem 0.6rem; align-items: baseline; padding: 0.3rem 0.6rem; cursor: pointer; }
.versions li + li { border-block-start: 1px solid var(--line); }
.versions li[aria-selected='true'] { background: var(--raised); box-shadow: inset 4px 0 var(--accent); }
.number { font: 12px ui-monospace, monospace; color: var(--muted); }
.what { font-weight: 600; overflow-wrap: anywhere; }
.stage { font-size: 0.8rem; }
.stage::before { content: ''; display: inline-block; inline-size: 8px; block-size: 8px; margin-inline-end: 0.35rem; border: 2px solid currentColor; border-radius: 50%; }
[data-stage='durable'], [data-stage='accepted'] { color: var(--durable); }
[data-stage='durable']::before { background: currentColor; }
[data-stage='confirmed'], [data-stage='sent'] { color: var(--confirmed); }
[data-stage='pending'], [data-stage='stored'], [data-stage='issued'] { color: var(--way); }
.detail { grid-column: 2 / -1; font-size: 0.8rem; color: var(--muted); }
.hint { margin-block-start: 0.35rem; font-size: 0.8rem; color: var(--muted); }
.view { margin-block-start: 0.6rem; padding: 0.7rem; border-radius: 8px; background: var(--raised); }
.view[data-past] { background: var(--past); }
.viewed { display: flex; flex-wrap: wrap; gap: 0.3rem 0.75rem; align-items: center; justify-content: space-between; min-block-size: 36px; font-weight: 650; }
.live { min-block-size: 36px; padding: 0 0.9rem; border: 0; border-radius: 999px; background: var(--accent); color: var(--on-accent); font-weight: 600; }
.live[hidden] { display: none; }
.changes { display: grid; gap: 0.4rem; margin-block-start: 0.5rem; }
.path { display: block; font: 12px ui-monospace, monospace; color: var(--muted); overflow-wrap: anywhere; }
.changes del { color: var(--bad); overflow-wrap: anywhere; }
.changes ins { font-weight: 650; text-decoration: none; overflow-wrap: anywhere; }
details { margin-block-start: 0.6rem; }
summary { min-block-size: 28px; cursor: pointer; }
pre { margin: 0.4rem 0 0; max-block-size: 18rem; overflow: auto; font: 12px/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.list li { display: grid; grid-template-columns: 1fr auto; gap: 0.1rem 0.75rem; padding-block: 0.35rem; }
.list li + li { border-block-start: 1px solid var(--line); }
.list .detail { grid-column: 1 / -1; }
.list code { font: 12px ui-monospace, monospace; }
.sentence { grid-column: 1 / -1; }
.sentence::first-letter, .what::first-letter { text-transform: uppercase; }
.empty { color: var(--muted); }
.rejection .what { color: var(--bad); }
@media (prefers-reduced-motion: reduce) { *, *::before, *::after { transition: none !important; } }
@media (forced-colors: active) { .versions li[aria-selected='true'] { outline: 2px solid Highlight; outline-offset: -2px; } }
`;

let sheet: CSSStyleSheet | undefined;

/** The panel's style: a constructed sheet, which no content security policy forbids. */
export function styleSheet(): CSSStyleSheet {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(CSS);
  }
  return sheet;
}
