// A screen in the page: a picture on a canvas, keys and the pointer as RFB has them.

import { keysym, keysymOfSign, position } from "./keys.js";
import { Session } from "./rfb.js";

// Largest shape of a pointer that browsers show.
const POINTER_MAX = 128;
// Between two signs that are typed for somebody: a keyboard's buffer is short.
const SIGN_MS = 25;
const SHIFT = 0xffe1;
// Signs for which a keyboard of the United States needs the shift key, as QEMU takes keysyms to be meant.
const WITH_SHIFT = new Set('ABCDEFGHIJKLMNOPQRSTUVWXYZ~!@#$%^&*()_+{}|:"<>?');
const BUTTONS = [[1, 1], [4, 2], [2, 4]];
// Wheels turn by so many points of a screen for each step.
const WHEEL_STEP = 50;

/** Shows a screen in `place` until it is closed; `told(what, detail)` hears `ready`, `resized`, `clipboard`. */
export class Screen {
  constructor(place, send, told) {
    this.place = place;
    this.told = told;
    this.isOpen = true;
    this.down = new Map();
    this.wheel = 0;
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", "The server's screen. Control, Alt and Home leave it.");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.session = new Session((bytes) => this.isOpen && send(bytes), {
      ready: (name) => told("ready", name),
      resized: () => this.resized(),
      updated: () => this.updated(),
      bell: () => this.ring(),
      clipboard: (text) => told("clipboard", text),
      cursor: (shape) => this.pointer(shape),
    });
    place.replaceChildren(this.canvas);
    this.listen();
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("keydown", (event) => this.keyed(event, true));
    canvas.addEventListener("keyup", (event) => this.keyed(event, false));
    // Keys that are let go of elsewhere are not said to be.
    canvas.addEventListener("blur", () => this.release());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    for (const kind of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => this.pointed(event));
    }
    canvas.addEventListener("wheel", (event) => this.turned(event), { passive: false });
  }

  take(bytes) {
    this.session.take(bytes);
  }

  focus() {
    this.canvas.focus({ preventScroll: true });
  }

  close() {
    this.isOpen = false;
    this.canvas.tabIndex = -1;
    clearInterval(this.typing);
  }

  ring() {
    this.place.classList.add("rings");
    setTimeout(() => this.place.classList.remove("rings"), 150);
  }

  resized() {
    const { width, height } = this.session.picture;
    Object.assign(this.canvas, { width, height });
    this.told("resized", `${width} × ${height}`);
  }

  updated() {
    if (this.isDrawing) return;
    this.isDrawing = true;
    requestAnimationFrame(() => {
      this.isDrawing = false;
      const { picture } = this.session;
      const changed = picture.take();
      if (!changed || picture.width === 0 || picture.height === 0) return;
      const image = new ImageData(picture.points, picture.width, picture.height);
      const { left, top, right, bottom } = changed;
      this.context.putImageData(image, 0, 0, left, top, right - left, bottom - top);
    });
  }

  pointer({ width, height, x, y, points }) {
    const isShown = points.some((value, at) => at % 4 === 3 && value > 0);
    if (!isShown || width > POINTER_MAX || height > POINTER_MAX) {
      this.canvas.style.cursor = "default";
      return;
    }
    const shape = document.createElement("canvas");
    Object.assign(shape, { width, height });
    shape.getContext("2d").putImageData(new ImageData(points, width, height), 0, 0);
    this.canvas.style.cursor = `url(${shape.toDataURL()}) ${x} ${y}, default`;
  }

  // Keys.

  keyed(event, isDown) {
    if (event.ctrlKey && event.altKey && event.key === "Home") return;
    event.preventDefault();
    if (event.isComposing) return;
    if (!isDown) {
      const known = this.down.get(event.code);
      if (known === undefined) return;
      this.down.delete(event.code);
      this.session.key(false, known, position(event.code));
      // While this one is down a Mac does not say that others are let go of.
      if (event.key === "Meta") this.release();
      return;
    }
    // Windows says of its third shift key that control is down as well.
    if (event.key === "AltGraph" && this.down.has("ControlLeft")) {
      this.session.key(false, this.down.get("ControlLeft"), position("ControlLeft"));
      this.down.delete("ControlLeft");
    }
    const known = this.down.get(event.code) ?? keysym(event.key, event.location);
    if (known === 0 && position(event.code) === 0) return;
    this.down.set(event.code, known);
    this.session.key(true, known, position(event.code));
  }

  release() {
    for (const [code, known] of this.down) this.session.key(false, known, position(code));
    this.down.clear();
  }

  /** Presses keys together, by their names and places. */
  press(...keys) {
    const all = keys.map(([name, code]) => [keysym(name, 1), position(code)]);
    for (const [known, place] of all) this.session.key(true, known, place);
    for (const [known, place] of all.reverse()) this.session.key(false, known, place);
  }

  /** Types text, sign by sign; what no keyboard has is left out. */
  type(text) {
    const signs = [...text.replace(/\r\n/g, "\n")].map((sign) => [sign, keysymOfSign(sign)]);
    const known = signs.filter(([, code]) => code > 0);
    clearInterval(this.typing);
    this.typing = setInterval(() => {
      const next = known.shift();
      if (!next || !this.isOpen) {
        clearInterval(this.typing);
        return;
      }
      const [sign, code] = next;
      const needsShift = WITH_SHIFT.has(sign);
      if (needsShift) this.session.key(true, SHIFT, position("ShiftLeft"));
      this.session.key(true, code, 0);
      this.session.key(false, code, 0);
      if (needsShift) this.session.key(false, SHIFT, position("ShiftLeft"));
    }, SIGN_MS);
  }

  // The pointer.

  placeOf(event) {
    const box = this.canvas.getBoundingClientRect();
    const { width, height } = this.session.picture;
    return [
      (event.clientX - box.left) * (width / (box.width || 1)),
      (event.clientY - box.top) * (height / (box.height || 1)),
    ];
  }

  pointed(event) {
    event.preventDefault();
    if (event.type === "pointerdown") {
      this.focus();
      this.canvas.setPointerCapture(event.pointerId);
    }
    let buttons = 0;
    for (const [own, theirs] of BUTTONS) if (event.buttons & own) buttons |= theirs;
    const [x, y] = this.placeOf(event);
    const isMoveAlone = event.type === "pointermove" && this.last?.buttons === buttons;
    this.last = { x, y, buttons };
    if (!isMoveAlone) {
      this.session.pointer(x, y, buttons);
      return;
    }
    // A place for each picture that is shown is enough.
    if (this.isMoving) return;
    this.isMoving = true;
    requestAnimationFrame(() => {
      this.isMoving = false;
      if (this.isOpen) this.session.pointer(this.last.x, this.last.y, this.last.buttons);
    });
  }

  turned(event) {
    event.preventDefault();
    const points = event.deltaMode === 0 ? event.deltaY : event.deltaY * WHEEL_STEP;
    this.wheel += points;
    const [x, y] = this.placeOf(event);
    const buttons = this.last?.buttons ?? 0;
    while (Math.abs(this.wheel) >= WHEEL_STEP) {
      const step = this.wheel < 0 ? 8 : 16;
      this.session.pointer(x, y, buttons | step);
      this.session.pointer(x, y, buttons);
      this.wheel -= Math.sign(this.wheel) * WHEEL_STEP;
    }
  }
}
