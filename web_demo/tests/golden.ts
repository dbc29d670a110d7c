import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";

// The files that every language's tests read: of the repository, and the bundles that scripts/testing/export_test_bundles.py writes.

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
export const BUNDLES = process.env["LCSB_TEST_BUNDLES"] ?? join(ROOT, "build/device-bundles");

export const goldenPath = (name: string): string => join(ROOT, "tests/golden", name);

export const goldenJson = (name: string) => JSON.parse(readFileSync(goldenPath(name), "utf8"));

export const bundlesJson = (name: string) => JSON.parse(readFileSync(join(BUNDLES, name), "utf8"));
