import { all, plural } from "./dom";

// Times are written as the server wrote them (funcs.go), and kept current. The
// server's clock counts: the page says what it was when it was made.
const skew = serverSkew();

function serverSkew(): number {
  const entry = performance.getEntriesByType("navigation")[0] as PerformanceNavigationTiming | undefined;
  const sent = Number(document.body.dataset.now) * 1000;
  if (!sent || !entry) return 0;
  const received = performance.timeOrigin + entry.responseStart;
  return Math.abs(sent - received) < 2000 ? 0 : sent - received;
}

function span(ms: number): string {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} days`;
}

function relative(mode: string | undefined, ms: number): string {
  if (mode === "left") return ms <= 0 ? "no time left" : `${span(ms)} left`;
  const d = -ms;
  if (d < 0) return `in ${span(-d)}`;
  return d < 10_000 ? "just now" : `${span(d)} ago`;
}

function update(): void {
  const now = Date.now() + skew;
  for (const t of all<HTMLTimeElement>("time[data-relative]")) {
    const text = relative(t.dataset.relative, Date.parse(t.dateTime) - now);
    if (t.textContent !== text) t.textContent = text;
  }
  for (const p of all<HTMLProgressElement>("progress[data-from]")) {
    const from = Number(p.dataset.from) * 1000;
    const to = Number(p.dataset.to) * 1000;
    p.hidden = to <= from;
    p.max = Math.max(1, to - from);
    p.value = Math.max(0, to - now);
  }
}

export function times(): void {
  update();
  setInterval(update, 1000);
}

// clock compares the server's clock with this machine's.
export function clock(): void {
  for (const t of all<HTMLTimeElement>("time[data-clock]")) {
    const place = t.closest(".check")?.querySelector("[data-skew]");
    if (!place) continue;
    const seconds = Math.round(Math.abs(skew) / 1000);
    place.textContent =
      seconds < 5
        ? "This machine’s clock agrees with the server’s."
        : `This machine’s clock is ${plural(seconds, "second", "seconds")} ${skew > 0 ? "behind" : "ahead of"} the server’s. One of them is wrong.`;
  }
}
