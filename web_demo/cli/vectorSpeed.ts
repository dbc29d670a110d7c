// What a processor's vectors give by WebAssembly: the most that any product of matrices can come to here.

const SUMS = 8; // that do not wait for each other; more do not stay in the registers of x86
const LANES = 4; // of float32 in a vector of 128 bits
const ROUNDS = 10_000_000; // a quarter of a second
const TRIALS = 5; // the first ones are of code that is not optimised yet

const I32 = 0x7f;
const V128 = 0x7b;
const F32 = 0x7d;
const GET = 0x20; // of a local
const SET = 0x21;
const TEE = 0x22;
const I32_CONST = 0x41;
const I32_SUB = 0x6b;
const F32_ONE = [0x43, 0, 0, 0x80, 0x3f];
const LOOP = [0x03, 0x40];
const BRANCH_IF = 0x0d;
const END = 0x0b;
const VECTOR = 0xfd; // the prefix of its operators
const SPLAT = [VECTOR, 0x13];
const FIRST_LANE = [VECTOR, 0x1f, 0];
const ADD = [VECTOR, 0xe4, 0x01];
const MULTIPLY = [VECTOR, 0xe6, 0x01];

/** The standard's, of which Node's types know nothing. */
declare const WebAssembly: {
  Module: new (code: Uint8Array) => object;
  Instance: new (module: object) => { readonly exports: Readonly<Record<string, unknown>> };
};

const section = (id: number, ...content: number[]) => [id, ...unsigned(content.length), ...content];

/** LEB128. */
function unsigned(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...unsigned(value >>> 7)];
}

/** `f(rounds)`: in each round every sum s becomes s + s * x. Locals: the rounds left, the sums, x. */
function program(): Uint8Array<ArrayBuffer> {
  const sums = Array.from({ length: SUMS }, (_, i) => i + 1);
  const x = SUMS + 1;
  const code = [
    ...[1, SUMS + 1, V128],
    ...[...F32_ONE, ...SPLAT, SET, x],
    ...LOOP,
    ...sums.flatMap((sum) => [GET, sum, GET, sum, GET, x, ...MULTIPLY, ...ADD, SET, sum]),
    ...[GET, 0, I32_CONST, 1, I32_SUB, TEE, 0, BRANCH_IF, 0, END],
    ...sums.flatMap((sum, i) => [GET, sum, ...(i > 0 ? ADD : [])]),
    ...[...FIRST_LANE, END],
  ];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, 1, 0x60, 1, I32, 1, F32),
    ...section(3, 1, 0),
    ...section(7, 1, 1, "f".charCodeAt(0), 0, 0),
    ...section(10, 1, ...unsigned(code.length), ...code),
  ]);
}

/** Multiplications and additions of float32 a second, each counted, in one thread. */
export function vectorSpeed(): number {
  const f = new WebAssembly.Instance(new WebAssembly.Module(program())).exports["f"] as (rounds: number) => number;
  const seconds = Array.from({ length: TRIALS }, () => {
    const start = performance.now();
    f(ROUNDS);
    return (performance.now() - start) / 1000;
  });
  return (2 * LANES * SUMS * ROUNDS) / Math.min(...seconds);
}
