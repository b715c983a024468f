/* Answers in words: what was asked, what was found, what differs. */

export const CONDITIONS = [
  ["aligned", "with anchors", "as found for this window"],
  ["none", "without", "the image alone"],
  ["shuffled", "shuffled", "anchors of another place"],
  ["wrong_place", "half a window off", "these anchors at wrong positions"],
];
const TASKS = { detection: "Find", counting: "Count", grounding: "Cells",
  classification: "Classify", captioning: "Describe" };

/* What was asked, in a few words. */
export function describe({ task, label, question, window, anchors, tiles }) {
  const what = task && TASKS[task]
    ? [TASKS[task], label].filter(Boolean).join(" ") : question;
  const [x1, y1, x2, y2] = window;
  const parts = [what, `${x2 - x1} × ${y2 - y1} at (${x1}, ${y1})`];
  if (tiles > 1) parts.push(`${tiles} tiles`);
  const condition = CONDITIONS.find(([name]) => name === anchors);
  if (condition && anchors !== "none") {
    parts.push(anchors === "aligned" ? condition[1]
      : `anchors ${condition[1]}`);
  }
  return parts.join(" · ");
}

/* The answer in a sentence. */
export function summary({ task, label, count, findings, errors, text }) {
  let words;
  if (task === "detection") {
    const kinds = new Map();
    for (const one of findings) {
      kinds.set(one.label, (kinds.get(one.label) ?? 0) + 1);
    }
    words = findings.length
      ? [...kinds].map(([name, n]) => plural(n, name)).join(", ")
      : `no ${label || "target"} found`;
  } else if (task === "counting") {
    words = count === null ? "" : plural(count, label);
  } else if (task === "grounding") {
    words = findings.length
      ? findings.map((one) => one.label.replace(`${label} `, "")).join(", ")
      : errors.length ? "" : `no cell has a ${label}`;
  } else if (task === "classification") {
    words = findings[0]?.label ?? "";
  } else words = text;
  const bad = errors.length === 1 ? `The answer cannot be read: ${errors[0]}.`
    : errors.length ? `${errors.length} answers cannot be read.` : "";
  return [words, bad].filter(Boolean).join(" ");
}

function plural(n, name) {
  return `${n} ${name}${n === 1 || name.endsWith("s") ? "" : "s"}`;
}

export function differs(first, other) {
  if (first.task === "counting" && first.count !== null
      && other.count !== null) {
    const more = other.count - first.count;
    return more ? `${more > 0 ? "+" : "−"}${Math.abs(more)}` : "the same";
  }
  if (first.task === "detection" || first.task === "grounding") {
    const same = other.findings.filter((a) => first.findings.some(
      (b) => a.label === b.label && overlap(a.box, b.box) >= 0.5)).length;
    const lost = first.findings.length - same;
    const added = other.findings.length - same;
    if (!lost && !added) return "the same";
    return `${same} the same, ${lost} missing, ${added} new`;
  }
  return first.text === other.text ? "the same" : "another text";
}

/* Intersection over union. */
function overlap(a, b) {
  const w = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const h = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (w <= 0 || h <= 0) return 0;
  const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
  return w * h / (area(a) + area(b) - w * h);
}
