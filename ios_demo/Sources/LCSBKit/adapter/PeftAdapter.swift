import Foundation

let peftConfigFile = "adapter_config.json"
let peftModelFile = "adapter_model.safetensors"

/// Writes `adapter`, float32 [N], as the directory that `peft.PeftModel.from_pretrained` loads, with the bytes of `lcsb adapter export`
/// (docs/adapter.md). `directory` is replaced only when it is an earlier one of these, or empty. Throws OPTION, STORAGE_FULL,
/// STORAGE_FAILED.
public func writePeft(_ manifest: Manifest, _ adapter: Floats, _ directory: URL) throws {
    let text = Array(peftConfig(manifest.adapter, manifest.baseModel.name).utf8)
    try replaceDirectory(directory, marker: peftConfigFile) { temporary in
        try writeAdapter(temporary.appendingPathComponent(peftModelFile), manifest.adapter, adapter)
        try replaceAtomically(temporary.appendingPathComponent(peftConfigFile)) { file in try text.withUnsafeBytes(file.write) }
    }
}

/// A plain LoRA, in fields that PEFT has long had: an old release refuses one that it does not know.
private func peftConfig(_ layout: AdapterLayout, _ baseModel: String) -> String {
    let alpha = layout.lora.alpha
    let targets = Set(layout.modules.map { String($0.split(separator: ".").last ?? "") }).sorted { ByteText($0) < ByteText($1) }
    let fields = [
        ("alpha_pattern", "{}"),
        ("auto_mapping", "null"),
        ("base_model_name_or_path", asciiJson(baseModel)),
        ("bias", "\"none\""),
        ("fan_in_fan_out", "false"),
        ("inference_mode", "true"),
        ("init_lora_weights", "true"),
        ("layers_pattern", "null"),
        ("layers_to_transform", "null"),
        ("lora_alpha", Int(exactly: alpha).map(String.init) ?? pythonRepr(alpha)),  // PEFT declares an int
        ("lora_dropout", "0.0"),
        ("modules_to_save", "null"),
        ("peft_type", "\"LORA\""),
        ("r", "\(layout.lora.rank)"),
        ("rank_pattern", "{}"),
        ("revision", "null"),
        ("target_modules", "[\n    " + targets.map(asciiJson).joined(separator: ",\n    ") + "\n  ]"),
        ("task_type", "\"CAUSAL_LM\""),
        ("use_dora", "false"),
        ("use_rslora", "false"),
    ]
    return "{\n" + fields.map { "  \"\($0)\": \($1)" }.joined(separator: ",\n") + "\n}\n"
}
