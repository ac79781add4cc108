// A screen by RFB 3.8 (RFC 6143). What comes is read into a picture in memory; nothing here knows of
// a browser, so that it runs wherever there are bytes.

// Largest screen in points, and longest texts in bytes: what is longer is a fault of the other side.
const POINTS_MAX = 1 << 26;
const TEXT_BYTES_MAX = 1 << 20;

const RAW = 0, COPY_RECT = 1, HEXTILE = 5;
const CURSOR = -239, DESKTOP_SIZE = -223, KEYS_BY_POSITION = -258;
// Wished for in turn.
const ENCODINGS = [HEXTILE, COPY_RECT, RAW, CURSOR, DESKTOP_SIZE, KEYS_BY_POSITION];
// Parts of a tile (RFC 6143 §7.7.4).
const TILE_RAW = 1, TILE_BACK = 2, TILE_FORE = 4, TILE_PARTS = 8, TILE_COLOURED = 16;
const TILE = 16;

/** What came cannot be understood, or is not wanted; its message is for people. */
export class Fault extends Error {}

/** A picture: four bytes a point (red, green, blue, 255), and what of it was changed. */
export class Picture {
  constructor(width, height) {
    this.resize(width, height);
  }

  resize(width, height) {
    if (width * height > POINTS_MAX) throw new Fault(`a screen of ${width} × ${height} is too large`);
    this.width = width;
    this.height = height;
    this.points = new Uint8ClampedArray(width * height * 4).fill(0);
    for (let at = 3; at < this.points.length; at += 4) this.points[at] = 255;
    this.changed = { left: 0, top: 0, right: width, bottom: height };
  }

  /** Notes that a part was changed; it is in the picture, or it is a fault. */
  touch(x, y, width, height) {
    if (x + width > this.width || y + height > this.height) {
      throw new Fault(`a part of ${width} × ${height} at ${x}, ${y} is not on the screen`);
    }
    const { left, top, right, bottom } = this.changed ?? { left: x, top: y, right: x, bottom: y };
    this.changed = {
      left: Math.min(left, x), top: Math.min(top, y),
      right: Math.max(right, x + width), bottom: Math.max(bottom, y + height),
    };
  }

  /** Puts points there: four bytes each, of which the last says nothing. */
  put(x, y, width, height, bytes) {
    const { points } = this;
    for (let row = 0, from = 0; row < height; row += 1) {
      let to = ((y + row) * this.width + x) * 4;
      for (let column = 0; column < width; column += 1, from += 4, to += 4) {
        points[to] = bytes[from];
        points[to + 1] = bytes[from + 1];
        points[to + 2] = bytes[from + 2];
      }
    }
  }

  /** Fills a part with one point's bytes. */
  fill(x, y, width, height, point) {
    const { points } = this;
    for (let row = y; row < y + height; row += 1) {
      let to = (row * this.width + x) * 4;
      for (let column = 0; column < width; column += 1, to += 4) {
        points[to] = point[0];
        points[to + 1] = point[1];
        points[to + 2] = point[2];
      }
    }
  }

  /** Copies a part to elsewhere; the two may overlap. */
  copy(fromX, fromY, x, y, width, height) {
    if (fromX + width > this.width || fromY + height > this.height) {
      throw new Fault("a part that is to be copied is not on the screen");
    }
    for (let step = 0; step < height; step += 1) {
      // Upwards or downwards, so that no row is written before it was read.
      const row = fromY < y ? height - 1 - step : step;
      const from = ((fromY + row) * this.width + fromX) * 4;
      this.points.copyWithin(((y + row) * this.width + x) * 4, from, from + width * 4);
    }
  }

  /** What was changed since it was last asked for; null when nothing was. */
  take() {
    const { changed } = this;
    this.changed = null;
    return changed;
  }
}

/** Bytes that have come and were not read yet. */
class Waiting {
  constructor() {
    this.pieces = [];
    this.length = 0;
    this.read = 0;
  }

  push(piece) {
    if (piece.length === 0) return;
    this.pieces.push(piece);
    this.length += piece.length;
  }

  /** So many bytes, which are there. */
  take(count) {
    this.length -= count;
    const [first] = this.pieces;
    if (count > 0 && first.length - this.read >= count) {
      const taken = first.subarray(this.read, this.read + count);
      this.read += count;
      if (this.read === first.length) this.next();
      return taken;
    }
    const taken = new Uint8Array(count);
    for (let at = 0; at < count;) {
      const part = this.pieces[0].subarray(this.read, this.read + count - at);
      taken.set(part, at);
      at += part.length;
      this.read += part.length;
      if (this.read === this.pieces[0].length) this.next();
    }
    return taken;
  }

  next() {
    this.pieces.shift();
    this.read = 0;
  }
}

const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const latin1 = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");

/**
 * One session. `send(bytes)` sends; `told` is told: `ready(name)`, `resized()`, `updated()`, `bell()`,
 * `clipboard(text)`, `cursor({width, height, x, y, points})`.
 */
export class Session {
  constructor(send, told) {
    this.send = send;
    this.told = told;
    this.picture = new Picture(0, 0);
    this.isReady = false;
    this.keysByPosition = false;
    this.waiting = new Waiting();
    this.reading = this.converse();
    this.wanted = this.reading.next().value;
  }

  /** Takes in what came. Throws a fault when it cannot be understood. */
  take(piece) {
    this.waiting.push(piece);
    while (this.waiting.length >= this.wanted) {
      this.wanted = this.reading.next(this.waiting.take(this.wanted)).value;
    }
  }

  /** A key goes down or up: its keysym, and where it is (0 when nobody knows). */
  key(isDown, keysym, position) {
    if (!this.isReady) return;
    if (this.keysByPosition && position > 0) {
      const message = view(new Uint8Array(12));
      message.setUint8(0, 255);
      message.setUint16(2, isDown ? 1 : 0);
      message.setUint32(4, keysym);
      message.setUint32(8, position);
      this.send(new Uint8Array(message.buffer));
    } else if (keysym > 0) {
      const message = view(new Uint8Array(8));
      message.setUint8(0, 4);
      message.setUint8(1, isDown ? 1 : 0);
      message.setUint32(4, keysym);
      this.send(new Uint8Array(message.buffer));
    }
  }

  /** The pointer is there, with these buttons down: 1 left, 2 middle, 4 right, 8 up, 16 down. */
  pointer(x, y, buttons) {
    if (!this.isReady) return;
    const within = (value, size) => Math.max(0, Math.min(Math.floor(value), size - 1));
    const message = view(new Uint8Array(6));
    message.setUint8(0, 5);
    message.setUint8(1, buttons);
    message.setUint16(2, within(x, this.picture.width));
    message.setUint16(4, within(y, this.picture.height));
    this.send(new Uint8Array(message.buffer));
  }

  /** Gives text to the guest's clipboard; what is not Latin-1 becomes a question mark. */
  clipboard(text) {
    if (!this.isReady) return;
    const bytes = Array.from(text.slice(0, 1 << 15), (sign) => {
      const code = sign.codePointAt(0);
      return code < 256 ? code : 63;
    });
    const message = new Uint8Array(8 + bytes.length);
    message[0] = 6;
    view(message).setUint32(4, bytes.length);
    message.set(bytes, 8);
    this.send(message);
  }

  /** Asks for the screen, or for what is new of it: alone in its message, for it is nobody's doing. */
  ask(isNewAlone) {
    const message = view(new Uint8Array(10));
    message.setUint8(0, 3);
    message.setUint8(1, isNewAlone ? 1 : 0);
    message.setUint16(6, this.picture.width);
    message.setUint16(8, this.picture.height);
    this.send(new Uint8Array(message.buffer));
  }

  // Everything below reads: it yields how many bytes it wants, and is given them.

  *converse() {
    const version = latin1(yield 12);
    if (!version.startsWith("RFB ")) throw new Fault("what answers is no screen");
    if (version < "RFB 003.008") throw new Fault(`the screen speaks ${version.trim()}; 3.8 is needed`);
    this.send(Uint8Array.from("RFB 003.008\n", (sign) => sign.charCodeAt(0)));
    const [kinds] = yield 1;
    if (kinds === 0) throw new Fault(`the screen refuses: ${yield* this.text()}`);
    if (!(yield kinds).includes(1)) throw new Fault("the screen asks for a password, which nobody has");
    this.send(Uint8Array.of(1));
    if (view(yield 4).getUint32(0) !== 0) throw new Fault(`the screen refuses: ${yield* this.text()}`);
    // Others may look as well.
    this.send(Uint8Array.of(1));
    const size = view(yield 20);
    this.picture.resize(size.getUint16(0), size.getUint16(2));
    const name = yield* this.text();
    // 32 bits a point, of which 24 count, the lowest byte first: red, green, blue, nothing.
    this.send(Uint8Array.of(0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0));
    const wishes = view(new Uint8Array(4 + 4 * ENCODINGS.length));
    wishes.setUint8(0, 2);
    wishes.setUint16(2, ENCODINGS.length);
    ENCODINGS.forEach((one, at) => wishes.setInt32(4 + 4 * at, one));
    this.send(new Uint8Array(wishes.buffer));
    this.isReady = true;
    this.told.resized();
    this.told.ready(name);
    this.ask(false);
    for (;;) yield* this.message();
  }

  *message() {
    const [kind] = yield 1;
    switch (kind) {
      case 0:
        return yield* this.update();
      case 1: {
        // Colours of a table, which was not asked for.
        const head = view(yield 5);
        yield head.getUint16(3) * 6;
        return undefined;
      }
      case 2:
        return this.told.bell();
      case 3:
        yield 3;
        return this.told.clipboard(yield* this.text());
      default:
        throw new Fault(`a message of kind ${kind} is not known`);
    }
  }

  *text() {
    const length = view(yield 4).getUint32(0);
    if (length > TEXT_BYTES_MAX) throw new Fault(`a text of ${length} bytes is too long`);
    return latin1(yield length);
  }

  *update() {
    const count = view(yield 3).getUint16(1);
    let isResized = false;
    for (let part = 0; part < count; part += 1) {
      const head = view(yield 12);
      const [x, y, width, height] = [0, 2, 4, 6].map((at) => head.getUint16(at));
      const encoding = head.getInt32(8);
      switch (encoding) {
        case RAW:
          this.picture.touch(x, y, width, height);
          this.picture.put(x, y, width, height, yield width * height * 4);
          break;
        case COPY_RECT: {
          const from = view(yield 4);
          this.picture.touch(x, y, width, height);
          this.picture.copy(from.getUint16(0), from.getUint16(2), x, y, width, height);
          break;
        }
        case HEXTILE:
          this.picture.touch(x, y, width, height);
          yield* this.tiles(x, y, width, height);
          break;
        case CURSOR:
          yield* this.cursor(x, y, width, height);
          break;
        case DESKTOP_SIZE:
          this.picture.resize(width, height);
          isResized = true;
          this.told.resized();
          break;
        case KEYS_BY_POSITION:
          this.keysByPosition = true;
          break;
        default:
          throw new Fault(`a part of the screen came in a way that was not asked for (${encoding})`);
      }
    }
    this.told.updated();
    this.ask(!isResized);
  }

  *tiles(left, top, width, height) {
    const { picture } = this;
    let back = new Uint8Array(4), fore = new Uint8Array(4);
    for (let y = 0; y < height; y += TILE) {
      const high = Math.min(TILE, height - y);
      for (let x = 0; x < width; x += TILE) {
        const wide = Math.min(TILE, width - x);
        const [parts] = yield 1;
        if (parts & TILE_RAW) {
          picture.put(left + x, top + y, wide, high, yield wide * high * 4);
          continue;
        }
        if (parts & TILE_BACK) back = (yield 4).slice();
        if (parts & TILE_FORE) fore = (yield 4).slice();
        picture.fill(left + x, top + y, wide, high, back);
        if (!(parts & TILE_PARTS)) continue;
        const [count] = yield 1;
        const size = parts & TILE_COLOURED ? 6 : 2;
        const all = yield count * size;
        for (let at = 0; at < all.length; at += size) {
          const place = all[at + size - 2], extent = all[at + size - 1];
          const [dx, dy] = [place >> 4, place & 15];
          const [w, h] = [(extent >> 4) + 1, (extent & 15) + 1];
          if (dx + w > wide || dy + h > high) throw new Fault("a part of a tile is outside of it");
          const point = parts & TILE_COLOURED ? all.subarray(at, at + 4) : fore;
          picture.fill(left + x + dx, top + y + dy, w, h, point);
        }
      }
    }
  }

  *cursor(x, y, width, height) {
    const bytes = yield width * height * 4;
    const points = new Uint8ClampedArray(bytes);
    const row = (width + 7) >> 3;
    const mask = yield row * height;
    for (let at = 0; at < width * height; at += 1) {
      const column = at % width;
      const isShown = mask[Math.floor(at / width) * row + (column >> 3)] & (128 >> (column & 7));
      points[at * 4 + 3] = isShown ? 255 : 0;
    }
    this.told.cursor({ width, height, x, y, points });
  }
}
