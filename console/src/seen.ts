import { all, find, make, plural } from "./dom";

// watchSeen calls seen once every line of the payload was on screen, above the bar
// that covers the bottom of it. What was seen of this digest in this tab stays seen.
export function watchSeen(digest: string, seen: () => void): void {
  const marks = new Set(all("#payload-section [data-seen]"));
  const key = `seen ${digest}`;
  if (!marks.size || sessionStorage.getItem(key)) {
    seen();
    return;
  }
  const bar = find("#decide");
  const covered = bar && getComputedStyle(bar).position === "sticky" ? bar.offsetHeight : 0;
  document.documentElement.style.setProperty("--decide-room", `${covered}px`);
  const observer = new IntersectionObserver(
    (entries) => {
      for (const e of entries) {
        if (!e.isIntersecting) continue;
        marks.delete(e.target as HTMLElement);
        observer.unobserve(e.target);
      }
      if (marks.size) {
        remaining(marks);
        return;
      }
      observer.disconnect();
      sessionStorage.setItem(key, "1");
      seen();
    },
    { rootMargin: `0px 0px -${covered}px 0px` },
  );
  remaining(marks);
  for (const m of marks) observer.observe(m);
}

function remaining(marks: Set<HTMLElement>): void {
  const place = find("#say");
  if (!place) return;
  const text = `Read the payload first: ${plural(marks.size, "line", "lines")} left.`;
  if (place.dataset.marks === text) return;
  place.dataset.marks = text;
  const show = make("button", "Show me") as HTMLButtonElement;
  show.type = "button";
  show.addEventListener("click", () => {
    const [next] = marks;
    next?.scrollIntoView({ block: "center" });
  });
  place.replaceChildren(make("span", text), show);
}
