// What a runtime provides, and the values that it takes.

typealias Values = [String: HostTensor]  // by the names of a program's inputs or outputs

/// Those of both; of a name that both have the second's.
func + (some: Values, more: Values) -> Values { some.merging(more) { $1 } }

/// A tensor in memory that does not move, which programs read and write in place. `made`: what the runtime made of it, which it makes once.
final class HostTensor {
    let dtype: String
    let shape: [Int]
    let bytes: Bytes
    var made: AnyObject?

    init(_ dtype: String, _ shape: [Int], _ bytes: Bytes) { (self.dtype, self.shape, self.bytes) = (dtype, shape, bytes) }

    /// Zeroed memory of its own. Throws MEMORY_TOO_SMALL.
    convenience init(_ dtype: String, _ shape: [Int]) throws { try self.init(dtype, shape, Bytes(count: tensorBytes(dtype, shape))) }

    /// Over all of a vector.
    convenience init(_ floats: Floats) { self.init("float32", [floats.count], floats.bytes) }

    var floats: Floats { bytes.floats }

    /// Puts whole numbers in, as the dtype has them.
    func write(_ values: [Int64]) {
        precondition(values.count == shape.reduce(1, *), "expected \(shape), found \(values.count)")
        if dtype == "int32" {
            copy(values.map { Int32($0) })
        } else {
            copy(values)
        }
    }

    private func copy<Value>(_ values: [Value]) {
        values.withUnsafeBytes { bytes.pointer.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    }
}

/// The tensors of `weights.bin` in place, one for each layer of a stacked one, made when they are first asked for.
final class WeightTensors {
    private struct Place: Hashable {
        let weight: String
        let number: Int
    }

    private let weights: MappedWeights
    private var made: [Place: HostTensor] = [:]

    init(_ weights: MappedWeights) { self.weights = weights }

    /// A tensor, of a stacked one that of the layer that is `number` of its kind.
    subscript(weight: String, number: Int) -> HostTensor {
        let place = Place(weight: weight, number: weights.isPerLayer(weight) ? number : 0)
        if let tensor = made[place] { return tensor }
        let tensor = HostTensor(weights.dtype(weight), weights.shape(weight), weights.bytes(weight, number))
        made[place] = tensor
        return tensor
    }

    /// What goes into each input of a program, in order. `feeds`: what is no weight, and what is a part of one. `number`: of the layer whose
    /// weights it takes, in its kind.
    func inputs(_ graph: ProgramGraph, _ feeds: Values, _ number: Int) -> [HostTensor] {
        graph.inputs.map { x in feeds[x.name] ?? self[x.weight!, number] }
    }
}

/// What runs the programs of one bundle, from one thread at a time. `name`: of the target that they are for.
protocol Runtime: AnyObject {
    var name: String { get }
    var version: String { get }

    /// Runs a program with the weights that it takes, those of `layer` where it is a layer's. `feeds`: what else it takes, a part of a weight
    /// too, and perhaps more. `outputs`: where each result that is wanted goes. Throws RUNTIME_FAILED where the runtime refuses, BUNDLE_UNREADABLE for a
    /// program that is other than the manifest says.
    func run(_ program: String, _ feeds: Values, _ outputs: Values, layer: Int) throws
}

/// A runtime's error as RUNTIME_FAILED, in one line; an LcsbError goes on as it is.
func orFailed<Result>(_ what: String, _ remedy: String = "", _ act: () throws -> Result) throws -> Result {
    do {
        return try act()
    } catch let error as LcsbError {
        throw error
    } catch {
        throw LcsbError(.runtimeFailed, "\(what): \(oneLine(error.localizedDescription))\(remedy)")
    }
}

/// Throws BUNDLE_UNREADABLE unless a function takes and returns, under plain names, what the manifest says, by which buffers are made.
func checkInterface(_ path: String, _ name: String, _ graph: ProgramGraph, inputs: Tensors, outputs: Tensors) throws {
    func described(_ tensors: [GraphTensor]) -> Tensors { Entries(tensors.map { (plainName($0.name), TensorType($0)) }) }
    let faults = differences("inputs", described(graph.inputs), inputs) + differences("outputs", described(graph.outputs), outputs)
    if !faults.isEmpty { throw unreadable("\(path): \(name): other than the manifest says: \(some(faults)); export the bundle again") }
}

/// Throws BUNDLE_UNREADABLE unless a file of functions has those of these names.
func checkFunctions(_ path: String, _ what: String, _ needed: some Sequence<String>, _ found: some Sequence<String>) throws {
    let missing = Set(needed).subtracting(found).sorted()
    if missing.isEmpty { return }
    let names = missing.prefix(10).joined(separator: ", ") + (missing.count > 10 ? ", …" : "")
    throw unreadable("\(path): expected the \(what) \(names), found none of these names; export the bundle again")
}

/// Throws BUNDLE_OTHER_TARGET.
func checkTarget(_ bundle: TrainingBundle, _ target: String) throws {
    if bundle.manifest.target != target { throw otherTarget(bundle.directory.path, bundle.manifest.target, [target]) }
}
