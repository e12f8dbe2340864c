import { explain, post } from "./api";
import { find, make, say } from "./dom";
import { create, get, supported } from "./passkey";

const none = "This browser has no passkeys, or the page was not opened over https or as localhost.";

// A path of ours, whatever the address bar says.
function ours(next: string | undefined): string {
  return next && /^\/(?![/\\])/.test(next) ? next : "/";
}

export function login(): void {
  const door = find("#login");
  const go = find<HTMLButtonElement>("#login-go");
  if (!door || !go) return;
  if (!supported()) {
    say(none, true);
    return;
  }
  go.disabled = false;
  go.addEventListener("click", async () => {
    go.disabled = true;
    say("Your passkey is asked for. Look for the browser’s dialog.");
    try {
      const options = await post("/api/v1/sessions/options", {});
      const credential = await get(options.publicKey);
      await post("/api/v1/sessions", { credential });
      location.replace(ours(door.dataset.next));
    } catch (error) {
      go.disabled = false;
      say(explain(error).replace("Nothing was decided.", "You are not logged in."), true);
    }
  });
}

export function enrol(): void {
  const form = find<HTMLFormElement>("#enrol-form");
  const input = find<HTMLInputElement>("#code");
  const go = find<HTMLButtonElement>("#enrol-go");
  if (!form || !input || !go) return;
  if (!supported()) {
    say(none, true);
    return;
  }
  // The code is in the fragment, which no server sees, and leaves the address bar
  // before anybody copies it.
  const code = decodeURIComponent(location.hash.slice(1));
  if (code.startsWith("cfe_")) {
    input.value = code;
    history.replaceState(null, "", location.pathname);
  }
  go.disabled = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    say("Your device is asked for a passkey. Look for the browser’s dialog.");
    try {
      const value = input.value.trim();
      const options = await post("/api/v1/enrolments/options", { code: value });
      const credential = await create(options.publicKey);
      await post("/api/v1/enrolments", { code: value, credential });
      enrolled(form);
    } catch (error) {
      go.disabled = false;
      say(explain(error).replace("Nothing was decided.", "Nothing was made."), true);
    }
  });
}

function enrolled(form: HTMLFormElement): void {
  const link = make("a", "Log in with it", "button") as HTMLAnchorElement;
  link.href = "/login";
  form.replaceChildren(make("p", "Your passkey is enrolled. The ledger has its public key from now on."), link);
  link.focus();
  say("");
}
