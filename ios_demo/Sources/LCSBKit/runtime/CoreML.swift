#if canImport(CoreML)
import CoreML
import Foundation

// Target `coreml`, on the system's own Core ML. Written by Apple's documentation; on Linux a stand-in has its names (Stubs/README.md), and
// nobody has run it on a device.

private let dataTypes: [String: MLMultiArrayDataType] = ["float32": .float32, "float16": .float16, "int32": .int32]

/// The programs of target `coreml`: functions of one model that has the weights. A layer's programs are functions of its own, of which as
/// many stay loaded as `FunctionCache` allows. Results lie in the host's buffers where Core ML takes them, and are copied there where not.
@available(iOS 18, macOS 15, *)
final class CoreMLRuntime: Runtime {
    private let manifest: Manifest
    private let path: String
    private let compiled: URL
    private let compute: ComputeUnits
    private let ofLayers: Set<String>
    private var functions: FunctionCache<MLModel>

    let name = coremlTarget
    let version = systemVersion

    /// `directory`: where models are kept as they were compiled. Throws BUNDLE_OTHER_TARGET, RUNTIME_FAILED, BUNDLE_UNREADABLE, STORAGE_….
    init(
        _ bundle: TrainingBundle, _ compute: ComputeUnits, compiledIn directory: URL = compiledModels, capacity: Int = loadedBytes
    ) throws {
        try checkTarget(bundle, coremlTarget)
        let package = bundle.file(mlpackageDirectory)
        (manifest, path, self.compute) = (bundle.manifest, package.path, compute)
        functions = FunctionCache(capacity: capacity)
        ofLayers = Set(bundle.manifest.kinds.flatMap { kind in Role.allCases.map { program(kind.name, $0) } })
        compiled = try compiledModel(package, bundle.digest, directory)
        let (place, model) = (package.path, compiled)
        let found = try orFailed("\(place): Core ML cannot read what it compiled") {
            try waited { try await MLModelAsset(url: model).functionNames }
        }
        try checkFunctions(path, "functions", functionNames, found)
    }

    private var functionNames: [String] {
        let ofLayers = manifest.layers.indices.flatMap { layer in
            Role.allCases.map { layerFunction(program(manifest.layers[layer].kind, $0), layer) }
        }
        return manifest.graphs.keys.filter { !self.ofLayers.contains($0) } + ofLayers
    }

    func run(_ program: String, _ feeds: Values, _ outputs: Values, layer: Int) throws {
        let graph = manifest.graphs[program]!
        let function = ofLayers.contains(program) ? layerFunction(program, layer) : program
        try autoreleasepool {
            let model = try functions.get(function, bytes: functionBytes(manifest, program)) { try load(function, graph) }
            try orFailed("\(path): \(function): Core ML cannot run it") { try run(model, graph, feeds, outputs) }
        }
    }

    private func run(_ model: MLModel, _ graph: ProgramGraph, _ feeds: Values, _ outputs: Values) throws {
        var inputs: [String: Any] = [:]
        for x in graph.inputs { inputs[plainName(x.name)] = try array(feeds[x.name]!) }
        let wanted = graph.outputs.compactMap { x in outputs[x.name].map { (name: plainName(x.name), target: $0) } }
        let options = MLPredictionOptions()
        for (name, target) in wanted { options.outputBackings[name] = try array(target) }
        let results = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: inputs), options: options)
        for (name, target) in wanted {
            guard let result = results.featureValue(for: name)?.multiArrayValue else {
                throw unreadable("\(path): has no result \(quoted(name)); export the bundle again")
            }
            if result !== target.made { try copy(result, name, target) }
        }
    }

    /// Held to the manifest first, by which buffers are made.
    private func load(_ function: String, _ graph: ProgramGraph) throws -> MLModel {
        let configuration = MLModelConfiguration()
        (configuration.functionName, configuration.computeUnits) = (function, computeUnits(compute))
        let model = try orFailed("\(path): \(function): Core ML cannot load it") {
            try MLModel(contentsOf: compiled, configuration: configuration)
        }
        let found = model.modelDescription
        try checkInterface(
            path, function, graph, inputs: described(found.inputDescriptionsByName), outputs: described(found.outputDescriptionsByName))
        return model
    }

    /// What Core ML reads and writes in place of `x`.
    private func array(_ x: HostTensor) throws -> MLMultiArray {
        if let made = x.made as? MLMultiArray { return made }
        guard let type = dataTypes[x.dtype] else { throw unreadable("\(path): Core ML takes no \(x.dtype); export the bundle again") }
        let made = try MLMultiArray(
            dataPointer: x.bytes.pointer, shape: x.shape.map { NSNumber(value: $0) }, dataType: type,
            strides: rowMajor(x.shape).map { NSNumber(value: $0) }, deallocator: nil)
        x.made = made
        return made
    }

    /// A result of Core ML's own memory, whose rows may be padded.
    private func copy(_ result: MLMultiArray, _ name: String, _ target: HostTensor) throws {
        let (shape, strides) = (result.shape.map(\.intValue), result.strides.map(\.intValue))
        if shape != target.shape || result.dataType != dataTypes[target.dtype] {
            throw unreadable("\(path): the result \(quoted(name)) is other than the manifest says; export the bundle again")
        }
        let size = dtypeBytes[target.dtype]!
        let row = shape.last! * size
        result.withUnsafeBytes { source in
            for number in 0..<target.bytes.count / row {
                var (left, offset) = (number, 0)
                for axis in shape.indices.dropLast().reversed() {
                    offset += left % shape[axis] * strides[axis]
                    left /= shape[axis]
                }
                let (from, to) = (source.baseAddress! + offset * size, target.bytes.pointer + number * row)
                if strides.last! == 1 {
                    memcpy(to, from, row)
                } else {
                    for at in 0..<shape.last! { memcpy(to + at * size, from + at * strides.last! * size, size) }
                }
            }
        }
    }
}

private func rowMajor(_ shape: [Int]) -> [Int] {
    shape.indices.map { shape[($0 + 1)...].reduce(1, *) }
}

private func described(_ features: [String: MLFeatureDescription]) -> Tensors {
    Entries(features.keys.sorted()) { name in
        guard let array = features[name]!.multiArrayConstraint else { return TensorType("no array", []) }
        let dtype = dataTypes.first { $0.value == array.dataType }?.key ?? "type \(array.dataType.rawValue)"
        return TensorType(dtype, array.shape.map(\.intValue))
    }
}

private func computeUnits(_ compute: ComputeUnits) -> MLComputeUnits {
    switch compute {
    case .cpu: .cpuOnly
    case .gpu: .cpuAndGPU
    case .neuralEngine: .cpuAndNeuralEngine
    case .all: .all
    }
}

/// The package as the system compiled it, once for a bundle. A copy of the weights is a part of it.
private func compiledModel(_ package: URL, _ digest: String, _ directory: URL) throws -> URL {
    let kept = compiledModel(directory, digest)
    if isDirectory(kept) { return kept }
    let made = try orFailed("\(package.path): Core ML cannot compile it") { try waited { try await MLModel.compileModel(at: package) } }
    let new = directory.appendingPathComponent(".\(digest).\(UUID().uuidString)")
    defer { for left in [made, new] { try? FileManager.default.removeItem(at: left) } }
    try storing(kept) {
        try makeDirectories(directory)
        do {
            try FileManager.default.moveItem(at: made, to: new)  // from another volume, perhaps
        } catch {
            throw IoError(error.localizedDescription)
        }
        do {
            try move(new, to: kept)
        } catch where isDirectory(kept) {}  // another run was first
    }
    return kept
}
#endif
