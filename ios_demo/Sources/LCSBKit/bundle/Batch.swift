let ignoredLabel: Int64 = -100  // a label that is not counted and costs nothing

/// One sequence of T tokens, several packed examples in it; all arrays [T].
///
/// `labels[t]` is the token to be predicted *at* position t (already shifted), or `ignoredLabel`. `segmentIds` tells the packed examples
/// apart: attention stays within a segment. `positionIds` start from 0 in each segment. Padding has a segment of its own and ignored
/// labels.
public struct Batch: Sendable {
    public var inputIds: [Int64]
    public var labels: [Int64]
    public var positionIds: [Int64]
    public var segmentIds: [Int64]

    public init(inputIds: [Int64], labels: [Int64], positionIds: [Int64], segmentIds: [Int64]) {
        (self.inputIds, self.labels, self.positionIds, self.segmentIds) = (inputIds, labels, positionIds, segmentIds)
    }

    public var countedLabels: Int { labels.count { $0 != ignoredLabel } }
}

/// 1 to `seqLen` tokens and padding, nothing to predict.
func wholeSequence(_ ids: [Int], _ seqLen: Int) -> Batch {
    let used = ids.count
    let places = 0..<seqLen
    return Batch(
        inputIds: places.map { $0 < used ? Int64(ids[$0]) : 0 },
        labels: [Int64](repeating: ignoredLabel, count: seqLen),
        positionIds: places.map { Int64($0 < used ? $0 : $0 - used) },
        segmentIds: places.map { $0 < used ? 0 : 1 }
    )
}

extension Batch {
    /// As data. Throws RecordError.
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        func numbers(_ name: String) throws -> [Int64] { try fields.list(name) { Int64(try Fields.int($0, $1)) } }
        (inputIds, labels) = (try numbers("input_ids"), try numbers("labels"))
        (positionIds, segmentIds) = (try numbers("position_ids"), try numbers("segment_ids"))
        try fields.finish()
    }
}
