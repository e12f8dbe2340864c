import { all, find, make, plural } from "./dom";

// News announce themselves and move nothing: the page that is read stays as it is
// until its reader asks for the new one. Asking for news does not keep a session
// alive.
const every = 4000;

export function live(): void {
  const place = find("[data-live]");
  if (!place) return;
  const approval = place.dataset.live === "approval" ? place.dataset.id : undefined;
  let failures = 0;
  let asking = false;
  const ask = async () => {
    if (document.hidden || asking) return;
    asking = true;
    try {
      const answer = await fetch(approval ? `/live?approval=${encodeURIComponent(approval)}` : "/live", {
        credentials: "same-origin",
        redirect: "error",
        cache: "no-store",
      });
      if (answer.status === 401) {
        announce("Your session has ended. Nothing is lost.", "Log in", `/login?next=${encodeURIComponent(location.pathname)}`);
        clearInterval(timer);
        return;
      }
      if (!answer.ok) throw new Error();
      failures = 0;
      const news = (await answer.json()) as { waiting?: string[]; state?: string };
      if (approval) {
        if (news.state && news.state !== place.dataset.state) announce("This approval has changed.", "Show it", location.pathname);
      } else {
        inboxNews(news.waiting ?? []);
      }
    } catch {
      if (++failures === 3) announce("The server does not answer. What you see may be old.", "Try again", location.pathname);
    } finally {
      asking = false;
    }
  };
  const timer = setInterval(ask, every);
  document.addEventListener("visibilitychange", ask);
}

function inboxNews(waiting: string[]): void {
  const rows = all<HTMLElement>(".ask[data-id]");
  const here = new Set(rows.map((r) => r.dataset.id ?? ""));
  const fresh = waiting.filter((id) => !here.has(id));
  const still = new Set(waiting);
  for (const row of rows) {
    if (still.has(row.dataset.id ?? "") || row.classList.contains("gone")) continue;
    row.classList.add("gone");
    find(".ask-left", row)?.replaceChildren("waits no more");
  }
  document.title = document.title.replace(/^(\(\d+\) )?/, waiting.length ? `(${waiting.length}) ` : "");
  if (fresh.length) announce(plural(fresh.length, "new", "new"), "Show", "/");
}

let announced = "";

function announce(text: string, label: string, url: string): void {
  const place = find("#live");
  if (!place || announced === text) return;
  announced = text;
  const link = make("a", label) as HTMLAnchorElement;
  link.href = url;
  place.replaceChildren(make("span", text), link);
  place.hidden = false;
}
