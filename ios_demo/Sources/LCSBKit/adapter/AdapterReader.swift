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

/// Reads an adapter file into all of `into`, float32 [N]. Throws ADAPTER for a file that is damaged, or of another base, as far as it says;
/// else naming every tensor that is missing, unknown or of another shape or dtype, or for NaN and infinite values; then `into` may be half
/// written.
public func readAdapter(_ file: URL, _ layout: AdapterLayout, _ into: Floats) throws {
    let stored = try StoredTensors(file, .adapter)
    try checkDigest(stored)
    try checkBase(stored, layout)
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

/// Files of other tools, and of before there was one, state none; one whose key for it was damaged states what goes with it.
func checkDigest(_ stored: StoredTensors) throws {
    let stated = stored.metadata[digestKey]
    if stated == nil && !digestedKeys.contains(where: { stored.metadata[$0] != nil }) { return }
    func refused(_ what: String) -> LcsbError { LcsbError(.adapter, "\(stored.file.path): \(what)", [stored.file.lastPathComponent]) }
    do {
        let (opened, size) = try openRegular(stored.file)
        var header = [UInt8](repeating: 0, count: stored.dataStart)
        try header.withUnsafeMutableBytes { try opened.read(at: 0, into: $0) }
        let found = try fileDigest(opened, size, header, stated ?? "")
        if found == stated { return }
        let expected = stated.map { oneLine($0, 12) } ?? "one"
        throw refused("damaged: expected SHA-256 \(expected), found \(found.prefix(12))…; copy or write it again")
    } catch let error as IoError {
        throw refused("cannot be read: \(oneLine(error.reason))")
    }
}

/// Of another base, as far as the file says.
func checkBase(_ stored: StoredTensors, _ layout: AdapterLayout) throws {
    guard let base = layout.base, let digest = base.digest, let stated = stored.metadata[baseKey], stated != digest else { return }
    let (expected, trained) = (oneLine(base.name, 80), oneLine(stored.metadata[baseModelKey] ?? "unknown", 80))
    let message = "was trained on another base: expected \(expected) (\(digest.prefix(12))…), found \(trained) (\(oneLine(stated, 12))); "
        + "name a bundle of that base, or take it over by lcsb adapter export there and lcsb adapter import"
    throw LcsbError(.adapter, "\(stored.file.path): \(message)", [stored.file.lastPathComponent])
}
