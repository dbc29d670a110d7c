import Foundation

/// The programs of target `onnxruntime` on stock ONNX Runtime. `threads`: of each program. Throws BUNDLE_OTHER_TARGET, RUNTIME_MISSING.
final class OnnxRuntime: Runtime {
    private let bundle: TrainingBundle
    private let threads: Int
    private let ort: Ort
    private let weights: WeightTensors
    private var programs: [String: Program] = [:]

    let name = onnxruntimeTarget
    var version: String { ort.version }

    init(_ bundle: TrainingBundle, threads: Int) throws {
        try checkTarget(bundle, onnxruntimeTarget)
        (self.bundle, self.threads, ort, weights) = (bundle, threads, try Ort.get(), WeightTensors(try bundle.weights))
    }

    func run(_ program: String, _ feeds: Values, _ outputs: Values, layer: Int) throws {
        let loaded = try programs[program] ?? Program(ort, bundle, program, weights, threads: threads)
        programs[program] = loaded
        try loaded.run(feeds, outputs, number: bundle.manifest.layers[layer].number)
    }
}

/// One program: its session, or a session a layer where the weights are its constants.
private final class Program {
    private let ort: Ort
    private let bundle: TrainingBundle
    private let graph: ProgramGraph
    private let inputs: [(name: OrtName, tensor: GraphTensor)]
    private let outputs: [(name: OrtName, tensor: GraphTensor)]
    private let weights: WeightTensors
    private let threads: Int
    private var sessions: [Int: OrtSession] = [:]

    init(_ ort: Ort, _ bundle: TrainingBundle, _ name: String, _ weights: WeightTensors, threads: Int) throws {
        (self.ort, self.bundle, self.weights, self.threads) = (ort, bundle, weights, threads)
        graph = bundle.manifest.graphs[name]!
        inputs = graph.inputs.map { (OrtName($0.name), $0) }
        outputs = graph.outputs.map { (OrtName($0.name), $0) }
        _ = try session(0)
    }

    /// `feeds`: those that the program takes, and perhaps others. `outputs`: where each result that is wanted goes. `number`: the layer's
    /// in its kind.
    func run(_ feeds: Values, _ outputs: Values, number: Int) throws {
        let session = try session(number)
        do {
            let fed = try inputs.compactMap { name, x in
                try (x.weight.map { weights[$0, number] } ?? feeds[x.name]).map { (name, try tensor($0)) }
            }
            let wanted = try self.outputs.compactMap { name, x in try outputs[x.name].map { (name, try tensor($0)) } }
            try session.run(fed, wanted)
        } catch let failure as OrtFailure {
            throw LcsbError(.runtimeFailed, "\(graph.file): onnxruntime \(ort.version) cannot run it: \(oneLine(failure.text))")
        }
    }

    private func session(_ number: Int) throws -> OrtSession {
        let key = graph.initializers.isEmpty ? 0 : number
        if let session = sessions[key] { return session }
        let file = try programFile(bundle, graph)
        let options = try sessionOptions(ort, bundle.manifest.runtime, threads: threads)
        defer { ort.api.ReleaseSessionOptions(options) }
        do {
            try addConstants(options, number)
            let session = try OrtSession(ort, file, options)
            try checkSignature(session, graph, file)
            sessions[key] = session
            return session
        } catch let failure as OrtFailure {
            throw loadError(ort.version, file, failure.text)
        }
    }

    /// The weights of a layer that the program holds as constants, which stay where they are mapped.
    private func addConstants(_ options: OpaquePointer, _ number: Int) throws {
        if graph.initializers.isEmpty { return }
        let names = graph.initializers.map { OrtName($0.name) }
        let tensors = try graph.initializers.map { Optional(try tensor(weights[$0.weight!, number]).pointer) }
        try withExtendedLifetime(names) {
            try ort.api.check(ort.api.AddExternalInitializers(options, names.map { Optional($0.pointer) }, tensors, tensors.count))
        }
    }

    /// What the runtime reads and writes in place of `x`.
    private func tensor(_ x: HostTensor) throws -> OrtTensor {
        if let made = x.made as? OrtTensor { return made }
        let made = try OrtTensor(ort, x)
        x.made = made
        return made
    }
}
