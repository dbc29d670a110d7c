/// Called before each layer of a step, an evaluation or a prompt, `layer` the number of layers for the head: it may wait, to pause, or
/// throw, to cancel; then nothing has changed.
public typealias BetweenLayers = (_ layer: Int, _ backward: Bool) throws -> Void

/// Steps by block programs, by kind of layer, and a loop over the layers, whatever runtime runs them. Weights are fed in place from the
/// mapped `weights.bin`, and every large result goes into a buffer of this runner's: what the runtime allocates is the working set of a
/// program.
public final class BlockRunner: StepRunner {
    let manifest: Manifest
    let layers: Int
    private let runtime: any Runtime
    private let weights: MappedWeights?  // none where the programs hold them
    private let keep: Int
    private let betweenLayers: BetweenLayers
    private let layout: AdapterLayout
    private let hidden: [Int]
    private let saved = Pool<[Int], HostTensor> { try HostTensor("float32", $0) }  // the layers' inputs
    private var kept: [Int: Values] = [:]  // layer -> what its forward kept
    private let crossing = CrossingBuffers()
    private let gradients = Pool<Int, HostTensor> { try HostTensor("float32", [$0]) }
    private let turns: [HostTensor]  // for results that the next program reads and none after it
    private let g: HostTensor
    let head: any HeadPrograms
    private let tokens: Values
    private let scalars: Values  // of an update
    private let embedded: Values
    private let updated: [Floats]
    private let zeros: Floats

    public let name: String
    public let version: String

    /// `keep`: the activations of that many of the top layers are kept in the forward, and their backward does not recompute them; a layer whose
    /// activations float16 does not hold recomputes them in that step all the same.
    init(_ bundle: TrainingBundle, _ runtime: any Runtime, keep: Int, betweenLayers: @escaping BetweenLayers) throws {
        (manifest, layout) = (bundle.manifest, bundle.manifest.adapter)
        layers = manifest.model.numHiddenLayers
        weights = manifest.row.holdsWeights ? nil : try bundle.weights
        (self.runtime, name, version) = (runtime, runtime.name, runtime.version)
        (self.keep, self.betweenLayers) = (min(keep, layers), betweenLayers)
        let (seqLen, hidden) = (manifest.seqLen, [manifest.seqLen, manifest.model.hiddenSize])
        self.hidden = hidden
        turns = try (0..<2).map { _ in try HostTensor("float32", hidden) }
        g = try HostTensor("float32", hidden)
        let row = manifest.row
        tokens = try named(tokenInputs + [labelInput]) { _ in try HostTensor(row.integers, [seqLen]) }
        scalars = try named(["decay", "rate", "root"]) { _ in try HostTensor("float32", row.scalar) }
        embedded = try newOutputs(manifest, "embed")
        // Pages that are never written to take no memory.
        let largest = manifest.kinds.map(\.size).max()!
        updated = try (0..<3).map { _ in try Floats(count: largest) }
        zeros = try Floats(count: largest)
        let between = { [layers] in try betweenLayers(layers, false) }
        let run: RunProgram = { try runtime.run($0, $1, $2, layer: 0) }
        head = row.staticShapes
            ? try ChunkedHead(manifest, weights, rows: chunkRows(manifest.model), between: between, run)
            : try WholeHead(manifest, between: between, run)
    }

    // The step

    public func step(_ subset: Subset, _ batch: Batch, _ adapter: Floats) throws -> StepResult {
        try subset.check(layers)
        let propagate = subset.propagate.filter { $0 >= subset.train[0] }
        let saved = try byLayer(propagate, self.saved.lend(propagate.map { _ in hidden }))
        var kept = try byLayer(propagate.filter { $0 >= layers - keep }, keptBuffers)
        let values = Crossing(manifest, crossing, .forward)
        let top = try forward(embed(batch, saved[0]), adapter, values, saved, &kept)
        let loss = try head.train(top, ids(labelInput, batch.labels), g)
        let gradients = try byLayer(subset.train, self.gradients.lend(subset.train.map(layout.vectorSize)))
        try backward(propagate, adapter, values, saved, kept, gradients)
        return StepResult(loss: loss, gradients: gradients.mapValues(\.floats))
    }

    /// From `g` down through `propagate`. A layer's gradient is written to `gradients` where they have a buffer for it.
    private func backward(
        _ propagate: [Int], _ adapter: Floats, _ values: Crossing, _ saved: [Int: HostTensor], _ kept: [Int: Values],
        _ gradients: [Int: HostTensor]
    ) throws {
        let owed = CrossingGradients(manifest, crossing, propagate)
        var g = g
        for (turn, layer) in propagate.reversed().enumerated() {
            try enter(layer, backward: true, following: layer - 1)
            let next = turns[turn % 2]
            let fed: Values = ["h": saved[layer]!, "g": g, "adapter": vector(adapter, layer)]
            let feeds = try fed + read(layer, embedded) + values.taken(layer) + owed.owed(layer) + (kept[layer] ?? [:])
            var outputs: Values = ["g_next": next]
            outputs["d_adapter"] = gradients[layer]  // not asked for where no one trains
            let role = kept[layer] == nil ? Role.backward : .backwardKept
            try run(program(manifest.layers[layer].kind, role), feeds, outputs + owed.taken(layer), layer: layer)
            owed.settle()
            g = next
        }
    }

    public func evaluate(_ batch: Batch, _ adapter: Floats) throws -> Float {
        var kept: [Int: Values] = [:]
        let top = try forward(embed(batch), adapter, Crossing(manifest, crossing, .forward), [:], &kept)
        return try head.evaluate(top, ids(labelInput, batch.labels))
    }

    public func decoder(_ adapter: Floats) throws -> any SequenceDecoder { try BlockDecoder(self, adapter) }

    public func updateLayer(
        _ parameters: Floats, _ firstMoment: Floats, _ secondMoment: Floats, _ gradient: Floats?, _ scalars: LayerUpdate
    ) throws {
        let size = parameters.count
        let state = [("parameters", parameters), ("first_moment", firstMoment), ("second_moment", secondMoment)]
        var (feeds, outputs) = (self.scalars, Values())
        for ((name, floats), result) in zip(state, updated) {
            feeds[name] = HostTensor(floats)
            outputs["\(name)_next"] = HostTensor(result.part(0, size))
        }
        feeds["gradient"] = HostTensor(gradient ?? zeros.part(0, size))
        for (name, value) in [("decay", scalars.decay), ("rate", scalars.rate), ("root", scalars.root)] { feeds[name]!.floats[0] = value }
        try run(updateProgram(size), feeds, outputs)
        for ((_, floats), result) in zip(state, updated) { floats.copy(from: result.part(0, size)) }
    }

    /// h[0], in `target` if given; the tables that layers read stay in `embedded`.
    func embed(_ batch: Batch, _ target: HostTensor? = nil) throws -> HostTensor {
        let h = target ?? embedded["h"]!
        var feeds: Values = [:]
        for (name, values) in zip(tokenInputs, [batch.inputIds, batch.positionIds, batch.segmentIds]) { feeds[name] = ids(name, values) }
        try run("embed", feeds, embedded + ["h": h])
        return h
    }

    /// h[0] -> h[L]. A layer's input is written to `saved`, and what it keeps to `kept`, where they have a buffer for it. What float16 does not
    /// hold is taken out of `kept`, and its memory given back before the layer's backward needs more.
    private func forward(
        _ h: HostTensor, _ adapter: Floats, _ values: Crossing, _ saved: [Int: HostTensor], _ kept: inout [Int: Values]
    ) throws -> HostTensor {
        var h = h
        for layer in 0..<layers {
            let outputs = kept[layer]
            let role = outputs == nil ? Role.forward : .forwardKeep
            h = try forwardLayer(role, layer, h, adapter, values, outputs ?? [:], saved[layer + 1])
            if let outputs, !outputs.values.allSatisfy(holds) { (kept[layer], self.kept[layer]) = (nil, nil) }
        }
        return h
    }

    /// A layer's output, in `target` if given, by its kind's program of `role`; `outputs` are for what else it returns.
    func forwardLayer(
        _ role: Role, _ layer: Int, _ h: HostTensor, _ adapter: Floats, _ values: Crossing, _ outputs: Values, _ target: HostTensor? = nil
    ) throws -> HostTensor {
        let next = target ?? turns[layer % 2]
        try enter(layer, backward: false, following: layer + 1)
        let feeds = ["h": h, "adapter": vector(adapter, layer)] + read(layer, embedded) + values.taken(layer)
        try run(program(manifest.layers[layer].kind, role), feeds, outputs + values.given(layer) + ["h_next": next], layer: layer)
        return next
    }

    /// AdamW's for vectors of `size`; of static shapes, of any kind that has them.
    private func updateProgram(_ size: Int) -> String {
        manifest.row.staticShapes ? LCSBKit.updateProgram(manifest.kinds.first { $0.size == size }!.name) : "adamw"
    }

    /// Before a layer's program: whoever wants to may pause or cancel, and the system reads the weights of the layer after it ahead.
    private func enter(_ layer: Int, backward: Bool, following: Int) throws {
        try betweenLayers(layer, backward)
        if (0..<layers).contains(following) { weights?.readAhead(manifest.layers[following].kind, manifest.layers[following].number) }
    }

    // Programs and buffers

    func run(_ program: String, _ feeds: Values, _ outputs: Values, layer: Int = 0) throws {
        try runtime.run(program, feeds, outputs, layer: layer)
    }

    /// The `tables` that `layer` reads, by its kind's names. One that no program takes need not be there.
    func read(_ layer: Int, _ tables: Values) -> Values {
        var found: Values = [:]
        for (name, table) in manifest.layers[layer].reads { found[name] = tables[table] }
        return found
    }

    /// A tensor over `layer`'s vector.
    func vector(_ adapter: Floats, _ layer: Int) -> HostTensor { HostTensor(layout.vector(adapter, layer)) }

    /// `values` in the buffer for the input of that name.
    private func ids(_ name: String, _ values: [Int64]) -> HostTensor {
        let buffer = tokens[name]!
        buffer.write(values)
        return buffer
    }

    private func keptBuffers(_ layer: Int) throws -> Values {
        if let buffers = kept[layer] { return buffers }
        let buffers = try newOutputs(manifest, program(manifest.layers[layer].kind, .forwardKeep)) { $0.hasPrefix(keptPrefix) }
        kept[layer] = buffers
        return buffers
    }
}

/// Whether a kept tensor has the values that it was made of: none of float16 is infinite, NaN or the largest there is, 65504, which a runtime
/// gives that saturates.
func holds(_ x: HostTensor) -> Bool {
    x.dtype != "float16" || withExtendedLifetime(x) { x.bytes.raw.bindMemory(to: UInt16.self).allSatisfy { $0 & 0x7FFF < 0x7BFF } }
}

/// A buffer for each of a program's outputs whose names are `wanted`.
func newOutputs(_ manifest: Manifest, _ program: String, _ wanted: (String) -> Bool = { _ in true }) throws -> Values {
    var buffers: Values = [:]
    for x in manifest.graphs[program]!.outputs where wanted(x.name) { buffers[x.name] = try HostTensor(x.dtype, x.shape) }
    return buffers
}

private func named(_ names: [String], _ make: (String) throws -> HostTensor) rethrows -> Values {
    try Values(uniqueKeysWithValues: names.map { ($0, try make($0)) })
}

private func byLayer<Value>(_ layers: [Int], _ values: [Value]) -> [Int: Value] { Dictionary(uniqueKeysWithValues: zip(layers, values)) }

private func byLayer<Value>(_ layers: [Int], _ value: (Int) throws -> Value) rethrows -> [Int: Value] {
    try byLayer(layers, layers.map(value))
}
