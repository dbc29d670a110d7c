import Foundation

// The runtimes that are a part of Apple's systems, where the system and the SDK have them.

/// What may compute. `neuralEngine` and `gpu` are preferred, with the processor for what they do not take; only `cpu` works in an app that
/// has left the screen, and is an entitlement's without.
public enum ComputeUnits: String, Sendable, CaseIterable {
    case cpu
    case gpu
    case neuralEngine = "neural-engine"
    case all
}

/// `name`: as people call it. `since`: the first system that has it. `sdk`: the first Xcode that can build for it. `built`: with such an SDK.
/// `isThere`: this system has it.
struct SystemRuntime: Sendable {
    let target: String
    let name: String
    let since: String
    let sdk: String
    let built: Bool
    let isThere: Bool

    /// Throws RUNTIME_NOT_INCLUDED, SYSTEM_OLDER.
    func check() throws {
        let remedy = "or export the bundle with --target \(onnxruntimeTarget)"
        if !built {
            let message = "this app is built without \(name), which bundles of target \(target) need; build it with \(sdk) or newer, \(remedy)"
            throw LcsbError(.runtimeNotIncluded, message, [name])
        }
        if !isThere {
            let message = "bundles of target \(target) need \(since) or newer, this is \(systemVersion); update the device, \(remedy)"
            throw LcsbError(.systemOlder, message, [since])
        }
    }
}

let systemRuntimes: Entries<SystemRuntime> = [
    coreaiTarget: SystemRuntime(
        target: coreaiTarget, name: "Core AI", since: "iOS 27", sdk: "Xcode 27", built: hasCoreAI.built, isThere: hasCoreAI.isThere),
    coremlTarget: SystemRuntime(
        target: coremlTarget, name: "Core ML", since: "iOS 18", sdk: "Xcode 16", built: hasCoreML.built, isThere: hasCoreML.isThere),
]

#if canImport(CoreAI)
private let hasCoreAI: (built: Bool, isThere: Bool) = if #available(iOS 27, macOS 27, *) { (true, true) } else { (true, false) }
#else
private let hasCoreAI = (built: false, isThere: false)
#endif

#if canImport(CoreML)
private let hasCoreML: (built: Bool, isThere: Bool) = if #available(iOS 18, macOS 15, *) { (true, true) } else { (true, false) }
#else
private let hasCoreML = (built: false, isThere: false)
#endif

/// That of a bundle's target. Throws as `check`, and what the runtime's own says.
func makeSystemRuntime(_ bundle: TrainingBundle, _ system: SystemRuntime, _ compute: ComputeUnits) throws -> any Runtime {
    try system.check()
    #if canImport(CoreAI)
    if system.target == coreaiTarget, #available(iOS 27, macOS 27, *) { return try CoreAIRuntime(bundle, compute) }
    #endif
    #if canImport(CoreML)
    if system.target == coremlTarget, #available(iOS 18, macOS 15, *) { return try CoreMLRuntime(bundle, compute) }
    #endif
    preconditionFailure("its check has passed")
}

/// These runtimes have no versions but the system's.
var systemVersion: String {
    #if os(iOS)
    "iOS " + ProcessInfo.processInfo.operatingSystemVersionString
    #else
    ProcessInfo.processInfo.operatingSystemVersionString
    #endif
}

/// What `work` comes to, on a thread that waits for it: one of the system's own pool must not.
func waited<Value>(_ work: @escaping @Sendable () async throws -> Value) throws -> Value {
    let done = DispatchSemaphore(value: 0)
    let result = Locked<Result<Value, any Error>?>(nil)
    Task.detached {
        do {
            let value = try await work()
            result.with { $0 = .success(value) }
        } catch {
            result.with { $0 = .failure(error) }
        }
        done.signal()
    }
    done.wait()
    return try result.with { $0! }.get()
}

// What Core ML compiled lies among what the system may remove, as it can be made again.

/// Where compiled models are kept.
let compiledModels = FileManager.default.urls(for: .cachesDirectory, in: .userDomainMask)[0].appendingPathComponent("lcsb-compiled-models")

/// Of the bundle with this digest.
func compiledModel(_ directory: URL, _ digest: String) -> URL { directory.appendingPathComponent("\(digest).mlmodelc") }

/// Removes what was compiled of the bundle with this digest, if anything was: for who removes the bundle.
public func removeCompiledModel(_ digest: String) {
    try? FileManager.default.removeItem(at: compiledModel(compiledModels, digest))
}
