// The targets that a bundle may be of, all of block programs, one row each.

let onnxruntimeTarget = "onnxruntime"
let executorchTarget = "executorch"
let pteFile = "programs.pte"  // of target executorch: all programs, as methods

/// `sharedFile`: the one file of all programs, where each has none of its own. `measuresProducts`: it has the programs `gemm` and
/// `gemm_backward`.
struct Target: Sendable {
    let name: String
    let sharedFile: String?
    let measuresProducts: Bool

    func programFile(_ program: String) -> String { sharedFile ?? "\(program).onnx" }
}

let targets: Entries<Target> = [
    onnxruntimeTarget: Target(name: onnxruntimeTarget, sharedFile: nil, measuresProducts: true),
    executorchTarget: Target(name: executorchTarget, sharedFile: pteFile, measuresProducts: false),
]

/// BUNDLE_OTHER_TARGET, of a bundle at `path` that is none of those `expected`.
func otherTarget(_ path: String, _ target: String, _ expected: [String]) -> LcsbError {
    let found = oneLine(target, 40)
    let message = "\(path): expected a bundle of target \(expected.joined(separator: " or ")), found \(found); "
        + "export one with --target \(expected[0])"
    return LcsbError(.bundleOtherTarget, message, [found])
}
