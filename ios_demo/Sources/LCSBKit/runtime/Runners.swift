import Foundation

/// Opens the methods of a file.
@_spi(ExecuTorch) public typealias OpenMethods = @Sendable (_ file: URL) throws -> any MethodFile

let executorchLibrary = Locked<OpenMethods?>(nil)

/// From now on this process runs bundles of target `executorch`.
@_spi(ExecuTorch) public func registerExecuTorch(_ open: @escaping OpenMethods) { executorchLibrary.with { $0 = open } }

/// The runner of the bundle's target. `threads`: of each program, 0: the runtime's choice, which it always is of target `executorch`.
/// `keep`: the activations of that many of the top layers are kept in the forward, and their backward does not recompute them.
///
/// Throws BUNDLE_OTHER_TARGET, RUNTIME_NOT_INCLUDED, RUNTIME_MISSING, RUNTIME_FAILED, MEMORY_TOO_SMALL, BUNDLE_UNREADABLE.
public func makeRunner(
    _ bundle: TrainingBundle, threads: Int, keep: Int = 0, betweenLayers: @escaping BetweenLayers = { _, _ in }
) throws -> BlockRunner {
    let runtime: any Runtime = bundle.manifest.target == executorchTarget
        ? try ExecuTorchRuntime(bundle, includedExecuTorch()) : try OnnxRuntime(bundle, threads: threads)
    return try BlockRunner(bundle, runtime, keep: keep, betweenLayers: betweenLayers)
}

/// Throws RUNTIME_NOT_INCLUDED where the app is built without the library that runs bundles of `target`. Nothing is loaded.
public func checkIncluded(_ target: String) throws {
    if target == executorchTarget { _ = try includedExecuTorch() }
}

private func includedExecuTorch() throws -> OpenMethods {
    if let open = executorchLibrary.with({ $0 }) { return open }
    let message = "this app is built without ExecuTorch, which bundles of target \(executorchTarget) need; add the package "
        + "ios_demo/ExecuTorchRunner to it and call includeExecuTorch(), or export the bundle with --target \(onnxruntimeTarget)"
    throw LcsbError(.runtimeNotIncluded, message)
}
