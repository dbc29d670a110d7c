// What stands above the layers: the loss and its gradient, the loss alone, and the logits of the next token.

/// By the programs of a bundle's target. h is [T, D], or [1, D] of a single token.
protocol HeadPrograms: AnyObject {
    /// The loss; its gradient goes to `g`.
    func train(_ h: HostTensor, _ labels: HostTensor, _ g: HostTensor) throws -> Float

    func evaluate(_ h: HostTensor, _ labels: HostTensor) throws -> Float

    /// [V].
    func logits(_ h: HostTensor) throws -> [Float]
}

/// Runs a program that is no layer's.
typealias RunProgram = (_ program: String, _ feeds: Values, _ outputs: Values) throws -> Void

/// A program for each, which goes over the vocabulary by itself. `between` is called before a program over whole sequences.
final class WholeHead: HeadPrograms {
    private let run: RunProgram
    private let between: () throws -> Void
    private let loss: HostTensor
    private let row: HostTensor

    init(_ manifest: Manifest, between: @escaping () throws -> Void, _ run: @escaping RunProgram) throws {
        (self.between, self.run) = (between, run)
        loss = try HostTensor("float32", [])
        row = try HostTensor("float32", [manifest.model.vocabSize])
    }

    func train(_ h: HostTensor, _ labels: HostTensor, _ g: HostTensor) throws -> Float {
        try between()
        try run("head", ["h": h, labelInput: labels], ["loss": loss, "g": g])
        return loss.floats[0]
    }

    func evaluate(_ h: HostTensor, _ labels: HostTensor) throws -> Float {
        try between()
        try run("head_eval", ["h": h, labelInput: labels], ["loss": loss])
        return loss.floats[0]
    }

    func logits(_ h: HostTensor) throws -> [Float] {
        try run("logits", ["h": h], ["logits": row])
        return row.floats.array
    }
}

/// Straight-line programs that are called chunk by chunk, of static shapes: over the rows of the head goes an online softmax, whose peak,
/// total and weighted sum are handed from one chunk to the next. `between` is called before each.
final class ChunkedHead: HeadPrograms {
    /// The rows of a chunk, and a bias that hides those that an earlier chunk has had.
    private struct Chunk {
        let start: Int
        let feeds: Values
    }

    private static let hidden: Float = -1e30

    private let run: RunProgram
    private let between: () throws -> Void
    private let chunks: [Chunk]
    private let vocabSize: Int
    private let chosen: Values
    private let sums: [Values]  // what a chunk reads and what it writes, in turns
    private let loss: HostTensor
    private let one: HostTensor
    private let rows: HostTensor

    /// `weights`: nil where the programs hold them. `rows`: of a chunk.
    init(
        _ manifest: Manifest, _ weights: MappedWeights?, rows count: Int, between: @escaping () throws -> Void, _ run: @escaping RunProgram
    ) throws {
        (self.between, self.run, vocabSize) = (between, run, manifest.model.vocabSize)
        let (tokens, width) = (manifest.seqLen, manifest.model.hiddenSize)
        func floats(_ names: [String], _ shape: Int...) throws -> Values {
            try Values(uniqueKeysWithValues: names.map { ($0, try HostTensor("float32", shape)) })
        }
        chosen = try floats(["x", "target"], tokens, width) + floats(["share"], tokens, 1)
        sums = try (0..<2).map { _ in try floats(["peak", "total"], tokens, 1) + floats(["weighted"], tokens, width) }
        loss = try HostTensor("float32", [1])
        one = try HostTensor("float32", [1, width])
        rows = try HostTensor("float32", [count])
        let table = manifest.graphs[headChunks[0]]!.inputs.filter { $0.weight != nil && chunkWeights.contains($0.name) }
        let none = try HostTensor("float32", [1, count])
        chunks = try chunkStarts(vocabSize, count).map { start, had in
            var feeds: Values = ["bias": none]
            if had > 0 {
                feeds["bias"] = try HostTensor("float32", [1, count])
                feeds["bias"]!.floats.part(0, had).fill(Self.hidden)
            }
            if let weights {
                for x in table {
                    let shape = [count] + weights.shape(x.weight!).dropFirst()
                    feeds[x.name] = HostTensor(x.dtype, shape, weights.rows(x.weight!, start, count))
                }
            } else {
                let place = try HostTensor("int32", [1])
                place.write([Int64(start)])
                feeds[chunkStart] = place
            }
            return Chunk(start: start, feeds: feeds)
        }
    }

    func train(_ h: HostTensor, _ labels: HostTensor, _ g: HostTensor) throws -> Float {
        let found = try begin(h, labels) + overChunks("head_chunk")
        try run("head_end", found + ["h": h], ["loss": loss, "g": g])
        return loss.floats[0]
    }

    func evaluate(_ h: HostTensor, _ labels: HostTensor) throws -> Float {
        try run("eval_end", begin(h, labels) + overChunks("eval_chunk"), ["loss": loss])
        return loss.floats[0]
    }

    func logits(_ h: HostTensor) throws -> [Float] {
        try run("logits_start", ["h": h], ["x": one])
        var all = [Float](repeating: 0, count: vocabSize)
        for chunk in chunks {
            try run("logits_chunk", chunk.feeds + ["x": one], ["logits": rows])
            all.replaceSubrange(chunk.start..<chunk.start + rows.floats.count, with: rows.floats.array)
        }
        return all
    }

    /// x, target and share.
    private func begin(_ h: HostTensor, _ labels: HostTensor) throws -> Values {
        try between()
        try run("head_start", ["h": h, labelInput: labels], chosen)
        return chosen
    }

    /// peak, total and weighted over all rows; an evaluation's chunks leave the last as it is.
    private func overChunks(_ program: String) throws -> Values {
        for (name, sum) in sums[0] { sum.floats.fill(name == "peak" ? Self.hidden : 0) }
        for (turn, chunk) in chunks.enumerated() {
            try between()
            let (now, next) = (sums[turn % 2], sums[(turn + 1) % 2])
            try run(program, chunk.feeds + ["x": chosen["x"]!] + now, Values(uniqueKeysWithValues: next.map { ("\($0)_next", $1) }))
        }
        return sums[chunks.count % 2]
    }
}
