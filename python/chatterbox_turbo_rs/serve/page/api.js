"use strict";
// Requests to this server. Addresses are relative, so that the page works behind a proxy that puts it elsewhere.

/** What went wrong, in words for whoever reads the page. */
class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const key = {
  get: () => sessionStorage.getItem("key") ?? "",
  set: (value) => sessionStorage.setItem("key", value),
};

/** The answer to a request. `body` is sent as JSON, a FormData as it is. Throws ApiError. */
async function ask(path, { method = "GET", body = null, signal = null } = {}) {
  const headers = key.get() ? { Authorization: `Bearer ${key.get()}` } : {};
  const form = body instanceof FormData;
  if (body && !form) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, signal, body: body && !form ? JSON.stringify(body) : body });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer.");
  }
  if (answer.ok) return answer;
  let message = `The server answered with ${answer.status}.`;
  try {
    message = (await answer.json()).error.message;
  } catch {
    // not the server's own words
  }
  if (answer.status === 401) document.dispatchEvent(new CustomEvent("key-wanted"));
  throw new ApiError(answer.status, message);
}

/** The objects of an answer of server-sent events, as they come. */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) yield JSON.parse(part.slice(6));
  }
}
