#if os(Linux)
import ExecuTorch
import Foundation
@testable import LCSBKit

// A bundle of target executorch, and what stands for the library: the same programs under the same names on ONNX Runtime.

/// Writes to `directory` what an export of the bundle's model for target executorch has, but for what is in `programs.pte`.
func writeExecuTorchBundle(_ bundle: TrainingBundle, _ directory: URL, _ change: (inout Manifest) -> Void = { _ in }) throws {
    var manifest = bundle.manifest
    manifest.files = manifest.files.only { !$0.hasSuffix(".onnx") }
    for name in manifest.files.keys { try FileManager.default.copyItem(at: bundle.file(name), to: directory.file(name)) }
    let pte = Array("the methods".utf8)
    try directory.file(pteFile).write(pte)
    manifest.files[pteFile] = FileEntry(size: pte.count, sha256: sha256(pte))
    manifest.target = executorchTarget
    manifest.graphs = manifest.graphs.only { !products.contains($0) }.mapValues { graph in
        var method = graph
        (method.file, method.inputs, method.initializers) = (pteFile, graph.inputs + graph.initializers, [])  // all weights are inputs
        return method
    }
    manifest.runtime = RuntimeSettings(sessionConfig: [:], arena: Arena(initialBytes: 0))
    change(&manifest)
    manifest.digest = nil
    try directory.file(manifestFile).write(Json(record: manifest).text)
}

private let dataTypes: [String: DataType] = ["float32": .float, "float16": .half, "int64": .long, "uint8": .byte, "int8": .char]

/// The bundle's programs as methods. Results lie where those of the method's last call were, and those of every earlier call are spoilt by
/// the next: more than the library does. `calls`: the methods with what they were given.
class OnnxModule: Module {
    struct Call {
        let method: String
        let inputs: [Value]
    }

    private let graphs: Entries<ProgramGraph>
    private let bundle: TrainingBundle
    private let ort: Ort
    private var sessions: [String: OrtSession] = [:]
    private var arenas: [String: HostTensor] = [:]  // METHOD NAME -> a result
    private(set) var calls: [Call] = []
    private(set) var verification: ModuleVerification?
    private(set) var loaded: [String] = []

    init(_ bundle: TrainingBundle) throws {
        precondition(bundle.manifest.graphs.values.allSatisfy(\.initializers.isEmpty), "a bundle whose weights are all inputs")
        (self.bundle, graphs, ort) = (bundle, bundle.manifest.graphs, try Ort.get())
        super.init(filePath: bundle.file(pteFile).path, loadMode: .mmap)
    }

    override func load(with verification: ModuleVerification) { self.verification = verification }

    override func load(_ method: String) throws { loaded.append(method) }

    override func methodNames() -> Set<String> { Set(graphs.keys.filter { !products.contains($0) }) }

    override func methodMetadata(_ method: String) throws -> MethodMetadata {
        func described(_ x: GraphTensor) -> TensorMetadata { TensorMetadata(dataTypes[x.dtype]!, x.shape.map { $0 < 0 ? 4096 : $0 }) }
        return MethodMetadata(graphs[method]!.inputs.map(described), graphs[method]!.outputs.map(described))
    }

    override func execute(_ method: String, _ given: [any ValueConvertible]) throws -> [Value] {
        precondition(loaded.contains(method))
        let (graph, values) = (graphs[method]!, given.map { $0.asValue() })
        precondition(values.count == graph.inputs.count)
        calls.append(Call(method: method, inputs: values))
        for arena in arenas.values { memset(arena.bytes.pointer, 0xFF, arena.bytes.count) }
        let inputs = try zip(graph.inputs, values).map { x, value in (OrtName(x.name), try copy(value.anyTensor!)) }
        let free = values[0].anyTensor!.shape.first ?? 1
        let results = try graph.outputs.map { x in (OrtName(x.name), try result(method, x, free)) }
        try withExtendedLifetime(inputs) {
            try session(method, graph).run(inputs.map { ($0, try OrtTensor(ort, $1)) }, results.map { ($0, try OrtTensor(ort, $1)) })
        }
        return zip(graph.outputs, results).map { x, result in
            Value(AnyTensor(bytesNoCopy: result.1.bytes.pointer, shape: result.1.shape, dataType: dataTypes[x.dtype]!))
        }
    }

    private func copy(_ tensor: AnyTensor) throws -> HostTensor {
        let copy = try HostTensor(dataTypes.first { $0.value == tensor.dataType }!.key, tensor.shape)
        tensor.bytes { pointer, _, _ in _ = memcpy(copy.bytes.pointer, pointer, copy.bytes.count) }
        return copy
    }

    private func result(_ method: String, _ x: GraphTensor, _ free: Int) throws -> HostTensor {
        let (key, shape) = ("\(method) \(x.name)", x.shape.map { $0 < 0 ? free : $0 })
        if let arena = arenas[key], arena.shape == shape { return arena }
        let arena = try HostTensor(x.dtype, shape)
        arenas[key] = arena
        return arena
    }

    private func session(_ method: String, _ graph: ProgramGraph) throws -> OrtSession {
        if let session = sessions[method] { return session }
        let options = try sessionOptions(ort, bundle.manifest.runtime, threads: 1)
        defer { ort.api.ReleaseSessionOptions(options) }
        let session = try OrtSession(ort, bundle.file(graph.file), options)
        sessions[method] = session
        return session
    }
}
#endif
