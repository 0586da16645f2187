type Child = Node | string;

/** An element with its attributes and what is in it. Nothing is ever parsed as HTML. */
export function element<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Readonly<Record<string, string>> = {},
  ...children: Child[]
): HTMLElementTagNameMap[Name] {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** Sets a text; one that is the same is not set again, so that nothing is read out twice and no selection is lost. */
export function setText(target: Element, text: string): void {
  if (target.textContent !== text) target.textContent = text;
}
