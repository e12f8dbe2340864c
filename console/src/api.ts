// A Problem is an answer that is not a success (RFC 9457), or none at all.
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly detail: string,
    readonly body: Record<string, unknown>,
  ) {
    super(detail || code);
  }
}

export async function post(path: string, body: unknown): Promise<Record<string, unknown>> {
  let answer: Response;
  try {
    answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      credentials: "same-origin",
      redirect: "error",
    });
  } catch {
    throw new Problem(0, "unreachable", "", {});
  }
  let value: Record<string, unknown> = {};
  try {
    value = (await answer.json()) as Record<string, unknown>;
  } catch {
    // An answer without a body, or cut off: the status says what it can.
  }
  if (!answer.ok) {
    throw new Problem(answer.status, String(value.code ?? ""), String(value.detail ?? ""), value);
  }
  return value;
}

// explain says what went wrong, that nothing was lost, and what to do.
export function explain(error: unknown): string {
  if (error instanceof DOMException) {
    switch (error.name) {
      case "NotAllowedError":
      case "AbortError":
        return "Your passkey was not used: the dialog was closed or took too long. Nothing was decided. Try again when you like.";
      case "InvalidStateError":
        return "This device has a passkey for you here already. Log in with it.";
      case "SecurityError":
        return "The browser does not take a passkey on this address. Nothing was sent. Open the console under its own name.";
    }
    return `The browser could not use a passkey (${error.name}). Nothing was sent. Try again, or another browser.`;
  }
  if (!(error instanceof Problem)) return "Something went wrong in this page. Nothing was sent. Load it again.";
  switch (error.code) {
    case "unreachable":
      return "The server does not answer. Nothing was decided. Try again when it does.";
    case "session_required":
      return "Your session has ended. Nothing was decided. Load the page to log in again.";
    case "approval_pending":
      return "Somebody else signed while you were looking. Nothing is lost: press again, and your signature covers theirs too.";
    case "approval_denied":
    case "approval_expired":
    case "approval_cancelled":
    case "approval_superseded":
    case "approval_revoked":
    case "approval_spent":
      return "It was closed while you were looking; your signature was not needed any more. Load the page to see how.";
    case "passkey_refused":
      return `That passkey did not count here, and nothing was decided. Use the one that you enrolled. ${error.detail}`;
    case "enrolment_refused":
      return "This code is not good: it was used, is too old, or was mistyped. Nothing was made. Ask an administrator for a new one.";
    case "rate_limited":
      return "Too many tries from this address. Wait a minute, then try again.";
  }
  if (error.status >= 500 || error.status === 0) {
    return `The server met a fault of its own (${error.code || error.status}). Nothing was decided. Try again.`;
  }
  return `${error.detail || error.code} Nothing was decided.`;
}
