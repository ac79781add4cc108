// A terminal: what a program writes becomes lines of cells. As much of VT100 and of its successors as a
// login, a shell, an editor and a boot loader use (ECMA-48; DEC's modes by their numbers). Signs are one
// cell wide. Nothing here knows of a browser.

/** Columns and rows that a serial line is taken to have: nobody on it asks. */
export const COLUMNS = 80, ROWS = 24;
/** Lines that have left the screen upwards and are kept. */
export const KEPT_MAX = 2_000;
// Longest order to the terminal, and most of its numbers.
const ORDER_MAX = 256, NUMBERS_MAX = 16;

/** Attributes: bits. */
export const BOLD = 1, FAINT = 2, ITALIC = 4, UNDERLINED = 8, BLINKING = 16, REVERSE = 32, HIDDEN = 64,
  STRUCK = 128;
const ON = { 1: BOLD, 2: FAINT, 3: ITALIC, 4: UNDERLINED, 5: BLINKING, 7: REVERSE, 8: HIDDEN, 9: STRUCK };
const OFF = {
  21: UNDERLINED, 22: BOLD | FAINT, 23: ITALIC, 24: UNDERLINED, 25: BLINKING, 27: REVERSE, 28: HIDDEN,
  29: STRUCK,
};

// Lines and corners: what DEC's set of them has in place of ` to ~.
const DRAWING = "◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·";

// A colour is null (the terminal's own), a number of the palette of 256, or "#rrggbb".
const plain = () => ({ fore: null, back: null, attributes: 0 });
const blank = (pen) => ({ sign: " ", fore: null, back: pen.back, attributes: 0 });

/** The terminal. `answer(text)` is what it says back by itself, `bell()` that it rings. */
export class Terminal {
  constructor({ answer = () => {}, bell = () => {}, columns = COLUMNS, rows = ROWS } = {}) {
    Object.assign(this, { answer, bell, columns, rows });
    this.decoder = new TextDecoder();
    this.kept = [];
    this.dropped = 0;
    this.reset();
  }

  /** As when it is switched on; what has left the screen stays. */
  reset() {
    this.pen = plain();
    this.modes = { arrows: false, bracketed: false, cursor: true, insert: false, newLine: false,
      origin: false, wrap: true };
    this.sets = ["B", "B"];
    this.set = 0;
    this.column = 0;
    this.row = 0;
    this.isPastEnd = false;
    this.top = 0;
    this.bottom = this.rows - 1;
    this.tabs = new Set(Array.from({ length: this.columns }, (_, at) => at).filter((at) => at % 8 === 0));
    this.lines = this.emptyLines();
    this.other = null;
    this.saved = this.place();
    this.reading = this.ground;
    this.touched = new Set(this.lines.keys());
  }

  emptyLines() {
    return Array.from({ length: this.rows }, () => this.emptyLine());
  }

  emptyLine() {
    return Array.from({ length: this.columns }, () => blank(this.pen));
  }

  /** Takes in bytes of UTF-8. */
  take(bytes) {
    for (const sign of this.decoder.decode(bytes, { stream: true })) this.reading(sign);
  }

  /** What is on the screen, as text. */
  text() {
    const line = (cells) => cells.map((cell) => cell.sign).join("").trimEnd();
    return this.lines.map(line).join("\n").trimEnd();
  }

  touch(first, last = first) {
    for (let row = first; row <= last; row += 1) this.touched.add(row);
  }

  // States of reading; each takes one sign.

  ground(sign) {
    const code = sign.codePointAt(0);
    if (code < 0x20 || code === 0x7f) this.control(code);
    else this.write(sign);
  }

  control(code) {
    switch (code) {
      case 0x07: return this.bell();
      case 0x08: return this.moveTo(this.row, this.column - 1);
      case 0x09: return this.tab(1);
      case 0x0a: case 0x0b: case 0x0c:
        if (this.modes.newLine) this.column = 0;
        return this.down();
      case 0x0d: return this.moveTo(this.row, 0);
      case 0x0e: this.set = 1; return undefined;
      case 0x0f: this.set = 0; return undefined;
      case 0x18: case 0x1a: this.reading = this.ground; return undefined;
      case 0x1b: this.reading = this.escape; return undefined;
      default: return undefined;
    }
  }

  escape(sign) {
    this.reading = this.ground;
    switch (sign) {
      case "[": this.order = ""; this.reading = this.orders; break;
      case "]": case "P": case "X": case "^": case "_": this.order = ""; this.reading = this.texts; break;
      case "(": case ")": this.reading = (name) => this.choose(sign === "(" ? 0 : 1, name); break;
      case "*": case "+": case "-": case ".": case "/": case "#": case "%": case " ":
        this.reading = () => { this.reading = this.ground; };
        break;
      case "7": this.saved = this.place(); break;
      case "8": this.restore(); break;
      case "D": this.down(); break;
      case "E": this.column = 0; this.down(); break;
      case "H": this.tabs.add(this.column); break;
      case "M": this.up(); break;
      case "c": this.reset(); break;
      default: if (sign < " ") this.control(sign.codePointAt(0)); break;
    }
  }

  choose(which, name) {
    this.sets[which] = name;
    this.reading = this.ground;
  }

  /** Titles and the like: read up to their end, and let go. */
  texts(sign) {
    const code = sign.codePointAt(0);
    if (code === 0x07 || code === 0x18 || code === 0x1a) this.reading = this.ground;
    // What ends it is ESC and a backslash, of which the second is no order of ours.
    else if (code === 0x1b) this.reading = this.escape;
  }

  orders(sign) {
    const code = sign.codePointAt(0);
    if (code < 0x20) return this.control(code);
    if (code < 0x40) {
      this.order += sign;
      if (this.order.length > ORDER_MAX) this.reading = this.ground;
      return undefined;
    }
    this.reading = this.ground;
    const found = /^([<=>?]?)([0-9;:]*)([ -/]*)$/.exec(this.order);
    if (!found || code > 0x7e) return undefined;
    const [, mark, numbers, between] = found;
    const all = numbers.split(";").slice(0, NUMBERS_MAX);
    return this.obey(mark + between + sign, all);
  }

  obey(order, all) {
    const number = (at, otherwise) => {
      const value = Number.parseInt(all[at] ?? "", 10);
      return Number.isNaN(value) ? otherwise : Math.min(value, 65_535);
    };
    // A count of none is a count of one.
    const count = Math.max(1, number(0, 1));
    const { row, column, columns } = this;
    switch (order) {
      case "@": return this.shift(count);
      case "A": return this.moveTo(Math.max(row - count, row >= this.top ? this.top : 0), column);
      case "B": case "e":
        return this.moveTo(Math.min(row + count, row <= this.bottom ? this.bottom : this.rows - 1), column);
      case "C": case "a": return this.moveTo(row, column + count);
      case "D": return this.moveTo(row, column - count);
      case "E": return this.moveTo(Math.min(row + count, this.bottom), 0);
      case "F": return this.moveTo(Math.max(row - count, this.top), 0);
      case "G": case "`": return this.moveTo(row, count - 1);
      case "H": case "f": return this.moveWithin(count - 1, Math.max(1, number(1, 1)) - 1);
      case "I": return this.tab(count);
      case "J": return this.eraseScreen(number(0, 0));
      case "K": return this.eraseLine(number(0, 0));
      case "L": return this.openLines(count);
      case "M": return this.closeLines(count);
      case "P": return this.shift(-count);
      case "S": return this.scroll(this.top, this.bottom, count);
      case "T": return this.scroll(this.top, this.bottom, -count);
      case "X": return this.blank(row, column, Math.min(columns, column + count));
      case "Z": return this.tab(-count);
      case "b": {
        const times = Math.min(count, this.columns * this.rows);
        for (let one = 0; this.last && one < times; one += 1) this.write(this.last);
        return undefined;
      }
      case "c": return number(0, 0) === 0 ? this.answer("\x1b[?6c") : undefined;
      case "d": return this.moveWithin(count - 1, column);
      case "g":
        if (number(0, 0) === 0) this.tabs.delete(column);
        if (number(0, 0) === 3) this.tabs.clear();
        return undefined;
      case "h": case "l": return this.plainMode(all, order === "h");
      case "?h": case "?l": return this.decMode(all, order === "?h");
      case "m": return this.colours(all);
      case "n":
        if (number(0, 0) === 5) this.answer("\x1b[0n");
        if (number(0, 0) === 6) {
          const above = this.modes.origin ? this.top : 0;
          this.answer(`\x1b[${row - above + 1};${column + 1}R`);
        }
        return undefined;
      case "!p": return this.softReset();
      case "r": return this.region(number(0, 1), number(1, this.rows));
      case "s": this.saved = this.place(); return undefined;
      case "u": return this.restore();
      default: return undefined;
    }
  }

  // Where the cursor is.

  place() {
    const { row, column, pen, set, isPastEnd } = this;
    return { row, column, set, isPastEnd, pen: { ...pen }, sets: [...this.sets], origin: this.modes.origin };
  }

  restore() {
    const { row, column, pen, set, sets, isPastEnd, origin } = this.saved;
    this.modes.origin = origin;
    this.moveTo(row, column);
    Object.assign(this, { pen: { ...pen }, set, sets: [...sets], isPastEnd });
  }

  moveTo(row, column) {
    this.touch(this.row);
    this.row = Math.max(0, Math.min(row, this.rows - 1));
    this.column = Math.max(0, Math.min(column, this.columns - 1));
    this.isPastEnd = false;
    this.touch(this.row);
  }

  moveWithin(row, column) {
    if (!this.modes.origin) return this.moveTo(row, column);
    return this.moveTo(Math.min(this.top + row, this.bottom), column);
  }

  tab(count) {
    const step = Math.sign(count);
    let { column } = this;
    for (let left = Math.abs(count); left > 0; left -= 1) {
      do column += step; while (column > 0 && column < this.columns - 1 && !this.tabs.has(column));
      if (column <= 0 || column >= this.columns - 1) break;
    }
    this.moveTo(this.row, column);
  }

  down() {
    if (this.row === this.bottom) this.scroll(this.top, this.bottom, 1);
    else this.moveTo(this.row + 1, this.column);
    this.isPastEnd = false;
  }

  up() {
    if (this.row === this.top) this.scroll(this.top, this.bottom, -1);
    else this.moveTo(this.row - 1, this.column);
  }

  region(first, last) {
    const bottom = Math.min(last, this.rows) - 1;
    const top = Math.max(first, 1) - 1;
    if (top >= bottom) return;
    Object.assign(this, { top, bottom });
    this.moveWithin(0, 0);
  }

  // What is on the screen.

  write(sign) {
    if (this.isPastEnd && this.modes.wrap) {
      this.column = 0;
      this.down();
    }
    const line = this.lines[this.row];
    if (this.modes.insert) {
      line.splice(this.column, 0, blank(this.pen));
      line.length = this.columns;
    }
    let shown = sign;
    if (this.sets[this.set] === "0" && sign >= "`" && sign <= "~") {
      shown = [...DRAWING][sign.charCodeAt(0) - 0x60];
    }
    line[this.column] = { sign: shown, ...this.pen };
    this.last = sign;
    this.touch(this.row);
    if (this.column === this.columns - 1) this.isPastEnd = true;
    else this.column += 1;
  }

  /** Upwards by so many lines, downwards when there are fewer than none. */
  scroll(top, bottom, count) {
    const height = bottom - top + 1;
    const many = Math.min(Math.abs(count), height);
    for (let one = 0; one < many; one += 1) {
      if (count > 0) {
        const [gone] = this.lines.splice(top, 1);
        this.lines.splice(bottom, 0, this.emptyLine());
        if (top === 0 && !this.other) this.keep(gone);
      } else {
        this.lines.splice(bottom, 1);
        this.lines.splice(top, 0, this.emptyLine());
      }
    }
    this.touch(top, bottom);
  }

  keep(line) {
    this.kept.push(line);
    if (this.kept.length > KEPT_MAX) {
      this.kept.shift();
      this.dropped += 1;
    }
  }

  openLines(count) {
    if (this.row < this.top || this.row > this.bottom) return;
    this.scroll(this.row, this.bottom, -count);
    this.moveTo(this.row, 0);
  }

  closeLines(count) {
    if (this.row < this.top || this.row > this.bottom) return;
    const many = Math.min(count, this.bottom - this.row + 1);
    for (let one = 0; one < many; one += 1) {
      this.lines.splice(this.row, 1);
      this.lines.splice(this.bottom, 0, this.emptyLine());
    }
    this.touch(this.row, this.bottom);
    this.moveTo(this.row, 0);
  }

  /** Makes room for so many signs, or takes so many away when there are fewer than none. */
  shift(count) {
    const line = this.lines[this.row];
    const many = Math.min(Math.abs(count), this.columns - this.column);
    for (let one = 0; one < many; one += 1) {
      if (count > 0) {
        line.splice(this.column, 0, blank(this.pen));
        line.length = this.columns;
      } else {
        line.splice(this.column, 1);
        line.push(blank(this.pen));
      }
    }
    this.isPastEnd = false;
    this.touch(this.row);
  }

  blank(row, from, to) {
    const line = this.lines[row];
    for (let at = from; at < to; at += 1) line[at] = blank(this.pen);
    this.touch(row);
  }

  eraseLine(how) {
    this.isPastEnd = false;
    if (how === 0) this.blank(this.row, this.column, this.columns);
    if (how === 1) this.blank(this.row, 0, this.column + 1);
    if (how === 2) this.blank(this.row, 0, this.columns);
  }

  eraseScreen(how) {
    if (how === 3) {
      this.dropped += this.kept.length;
      this.kept = [];
      return;
    }
    if (how > 3) return;
    this.eraseLine(how);
    const first = how === 0 ? this.row + 1 : 0;
    const last = how === 1 ? this.row - 1 : this.rows - 1;
    for (let row = first; row <= last; row += 1) this.blank(row, 0, this.columns);
  }

  // How it behaves.

  plainMode(all, isOn) {
    if (all.includes("4")) this.modes.insert = isOn;
    if (all.includes("20")) this.modes.newLine = isOn;
  }

  decMode(all, isOn) {
    for (const one of all) {
      switch (one) {
        case "1": this.modes.arrows = isOn; break;
        case "6": this.modes.origin = isOn; this.moveWithin(0, 0); break;
        case "7": this.modes.wrap = isOn; break;
        case "25": this.modes.cursor = isOn; this.touch(this.row); break;
        case "47": case "1047": this.screen(isOn); break;
        case "1048": if (isOn) this.saved = this.place(); else this.restore(); break;
        case "1049":
          if (isOn) this.saved = this.place();
          this.screen(isOn);
          if (!isOn) this.restore();
          break;
        case "2004": this.modes.bracketed = isOn; break;
        default: break;
      }
    }
  }

  /** To the other screen, which keeps nothing, or back. */
  screen(isOther) {
    if (isOther === (this.other !== null)) return;
    if (isOther) {
      this.other = this.lines;
      this.lines = this.emptyLines();
    } else {
      this.lines = this.other;
      this.other = null;
    }
    this.touch(0, this.rows - 1);
  }

  softReset() {
    this.pen = plain();
    Object.assign(this.modes, { arrows: false, cursor: true, insert: false, origin: false, wrap: true });
    Object.assign(this, { top: 0, bottom: this.rows - 1, set: 0, sets: ["B", "B"] });
    this.saved = { ...this.place(), row: 0, column: 0 };
    this.touch(this.row);
  }

  colours(all) {
    for (let at = 0; at < all.length; at += 1) {
      const code = Number.parseInt(all[at] || "0", 10);
      if (code === 0) this.pen = plain();
      else if (code in ON) this.pen.attributes |= ON[code];
      else if (code in OFF) this.pen.attributes &= ~OFF[code];
      else if (code >= 30 && code <= 37) this.pen.fore = code - 30;
      else if (code === 39) this.pen.fore = null;
      else if (code >= 40 && code <= 47) this.pen.back = code - 40;
      else if (code === 49) this.pen.back = null;
      else if (code >= 90 && code <= 97) this.pen.fore = code - 82;
      else if (code >= 100 && code <= 107) this.pen.back = code - 92;
      else if (code === 38 || code === 48) {
        // 38;5;n and 38;2;r;g;b, and the same with colons in one number.
        const inOne = all[at].includes(":");
        const rest = inOne ? all[at].split(":").slice(1) : all.slice(at + 1);
        const [colour, used] = chosen(rest);
        if (colour !== undefined) this.pen[code === 38 ? "fore" : "back"] = colour;
        if (!inOne) at += used;
      }
    }
  }
}

/** A colour of 256, or of its parts, and how many numbers it took. */
function chosen(numbers) {
  const byte = (text) => Math.min(255, Number.parseInt(text || "0", 10) || 0);
  if (numbers[0] === "5" && numbers.length > 1) return [byte(numbers[1]), 2];
  if (numbers[0] === "2" && numbers.length > 3) {
    // Between colons there is a space of colours, too, which is left empty.
    const parts = numbers.length > 4 && numbers[1] === "" ? numbers.slice(2, 5) : numbers.slice(1, 4);
    const hex = parts.map((part) => byte(part).toString(16).padStart(2, "0"));
    return [`#${hex.join("")}`, 4];
  }
  return [undefined, numbers.length];
}

/** A colour of the palette of 256 from its 17th on, as "#rrggbb": a cube of 6³, then 24 greys. */
export function ofPalette(number) {
  const hex = (value) => value.toString(16).padStart(2, "0");
  if (number >= 232) return `#${hex(8 + (number - 232) * 10).repeat(3)}`;
  const step = (value) => hex(value === 0 ? 0 : 55 + value * 40);
  const cube = number - 16;
  return `#${step(Math.floor(cube / 36))}${step(Math.floor(cube / 6) % 6)}${step(cube % 6)}`;
}
