/// The runner of the bundle's target. `threads`: of each program, 0: the runtime's choice. `keep`: the activations of that many of the top
/// layers are kept in the forward, and their backward does not recompute them.
///
/// Throws BUNDLE_OTHER_TARGET, RUNTIME_NOT_INCLUDED, RUNTIME_MISSING, MEMORY_TOO_SMALL, BUNDLE_UNREADABLE.
public func makeRunner(
    _ bundle: TrainingBundle, threads: Int, keep: Int = 0, betweenLayers: @escaping BetweenLayers = { _, _ in }
) throws -> BlockRunner {
    try checkIncluded(bundle.manifest.target)
    return try BlockRunner(bundle, OnnxRuntime(bundle, threads: threads), keep: keep, betweenLayers: betweenLayers)
}

/// Throws RUNTIME_NOT_INCLUDED where the app is built without the library that runs bundles of `target`. Nothing is loaded.
public func checkIncluded(_ target: String) throws {
    if target != executorchTarget { return }
    let message = "this app is built without ExecuTorch, which bundles of target \(target) need; "
        + "export the bundle with --target \(onnxruntimeTarget)"
    throw LcsbError(.runtimeNotIncluded, message)
}
