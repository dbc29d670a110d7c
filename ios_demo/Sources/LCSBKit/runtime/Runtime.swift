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
}

/// What runs the programs of one bundle, from one thread at a time. `name`: of the target that they are for.
protocol Runtime: AnyObject {
    var name: String { get }
    var version: String { get }

    /// Runs a program with the weights that it takes, those of `layer` where it is a layer's. `feeds`: what else it takes, and perhaps
    /// more. `outputs`: where each result that is wanted goes. Throws RUNTIME_FAILED where the runtime refuses, BUNDLE_UNREADABLE for a
    /// program that is other than the manifest says.
    func run(_ program: String, _ feeds: Values, _ outputs: Values, layer: Int) throws
}

/// Throws BUNDLE_OTHER_TARGET.
func checkTarget(_ bundle: TrainingBundle, _ target: String) throws {
    if bundle.manifest.target != target { throw otherTarget(bundle.directory.path, bundle.manifest.target, [target]) }
}
