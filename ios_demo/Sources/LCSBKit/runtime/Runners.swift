import Foundation

/// Opens the methods of a file.
@_spi(ExecuTorch) public typealias OpenMethods = @Sendable (_ file: URL) throws -> any MethodFile

let executorchLibrary = Locked<OpenMethods?>(nil)

/// From now on this process runs bundles of target `executorch`.
@_spi(ExecuTorch) public func registerExecuTorch(_ open: @escaping OpenMethods) { executorchLibrary.with { $0 = open } }

/// The runner of the bundle's target. `threads`: of each program of target `onnxruntime`, 0: the runtime's choice, which it always is of the
/// others. `keep`: the activations of that many of the top layers are kept in the forward, and their backward does not recompute them.
/// `compute`: of targets `coreai` and `coreml`.
///
/// Throws BUNDLE_OTHER_TARGET, RUNTIME_NOT_INCLUDED, SYSTEM_OLDER, RUNTIME_MISSING, RUNTIME_FAILED, MEMORY_TOO_SMALL, BUNDLE_UNREADABLE,
/// STORAGE_….
public func makeRunner(
    _ bundle: TrainingBundle, threads: Int, keep: Int = 0, compute: ComputeUnits = .all,
    betweenLayers: @escaping BetweenLayers = { _, _ in }
) throws -> BlockRunner {
    let runtime: any Runtime
    if let system = systemRuntimes[bundle.manifest.target] {
        runtime = try makeSystemRuntime(bundle, system, compute)
    } else if bundle.manifest.target == executorchTarget {
        runtime = try ExecuTorchRuntime(bundle, includedExecuTorch())
    } else {
        runtime = try OnnxRuntime(bundle, threads: threads)
    }
    return try BlockRunner(bundle, runtime, keep: keep, betweenLayers: betweenLayers)
}

/// Throws RUNTIME_NOT_INCLUDED where the app is built without what runs bundles of `target`, SYSTEM_OLDER where the system has no such runtime.
/// Nothing is loaded.
public func checkIncluded(_ target: String) throws {
    try systemRuntimes[target]?.check()
    if target == executorchTarget { _ = try includedExecuTorch() }
}

private func includedExecuTorch() throws -> OpenMethods {
    if let open = executorchLibrary.with({ $0 }) { return open }
    let message = "this app is built without ExecuTorch, which bundles of target \(executorchTarget) need; add the package "
        + "ios_demo/ExecuTorchRunner to it and call includeExecuTorch(), or export the bundle with --target \(onnxruntimeTarget)"
    throw LcsbError(.runtimeNotIncluded, message, ["ExecuTorch"])
}
