import Foundation

let baseKey = "base"
let baseModelKey = "base_model"
let digestedKeys = ["toolkit", baseModelKey, baseKey]  // of the metadata; only a file with a digest has them

/// Writes float32 [N] under PEFT's names with the desktop's bytes (docs/adapter.md), atomically: `file` is the old one or the new one.
/// Throws STORAGE_FULL or STORAGE_FAILED. A bundle's initial adapter, of a layout without a base, states none and no digest: the manifest has
/// both.
package func writeAdapter(_ file: URL, _ layout: AdapterLayout, _ adapter: Floats) throws {
    let tensors = layout.named(adapter).map { (name: $0.name, tensor: WrittenTensor($0.shape, $0.values)) }
        .sorted { ByteText($0.name) < ByteText($1.name) }
    var metadata: [(key: String, value: String)] = [("format", "pt"), ("rank", "\(layout.lora.rank)"), ("alpha", pythonRepr(layout.lora.alpha))]
    guard let base = layout.base else {
        return try replaceAtomically(file) { try writeSafetensors(tensors, metadata, to: $0.write) }
    }
    for (key, value) in zip(digestedKeys, [base.toolkit, base.name, base.digest]) {
        if let value { metadata.append((key, value)) }
    }
    metadata.append((digestKey, String(decoding: unknownDigest, as: UTF8.self)))
    try replaceAtomically(file) { [metadata] in try writeDigested(tensors, metadata, to: $0) }
}
