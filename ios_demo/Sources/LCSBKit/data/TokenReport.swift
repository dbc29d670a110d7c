import Foundation

/// Neighbouring tokens that all count for the loss, or none of them; as text.
public struct PreviewPiece: Sendable, Equatable {
    public let text: String
    public let counted: Bool
}

/// What a data file comes to. `sequences`, their `fill` (0 to 1) and `steps` are those of seed 0's first epoch, nothing held out.
///
/// `seqLenToCut1Percent`, `seqLenToCutNone`: the least that cut at most 1 % of the lines, and none. `preview`: the first examples.
public struct TokenReport: Sendable {
    public let sha256: String
    public let data: DataReport
    public let sequences: Int
    public let fill: Double
    public let steps: Int
    public let seqLenToCut1Percent: Int
    public let seqLenToCutNone: Int
    public let preview: [[PreviewPiece]]
}

/// Reads the file as a run would. `accumulation`: sequences a step; `examples`: how many to show; `progress` as `readDataset`.
///
/// Throws as `readDataset` does, and OPTION.
public func reportTokens(
    _ file: URL, _ tokenizer: Tokenizer, _ chat: ChatFormat?, seqLen: Int, accumulation: Int, examples: Int, spool: URL,
    progress: (Int, Int) throws -> Void = { _, _ in }
) throws -> TokenReport {
    for (name, value, least) in [("seq-len", seqLen, 1), ("accumulation", accumulation, 1), ("preview", examples, 0)] where value < least {
        throw LcsbError(.option, "\(name): expected at least \(least), found \(value)")
    }
    let dataset = try readDataset(file, tokenizer, chat, seqLen, spool, progress)
    let data = dataset.report
    let sequences = try countSequences(dataset, seqLen, seed: 0)
    return TokenReport(
        sha256: dataset.sha256,
        data: data,
        sequences: sequences,
        fill: Double(data.tokens) / Double(sequences * seqLen),
        steps: (sequences + accumulation - 1) / accumulation,
        seqLenToCut1Percent: data.lengthP99,
        seqLenToCutNone: data.longest,
        preview: (0..<min(examples, dataset.count)).map { preview(dataset, $0, tokenizer) }
    )
}

/// What the loss sees of an example, in pieces. Decoded from its beginning each time: some tokenizers write a first token otherwise than a
/// later one.
func preview(_ dataset: Dataset, _ index: Int, _ tokenizer: Tokenizer) -> [PreviewPiece] {
    let example = dataset.example(index)
    let counted = [false] + example.labels.dropLast().map { $0 != Int(ignoredLabel) }
    let edges = counted.indices.dropFirst().filter { counted[$0] != counted[$0 - 1] } + [counted.count]
    var (start, before) = (0, 0)  // the piece's first token; Unicode scalars before it
    return edges.map { edge in
        let text = tokenizer.decode(Array(example.inputIds.prefix(edge)), specialTokens: true).unicodeScalars
        defer { (start, before) = (edge, text.count) }
        return PreviewPiece(text: String(text.dropFirst(before)), counted: counted[start])
    }
}
