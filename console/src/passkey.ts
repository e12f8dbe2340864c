// The JSON forms of WebAuthn Level 3, written here because browsers that are in use
// lack them, and password managers break them.

type JSONObject = Record<string, unknown>;

function bytes(text: unknown): ArrayBuffer {
  const s = atob(String(text).replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(s, (c) => c.charCodeAt(0)).buffer;
}

function text(buffer: ArrayBuffer): string {
  let s = "";
  for (const b of new Uint8Array(buffer)) s += String.fromCharCode(b);
  return btoa(s).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
}

function descriptors(list: unknown): PublicKeyCredentialDescriptor[] | undefined {
  if (!Array.isArray(list)) return undefined;
  return list.map((d: JSONObject) => ({ ...d, id: bytes(d.id) }) as unknown as PublicKeyCredentialDescriptor);
}

export function supported(): boolean {
  return typeof PublicKeyCredential === "function" && !!navigator.credentials;
}

export async function create(options: unknown): Promise<JSONObject> {
  const o = options as JSONObject;
  const user = o.user as JSONObject;
  const made = (await navigator.credentials.create({
    publicKey: {
      ...o,
      challenge: bytes(o.challenge),
      user: { ...user, id: bytes(user.id) },
      excludeCredentials: descriptors(o.excludeCredentials),
    } as unknown as PublicKeyCredentialCreationOptions,
  })) as PublicKeyCredential;
  const response = made.response as AuthenticatorAttestationResponse;
  return {
    ...outer(made),
    response: {
      clientDataJSON: text(response.clientDataJSON),
      attestationObject: text(response.attestationObject),
      transports: response.getTransports?.() ?? [],
    },
  };
}

export async function get(options: unknown): Promise<JSONObject> {
  const o = options as JSONObject;
  const got = (await navigator.credentials.get({
    publicKey: {
      ...o,
      challenge: bytes(o.challenge),
      allowCredentials: descriptors(o.allowCredentials),
    } as unknown as PublicKeyCredentialRequestOptions,
  })) as PublicKeyCredential;
  const response = got.response as AuthenticatorAssertionResponse;
  const out: JSONObject = {
    clientDataJSON: text(response.clientDataJSON),
    authenticatorData: text(response.authenticatorData),
    signature: text(response.signature),
  };
  if (response.userHandle) out.userHandle = text(response.userHandle);
  return { ...outer(got), response: out };
}

function outer(c: PublicKeyCredential): JSONObject {
  const out: JSONObject = { id: c.id, rawId: text(c.rawId), type: c.type, clientExtensionResults: {} };
  if (c.authenticatorAttachment) out.authenticatorAttachment = c.authenticatorAttachment;
  return out;
}
