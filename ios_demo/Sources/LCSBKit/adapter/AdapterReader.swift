import Foundation

extension AdapterLayout {
    /// PEFT's tensor names with the shape of each, and its elements within `adapter`, float32 [N].
    func named(_ adapter: Floats) -> [(name: String, shape: [Int], values: Floats)] {
        (0..<numLayers).flatMap { layer in
            let vector = vector(adapter, layer)
            return matrices(layer).map { (tensorName(layer, $0.name), $0.shape, vector.part($0.offset, $0.size)) }
        }
    }

    /// The shape of each of PEFT's tensors.
    var shapes: Entries<[Int]> {
        Entries((0..<numLayers).flatMap { layer in matrices(layer).map { (tensorName(layer, $0.name), $0.shape) } })
    }
}

/// Reads an adapter file into all of `into`, float32 [N]. Throws ADAPTER naming every tensor that is missing, unknown or of another shape
/// or dtype, or for NaN and infinite values; then `into` may be half written.
public func readAdapter(_ file: URL, _ layout: AdapterLayout, _ into: Floats) throws {
    let stored = try StoredTensors(file, .adapter)
    let wanted = layout.shapes
    var faults = wanted.keys.filter { stored.tensors[$0] == nil }.map { "\($0) is missing" }
    for name in stored.names {
        let tensor = stored.tensors[name]!
        if let shape = wanted[name] {
            if tensor.shape != shape { faults.append("\(name): expected \(shape), found \(tensor.shape)") }
        } else {
            faults.append("\(name) is unknown")
        }
        if tensor.dtype != "F32" { faults.append("\(name): expected F32, found \(tensor.dtype)") }
    }
    for (key, expected) in [("rank", "\(layout.lora.rank)"), ("alpha", pythonRepr(layout.lora.alpha))] {
        let found = stored.metadata[key] ?? expected
        if Double(found) != Double(expected) { faults.append("\(key): expected \(expected), found \(found)") }
    }
    if !faults.isEmpty {
        throw LcsbError(.adapter, "\(file.path): does not fit the bundle's adapter: \(some(faults))", [file.lastPathComponent])
    }
    for (name, _, matrix) in layout.named(into) { try stored.readFloats(name, into: matrix) }
    for at in 0..<into.count where !into[at].isFinite {
        throw LcsbError(.adapter, "\(file.path): holds NaN or infinite values", [file.lastPathComponent])
    }
}
