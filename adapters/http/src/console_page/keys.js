// Keys: what a browser says of them, as keysyms of X11 (RFC 6143 §7.5.4), as places on a keyboard, and as
// what a serial terminal sends.

// By the name of the key, sorted; where there are two of one, the left and the right one.
const KEYSYMS = {
  Alt: [0xffe9, 0xffea],
  AltGraph: [0xfe03, 0xfe03],
  ArrowDown: [0xff54, 0xff54],
  ArrowLeft: [0xff51, 0xff51],
  ArrowRight: [0xff53, 0xff53],
  ArrowUp: [0xff52, 0xff52],
  Backspace: [0xff08, 0xff08],
  CapsLock: [0xffe5, 0xffe5],
  ContextMenu: [0xff67, 0xff67],
  Control: [0xffe3, 0xffe4],
  Delete: [0xffff, 0xffff],
  End: [0xff57, 0xff57],
  Enter: [0xff0d, 0xff0d],
  Escape: [0xff1b, 0xff1b],
  Home: [0xff50, 0xff50],
  Insert: [0xff63, 0xff63],
  Meta: [0xffeb, 0xffec],
  NumLock: [0xff7f, 0xff7f],
  PageDown: [0xff56, 0xff56],
  PageUp: [0xff55, 0xff55],
  Pause: [0xff13, 0xff13],
  PrintScreen: [0xff61, 0xff61],
  ScrollLock: [0xff14, 0xff14],
  Shift: [0xffe1, 0xffe2],
  Tab: [0xff09, 0xff09],
};

// Those of the block of digits on the right, by the name of the key.
const OF_DIGITS = {
  "*": 0xffaa, "+": 0xffab, ",": 0xffac, "-": 0xffad, ".": 0xffae, "/": 0xffaf,
  ArrowDown: 0xff99, ArrowLeft: 0xff96, ArrowRight: 0xff98, ArrowUp: 0xff97, Clear: 0xff9d,
  Delete: 0xff9f, End: 0xff9c, Enter: 0xff8d, Home: 0xff95, Insert: 0xff9e, PageDown: 0xff9b,
  PageUp: 0xff9a,
};

const RIGHT = 2, DIGITS = 3;

/** The keysym of one sign. */
export function keysymOfSign(sign) {
  const code = sign.codePointAt(0);
  if (code === 0x0a || code === 0x0d) return 0xff0d;
  if (code === 0x09) return 0xff09;
  if (code < 0x20 || (code > 0x7e && code < 0xa0)) return 0;
  return code < 0x100 ? code : 0x01000000 + code;
}

/** The keysym of a key by its name and where on the keyboard it is; 0 when there is none. */
export function keysym(key, location) {
  if (location === DIGITS) {
    if (key >= "0" && key <= "9" && key.length === 1) return 0xffb0 + Number(key);
    if (key in OF_DIGITS) return OF_DIGITS[key];
  }
  if (Object.hasOwn(KEYSYMS, key)) return KEYSYMS[key][location === RIGHT ? 1 : 0];
  const numbered = /^F([1-9]|1[0-9]|2[0-4])$/.exec(key);
  if (numbered) return 0xffbd + Number(numbered[1]);
  // One sign, however many halves it is written in; what is longer is the name of a key.
  return [...key].length === 1 ? keysymOfSign(key) : 0;
}

// Places on a keyboard, by the number that a PC's keyboard has sent since 1981: rows of it in turn.
const ROWS = [
  [0x01, "Escape Digit1 Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9 Digit0 Minus Equal Backspace"],
  [0x0f, "Tab KeyQ KeyW KeyE KeyR KeyT KeyY KeyU KeyI KeyO KeyP BracketLeft BracketRight Enter ControlLeft"],
  [0x1e, "KeyA KeyS KeyD KeyF KeyG KeyH KeyJ KeyK KeyL Semicolon Quote Backquote ShiftLeft Backslash"],
  [0x2c, "KeyZ KeyX KeyC KeyV KeyB KeyN KeyM Comma Period Slash ShiftRight NumpadMultiply AltLeft Space CapsLock"],
  [0x3b, "F1 F2 F3 F4 F5 F6 F7 F8 F9 F10 NumLock ScrollLock Numpad7 Numpad8 Numpad9 NumpadSubtract"],
  [0x4b, "Numpad4 Numpad5 Numpad6 NumpadAdd Numpad1 Numpad2 Numpad3 Numpad0 NumpadDecimal"],
  [0x56, "IntlBackslash F11 F12"],
  // Those that came later send 0xe0 before their number, which is written as its highest bit.
  [0x9c, "NumpadEnter ControlRight"],
  [0xb5, "NumpadDivide"],
  [0xb7, "PrintScreen AltRight"],
  [0xc6, "Pause Home ArrowUp PageUp"],
  [0xcb, "ArrowLeft"],
  [0xcd, "ArrowRight"],
  [0xcf, "End ArrowDown PageDown Insert Delete"],
  [0xdb, "MetaLeft MetaRight ContextMenu"],
];
const POSITIONS = new Map(
  ROWS.flatMap(([first, names]) => names.split(" ").map((name, at) => [name, first + at])),
);

/** The number of a key's place on a keyboard; 0 when nobody knows it. */
export function position(code) {
  return POSITIONS.get(code) ?? 0;
}

// What keys send that write nothing: a letter behind CSI (or SS3), or a number before `~`.
const LETTERS = {
  ArrowDown: "B", ArrowLeft: "D", ArrowRight: "C", ArrowUp: "A", End: "F", F1: "P", F2: "Q", F3: "R",
  F4: "S", Home: "H",
};
const NUMBERS = {
  Delete: 3, F10: 21, F11: 23, F12: 24, F5: 15, F6: 17, F7: 18, F8: 19, F9: 20, Insert: 2, PageDown: 6,
  PageUp: 5,
};
const PLAIN = { Backspace: "\x7f", Enter: "\r", Escape: "\x1b", Tab: "\t" };
// With the control key, besides letters.
const CONTROLS = { " ": 0, "/": 31, "2": 0, "3": 27, "4": 28, "5": 29, "6": 30, "7": 31, "8": 127, "?": 127 };

/** What a serial terminal sends for a key; null when nothing. `modes.arrows`: as the program asked for. */
export function bytesOfKey(event, modes) {
  const { key, ctrlKey, altKey, shiftKey } = event;
  const modifier = 1 + (shiftKey ? 1 : 0) + (altKey ? 2 : 0) + (ctrlKey ? 4 : 0);
  if (Object.hasOwn(LETTERS, key)) {
    if (modifier > 1) return `\x1b[1;${modifier}${LETTERS[key]}`;
    const isFunction = key.length === 2;
    return `\x1b${isFunction || modes.arrows ? "O" : "["}${LETTERS[key]}`;
  }
  if (Object.hasOwn(NUMBERS, key)) {
    return modifier > 1 ? `\x1b[${NUMBERS[key]};${modifier}~` : `\x1b[${NUMBERS[key]}~`;
  }
  if (key === "Tab" && shiftKey) return "\x1b[Z";
  const before = altKey && !event.getModifierState?.("AltGraph") ? "\x1b" : "";
  if (Object.hasOwn(PLAIN, key)) return before + PLAIN[key];
  if ([...key].length !== 1) return null;
  if (ctrlKey && !event.getModifierState?.("AltGraph")) {
    const code = key.toUpperCase().charCodeAt(0);
    if (code >= 0x40 && code <= 0x5f) return before + String.fromCharCode(code & 31);
    if (Object.hasOwn(CONTROLS, key)) return before + String.fromCharCode(CONTROLS[key]);
    return null;
  }
  return before + key;
}
