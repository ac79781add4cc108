// A serial line in the page: a terminal's cells as text, and what is typed as bytes.

import { bytesOfKey } from "./keys.js";
import { BLINKING, BOLD, FAINT, HIDDEN, ITALIC, REVERSE, STRUCK, Terminal, UNDERLINED, ofPalette }
  from "./terminal.js";

const NAMES = [
  [BOLD, "bold"], [FAINT, "faint"], [ITALIC, "italic"], [UNDERLINED, "underlined"], [BLINKING, "blinking"],
  [HIDDEN, "hidden"], [STRUCK, "struck"],
];
// Pasted text goes in pieces that a serial line's other side takes at once.
const PIECE_SIGNS = 1_024;

/** Shows a serial line in `place` until it is closed. */
export class Line {
  constructor(place, send) {
    this.place = place;
    this.encoder = new TextEncoder();
    this.say = (text) => send(this.encoder.encode(text));
    this.terminal = new Terminal({ answer: this.say, bell: () => this.ring() });
    this.kept = 0;
    this.isOpen = true;
    this.above = document.createElement("div");
    this.rows = this.terminal.lines.map(() => document.createElement("div"));
    // What is typed goes into a field, for there keys that make one sign of two work.
    this.field = document.createElement("textarea");
    this.field.className = "typed";
    this.field.setAttribute("aria-label", "What you type goes to the serial line");
    for (const [name, value] of Object.entries({ autocapitalize: "off", autocomplete: "off",
      autocorrect: "off", spellcheck: "false" })) this.field.setAttribute(name, value);
    const screen = document.createElement("div");
    screen.className = "lines";
    screen.append(this.above, ...this.rows);
    place.replaceChildren(screen, this.field);
    this.listen();
    this.draw();
  }

  listen() {
    const { field, place } = this;
    field.addEventListener("keydown", (event) => this.keyed(event));
    field.addEventListener("input", (event) => {
      if (event.isComposing) return;
      this.typed(field.value);
      field.value = "";
    });
    field.addEventListener("compositionend", () => {
      this.typed(field.value);
      field.value = "";
    });
    field.addEventListener("paste", (event) => {
      event.preventDefault();
      this.paste(event.clipboardData.getData("text"));
    });
    field.addEventListener("focus", () => place.classList.add("active"));
    field.addEventListener("blur", () => place.classList.remove("active"));
    // A click is for typing, a drag for copying.
    place.addEventListener("mouseup", () => {
      if (document.getSelection().isCollapsed) this.focus();
    });
  }

  focus() {
    this.field.focus({ preventScroll: true });
  }

  close() {
    this.isOpen = false;
    this.field.disabled = true;
  }

  ring() {
    this.place.classList.add("rings");
    setTimeout(() => this.place.classList.remove("rings"), 150);
  }

  typed(text) {
    if (text && this.isOpen) this.say(text);
  }

  paste(text) {
    const lines = text.replace(/\r?\n/g, "\r");
    // What a program says that its text ends with cannot be in it.
    const safe = lines.replaceAll("\x1b", "");
    const whole = this.terminal.modes.bracketed ? `\x1b[200~${safe}\x1b[201~` : safe;
    const signs = [...whole];
    for (let at = 0; at < signs.length; at += PIECE_SIGNS) {
      this.typed(signs.slice(at, at + PIECE_SIGNS).join(""));
    }
  }

  keyed(event) {
    if (event.isComposing || event.key === "Dead" || event.key === "Process") return;
    // The browser's own: copy, paste, the page's way out of the terminal.
    if (event.metaKey || (event.ctrlKey && event.shiftKey && /^[cv]$/i.test(event.key))) return;
    if (event.ctrlKey && event.altKey && event.key === "Home") return;
    if (event.shiftKey && (event.key === "PageUp" || event.key === "PageDown")) {
      const { place } = this;
      place.scrollBy(0, (event.key === "PageUp" ? -0.9 : 0.9) * place.clientHeight);
      event.preventDefault();
      return;
    }
    const bytes = bytesOfKey(event, this.terminal.modes);
    if (bytes === null) return;
    event.preventDefault();
    this.place.scrollTop = this.place.scrollHeight;
    this.typed(bytes);
  }

  /** Takes in what came. */
  take(bytes) {
    this.terminal.take(bytes);
    if (this.isDrawing) return;
    this.isDrawing = true;
    requestAnimationFrame(() => {
      this.isDrawing = false;
      this.draw();
    });
  }

  draw() {
    const { terminal, place, above } = this;
    const isAtEnd = place.scrollHeight - place.scrollTop - place.clientHeight < 40;
    const seen = terminal.kept.length + terminal.dropped;
    while (above.childElementCount > 0 && this.kept - above.childElementCount < terminal.dropped) {
      above.firstElementChild.remove();
    }
    for (let at = Math.max(this.kept, terminal.dropped); at < seen; at += 1) {
      const row = document.createElement("div");
      fill(row, terminal.kept[at - terminal.dropped], -1);
      above.append(row);
    }
    this.kept = seen;
    for (const row of terminal.touched) {
      const cursor = row === terminal.row && terminal.modes.cursor ? terminal.column : -1;
      fill(this.rows[row], terminal.lines[row], cursor);
    }
    terminal.touched.clear();
    // The row of the cursor changes without being written to.
    terminal.touch(terminal.row);
    if (isAtEnd) place.scrollTop = place.scrollHeight;
  }
}

/** A line's cells, those that look alike together. */
function fill(row, cells, cursor) {
  const spans = [];
  let before = null, text = "";
  const flush = () => {
    if (before) spans.push(spanned(before, text));
    text = "";
  };
  cells.forEach((cell, at) => {
    const look = { ...cell, isCursor: at === cursor };
    const isAlike = before && !look.isCursor && !before.isCursor && look.fore === before.fore
      && look.back === before.back && look.attributes === before.attributes;
    if (!isAlike) {
      flush();
      before = look;
    }
    text += cell.sign;
  });
  flush();
  row.replaceChildren(...spans);
}

function spanned({ fore, back, attributes, isCursor }, text) {
  if (fore === null && back === null && attributes === 0 && !isCursor) return document.createTextNode(text);
  const span = document.createElement("span");
  span.textContent = text;
  const isReverse = (attributes & REVERSE) !== 0;
  paint(span, "fore", isReverse ? back ?? "back" : fore);
  paint(span, "back", isReverse ? fore ?? "fore" : back);
  for (const [bit, name] of NAMES) if (attributes & bit) span.classList.add(name);
  if (isCursor) span.classList.add("cursor");
  return span;
}

// The first sixteen colours are the style's, so that they suit light and dark.
function paint(span, which, colour) {
  if (colour === null) return;
  if (typeof colour === "string" && !colour.startsWith("#")) span.classList.add(`${which}-is-${colour}`);
  else if (typeof colour === "number" && colour < 16) span.classList.add(`${which}-${colour}`);
  else {
    const value = typeof colour === "number" ? ofPalette(colour) : colour;
    span.style.setProperty(which === "fore" ? "color" : "background-color", value);
  }
}
