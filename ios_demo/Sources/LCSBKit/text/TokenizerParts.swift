/// A small object of `tokenizer.json`, with its `name` for errors.
struct Part {
    private let name: String
    private let members: Json

    init(_ name: String, _ tree: Json?) throws {
        guard let tree, tree.object != nil else { throw DamagedTokenizer("\(name): expected an object") }
        (self.name, members) = (name, tree)
    }

    func type() throws -> String {
        guard let type = try text("type") else { throw DamagedTokenizer("\(name): has no type") }
        return type
    }

    /// nil for null, too.
    func value(_ key: String) -> Json? { members[key].flatMap { $0.isNull ? nil : $0 } }

    func text(_ key: String) throws -> String? {
        guard let value = value(key) else { return nil }
        guard let text = value.string else { throw DamagedTokenizer("\(name): \(key) is not a string") }
        return text
    }

    func flag(_ key: String, absent: Bool = false) throws -> Bool {
        guard let value = value(key) else { return absent }
        guard let flag = value.bool else { throw DamagedTokenizer("\(name): \(key) is not true or false") }
        return flag
    }

    func count(_ key: String) throws -> Int {
        guard let count = value(key)?.double.flatMap({ Int(exactly: $0) }), count >= 0 else {
            throw DamagedTokenizer("\(name): \(key) is not a number from 0 on")
        }
        return count
    }

    func list(_ key: String) throws -> [Json] {
        guard let list = value(key)?.array else { throw DamagedTokenizer("\(name): \(key) is not a list") }
        return list
    }

    /// Throws UnsupportedTokenizer for other keys than these.
    func only(_ keys: String...) throws {
        for (key, _) in members.object ?? [] where !keys.contains(key) { throw UnsupportedTokenizer("\(name) with \(shown(key))") }
    }

    /// The text that a Replace or a Split looks for; nil for a regular expression.
    func pattern() throws -> [UInt8]? {
        guard let text = try Part("\(name): pattern", value("pattern")).text("String"), !text.isEmpty else { return nil }
        return Array(text.utf8)
    }
}

/// Parts of a Sequence, at most one level deep, as the families have them; a part alone is one of one; null is none.
private func flat(_ name: String, _ tree: Json?, _ member: String) throws -> [Part] {
    guard let tree, !tree.isNull else { return [] }
    let part = try Part(name, tree)
    return try part.type() == "Sequence" ? part.list(member).map { try Part(name, $0) } : [part]
}

func normalizers(_ tree: Json?) throws -> [any Normalizer] {
    try flat("normalizer", tree, "normalizers").map { part in
        switch try part.type() {
        case "NFC": return NfcNormalizer()
        case "Replace":
            guard let pattern = try part.pattern() else { throw UnsupportedTokenizer("the normalizer Replace of a regular expression") }
            return ReplaceNormalizer(pattern: pattern, content: Array((try part.text("content") ?? "").utf8))
        case "Prepend": return PrependNormalizer(prefix: Array((try part.text("prepend") ?? "").utf8))
        case let type: throw UnsupportedTokenizer("the normalizer \(shown(type))")
        }
    }
}

/// The pre-tokenizers in order; nil is ByteLevel's writing of bytes, which Bpe does.
func splits(_ tree: Json?) throws -> [(any PreTokenizer)?] {
    try flat("pre_tokenizer", tree, "pretokenizers").flatMap { part -> [(any PreTokenizer)?] in
        switch try part.type() {
        case "Digits": return [DigitsSplitter(individual: try part.flag("individual_digits"))]
        case "Split": return [try splitter(part)]
        case "ByteLevel":
            if try part.flag("add_prefix_space", absent: true) {
                throw UnsupportedTokenizer("the pre-tokenizer ByteLevel with add_prefix_space")
            }
            return try part.flag("use_regex", absent: true) ? [PatternSplitter.gpt2, nil] : [nil]
        case let type: throw UnsupportedTokenizer("the pre-tokenizer \(shown(type))")
        }
    }
}

private func splitter(_ part: Part) throws -> any PreTokenizer {
    let behavior = try part.text("behavior")
    let mark = try part.pattern()
    if try part.flag("invert") { throw UnsupportedTokenizer("the pre-tokenizer Split with invert") }
    if let mark, behavior == "MergedWithPrevious" { return MarkSplitter(mark: mark) }
    guard let expression = try Part("pre_tokenizer: pattern", part.value("pattern")).text("Regex"), behavior == "Isolated" else {
        throw UnsupportedTokenizer("the pre-tokenizer Split of the kind \(shown(behavior ?? "null"))")
    }
    if let splitter = PatternSplitter.of(expression) { return splitter }
    throw UnsupportedTokenizer("the pre-tokenizer Split of \(shown(expression))")
}

/// The number of the first token that stands in a TemplateProcessing's `single`; nil where no token is added.
func firstSpecial(_ tree: Json?) throws -> Int? {
    try flat("post_processor", tree, "processors").compactMap { part -> Int? in
        switch try part.type() {
        case "ByteLevel": return nil
        case "TemplateProcessing": return try templateToken(part)
        case let type: throw UnsupportedTokenizer("the post-processor \(shown(type))")
        }
    }
    .first
}

private func templateToken(_ part: Part) throws -> Int? {
    guard let piece = try part.list("single").compactMap({ try Part("single", $0).value("SpecialToken") }).first else { return nil }
    let name = try Part("single: SpecialToken", piece).text("id") ?? ""
    let token = try Part("special_tokens", part.value("special_tokens")).value(name)
    guard let id = try Part("special_tokens: \(name)", token).list("ids").first?.double else {
        throw DamagedTokenizer("special_tokens: \(shown(name)) has no number")
    }
    return Int(exactly: id)
}

func decoders(_ tree: Json?) throws -> [any TokenDecoder] {
    let decoders = try flat("decoder", tree, "decoders").map { part -> any TokenDecoder in
        switch try part.type() {
        case "ByteLevel": return ByteLevelDecoder()
        case "ByteFallback": return ByteFallbackDecoder()
        case "Strip":
            let content = Array((try part.text("content") ?? "").utf8)
            return StripDecoder(content: content, start: try part.count("start"), stop: try part.count("stop"))
        case "Fuse": return JoiningDecoder(separator: [])
        case "Replace":
            guard let pattern = try part.pattern() else { throw UnsupportedTokenizer("the decoder Replace of a regular expression") }
            return ReplaceDecoder(pattern: pattern, content: Array((try part.text("content") ?? "").utf8))
        case let type: throw UnsupportedTokenizer("the decoder \(shown(type))")
        }
    }
    return decoders.isEmpty ? [JoiningDecoder(separator: [0x20])] : decoders
}

/// What a file says, short, for an error.
func shown(_ text: String) -> String { quoted(text, 40) }

func shown(_ token: some Sequence<UInt8>) -> String { shown(String(decoding: Array(token), as: UTF8.self)) }

func shown(_ value: Json) -> String {
    switch value {
    case .string(let text), .number(let text): shown(text)
    default: value.kind
    }
}
