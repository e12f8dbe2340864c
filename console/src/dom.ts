// Elements are made and filled with text, never with markup: the pages require
// Trusted Types and have no policy.

export function find<T extends HTMLElement>(selector: string, within: ParentNode = document): T | null {
  return within.querySelector<T>(selector);
}

export function all<T extends HTMLElement>(selector: string, within: ParentNode = document): T[] {
  return [...within.querySelectorAll<T>(selector)];
}

export function make(tag: string, text: string, cls = ""): HTMLElement {
  const e = document.createElement(tag);
  e.textContent = text;
  if (cls) e.className = cls;
  return e;
}

export function plural(n: number, one: string, many: string): string {
  return n === 1 ? `1 ${one}` : `${n} ${many}`;
}

// say puts a sentence where the page says how things stand; screen readers read it.
export function say(text: string, bad = false): void {
  const place = find("#say");
  if (!place) return;
  place.textContent = text;
  place.classList.toggle("bad", bad);
}
