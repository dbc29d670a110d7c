#if canImport(CoreAI)
import CoreAI
import Foundation
import Metal

// Target `coreai`, on the system's own Core AI. Written by Apple's documentation of the framework and by what others have built with its
// SDK; on Linux stand-ins have these names (Stubs/README.md), and nobody has run it on a device.

@available(iOS 27, macOS 27, *)
private let scalarTypes: [String: NDArray.ScalarType] = [
    "float32": .float32, "float16": .float16, "int32": .int32, "int64": .int64, "int8": .int8, "uint8": .uint8, "bool": .bool,
]

/// The programs of target `coreai`: functions of one asset. The system specialises it for the device when it is first opened, which takes long,
/// and keeps that; a function owns the buffers of its own values from when it is loaded.
@available(iOS 27, macOS 27, *)
final class CoreAIRuntime: Runtime {
    private let manifest: Manifest
    private let path: String
    private let weights: WeightTensors
    private let shared: SharedWeights?
    private let model: AIModel
    private var functions: [String: InferenceFunction] = [:]

    let name = coreaiTarget
    let version = systemVersion

    /// Throws BUNDLE_OTHER_TARGET, RUNTIME_FAILED, BUNDLE_UNREADABLE.
    init(_ bundle: TrainingBundle, _ compute: ComputeUnits) throws {
        try checkTarget(bundle, coreaiTarget)
        let (asset, mapped) = (bundle.file(aimodelDirectory), try bundle.weights)
        (manifest, path, weights, shared) = (bundle.manifest, asset.path, WeightTensors(mapped), SharedWeights(mapped.whole))
        model = try orFailed("\(asset.path): Core AI cannot load it") {
            try waited { try await AIModel(contentsOf: asset, options: specialization(compute)) }
        }
        try checkFunctions(path, "functions", bundle.manifest.graphs.keys, model.functionNames)
    }

    func run(_ program: String, _ feeds: Values, _ outputs: Values, layer: Int) throws {
        let graph = manifest.graphs[program]!
        let function = try function(program, graph)
        let tensors = weights.inputs(graph, feeds, manifest.layers[layer].number)
        let call = CoreAICall(
            function, inputs: Array(zip(graph.inputs.map { plainName($0.name) }, tensors)),
            outputs: graph.outputs.compactMap { x in outputs[x.name].map { (plainName(x.name), $0) } }, shared)
        let others = try orFailed("\(path): \(program): Core AI cannot run it") { try waited { try await call.run() } }
        let wanted = Set(outputs.keys.map(plainName))
        if let unwritten = others.first(where: wanted.contains) {
            throw LcsbError(.runtimeFailed, "\(path): \(program): Core AI did not write \(quoted(unwritten)) to the buffer that it was given")
        }
    }

    /// Held to the manifest first, by which buffers are made.
    private func function(_ name: String, _ graph: ProgramGraph) throws -> InferenceFunction {
        if let function = functions[name] { return function }
        guard let found = model.functionDescriptor(for: name) else { throw unreadable("\(path): has no function \(name)") }
        let inputs = Entries(found.inputNames) { TensorType(found.inputDescriptor(of: $0)) }
        let states = Entries(found.stateNames) { _ in TensorType("a state", []) }
        let outputs = Entries(found.outputNames) { TensorType(found.outputDescriptor(of: $0)) }
        try checkInterface(path, name, graph, inputs: inputs + states, outputs: outputs)
        let loaded = try orFailed("\(path): \(name): Core AI cannot load it") { try model.loadFunction(named: name) }
        guard let loaded else { throw unreadable("\(path): has no function \(name)") }
        functions[name] = loaded
        return loaded
    }
}

@available(iOS 27, macOS 27, *)
private func specialization(_ compute: ComputeUnits) -> SpecializationOptions {
    switch compute {
    case .cpu: .cpuOnly
    case .gpu: SpecializationOptions(preferredComputeUnitKind: .gpu)
    case .neuralEngine: SpecializationOptions(preferredComputeUnitKind: .neuralEngine)
    case .all: .default
    }
}

@available(iOS 27, macOS 27, *)
extension TensorType {
    fileprivate init(_ descriptor: InferenceValue.Descriptor?) {
        guard case .ndArray(let array) = descriptor else {
            self.init("no array", [])
            return
        }
        self.init(scalarTypes.first { $0.value == array.scalarType }?.key ?? "\(array.scalarType)", array.shape)
    }
}

/// A call of a function: views of the host's memory, which lives as long as this. It is handed to one task, and waited for.
@available(iOS 27, macOS 27, *)
private final class CoreAICall: @unchecked Sendable {
    private let function: InferenceFunction
    private let inputs: [(String, HostTensor)]
    private let outputs: [(String, HostTensor)]
    private let shared: SharedWeights?

    init(_ function: InferenceFunction, inputs: [(String, HostTensor)], outputs: [(String, HostTensor)], _ shared: SharedWeights?) {
        (self.function, self.inputs, self.outputs, self.shared) = (function, inputs, outputs, shared)
    }

    /// The names of the results that were not written to `outputs`.
    func run() async throws -> [String] {
        var fed = InferenceFunction.Inputs()
        for (name, x) in inputs {
            let (type, memory) = (scalarTypes[x.dtype]!, x.bytes.raw)
            if let shared, let offset = shared.offset(x.bytes) {
                let view = NDArray.RawView(metalBuffer: shared.buffer, byteOffset: offset, scalarType: type, shape: x.shape)
                fed.insert(_overrideLifetime(view, borrowing: self), for: name)
            } else {
                let view = NDArray.RawView(bytes: memory.bytes, scalarType: type, shape: x.shape)
                fed.insert(_overrideLifetime(view, borrowing: self), for: name)
            }
        }
        var written = InferenceFunction.MutableViews()
        for (name, x) in outputs {
            let memory = UnsafeMutableRawBufferPointer(start: x.bytes.pointer, count: x.bytes.count)
            let view = NDArray.MutableRawView(mutableBytes: memory.mutableBytes, scalarType: scalarTypes[x.dtype]!, shape: x.shape)
            written.insert(_overrideLifetime(view, borrowing: self), for: name)
        }
        return Array(try await function.run(inputs: fed, outputViews: written).names)
    }
}

/// The mapped `weights.bin` as a buffer that all compute units share: of memory that is only a pointer to them, some copy what they read at each
/// call.
private final class SharedWeights: @unchecked Sendable {
    let buffer: any MTLBuffer
    private let mapped: Bytes

    /// nil where there is no such device, or it takes no buffer of this size.
    init?(_ mapped: Bytes) {
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let length = (mapped.count + page - 1) / page * page  // the mapping's pages are whole
        guard length > 0, let device = MTLCreateSystemDefaultDevice(),
            let buffer = device.makeBuffer(bytesNoCopy: mapped.pointer, length: length, options: .storageModeShared, deallocator: nil)
        else { return nil }
        (self.buffer, self.mapped) = (buffer, mapped)
    }

    /// Where in the buffer `bytes` begin; nil for what is not in it.
    func offset(_ bytes: Bytes) -> Int? {
        let offset = bytes.pointer - mapped.pointer
        return offset >= 0 && offset + bytes.count <= mapped.count ? offset : nil
    }
}
#endif
