import Foundation

// Target `executorch`, but for the library itself, which only some apps have: LCSBExecuTorch is what lies between.

/// A file of methods, open in the library. What its functions throw is said in one line; an LcsbError goes on as it is.
@_spi(ExecuTorch) public protocol MethodFile: AnyObject {
    func methods() throws -> Set<String>

    /// What a method takes and returns, in order. Nothing is loaded.
    func signature(_ method: String) throws -> (inputs: [MethodTensor], outputs: [MethodTensor])

    func load(_ method: String) throws

    /// The library's value over memory that lives as long, of which nothing is copied.
    func value(_ tensor: MethodTensor, _ memory: UnsafeMutableRawPointer) throws -> AnyObject

    /// Of what `value` made. Results lie in the method's arena until its next call.
    func execute(_ method: String, _ values: [AnyObject]) throws -> [(tensor: MethodTensor, data: UnsafeRawPointer)]
}

/// dtypes by the manifest's names; any other for what it has none for.
@_spi(ExecuTorch) public typealias MethodTensor = (dtype: String, shape: [Int])

/// The programs of target `executorch`: methods of one file, each with an arena that was planned when it was exported and that it holds
/// from its first call on.
final class ExecuTorchRuntime: Runtime {
    private let manifest: Manifest
    private let path: String
    private let weights: WeightTensors
    private let file: any MethodFile
    private var loaded: Set<String> = []

    let name = executorchTarget
    let version = "unknown"  // the library does not say it

    /// `open`: the library's way to it. Throws BUNDLE_OTHER_TARGET, RUNTIME_FAILED, BUNDLE_UNREADABLE.
    init(_ bundle: TrainingBundle, _ open: (URL) throws -> any MethodFile) throws {
        try checkTarget(bundle, executorchTarget)
        let url = bundle.file(pteFile)
        (manifest, path, weights) = (bundle.manifest, url.path, WeightTensors(try bundle.weights))
        let (file, methods) = try orFailed("\(url.path): executorch cannot load it") {
            let file = try open(url)
            return (file, try file.methods())
        }
        self.file = file
        try checkFunctions(path, "methods", bundle.manifest.graphs.keys, methods)
    }

    /// Results are copied out of the method's arena.
    func run(_ program: String, _ feeds: Values, _ outputs: Values, layer: Int) throws {
        let (graph, number) = (manifest.graphs[program]!, manifest.layers[layer].number)
        try load(program, graph)
        let inputs = weights.inputs(graph, feeds, number)
        let results = try withExtendedLifetime(inputs) {
            try orFailed("\(path): \(program): executorch cannot run it") { try file.execute(program, inputs.map(value)) }
        }
        let found = Entries(zip(graph.outputs, results).map { ($0.name, $1) })
        let wanted = Entries(graph.outputs.compactMap { x in outputs[x.name].map { (x.name, TensorType($0.dtype, $0.shape)) } })
        var faults = differences("outputs", wanted, found.only(wanted.contains).mapValues { TensorType($0.tensor) })
        if faults.isEmpty && results.count != graph.outputs.count {
            faults = ["outputs: expected \(graph.outputs.count), found \(results.count)"]
        }
        if !faults.isEmpty { throw other(program, faults) }
        for (name, target) in outputs { memcpy(target.bytes.pointer, found[name]!.data, target.bytes.count) }
    }

    /// Holds it to the manifest first, by which buffers are made: the library ends the process at a result that is no tensor.
    private func load(_ program: String, _ graph: ProgramGraph) throws {
        if loaded.contains(program) { return }
        let what = "\(path): \(program): executorch cannot load it"
        let signature = try orFailed(what) { try file.signature(program) }
        var faults: [String] = []
        for (place, tensors, types) in [("inputs", graph.inputs, signature.inputs), ("outputs", graph.outputs, signature.outputs)] {
            let named = types.enumerated().map { at, type in
                let x = at < tensors.count ? tensors[at] : nil
                let isFree = x?.shape.contains(anySize) ?? false  // found: the largest
                return (x?.name ?? "\(place)[\(at)]", isFree ? TensorType(type.dtype, x!.shape) : TensorType(type))
            }
            faults += differences(place, Entries(tensors.map { ($0.name, TensorType($0)) }), Entries(named))
        }
        if !faults.isEmpty { throw other(program, faults) }
        try orFailed(what, "; link kernels_optimized and backend_xnnpack of ExecuTorch 1.5 whole") { try file.load(program) }
        loaded.insert(program)
    }

    private func value(_ x: HostTensor) throws -> AnyObject {
        if let made = x.made { return made }
        let made = try file.value((x.dtype, x.shape), x.bytes.pointer)
        x.made = made
        return made
    }

    private func other(_ program: String, _ faults: [String]) -> LcsbError {
        unreadable("\(path): \(program): other than the manifest says: \(some(faults)); export the bundle again")
    }
}

extension TensorType {
    fileprivate init(_ tensor: MethodTensor) { self.init(tensor.dtype, tensor.shape) }
}
