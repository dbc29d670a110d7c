// What crosses between layers besides h: values that one gives and later ones take, and their gradients on the way down.

/// The buffers of what crosses; each is made when it is first asked for, and serves every pass.
final class CrossingBuffers {
    private struct Place: Hashable {
        let what: String
        let type: TensorType
    }

    private var made: [Place: HostTensor] = [:]

    func get(_ what: String, _ type: TensorType) throws -> HostTensor {
        let place = Place(what: what, type: type)
        if let buffer = made[place] { return buffer }
        let buffer = try HostTensor(type.dtype, type.shape)
        made[place] = buffer
        return buffer
    }
}

/// The values of one pass up through the layers' programs of `role`, each held under its name until the pass, or the step, ends.
final class Crossing {
    private let manifest: Manifest
    private let buffers: CrossingBuffers
    private let role: Role
    private var given: Values = [:]

    init(_ manifest: Manifest, _ buffers: CrossingBuffers, _ role: Role) {
        (self.manifest, self.buffers, self.role) = (manifest, buffers, role)
    }

    /// What `layer` takes, by its kind's names.
    func taken(_ layer: Int) -> Values { Values(uniqueKeysWithValues: manifest.layers[layer].takes.map { ($0.key, given[$0.value]!) }) }

    /// Where `layer`'s program puts what later layers take. What it gives under no name is not asked for.
    func given(_ layer: Int) throws -> Values {
        let names = manifest.layers[layer].gives
        if names.isEmpty { return [:] }
        let types = gives(manifest, manifest.kind(layer), role)
        var outputs: Values = [:]
        for (name, value) in names {
            outputs[name] = try buffers.get(value, types[name]!)
            given[value] = outputs[name]
        }
        return outputs
    }
}

/// The gradients of what crossed, on the way down: each value's is summed over the layers that took it before the layer that gave it runs.
/// `propagate`: the layers that run, from min(train) up. What a layer outside of them gave has no gradient.
final class CrossingGradients {
    private let manifest: Manifest
    private let buffers: CrossingBuffers
    private var types: Tensors = [:]  // of the values that have a gradient
    private var sums: Values = [:]
    private var parts: [(sum: HostTensor, part: HostTensor)] = []

    init(_ manifest: Manifest, _ buffers: CrossingBuffers, _ propagate: [Int]) {
        (self.manifest, self.buffers) = (manifest, buffers)
        for layer in propagate where !manifest.layers[layer].gives.isEmpty {
            let given = gives(manifest, manifest.kind(layer), .forward)
            for (name, value) in manifest.layers[layer].gives { types[value] = given[name] }
        }
    }

    /// What `layer`'s backward is fed for all that its kind gives: zeros where nobody took it.
    func owed(_ layer: Int) throws -> Values {
        let names = manifest.layers[layer].gives
        var feeds: Values = [:]
        for (name, type) in gives(manifest, manifest.kind(layer), .forward) {
            feeds[gradientPrefix + name] = try names[name].flatMap { sums[$0] } ?? buffers.get("zeros", type)  // never written to
        }
        return feeds
    }

    /// Where `layer`'s backward puts the gradients of what it took; `settle` follows.
    func taken(_ layer: Int) throws -> Values {
        var outputs: Values = [:]
        for (name, value) in manifest.layers[layer].takes {
            guard let type = types[value] else { continue }
            let target: HostTensor
            if let sum = sums[value] {
                target = try buffers.get("part of \(name)", type)
                parts.append((sum, target))
            } else {
                target = try buffers.get("sum of \(value)", type)
                sums[value] = target
            }
            outputs[gradientPrefix + name] = target
        }
        return outputs
    }

    /// Adds what the last backward returned to the sums that there were.
    func settle() {
        for (sum, part) in parts { sum.floats.add(part.floats) }
        parts.removeAll()
    }
}
