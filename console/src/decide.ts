import { explain, post, Problem } from "./api";
import { all, find, say } from "./dom";
import { get, supported } from "./passkey";
import { watchSeen } from "./seen";

const whole = "You have had the whole payload on screen. Your passkey signs what you decide.";
const part = "You have had on screen what is shown of the payload. Your passkey signs all of it.";

// decide lets a person approve or refuse: a challenge over the digest, the passkey,
// the signature. Nothing else on the page decides anything.
export function decide(): void {
  const article = find("#approval");
  const approve = find<HTMLButtonElement>("#approve");
  const refuse = find<HTMLButtonElement>("#refuse");
  const refusal = find("#refusal");
  const other = find<HTMLFormElement>("#other");
  const buttons = find("#buttons");
  if (!article || !refuse || !refusal || !other || !buttons) return;
  if (!supported()) {
    say("This browser has no passkeys, or the page was not opened over https. Sign with another one.", true);
    return;
  }
  const path = `/api/v1/approvals/${encodeURIComponent(article.dataset.id ?? "")}`;

  const busy = (is: boolean) => {
    for (const b of all<HTMLButtonElement>("#decide button")) b.disabled = is;
  };
  const sign = async (decision: "approve" | "deny", reason: string) => {
    busy(true);
    say("Your passkey is asked for. Look for the browser’s dialog.");
    const body = decision === "deny" ? { decision, reason } : { decision };
    try {
      const options = await post(`${path}/challenge`, body);
      const credential = await get(options.publicKey);
      say("Signed. The server is checking it.");
      await post(`${path}/signatures`, { ...body, credential });
      location.replace(location.pathname);
    } catch (error) {
      busy(false);
      say(explain(error), true);
      if (error instanceof Problem && error.code === "session_required") location.reload();
    }
  };
  const ask = (open: boolean) => {
    refusal.hidden = !open;
    buttons.hidden = open;
    refuse.setAttribute("aria-expanded", String(open));
    if (open) find<HTMLButtonElement>("[data-reason]", refusal)?.focus();
    else {
      other.hidden = true;
      refuse.focus();
    }
  };

  approve?.addEventListener("click", () => void sign("approve", ""));
  refuse.addEventListener("click", () => ask(true));
  refusal.addEventListener("keydown", (event) => {
    if (event.key === "Escape") ask(false);
  });
  for (const b of all<HTMLButtonElement>("[data-reason]", refusal)) {
    b.addEventListener("click", () => void sign("deny", b.dataset.reason ?? ""));
  }
  find("[data-back]", refusal)?.addEventListener("click", () => ask(false));
  find("[data-other]", refusal)?.addEventListener("click", () => {
    other.hidden = false;
    find<HTMLInputElement>("input", other)?.focus();
  });
  other.addEventListener("submit", (event) => {
    event.preventDefault();
    const reason = find<HTMLInputElement>("input", other)?.value.trim() ?? "";
    if (reason) void sign("deny", reason);
  });
  watchSeen(article.dataset.digest ?? "", () => {
    if (approve) approve.disabled = false;
    refuse.disabled = false;
    say(find(".hidden-parts") ? part : whole);
  });
}
