#if os(Linux)
import CoreAI
import CoreML
import Foundation
@testable import LCSBKit

// Bundles of targets coreai and coreml, and what stands for Apple's runtimes: the same programs on ONNX Runtime, and those that no other
// target has in Swift.

/// What an export of the bundle's model for `target` has, but for what is in the asset. Its weights keep the names that they have as inputs.
func writeStaticBundle(
    _ bundle: TrainingBundle, _ target: String, _ directory: URL, _ change: (inout Manifest) -> Void = { _ in }
) throws {
    var manifest = bundle.manifest
    let row = targets[target]!
    manifest.target = target
    manifest.files = manifest.files.only { !$0.hasSuffix(".onnx") && !(row.holdsWeights && $0 == weightsFile) }
    for name in manifest.files.keys { try FileManager.default.copyItem(at: bundle.file(name), to: directory.file(name)) }
    for name in row.files + [row.sharedFile!] {
        let content = Array("of \(name)".utf8)
        try FileManager.default.createDirectory(at: directory.file(name).deletingLastPathComponent(), withIntermediateDirectories: true)
        try directory.file(name).write(content)
        manifest.files[name] = FileEntry(size: content.count, sha256: sha256(content))
    }
    manifest.graphs = staticGraphs(bundle.manifest, row)
    manifest.runtime = RuntimeSettings(sessionConfig: [:], arena: Arena(initialBytes: 0))
    change(&manifest)
    manifest.digest = nil
    try directory.file(manifestFile).write(Json(record: manifest).text)
}

func withStaticBundle(_ name: String, _ target: String, _ use: (TrainingBundle) throws -> Void) throws {
    try inScratch { scratch in
        try writeStaticBundle(openBundle(name), target, scratch)
        try use(TrainingBundle.open(scratch))
    }
}

private func staticGraphs(_ manifest: Manifest, _ row: Target) -> Entries<ProgramGraph> {
    let (t, d, v) = (manifest.seqLen, manifest.model.hiddenSize, manifest.model.vocabSize)
    let rows = min(headRows(d), v)
    func tensor(_ name: String, _ dtype: String, _ shape: [Int], _ weight: String? = nil) -> GraphTensor {
        GraphTensor(name: name, dtype: dtype, shape: shape, meaning: "", weight: weight)
    }
    func float(_ name: String, _ shape: Int...) -> GraphTensor { tensor(name, "float32", shape) }
    func graph(_ inputs: [GraphTensor], _ outputs: [GraphTensor]) -> ProgramGraph {
        let (weights, fed) = (inputs.filter { $0.weight != nil }, inputs.filter { $0.weight == nil })
        return ProgramGraph(
            file: row.sharedFile!, inputs: row.holdsWeights ? fed : inputs, outputs: outputs,
            initializers: row.holdsWeights ? weights : [])
    }
    func table(_ rows: Int) -> [GraphTensor] {
        manifest.graphs["head"]!.inputs.filter { $0.name.hasSuffix(".packed") || $0.name.hasSuffix(".scale") }.map {
            tensor($0.name.hasSuffix(".packed") ? "packed" : "scale", $0.dtype, [rows] + $0.shape.dropFirst(), $0.weight)
        }
    }
    let chunk = row.holdsWeights ? table(v) + [tensor("start", "int32", [1])] : table(rows)
    let norm = tensor("weight", "float32", [d], "norm.weight")
    let chosen = [float("x", t, d), float("target", t, d), float("share", t, 1)]
    let sums = [float("peak", t, 1), float("total", t, 1)]
    let next = [float("peak_next", t, 1), float("total_next", t, 1)]
    let (h, weighted, bias) = (float("h", t, d), float("weighted", t, d), float("bias", 1, rows))
    var graphs: Entries<ProgramGraph> = [
        "head_start": graph([h, tensor("labels", "int32", [t]), norm] + table(v), chosen),
        "head_chunk": graph([float("x", t, d)] + sums + [weighted, bias] + chunk, next + [float("weighted_next", t, d)]),
        "head_end": graph([h] + chosen + sums + [weighted, norm], [float("loss", 1), float("g", t, d)]),
        "eval_chunk": graph([float("x", t, d)] + sums + [bias] + chunk, next),
        "eval_end": graph(chosen + sums, [float("loss", 1)]),
        "logits_start": graph([float("h", 1, d), norm], [float("x", 1, d)]),
        "logits_chunk": graph([float("x", 1, d)] + chunk, [float("logits", rows)]),
    ]
    for kind in manifest.kinds {
        let moments = ["parameters", "first_moment", "second_moment"]
        graphs["\(kind.name)_adamw"] = graph(
            (moments + ["gradient"]).map { float($0, kind.size) } + ["decay", "rate", "root"].map { float($0, 1) },
            moments.map { float("\($0)_next", kind.size) })
        for role in Role.allCases {
            let source = manifest.graphs[program(kind.name, role)]!
            graphs[program(kind.name, role)] = graph(source.inputs, source.outputs)
        }
    }
    for name in ["embed", "decode_embed"] {
        let source = manifest.graphs[name]!
        let inputs = source.inputs.map { $0.dtype == "int64" ? tensor($0.name, "int32", $0.shape) : $0 }
        graphs[name] = graph(inputs, source.outputs)
    }
    return graphs
}

/// The static programs of a bundle for ONNX Runtime.
final class StaticPrograms {
    let bundle: TrainingBundle
    private let ort: Ort
    private var sessions: [String: OrtSession] = [:]

    init(_ name: String) throws { (bundle, ort) = (try openBundle(name), try Ort.get()) }

    /// `inputs`: with all weights, by the manifest's names. `outputs`: those that are wanted.
    func run(_ program: String, _ inputs: Values, _ outputs: Values) throws {
        switch program {
        case "head_start": start(inputs, outputs)
        case "head_chunk", "eval_chunk": chunk(inputs, outputs)
        case "head_end", "eval_end": end(inputs, outputs)
        case "logits_start": for (at, y) in normed(inputs).enumerated() { outputs["x"]!.floats[at] = Float(y) }
        case "logits_chunk":
            let x = tokens(inputs, "x")[0]
            for row in 0..<outputs["logits"]!.shape[0] { outputs["logits"]!.floats[row] = Float(dot(x, chunkRow(inputs, row))) }
        default: try onnx(program, inputs, outputs)
        }
    }

    /// On the bundle's own program.
    private func onnx(_ program: String, _ inputs: Values, _ outputs: Values) throws {
        let isUpdate = program.hasSuffix("_adamw")
        let fed = try inputs.map { name, x in
            let value = x.dtype == "int32" ? try long(x) : isUpdate && x.shape == [1] ? HostTensor("float32", [], x.bytes) : x
            return (OrtName(name), try OrtTensor(ort, value))
        }
        let wanted = try outputs.map { (OrtName($0), try OrtTensor(ort, $1)) }
        try withExtendedLifetime(inputs) { try session(isUpdate ? "adamw" : program).run(fed, wanted) }
    }

    private var kept: [HostTensor] = []

    private func long(_ x: HostTensor) throws -> HostTensor {
        let value = try HostTensor("int64", x.shape)
        value.write(integers(x))
        kept = kept.suffix(8) + [value]
        return value
    }

    private func session(_ program: String) throws -> OrtSession {
        if let session = sessions[program] { return session }
        let options = try sessionOptions(ort, bundle.manifest.runtime, threads: 1)
        defer { ort.api.ReleaseSessionOptions(options) }
        let session = try OrtSession(ort, bundle.file(bundle.manifest.graphs[program]!.file), options)
        sessions[program] = session
        return session
    }

    // The head, in double precision

    private var width: Int { bundle.manifest.model.hiddenSize }

    private func integers(_ x: HostTensor) -> [Int64] {
        x.bytes.raw.bindMemory(to: Int32.self).map(Int64.init)
    }

    /// A norm's factors; of some architectures they are stored less 1.
    private func factors(_ inputs: Values) -> [Double] {
        let type = bundle.manifest.model.modelType
        let one = type.hasPrefix("gemma") || type.hasPrefix("qwen3_5") ? 1.0 : 0
        return inputs["weight"]!.floats.array.map { Double($0) + one }
    }

    private func inverse(_ h: ArraySlice<Float>) -> Double {
        let mean = h.reduce(0.0) { $0 + Double($1) * Double($1) } / Double(width)
        return 1 / (mean + bundle.manifest.model.rmsNormEps).squareRoot()
    }

    private func normed(_ inputs: Values) -> [Double] {
        let (h, factors) = (inputs["h"]!.floats.array, factors(inputs))
        return stride(from: 0, to: h.count, by: width).flatMap { place in
            let row = h[place..<place + width]
            let inverse = inverse(row)
            return zip(row, factors).map { Double($0) * inverse * $1 }
        }
    }

    /// A row of `packed` and `scale` in groups: int8, or two of 4 bits a byte, less 8, the lower those of a group's first half.
    private func row(_ inputs: Values, _ number: Int) -> [Double] {
        let (packed, scale) = (inputs["packed"]!, inputs["scale"]!)
        let groups = packed.shape[1]
        let width = packed.shape[2]
        let bytes = packed.bytes.part(number * groups * width, groups * width).raw
        let scales = scale.bytes.part(number * groups * 2, groups * 2).raw.bindMemory(to: Float16.self)
        let values = packed.dtype == "int8"
            ? bytes.map { Double(Int8(bitPattern: $0)) }
            : (0..<groups).flatMap { group in
                let part = bytes[group * width..<(group + 1) * width]
                return part.map { Double($0 & 15) - 8 } + part.map { Double($0 >> 4) - 8 }
            }
        let size = values.count / groups
        return values.enumerated().map { Double(scales[$0 / size]) * $1 }
    }

    /// Of a chunk, which is fed, or found by its start.
    private func chunkRow(_ inputs: Values, _ number: Int) -> [Double] {
        row(inputs, number + (inputs["start"].map { Int(integers($0)[0]) } ?? 0))
    }

    /// An input's values, token by token.
    private func tokens(_ inputs: Values, _ name: String) -> [[Double]] {
        let values = inputs[name]!.floats.array.map(Double.init)
        return stride(from: 0, to: values.count, by: width).map { Array(values[$0..<$0 + width]) }
    }

    private func dot(_ x: [Double], _ row: [Double]) -> Double {
        var sum = 0.0
        for at in 0..<row.count { sum += x[at] * row[at] }
        return sum
    }

    private func start(_ inputs: Values, _ outputs: Values) {
        let labels = integers(inputs["labels"]!)
        let counted = labels.count { $0 != ignoredLabel }
        for (at, y) in normed(inputs).enumerated() { outputs["x"]!.floats[at] = Float(y) }
        for (token, label) in labels.enumerated() {
            outputs["share"]!.floats[token] = label == ignoredLabel ? 0 : 1 / Float(counted)
            for (at, value) in row(inputs, label == ignoredLabel ? 0 : Int(label)).enumerated() {
                outputs["target"]!.floats[token * width + at] = Float(value)
            }
        }
    }

    private func chunk(_ inputs: Values, _ outputs: Values) {
        let bias = inputs["bias"]!.floats
        let table = (0..<bias.count).map { chunkRow(inputs, $0) }
        let (x, before) = (tokens(inputs, "x"), outputs["weighted_next"] == nil ? [] : tokens(inputs, "weighted"))
        for token in 0..<bundle.manifest.seqLen {
            let logits = table.indices.map { dot(x[token], table[$0]) + Double(bias[$0]) }
            let peak = Double(inputs["peak"]!.floats[token])
            let higher = max(peak, logits.max()!)
            let (shrink, powers) = (exp(peak - higher), logits.map { exp($0 - higher) })
            outputs["peak_next"]!.floats[token] = Float(higher)
            outputs["total_next"]!.floats[token] = Float(Double(inputs["total"]!.floats[token]) * shrink + powers.reduce(0, +))
            guard let weighted = outputs["weighted_next"]?.floats else { continue }
            var sums = [Double](repeating: 0, count: width)
            for (power, row) in zip(powers, table) { for at in 0..<width { sums[at] += power * row[at] } }
            for at in 0..<width { weighted[token * width + at] = Float(before[token][at] * shrink + sums[at]) }
        }
    }

    private func end(_ inputs: Values, _ outputs: Values) {
        func value(_ name: String, _ at: Int) -> Double { Double(inputs[name]!.floats[at]) }
        var loss = 0.0
        for token in 0..<bundle.manifest.seqLen {
            let (share, total) = (value("share", token), value("total", token))
            let places = token * width..<(token + 1) * width
            let hit = places.reduce(0.0) { $0 + value("x", $1) * value("target", $1) }
            loss += share * (value("peak", token) + log(total) - hit)
            guard let g = outputs["g"]?.floats else { continue }
            let h = inputs["h"]!.floats.array[places]
            let (inverse, factors) = (inverse(h), factors(inputs))
            let scaled = places.map { place in
                share * (value("weighted", place) / total - value("target", place)) * factors[place - places.lowerBound]
            }
            let along = zip(scaled, h).reduce(0.0) { $0 + $1.0 * Double($1.1) } * inverse * inverse / Double(width)
            for (at, place) in places.enumerated() { g[place] = Float(inverse * (scaled[at] - Double(h[place]) * along)) }
        }
        outputs["loss"]!.floats[0] = Float(loss)
    }
}

// Core AI

let scalarTypes: [String: NDArray.ScalarType] = [
    "float32": .float32, "float16": .float16, "int32": .int32, "int8": .int8, "uint8": .uint8, "bool": .bool,
]

/// The asset of a static bundle. `calls`: the functions with what they were given.
class StaticModel: StandInAIModel {
    struct Call {
        let function: String
        let inputs: [String: StandInArray]
        let outputs: [String: StandInArray]
    }

    let programs: StaticPrograms
    private let graphs: Entries<ProgramGraph>
    private(set) var calls: [Call] = []
    private(set) var loaded: [String] = []

    init(_ name: String, _ bundle: TrainingBundle) throws { (programs, graphs) = (try StaticPrograms(name), bundle.manifest.graphs) }

    var functionNames: [String] { graphs.keys }

    func descriptor(_ function: String) -> InferenceFunctionDescriptor? {
        func described(_ tensors: [GraphTensor]) -> [(String, InferenceValue.Descriptor)] {
            tensors.map { ($0.name.replacingOccurrences(of: ".", with: "_"), .ndArray(NDArrayDescriptor(standIn: $0.shape, scalarTypes[$0.dtype]!))) }
        }
        return graphs[function].map {
            InferenceFunctionDescriptor(standIn: function, inputs: described($0.inputs), outputs: described($0.outputs))
        }
    }

    func load(_ function: String) throws { loaded.append(function) }

    func run(_ function: String, _ inputs: [String: StandInArray], _ outputs: [String: StandInArray]) throws -> [String] {
        precondition(loaded.contains(function))
        calls.append(Call(function: function, inputs: inputs, outputs: outputs))
        let graph = graphs[function]!
        precondition(inputs.count == graph.inputs.count, "\(function): expected \(graph.inputs.count) inputs, found \(inputs.count)")
        func host(_ x: GraphTensor, _ array: StandInArray) throws -> HostTensor {
            let tensor = try HostTensor(x.dtype, x.shape)
            precondition(array.shape == x.shape && array.scalarType == scalarTypes[x.dtype] && array.byteCount >= tensor.bytes.count)
            return tensor
        }
        var (fed, wanted, left): (Values, Values, [String]) = ([:], [:], [])
        for x in graph.inputs {
            let array = inputs[plainName(x.name)]!
            fed[x.name] = try host(x, array)
            memcpy(fed[x.name]!.bytes.pointer, array.pointer, fed[x.name]!.bytes.count)
        }
        for x in graph.outputs {
            if let array = outputs[plainName(x.name)] { wanted[x.name] = try host(x, array) } else { left.append(plainName(x.name)) }
        }
        try programs.run(function, fed, wanted)
        for (name, x) in wanted { memcpy(outputs[plainName(name)]!.pointer, x.bytes.pointer, x.bytes.count) }
        return left
    }
}

// Core ML

let mlTypes: [String: MLMultiArrayDataType] = ["float32": .float32, "float16": .float16, "int32": .int32]

/// The framework, for one static bundle. `padded`: results lie in memory of its own, whose rows are longer than they need be.
class StaticML: StandInML {
    let programs: StaticPrograms
    let bundle: TrainingBundle
    var padded = false
    private(set) var compiled = 0
    private(set) var loads: [String] = []
    private(set) var units: MLComputeUnits?
    fileprivate(set) var calls: [(function: String, inputs: [String: MLMultiArray], backings: [String: MLMultiArray])] = []

    init(_ name: String, _ bundle: TrainingBundle) throws { (programs, self.bundle) = (try StaticPrograms(name), bundle) }

    func compile(_ package: URL) throws -> URL {
        precondition(package.lastPathComponent == "programs.mlpackage" && isDirectory(package))
        compiled += 1
        let model = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).mlmodelc")
        try FileManager.default.createDirectory(at: model, withIntermediateDirectories: true)
        return model
    }

    func functionNames(_ compiled: URL) throws -> [String] {
        let kinds = bundle.manifest.layers.map(\.kind)
        return bundle.manifest.graphs.keys.flatMap { name in
            let layers = kinds.indices.filter { layer in Role.allCases.contains { program(kinds[layer], $0) == name } }
            return layers.isEmpty ? [name] : layers.map { "\(name)_" + ($0 < 10 ? "0\($0)" : "\($0)") }
        }
    }

    func load(_ compiled: URL, _ function: String?, _ computeUnits: MLComputeUnits) throws -> any StandInFunction {
        precondition(isDirectory(compiled), "it was compiled")
        (units, loads) = (computeUnits, loads + [function!])
        return StaticFunction(self, function!)
    }

    func description(_ program: String) -> MLModelDescription {
        func described(_ tensors: [GraphTensor]) -> [String: MLFeatureDescription] {
            Dictionary(uniqueKeysWithValues: tensors.map {
                (plainName($0.name), MLFeatureDescription(standIn: MLMultiArrayConstraint(standIn: $0.shape, mlTypes[$0.dtype]!)))
            })
        }
        let graph = bundle.manifest.graphs[program]!
        return MLModelDescription(standIn: described(graph.inputs), described(graph.outputs))
    }

    func results(_ found: [String: MLMultiArray]) throws -> [String: MLMultiArray] { found }
}

private final class StaticFunction: StandInFunction {
    private let framework: StaticML
    private let function: String
    private let program: String
    private let layer: Int?

    init(_ framework: StaticML, _ function: String) {
        (self.framework, self.function) = (framework, function)
        let isWhole = framework.bundle.manifest.graphs.contains(function)
        program = isWhole ? function : String(function[..<function.lastIndex(of: "_")!])
        layer = isWhole ? nil : Int(function[function.index(after: function.lastIndex(of: "_")!)...])
    }

    var description: MLModelDescription { framework.description(program) }

    func predict(_ inputs: [String: MLMultiArray], _ backings: [String: MLMultiArray]) throws -> [String: MLMultiArray] {
        framework.calls.append((function, inputs, backings))
        let (graph, source) = (framework.bundle.manifest.graphs[program]!, framework.programs.bundle)
        precondition(inputs.count == graph.inputs.count, "\(function): expected \(graph.inputs.count) inputs, found \(inputs.count)")
        var fed: Values = [:]
        for x in graph.inputs {
            let array = inputs[plainName(x.name)]!
            precondition(array.shape.map(\.intValue) == x.shape && array.dataType == mlTypes[x.dtype])
            fed[x.name] = try HostTensor(x.dtype, x.shape)
            memcpy(fed[x.name]!.bytes.pointer, array.dataPointer, fed[x.name]!.bytes.count)
        }
        let weights = WeightTensors(try source.weights)
        for x in graph.initializers { fed[x.name] = weights[x.weight!, source.manifest.layers[layer ?? 0].number] }
        var made: Values = [:]
        for x in graph.outputs { made[x.name] = try HostTensor(x.dtype, x.shape) }
        try framework.programs.run(program, fed, made)
        var results: [String: MLMultiArray] = [:]
        for x in graph.outputs {
            let (name, result) = (plainName(x.name), made[x.name]!)
            if let backing = backings[name], !framework.padded {
                memcpy(backing.dataPointer, result.bytes.pointer, result.bytes.count)
                results[name] = backing
            } else {
                results[name] = try padded(result)
            }
        }
        return try framework.results(results)
    }

    /// Its own memory, with three places more than there are in each row.
    private func padded(_ x: HostTensor) throws -> MLMultiArray {
        let (size, last) = (dtypeBytes[x.dtype]!, x.shape.last!)
        let rows = x.bytes.count / size / last
        let memory = UnsafeMutableRawPointer.allocate(byteCount: rows * (last + 3) * size, alignment: 16)
        memset(memory, 0xFF, rows * (last + 3) * size)
        for row in 0..<rows { memcpy(memory + row * (last + 3) * size, x.bytes.pointer + row * last * size, last * size) }
        var strides = [1]
        for extent in ([last + 3] + x.shape.dropFirst().dropLast().reversed()).prefix(x.shape.count - 1) { strides.insert(strides[0] * extent, at: 0) }
        return try MLMultiArray(
            dataPointer: memory, shape: x.shape.map { NSNumber(value: $0) }, dataType: mlTypes[x.dtype]!,
            strides: strides.map { NSNumber(value: $0) }, deallocator: { $0.deallocate() })
    }
}
#endif
