import { choice, flag, int32, integer, list, map, nullable, number, optional, record, text, type Decoded } from "../io/records.js";

// What a manifest says of the model and of how it is trained. What a step computes of scales, angles and caps is in the programs.

/**
 * How RoPE's inverse frequencies are stretched: `linear` divides them by `factor`; `llama3` is Llama 3.1's rule; `yarn` divides slow ones,
 * keeps fast ones and interpolates between (arXiv 2309.00071); `longrope` divides each by its own `shortFactor` (arXiv 2402.13753);
 * `dynamic` does nothing to sequences of up to `originalMaxPositionEmbeddings`.
 */
const ropeScaling = record({
  ropeType: choice("linear", "llama3", "dynamic", "yarn", "longrope"),
  factor: number,
  lowFreqFactor: optional(number, 1),
  highFreqFactor: optional(number, 4),
  originalMaxPositionEmbeddings: optional(integer, 8192),
  attentionFactor: optional(number, 1),
  betaFast: optional(number, 32),
  betaSlow: optional(number, 1),
  truncate: optional(flag, true),
  shortFactor: optional(list(number), []),
});
export type RopeScaling = Decoded<typeof ropeScaling>;

/** What distinguishes one layer's attention from another's: the RoPE base, the window (null: the whole prefix), and whether RoPE turns it. */
const attentionKind = record({
  ropeTheta: number,
  ropeScaling: optional(nullable(ropeScaling), null),
  window: optional(nullable(integer), null),
  rotary: optional(flag, true),
});
export type AttentionKind = Decoded<typeof attentionKind>;

/** The heads of a gated delta rule (arXiv 2412.06464). `chunk`: tokens that are computed at once, of which T is a multiple. */
const linearAttention = record({ numKeyHeads: int32, numValueHeads: int32, keyHeadDim: int32, valueHeadDim: int32, chunk: int32 });

/**
 * The shape of a decoder. `layerTypes`: of each layer, as config.json calls them. `rotaryDim`: of `headDim`, the part that RoPE turns.
 * `convKernel`: the tokens that a convolution sees, 0 where there is none. `tensorPrefix`: what the names of a checkpoint's tensors begin with.
 */
export const modelConfig = record({
  modelType: text,
  vocabSize: int32,
  hiddenSize: int32,
  intermediateSize: int32,
  numHiddenLayers: int32,
  numAttentionHeads: int32,
  numKeyValueHeads: int32,
  headDim: int32,
  rmsNormEps: number,
  tieWordEmbeddings: flag,
  layerTypes: list(text),
  attentionKinds: map(attentionKind),
  rotaryDim: int32,
  qkvBias: optional(flag, false),
  outputBias: optional(flag, false),
  mlpBias: optional(flag, false),
  queryScale: number,
  embeddingScale: optional(number, 1),
  residualMultiplier: optional(number, 1),
  logitsScaling: optional(number, 1),
  attnLogitSoftcapping: optional(nullable(number), null),
  finalLogitSoftcapping: optional(nullable(number), null),
  convKernel: optional(int32, 0),
  linearAttention: optional(nullable(linearAttention), null),
  tensorPrefix: optional(text, "model."),
});
export type ModelConfig = Decoded<typeof modelConfig>;

/** LoRA on the matrices of a layer: `y += alpha/rank * (x Aᵀ) Bᵀ` (Hu et al., arXiv 2106.09685). */
export const loraConfig = record({ rank: optional(int32, 8), alpha: optional(number, 16) });
export type LoraConfig = Decoded<typeof loraConfig>;

/** Symmetric, group-wise along the input dimension. `bits` for the blocks, `embeddingBits` for embedding and head. */
export const quantizationConfig = record({
  bits: optional(int32, 4),
  embeddingBits: optional(int32, 8),
  groupSize: optional(int32, 32),
  quantizer: optional(text, "search"),
  calibration: optional(nullable(text), null),
});

/**
 * `clipNorm`: the gradient of a step is scaled down to this norm. `implicitUpdates`: what happens to a layer that a step does not train: with
 * `momentum` AdamW sees a zero gradient, so its moments go on moving it; with `none` it rests.
 */
export const adamWConfig = record({
  betas: optional(list(number), [0.9, 0.999]),
  eps: optional(number, 1e-8),
  weightDecay: optional(number, 0.01),
  clipNorm: optional(number, 1),
  implicitUpdates: optional(choice("momentum", "none"), "momentum"),
});
export type AdamWConfig = Decoded<typeof adamWConfig>;

