// Examples to packed sequences: first fit over a few open sequences. Specification: docs/data.md; figures: benchmarks/packing.py.

let openSequences = 16

/// Sequences of `seqLen` tokens with the examples in file order, as far as packing keeps it. Each is built when it is asked for.
///
/// Each example is a segment (numbered from 0, positions from 0); what is left of a sequence is padding, the last segment. No example may
/// be longer than `seqLen`.
func pack(_ dataset: Dataset, _ seqLen: Int, _ padId: Int) -> some Sequence<Batch> {
    Assignment(dataset.count, { $0 }, dataset.length, seqLen).lazy.map { sequence(of: $0, dataset, seqLen, padId) }
}

/// Packed sequences without end: every epoch holds each example once, in an order of its own, which depends on `seed` alone.
///
/// `start` passes over that many sequences without building them: how many a run that resumes has had. Throws as `Spool` does.
func epochs(_ dataset: Dataset, _ seqLen: Int, _ padId: Int, seed: Int, start: Int = 0) -> Epochs {
    Epochs(dataset: dataset, seqLen: seqLen, padId: padId, seed: seed, left: start)
}

struct Epochs {
    fileprivate let dataset: Dataset
    fileprivate let seqLen: Int
    fileprivate let padId: Int
    fileprivate let seed: Int
    fileprivate var left: Int  // sequences to pass over
    private var epoch = 0
    private var assignment: Assignment?

    fileprivate init(dataset: Dataset, seqLen: Int, padId: Int, seed: Int, left: Int) {
        (self.dataset, self.seqLen, self.padId, self.seed, self.left) = (dataset, seqLen, padId, seed, left)
    }

    /// Throws STORAGE_FULL or STORAGE_FAILED.
    mutating func next() throws -> Batch {
        while true {
            while let indices = assignment?.next() {
                if left == 0 { return sequence(of: indices, dataset, seqLen, padId) }
                left -= 1
            }
            assignment = try shuffledAssignment(dataset, seqLen, seed, epoch)
            epoch += 1
        }
    }
}

/// The example as a sequence of its own, and padding.
func alone(_ dataset: Dataset, _ index: Int, _ seqLen: Int, _ padId: Int) -> Batch { sequence(of: [index], dataset, seqLen, padId) }

/// How many sequences an epoch has; none is built. Throws STORAGE_FULL or STORAGE_FAILED.
func countSequences(_ dataset: Dataset, _ seqLen: Int, seed: Int, epoch: Int = 0) throws -> Int {
    try shuffledAssignment(dataset, seqLen, seed, epoch).reduce(0) { count, _ in count + 1 }
}

private func shuffledAssignment(_ dataset: Dataset, _ seqLen: Int, _ seed: Int, _ epoch: Int) throws -> Assignment {
    let order = try shuffled(dataset.count, seed: seed, epoch: epoch, dataset.spool)
    return Assignment(dataset.count, { Int(order[$0]) }, dataset.length, seqLen)
}

/// Which examples make up each sequence, from their numbers and sizes.
///
/// An example goes to the first open sequence that has room, or opens one. When that makes more than `open`, the oldest is closed; at the
/// end all are, the oldest first. With one it is next fit, with no bound first fit.
struct Assignment: Sequence, IteratorProtocol {
    private let count: Int
    private let number: (Int) -> Int
    private let size: (Int) -> Int
    private let seqLen: Int
    private let open: Int
    private var place = 0
    private var rooms: [Int] = []
    private var members: [[Int]] = []

    /// `number`: of the example that comes as the nth, n from 0 to `count` - 1. `size`: in tokens, of the example of a number.
    init(_ count: Int, _ number: @escaping (Int) -> Int, _ size: @escaping (Int) -> Int, _ seqLen: Int, open: Int = openSequences) {
        (self.count, self.number, self.size, self.seqLen, self.open) = (count, number, size, seqLen, open)
    }

    mutating func next() -> [Int]? {
        while place < count {
            let index = number(place)
            place += 1
            let tokens = size(index)
            if let slot = rooms.firstIndex(where: { tokens <= $0 }) {
                rooms[slot] -= tokens
                members[slot].append(index)
                continue
            }
            precondition(tokens <= seqLen, "expected an example of at most \(seqLen) tokens, found \(tokens)")
            rooms.append(seqLen - tokens)
            members.append([index])
            if rooms.count > open { return close() }
        }
        return rooms.isEmpty ? nil : close()
    }

    private mutating func close() -> [Int] {
        rooms.removeFirst()
        return members.removeFirst()
    }
}

/// One batch of `seqLen` tokens; the examples fit.
private func sequence(of indices: [Int], _ dataset: Dataset, _ seqLen: Int, _ padId: Int) -> Batch {
    var inputIds = [Int64](repeating: Int64(padId), count: seqLen)
    var labels = [Int64](repeating: ignoredLabel, count: seqLen)
    var positionIds = [Int64](repeating: 0, count: seqLen)
    var segmentIds = [Int64](repeating: Int64(indices.count), count: seqLen)
    var start = 0
    for (segment, index) in indices.enumerated() {
        let example = dataset.example(index)
        for (offset, (id, label)) in zip(example.inputIds, example.labels).enumerated() {
            inputIds[start + offset] = Int64(id)
            labels[start + offset] = Int64(label)
            positionIds[start + offset] = Int64(offset)
            segmentIds[start + offset] = Int64(segment)
        }
        start += example.inputIds.count
    }
    for place in start..<seqLen { positionIds[place] = Int64(place - start) }
    return Batch(inputIds: inputIds, labels: labels, positionIds: positionIds, segmentIds: segmentIds)
}
