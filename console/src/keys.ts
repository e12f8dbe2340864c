import { all } from "./dom";

// In the inbox j and k go through the list; Enter opens, as it does with any link.
export function keys(): void {
  const list = document.querySelector("ul#inbox");
  if (!list) return;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement) return;
    const step = event.key === "j" ? 1 : event.key === "k" ? -1 : 0;
    if (!step) return;
    const links = all<HTMLAnchorElement>(".ask > a", list);
    const at = links.findIndex((a) => a === document.activeElement);
    const next = at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, at + step));
    links[next]?.focus();
    event.preventDefault();
  });
}
