/* What goes wrong, in words, where the eyes are. */

import { Problem, hasToken } from "/static/api.js";

const $ = (id) => document.getElementById(id);

export function report(error) {
  if (error?.name === "AbortError") return;
  if (error?.status === 401) return askToken();
  if (!(error instanceof Problem)) console.error(error);
  $("problem").textContent = error.message;
  $("problem").hidden = false;
  // Where the eyes are.
  if ($("start").hidden) $("about").before($("problem"));
  else $("choose").closest("p").after($("problem"));
  $("problem").scrollIntoView({ block: "nearest" });
}

export function clearProblem() {
  $("problem").hidden = true;
}

function askToken() {
  if (hasToken()) {
    $("token").querySelector("p").textContent
      = "The server does not accept this token.";
  }
  $("token").hidden = false;
  $("token-value").focus();
}
