/// Generation with a state a layer, on the programs `KIND_prefill` and `KIND_decode`. Of a state by position, such as keys and values, a
/// program returns the token's place, which is written among those of the bundle's T positions; any other it returns whole, in place of the
/// old one.
final class BlockDecoder: SequenceDecoder {
    /// What a layer remembers under one name. `then`: where the next token's is written, as a program must not write what it reads: of a
    /// state by position its place alone, in a buffer of the kind's.
    private struct State {
        let name: String
        let byPosition: Bool
        var now: HostTensor
        var then: HostTensor

        /// To the state after the token at `position`.
        mutating func follow(_ position: Int) {
            if byPosition {
                now.floats.part(position * then.floats.count, then.floats.count).copy(from: then.floats)
            } else {
                swap(&now, &then)
            }
        }
    }

    private let runner: BlockRunner
    private let adapter: Floats
    private let manifest: Manifest
    private var states: [[State]]
    private let embedded: Values
    private let turns: [HostTensor]
    private let crossing = CrossingBuffers()
    private let top: HostTensor
    private let token: HostTensor
    private let place: HostTensor
    private var position = 0  // of the next token

    init(_ runner: BlockRunner, _ adapter: Floats) throws {
        let manifest = runner.manifest
        (self.runner, self.adapter, self.manifest) = (runner, adapter, manifest)
        let places = try Dictionary(uniqueKeysWithValues: manifest.kinds.map { kind in
            let names = Set(kind.state.filter(\.byPosition).map(\.name))
            return (kind.name, try newOutputs(manifest, program(kind.name, .decode), names.contains))
        })
        states = try (0..<runner.layers).map { layer in
            try manifest.kind(layer).state.map { described in
                let now = try HostTensor("float32", described.shape)
                let then = try places[manifest.layers[layer].kind]?[described.name] ?? HostTensor("float32", described.shape)
                return State(name: described.name, byPosition: described.byPosition, now: now, then: then)
            }
        }
        let one = [1, manifest.model.hiddenSize]
        embedded = try newOutputs(manifest, "decode_embed")
        turns = try (0..<2).map { _ in try HostTensor("float32", one) }
        top = try HostTensor("float32", one)
        token = try HostTensor(manifest.row.integers, [1])
        place = try HostTensor(manifest.row.integers, [1])
    }

    /// All tokens in one pass of the bundle's length; what is beyond them in a state by position is never attended to.
    func prefill(_ ids: [Int]) throws -> [Float] {
        precondition((1...manifest.seqLen).contains(ids.count), "expected 1 to \(manifest.seqLen) tokens, found \(ids.count)")
        let values = Crossing(manifest, crossing, .prefill)
        var h = try runner.embed(wholeSequence(ids, manifest.seqLen))
        for layer in 0..<runner.layers {
            let remembered = Values(uniqueKeysWithValues: states[layer].map { ($0.name, $0.now) })
            h = try runner.forwardLayer(.prefill, layer, h, adapter, values, remembered)
        }
        position = ids.count
        let width = top.floats.count
        return try logits(h.floats.part((position - 1) * width, width))
    }

    func next(_ id: Int) throws -> [Float] {
        precondition((1..<manifest.seqLen).contains(position), "no room for a token at \(position) of \(manifest.seqLen)")
        token.write([Int64(id)])
        place.write([Int64(position)])
        try runner.run("decode_embed", ["input_ids": token, "position_ids": place], embedded)
        let values = Crossing(manifest, crossing, .decode)
        let top = try (0..<runner.layers).reduce(embedded["h"]!) { h, layer in try decodeLayer(layer, h, values) }
        position += 1
        return try logits(top.floats)
    }

    private func decodeLayer(_ layer: Int, _ h: HostTensor, _ values: Crossing) throws -> HostTensor {
        let next = turns[layer % 2]
        let past = Values(uniqueKeysWithValues: states[layer].map { (pastPrefix + $0.name, $0.now) })
        let written = Values(uniqueKeysWithValues: states[layer].map { ($0.name, $0.then) })
        let feeds = ["h": h, "adapter": runner.vector(adapter, layer)] + past + runner.read(layer, embedded) + values.taken(layer)
        try runner.run(program(manifest.layers[layer].kind, .decode), feeds, values.given(layer) + written + ["h_next": next], layer: layer)
        for index in states[layer].indices { states[layer][index].follow(position) }
        return next
    }

    /// h[L] of one token -> [V].
    private func logits(_ h: Floats) throws -> [Float] {
        top.floats.copy(from: h)
        return try runner.head.logits(top)
    }
}
