// The targets that a bundle may be of, all of block programs, one row each.

let onnxruntimeTarget = "onnxruntime"
let executorchTarget = "executorch"
let coreaiTarget = "coreai"
let coremlTarget = "coreml"
let pteFile = "programs.pte"  // of target executorch: all programs, as methods
let aimodelDirectory = "programs.aimodel"  // of target coreai: all programs, as functions
let mlpackageDirectory = "programs.mlpackage"  // of target coreml: all programs, as functions, and their weights
private let milDirectory = "\(mlpackageDirectory)/Data/com.apple.CoreML"

/// `sharedFile`: the one file of all programs, where each has none of its own. `files`: what a bundle has besides it and the files of every
/// bundle. `asset`: a directory that the runtime reads as a whole. `measuresProducts`: it has the programs `gemm` and `gemm_backward`.
///
/// `staticShapes`: every dimension is known, none is missing, and integers are int32: AdamW is a program of each kind, scalars are [1], and
/// the head is programs that the host calls chunk by chunk. `holdsWeights`: they are constants of the programs, a layer's programs are
/// functions of its own (`layerFunction`), and there is no `weights.bin`.
struct Target: Sendable {
    let name: String
    var files: [String] = []
    var sharedFile: String?
    var asset: String?
    var measuresProducts = false
    var staticShapes = false
    var holdsWeights = false

    func programFile(_ program: String) -> String { sharedFile ?? "\(program).onnx" }

    /// Of tokens, their places and labels.
    var integers: String { staticShapes ? "int32" : "int64" }

    /// The shape of a single number.
    var scalar: [Int] { staticShapes ? [1] : [] }
}

let targets: Entries<Target> = Entries(
    [
        Target(name: onnxruntimeTarget, measuresProducts: true),
        Target(name: executorchTarget, sharedFile: pteFile),
        Target(
            name: coreaiTarget,
            files: ["\(aimodelDirectory)/main.hash", "\(aimodelDirectory)/metadata.json"],
            sharedFile: "\(aimodelDirectory)/main.mlirb",
            asset: aimodelDirectory,
            staticShapes: true
        ),
        Target(
            name: coremlTarget,
            files: ["\(mlpackageDirectory)/Manifest.json", "\(milDirectory)/weights/weight.bin"],
            sharedFile: "\(milDirectory)/model.mlmodel",
            asset: mlpackageDirectory,
            staticShapes: true,
            holdsWeights: true
        ),
    ].map { ($0.name, $0) })

/// BUNDLE_OTHER_TARGET, of a bundle at `path` that is none of those `expected`.
func otherTarget(_ path: String, _ target: String, _ expected: [String]) -> LcsbError {
    let found = oneLine(target, 40)
    let message = "\(path): expected a bundle of target \(expected.joined(separator: " or ")), found \(found); "
        + "export one with --target \(expected[0])"
    return LcsbError(.bundleOtherTarget, message, [found])
}

extension Manifest {
    /// The row of its target, which is a known one.
    var row: Target { targets[target]! }
}
