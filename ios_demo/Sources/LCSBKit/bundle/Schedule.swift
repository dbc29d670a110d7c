/// One step's layers, ascending. `train`: their LoRA gradients are computed. `propagate`: the gradient passes through their true Jacobian;
/// it contains `train`. Every other layer above min(train) is the identity; below it nothing runs.
public struct Subset: Sendable, Hashable {
    public var train: [Int]
    public var propagate: [Int]

    public init(train: [Int], propagate: [Int]) { (self.train, self.propagate) = (train, propagate) }

    /// Throws OPTION unless the layers are ascending, within the model, and `train` is not empty and in `propagate`.
    public func check(_ numLayers: Int) throws {
        if let fault = fault(numLayers) { throw LcsbError(.option, fault) }
    }

    /// What is wrong, as a sentence, or nil.
    public func fault(_ numLayers: Int) -> String? {
        for (name, layers) in [("train", train), ("propagate", propagate)] {
            let ascending = zip(layers, layers.dropFirst()).allSatisfy { $0 < $1 }
            if !ascending || layers.contains(where: { $0 < 0 || $0 >= numLayers }) {
                return "\(name): expected ascending layers from 0 to \(numLayers - 1), found \(few(layers))"
            }
        }
        if train.isEmpty || !Set(propagate).isSuperset(of: train) {
            return "expected train to be non-empty and within propagate, found \(few(train)) and \(few(propagate))"
        }
        return nil
    }
}

public enum ScheduleMethod: String, Sendable, CaseIterable {
    case lcsbExact = "lcsb-exact"
    case lcsbIdentity = "lcsb-identity"
    case full
    case freeze
}

public enum Partition: String, Sendable, CaseIterable {
    case contiguous, interleaved
}

/// How a bundle's schedule was made. `partition` nil: the method's own. `order`: a shuffled one is written out in the manifest.
public struct ScheduleConfig: Sendable, Equatable {
    public var method = ScheduleMethod.lcsbExact
    public var subsets = 4
    public var partition: Partition?
    public var order = "cyclic"
    public var seed = 0
}

/// K disjoint subsets that cover all layers; contiguous bands are listed from the top of the model down.
func partitionLayers(_ numLayers: Int, _ subsets: Int, _ partition: Partition) -> [[Int]] {
    switch partition {
    case .interleaved: (0..<subsets).map { Array(stride(from: $0, to: numLayers, by: subsets)) }
    case .contiguous: (0..<subsets).reversed().map { Array(numLayers * $0 / subsets..<numLayers * ($0 + 1) / subsets) }
    }
}

/// The steps of one cycle, in cyclic order and the method's own partition: of another method than the bundle's, whose schedule is its
/// manifest's. `full` and `freeze` have one step (all layers; the top 1/K of them). Throws OPTION when K is not from 1 to the number of
/// layers.
public func makeSchedule(_ method: ScheduleMethod, _ subsets: Int, _ numLayers: Int) throws -> [Subset] {
    if subsets < 1 || subsets > numLayers {
        throw LcsbError(.option, "subsets: expected 1 to \(numLayers) (the model's layers), found \(subsets)")
    }
    let everything = Array(0..<numLayers)
    switch method {
    case .full: return [Subset(train: everything, propagate: everything)]
    case .freeze:
        let top = everything.suffix(max(1, numLayers / subsets))
        return [Subset(train: Array(top), propagate: Array(top))]
    case .lcsbExact: return partitionLayers(numLayers, subsets, .contiguous).map { Subset(train: $0, propagate: Array($0[0]..<numLayers)) }
    case .lcsbIdentity: return partitionLayers(numLayers, subsets, .interleaved).map { Subset(train: $0, propagate: $0) }
    }
}

/// A list as a message shows it, cut to what a line holds.
private func few(_ layers: [Int]) -> String {
    "[" + layers.prefix(100).map(String.init).joined(separator: ", ") + (layers.count > 100 ? ", ...]" : "]")
}

// As data; they throw RecordError.

extension Subset {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        (train, propagate) = (try fields.ints("train"), try fields.ints("propagate"))
        try fields.finish()
    }
}

extension ScheduleConfig {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        method = try fields.optional("method", Fields.one) ?? method
        subsets = try fields.optional("subsets", Fields.int) ?? subsets
        partition = try fields.optional("partition", Fields.one)
        order = try fields.optional("order", Fields.string) ?? order
        seed = try fields.optional("seed", Fields.int) ?? seed
        try fields.finish()
    }
}
