// Asking the server, with the key that the user gave. Every failure is a Problem whose message is a sentence.

import { sentence } from "./dom.js";

const KEPT = "embrief-key";

export class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEPT),
  set: (value) => sessionStorage.setItem(KEPT, value),
  forget: () => sessionStorage.removeItem(KEPT),
};

function failure(status, headers, said) {
  let message = sentence(said?.error?.message ?? `the server answered with status ${status} and did not say why`);
  const wait = headers.get("retry-after");
  if (wait && status !== 401 && !/try again|ask again/i.test(message)) message += ` Try again in ${wait} seconds.`;
  return new Problem(message, status);
}

async function send(path, body, signal) {
  const headers = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (key.get() !== null) headers["authorization"] = `Bearer ${key.get()}`;
  const request = { headers, signal, credentials: "omit", cache: "no-store", redirect: "error" };
  if (body !== undefined) Object.assign(request, { method: "POST", body: JSON.stringify(body) });
  try {
    return await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (headers.authorization && /[^\x20-\x7e]/.test(headers.authorization)) {
      throw new Problem("A key has only letters, digits and signs of ASCII.", 401);
    }
    throw new Problem("The server does not answer. Is it still running?");
  }
}

export async function ask(path, body, signal) {
  const answer = await send(path, body, signal);
  let said;
  try {
    said = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    said = null;
  }
  if (!answer.ok) throw failure(answer.status, answer.headers, said);
  if (said === null) throw new Problem("The server's answer cannot be read.", answer.status);
  return said;
}

// A picture that was found, as a Blob; null where it is no longer there.
export async function picture(body, signal) {
  const answer = await send("api/picture", body, signal);
  if (!answer.ok || answer.headers.get("content-type") !== "image/jpeg") return null;
  return await answer.blob();
}
