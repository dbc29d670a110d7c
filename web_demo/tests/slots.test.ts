import assert from "node:assert/strict";
import { test } from "node:test";
import { fileOf, IoError, readBounded } from "../kit/io/files.js";
import { SCRATCH, SlotStorage, type RawFiles } from "../kit/io/slots.js";
import { withFile, type Scratch } from "../kit/io/storage.js";
import { utf8 } from "../kit/io/utf8.js";

class Killed extends Error {}

/** Files in memory of a process that is killed after `left` bytes and operations: what it wrote to there stays. */
class Mortal implements RawFiles {
  readonly path = "memory";
  left = Infinity;
  spent = 0;

  constructor(readonly files = new Map<string, Uint8Array>()) {}

  private spend(): void {
    if (this.left-- <= 0) throw new Killed();
    this.spent++;
  }

  async open(name: string) {
    const content = this.files.get(name);
    if (content === undefined) throw new IoError("no such file");
    return fileOf(content, name);
  }

  async list() {
    return [...this.files.keys()];
  }

  async write(name: string, fill: (sink: { write(bytes: Uint8Array): void }) => void) {
    this.spend();
    let content = new Uint8Array();
    this.files.set(name, content);
    fill({
      write: (bytes) => {
        for (const byte of bytes) {
          this.spend();
          content = Uint8Array.from([...content, byte]);
          this.files.set(name, content);
        }
      },
    });
    this.spend();
  }

  async scratch(): Promise<Scratch> {
    const name = `${SCRATCH}1`;
    await this.write(name, () => {});
    return { write: () => {}, read: () => {}, close: () => this.files.delete(name) };
  }

  async remove(name: string) {
    this.spend();
    this.files.delete(name);
  }

  async lock() {
    return () => {};
  }

  async free() {
    return null;
  }
}

const read = (storage: SlotStorage, name: string) =>
  withFile(storage, name, (file) => Buffer.from(readBounded(file, 1000)).toString()).catch((error: Error) => error.message);
const put = (storage: SlotStorage, name: string, text: string) => storage.replace(name, (sink) => [...text].forEach((c) => sink.write(utf8(c))));

test("a file is replaced whole or not at all, whenever the process is killed", async () => {
  const contents = ["", "first", "second, longer", "3"];
  const whole = new Mortal();
  for (const text of contents) await put(new SlotStorage(whole), "x", text);
  let seen = 0;
  for (let life = 0; life < whole.spent; life++) {
    const mortal = new Mortal();
    mortal.left = life;
    const storage = new SlotStorage(mortal);
    let done = 0;
    await assert.rejects(async () => {
      for (; done < contents.length; done++) await put(storage, "x", contents[done]!);
    }, Killed);
    const survivor = new SlotStorage(new Mortal(mortal.files));
    const before = done === 0 ? "no such file" : contents[done - 1];
    const found = await read(survivor, "x");
    assert.ok(found === before || found === contents[done], `killed at ${life}: ${found}`);
    if (found === contents[done]) seen++;
    assert.deepEqual(await survivor.list(), found === "no such file" ? [] : ["x"]);
    await survivor.clean();
    assert.equal(await read(survivor, "x"), found);
    assert.ok(mortal.files.size <= 1);
    await put(survivor, "x", "after");
    assert.equal(await read(survivor, "x"), "after");
  }
  assert.equal(seen, contents.length); // the kill between a write's last byte and its return
});

test("a slot that lost a byte, wherever, does not count", async () => {
  const mortal = new Mortal();
  const storage = new SlotStorage(mortal);
  await put(storage, "x", "old");
  await put(storage, "x", "new");
  const slot = mortal.files.get("x~b")!;
  for (let at = 0; at < slot.length; at++) {
    slot[at]! ^= 1;
    assert.equal(await read(storage, "x"), "old", `byte ${at}`);
    slot[at]! ^= 1;
  }
  assert.equal(await read(storage, "x"), "new");
});

test("a removal that was cut short brings nothing older back", async () => {
  for (let life = 0; life < 3; life++) {
    const mortal = new Mortal(new Map([["x", utf8("plain")]]));
    const storage = new SlotStorage(mortal);
    await put(storage, "x", "old");
    await put(storage, "x", "new");
    mortal.left = life;
    await assert.rejects(storage.remove("x"), Killed);
    assert.equal(await read(new SlotStorage(mortal), "x"), "new");
    mortal.left = Infinity;
    await storage.remove("x");
    assert.equal(mortal.files.size, 0);
  }
});

test("a file that was never replaced is read as it is", async () => {
  const storage = new SlotStorage(new Mortal(new Map([["weights.bin", utf8("w")]])));
  assert.equal(await read(storage, "weights.bin"), "w");
  assert.deepEqual(await storage.list(), ["weights.bin"]);
});

test("temporary files are in no list, and those of a process that was killed are removed", async () => {
  const storage = new SlotStorage(new Mortal());
  const scratch = await storage.scratch();
  assert.deepEqual(await storage.list(), []);
  scratch.close();
  const killed = new Mortal();
  await new SlotStorage(killed).scratch();
  assert.equal(killed.files.size, 1);
  await new SlotStorage(killed).clean();
  assert.equal(killed.files.size, 0);
});
