import Foundation

private let mostKeys = 20  // that were passed over and are counted by name; the others are counted together
private let otherKeys = "…"
private let heldOutEpoch = -1  // the order that chooses the examples to evaluate on, beside those of the epochs from 0

/// What a data file came to. `tokens` and `countedLabels` are those of the `examples` that are trained on.
///
/// `truncated` examples lost `tokensCut` tokens to the sequence length; `withoutLabels` examples were dropped because nothing to learn was
/// left of them. So lines = examples + withoutLabels = texts + completions + conversations. `uncountedTurns`: of the assistant, which are
/// not learned from because the chat template rewrites them (docs/data.md). `doubledEnds`: lines that held a token of beginning or end, and
/// got another by their form or the chat format. `duplicates`: lines that equal an earlier one.
/// `blankLines` are none of the lines. `furtherKeys`: in how many lines each key was that no form has, in their order; those of a turn as
/// `messages[].name`, those beyond the first `mostKeys` together as `otherKeys`. Lengths are tokens of all lines before they are cut,
/// percentiles by nearest rank.
public struct DataReport: Sendable, Equatable {
    public let lines: Int
    public let examples: Int
    public let tokens: Int
    public let countedLabels: Int
    public let truncated: Int
    public let tokensCut: Int
    public let withoutLabels: Int
    public let texts: Int
    public let completions: Int
    public let conversations: Int
    public let uncountedTurns: Int
    public let doubledEnds: Int
    public let duplicates: Int
    public let blankLines: Int
    public let furtherKeys: [KeyCount]
    public let lengthP50: Int
    public let lengthP90: Int
    public let lengthP99: Int
    public let longest: Int
}

/// A key that was passed over, and in how many lines.
public struct KeyCount: Sendable, Equatable {
    public let key: String
    public var lines: Int
}

/// The examples of a data file, or of a part of it, in its order; `report`, `sha256` and `tokensSha256`, of what it was made into, are the whole
/// file's. They lie in mapped files without a name, which go with the dataset. `spool`: the directory of temporary files.
///
/// `lengths`: tokens of each. An example of n tokens is n + 1 of the numbers `words`, from `starts` on: number t is token t times two, plus
/// one where predicting it counts; the last is the token after the example, or 0 where none counts.
struct Dataset {
    let file: URL
    let report: DataReport
    let sha256: String
    let tokensSha256: String
    let spool: URL
    fileprivate let lengths: Mapped<Int32>
    fileprivate let starts: Mapped<Int>
    fileprivate let words: Mapped<Int32>

    /// Examples.
    var count: Int { lengths.count }

    /// Tokens of an example.
    func length(_ index: Int) -> Int { Int(lengths[index]) }

    func example(_ index: Int) -> Example {
        let word = (starts[index]...starts[index] + length(index)).map { Int(words[$0]) }
        let labels = word.dropFirst().map { $0 & 1 == 1 ? $0 >> 1 : Int(ignoredLabel) }
        return Example(inputIds: word.dropLast().map { $0 >> 1 }, labels: labels)
    }

    /// The examples whose numbers are `numbers` of `range`, in that order. Throws STORAGE_FULL or STORAGE_FAILED.
    fileprivate func part(_ numbers: Mapped<UInt64>, _ range: Range<Int>) throws -> Dataset {
        let (partLengths, partStarts) = (try Spool<Int32>(spool), try Spool<Int>(spool))
        for place in range {
            try partLengths.append(lengths[Int(numbers[place])])
            try partStarts.append(starts[Int(numbers[place])])
        }
        return Dataset(
            file: file, report: report, sha256: sha256, tokensSha256: tokensSha256, spool: spool, lengths: try partLengths.mapped(),
            starts: try partStarts.mapped(), words: words
        )
    }
}

/// Takes examples one by one, then gives the dataset. `spool`: the directory of its temporary files. Throws STORAGE_FULL or STORAGE_FAILED.
struct DatasetWriter {
    private let seqLen: Int
    private let spool: URL
    private let lengths: Spool<Int32>
    private let starts: Spool<Int>
    private let words: Spool<Int32>
    private let lineHashes: Spool<UInt64>
    private var digest = Sha256()  // of each example its length and its words, int32, little-endian
    private var forms: [Form: Int] = [:]
    private var allLengths: [Int: Int] = [:]
    private var end = 0
    private var furtherKeys: [KeyCount] = []
    /// That are not blank.
    private(set) var lines = 0
    private var blankLines = 0
    private var examples = 0
    private var tokens = 0
    private var countedLabels = 0
    private var truncated = 0
    private var tokensCut = 0
    private var uncountedTurns = 0
    private var doubledEnds = 0

    init(_ seqLen: Int, _ spool: URL) throws {
        (self.seqLen, self.spool) = (seqLen, spool)
        (lengths, starts) = (try Spool(spool), try Spool(spool))
        (words, lineHashes) = (try Spool(spool), try Spool(spool))
    }

    mutating func passOverBlank() { blankLines += 1 }

    /// `lineHash`: 64 bits, equal for equal lines.
    mutating func add(_ line: LineExample, lineHash: UInt64 = 0) throws {
        let length = line.example.inputIds.count
        try lineHashes.append(lineHash)
        forms[line.form, default: 0] += 1
        allLengths[length, default: 0] += 1
        line.furtherKeys.forEach { count($0) }
        lines += 1
        uncountedTurns += line.uncountedTurns
        doubledEnds += line.doubledEnds ? 1 : 0
        if length > seqLen {
            truncated += 1
            tokensCut += length - seqLen
        }
        let example = line.example.cut(seqLen)
        let counted = example.countedLabels
        if counted == 0 { return }
        examples += 1
        tokens += example.inputIds.count
        countedLabels += counted
        try write(example)
    }

    private mutating func count(_ key: String) {
        func place(_ key: String) -> Int? { furtherKeys.firstIndex { $0.key.utf8.elementsEqual(key.utf8) } }
        let name = place(key) != nil || furtherKeys.count < mostKeys ? key : otherKeys
        if let place = place(name) { furtherKeys[place].lines += 1 } else { furtherKeys.append(KeyCount(key: name, lines: 1)) }
    }

    private mutating func write(_ example: Example) throws {
        var written: [Int32] = []
        var counts = false
        for (id, label) in zip(example.inputIds, example.labels) {
            written.append(word(id, counts))
            counts = label != Int(ignoredLabel)
        }
        written.append(counts ? word(example.labels.last!, true) : 0)
        for word in written { try words.append(word) }
        ([Int32(example.inputIds.count)] + written).map(\.littleEndian).withUnsafeBytes { digest.update($0) }
        try lengths.append(Int32(example.inputIds.count))
        try starts.append(end)
        end += example.inputIds.count + 1
    }

    private func word(_ id: Int, _ counts: Bool) -> Int32 { Int32(id) << 1 | (counts ? 1 : 0) }

    /// Nothing can be added after it. Throws DATA_EMPTY when there is no example.
    func dataset(_ file: URL, _ sha256: String) throws -> Dataset {
        func empty(_ reason: String) -> LcsbError { LcsbError(.dataEmpty, "\(file.path): \(reason)", [file.lastPathComponent]) }
        if lines == 0 { throw empty("the file is empty; expected one JSON object a line: \(LCSBKit.forms)") }
        if end == 0 {
            let what = "none of the \(lines) lines has a counted label within \(seqLen) tokens"
            throw empty("nothing to train on: \(what); use longer texts or a larger sequence length")
        }
        return Dataset(
            file: file, report: try report(), sha256: sha256, tokensSha256: digest.hex(), spool: spool, lengths: try lengths.mapped(),
            starts: try starts.mapped(), words: try words.mapped()
        )
    }

    private func report() throws -> DataReport {
        DataReport(
            lines: lines, examples: examples, tokens: tokens, countedLabels: countedLabels, truncated: truncated, tokensCut: tokensCut,
            withoutLabels: lines - examples, texts: forms[.text] ?? 0, completions: forms[.completion] ?? 0,
            conversations: forms[.messages] ?? 0, uncountedTurns: uncountedTurns, doubledEnds: doubledEnds,
            duplicates: try duplicates(), blankLines: blankLines, furtherKeys: furtherKeys,
            lengthP50: percentile(50), lengthP90: percentile(90), lengthP99: percentile(99), longest: percentile(100)
        )
    }

    /// How many of the hashes equal another one that counts as the first. Sorts them where they are.
    private func duplicates() throws -> Int {
        let hashes = try lineHashes.mapped(writable: true)
        hashes.sort()
        return (1..<hashes.count).reduce(0) { hashes[$1] == hashes[$1 - 1] ? $0 + 1 : $0 }
    }

    /// The smallest length that at least `percent` of a hundred lines do not exceed.
    private func percentile(_ percent: Int) -> Int {
        let wanted = (percent * lines + 99) / 100
        var below = 0
        for (length, count) in allLengths.sorted(by: { $0.key < $1.key }) {
            below += count
            if below >= wanted { return length }
        }
        preconditionFailure("no lines")
    }
}

/// (to train on, to evaluate on): `share` of the examples is held out, chosen by `seed`, at least one of each; both in file order.
///
/// Throws OPTION unless 0 < share < 1, DATA_EMPTY when there are fewer than two examples, STORAGE_FULL or STORAGE_FAILED.
func holdOut(_ dataset: Dataset, _ share: Double, seed: Int) throws -> (training: Dataset, evaluation: Dataset) {
    if !(share > 0 && share < 1) { throw LcsbError(.option, "hold-out: expected more than 0 and less than 1, found \(share)") }
    let count = dataset.count
    if count < 2 {
        let reason = "has one example; expected at least two, or evaluation data of its own"
        throw LcsbError(.dataEmpty, "\(dataset.file.path): \(reason)", [dataset.file.lastPathComponent])
    }
    let heldOut = min(max(Int((share * Double(count) + 0.5).rounded(.down)), 1), count - 1)
    let order = try shuffled(count, seed: seed, epoch: heldOutEpoch, dataset.spool)
    order.sort(0..<heldOut)
    order.sort(heldOut..<count)
    return (try dataset.part(order, heldOut..<count), try dataset.part(order, 0..<heldOut))
}
