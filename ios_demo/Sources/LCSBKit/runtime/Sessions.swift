import COrt
import Foundation

// How ONNX Runtime's sessions are made.

private let oldestRuntime = "1.18"  // the first with operator set 21 and IR version 10, in which all programs are written

/// Options of a session: the manifest's settings, and the arena that all sessions share. The caller gives them back. Throws
/// MEMORY_TOO_SMALL, RUNTIME_FAILED.
func sessionOptions(_ ort: Ort, _ settings: RuntimeSettings, threads: Int) throws -> OpaquePointer {
    try ort.shareArena(settings.arena.initialBytes)
    let api = ort.api
    do {
        let options = try api.made { api.CreateSessionOptions($0) }
        do {
            try api.check(api.SetSessionLogSeverityLevel(options, Int32(ORT_LOGGING_LEVEL_ERROR.rawValue)))
            try api.check(api.SetIntraOpNumThreads(options, Int32(clamping: threads)))
            try api.check(api.AddSessionConfigEntry(options, "session.use_env_allocators", "1"))
            for (key, entry) in settings.sessionConfig { try api.check(api.AddSessionConfigEntry(options, key, entry)) }
        } catch {
            api.ReleaseSessionOptions(options)
            throw error
        }
        return options
    } catch let failure as OrtFailure {
        throw LcsbError(.runtimeFailed, "onnxruntime \(ort.version) refuses the bundle's settings: \(oneLine(failure.text))")
    }
}

/// A program's file, known to take no data but the bundle's weights, where it may. Throws BUNDLE_UNREADABLE.
func programFile(_ bundle: TrainingBundle, _ graph: ProgramGraph) throws -> URL {
    let file = bundle.directory.appendingPathComponent(graph.file)
    let weights = bundle.directory.appendingPathComponent(weightsFile)
    try checkExternalData(file, weightsFile, fileSize(weights), graph.initializers.map(\.name))
    return file
}

/// Throws BUNDLE_UNREADABLE unless the program takes and returns what the manifest says, by which buffers are made.
func checkSignature(_ session: OrtSession, _ graph: ProgramGraph, _ file: URL) throws {
    var faults: [String] = []
    for (what, tensors, found) in [("inputs", graph.inputs, try session.inputs()), ("outputs", graph.outputs, try session.outputs())] {
        faults += differences(what, Entries(tensors.map { ($0.name, TensorType($0)) }), found)
    }
    if !faults.isEmpty { throw unreadable("\(file.path): other than the manifest says: \(some(faults)); export the bundle again") }
}

/// Names the operator that the runtime lacks, where that is the reason.
func loadError(_ version: String, _ file: URL, _ text: String) -> LcsbError {
    let what = missingOperator(text).map { "it has no operator \($0)" } ?? newerFormat(text) ?? oneLine(text)
    let message = "\(file.path): onnxruntime \(version) cannot load it: \(what); expected onnxruntime \(oldestRuntime) or newer, "
        + "with all of its operators (a reduced build lacks some)"
    return LcsbError(.runtimeFailed, message)
}

private func missingOperator(_ text: String) -> String? {
    if let match = text.firstMatch(of: /Could not find an implementation for ([A-Za-z0-9_]+)/) { return String(match.1) }
    return text.firstMatch(of: /([A-Za-z0-9_.:]+)\([-0-9]+\) is not a registered function\/op/).map { String($0.1) }
}

/// That the file is written in.
private func newerFormat(_ text: String) -> String? {
    let reasons = /Unsupported model IR version: [0-9]+|ONNX Runtime only \*guarantees\* support .*?opset [0-9]+/
    return text.firstMatch(of: reasons).map { String($0.0) }
}
