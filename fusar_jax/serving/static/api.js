/* Requests to the server: the token, errors in words, streams, tiles. */

const KEY = "fusar-token";

export class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

export function hasToken() {
  return sessionStorage.getItem(KEY) !== null;
}

function headers(more = {}) {
  const token = sessionStorage.getItem(KEY);
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function checked(response) {
  if (response.ok) return response;
  let message = `The server answered ${response.status}.`;
  try {
    message = (await response.json()).error.message;
  } catch { /* Not ours: the status has to do. */ }
  if (response.status === 429) message = `The server is busy: ${message}`;
  throw new Problem(message, response.status);
}

export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, {
      ...options, headers: headers(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer. Is it still running?");
  }
  return checked(response);
}

export async function json(path, options) {
  return (await request(path, options)).json();
}

export function post(path, value, options = {}) {
  return request(path, { method: "POST", body: JSON.stringify(value),
    ...options, headers: { "Content-Type": "application/json" } });
}

/* Uploads with progress, which fetch does not report. */
export function upload(path, file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const http = new XMLHttpRequest();
    http.open("POST", path);
    http.responseType = "json";
    const all = headers({ "Content-Type": "application/octet-stream" });
    for (const [name, value] of Object.entries(all)) {
      http.setRequestHeader(name, value);
    }
    http.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    http.onload = () => {
      if (http.status === 200) resolve(http.response);
      else {
        reject(new Problem(http.response?.error?.message
          ?? `The server answered ${http.status}.`, http.status));
      }
    };
    http.onerror = () => reject(new Problem(
      "The upload was broken off. Is the server still running?"));
    http.onabort = () => reject(new DOMException("stopped", "AbortError"));
    signal.addEventListener("abort", () => http.abort());
    http.send(file);
  });
}

/* Yields the events of a stream. */
export async function* events(path, value, signal) {
  const response = await post(path, value, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value: text } = await reader.read();
      if (done) return;
      const parts = (rest + text).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        if (part.startsWith("data: ")) yield JSON.parse(part.slice(6));
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The answer was broken off: the server has stopped.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

export async function save(path, name) {
  const blob = await (await request(path)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
