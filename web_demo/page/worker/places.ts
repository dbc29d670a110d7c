import { OpfsFiles } from "../../kit/io/opfs.js";
import { SlotStorage } from "../../kit/io/slots.js";

// Where what lies in the origin's private file system. A directory of its own for each model's files, run and adapters.

export const MODELS = "models";
export const DATA = "data";
export const RUNS = "runs";
export const ADAPTERS = "adapters";
export const SETTINGS = "settings";

/** Files that are replaced whole, in a directory that is made if need be. Throws IoError. */
export async function storageAt(...parts: readonly string[]): Promise<SlotStorage> {
  return new SlotStorage(await OpfsFiles.open(parts.join("/")));
}

/** A directory that is there, or null. */
async function directoryAt(parts: readonly string[]): Promise<FileSystemDirectoryHandle | null> {
  let directory = await navigator.storage.getDirectory();
  try {
    for (const part of parts) directory = await directory.getDirectoryHandle(part);
    return directory;
  } catch (error) {
    if ((error as Error).name === "NotFoundError") return null;
    throw error;
  }
}

/** The names of the directories within one, which need not be there. */
export async function directoriesAt(...parts: readonly string[]): Promise<string[]> {
  const names: string[] = [];
  const directory = await directoryAt(parts);
  if (directory !== null) for await (const [name, handle] of directory.entries()) if (handle.kind === "directory") names.push(name);
  return names.sort();
}

/** With all that is in it; nothing where it is not there. */
export async function removeAt(...parts: readonly string[]): Promise<void> {
  const parent = await directoryAt(parts.slice(0, -1));
  if (parent === null || (await directoryAt(parts)) === null) return;
  await parent.removeEntry(parts.at(-1)!, { recursive: true });
}

/** Of all files in it. */
export async function bytesAt(...parts: readonly string[]): Promise<number> {
  const directory = await directoryAt(parts);
  return directory === null ? 0 : bytesOf(directory);
}

async function bytesOf(directory: FileSystemDirectoryHandle): Promise<number> {
  let sum = 0;
  for await (const handle of directory.values()) {
    sum +=
      handle.kind === "directory"
        ? await bytesOf(handle as FileSystemDirectoryHandle)
        : (await (handle as FileSystemFileHandle).getFile()).size;
  }
  return sum;
}
