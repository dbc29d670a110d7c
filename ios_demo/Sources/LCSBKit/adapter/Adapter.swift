import Foundation

/// Writes float32 [N] under PEFT's names with the desktop's bytes (docs/adapter.md), atomically: `file` is the old one or the new one.
/// Throws STORAGE_FULL or STORAGE_FAILED.
package func writeAdapter(_ file: URL, _ layout: AdapterLayout, _ adapter: Floats) throws {
    let tensors = layout.named(adapter).map { (name: $0.name, tensor: WrittenTensor($0.shape, $0.values)) }
        .sorted { ByteText($0.name) < ByteText($1.name) }
    let metadata = [("format", "pt"), ("rank", "\(layout.lora.rank)"), ("alpha", pythonRepr(layout.lora.alpha))]
    try replaceAtomically(file) { try writeSafetensors(tensors, metadata, to: $0.write) }
}
