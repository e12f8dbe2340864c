import { all } from "./dom";

export function copyButtons(): void {
  if (!navigator.clipboard) return;
  for (const b of all<HTMLButtonElement>("button[data-copy]")) {
    b.hidden = false;
    b.addEventListener("click", async (event) => {
      event.preventDefault();
      const words = b.querySelector(".away");
      try {
        await navigator.clipboard.writeText(b.dataset.copy ?? "");
        b.classList.add("done");
        if (words) words.textContent = "Copied";
        setTimeout(() => b.classList.remove("done"), 1500);
      } catch {
        if (words) words.textContent = "The browser does not let this page copy";
      }
    });
  }
}
