import Foundation

/// What a `tokenizer.json` says, of the kinds that are known. `firstSpecial`: the first token that its post-processor adds to a text.
struct TokenizerFile: Sendable {
    let added: [AddedToken]
    let normalizers: [any Normalizer]
    let preTokenizer: any PreTokenizer
    let firstSpecial: Int?
    let decoders: [any TokenDecoder]
    let vocabulary: Vocabulary
    let bpe: Bpe
}

/// A `tokenizer.json` of a kind that there is no code for; `what` names it.
struct UnsupportedTokenizer: Error {
    let what: String

    init(_ what: String) { self.what = what }
}

/// A `tokenizer.json` that contradicts itself.
struct DamagedTokenizer: Error {
    let what: String

    init(_ what: String) { self.what = what }
}

/// Reads a `tokenizer.json` (the library tokenizers', version 1.0) of byte-pair encoding. Parts of a kind that Qwen2 and 3, Llama 3,
/// SmolLM2 or Gemma 3 do not use are refused, as is an option of a known part that would change what it does.
///
/// Throws JsonError, UnsupportedTokenizer, DamagedTokenizer.
final class TokenizerFileReader {
    private let json: JsonReader
    private var parts: [String: Json] = [:]  // of the file, but the model
    private var added: [AddedToken] = []
    private var settings: [(key: String, value: Json)] = []  // of the model, but vocabulary and merges
    private var vocabulary = Vocabulary()
    private var merges: Merges?

    static func read(_ json: JsonReader) throws -> TokenizerFile {
        let reader = TokenizerFileReader(json)
        try reader.readParts()
        return try reader.build()
    }

    private init(_ json: JsonReader) { self.json = json }

    private func readParts() throws {
        try json.object { key in
            switch key {
            case "added_tokens": try json.array { added.append(try addedToken(Part("added_tokens", json.tree()))) }
            case "model": try readModel()
            case "normalizer", "pre_tokenizer", "post_processor", "decoder": parts[key] = try json.tree()
            case "version", "truncation", "padding": try json.skip()  // the trainer's own settings
            default: throw UnsupportedTokenizer("the part \(shown(key))")
            }
        }
        try json.finish()
    }

    private func build() throws -> TokenizerFile {
        let splits = try splits(parts["pre_tokenizer"])
        let byteLevel = splits.contains { $0 == nil }
        if byteLevel, let last = splits.last, last != nil { throw UnsupportedTokenizer("a pre-tokenizer behind ByteLevel") }
        let model = try Part("model", .object(settings))
        if byteLevel, try model.flag("byte_fallback") { throw UnsupportedTokenizer("byte_fallback with ByteLevel") }
        try checkIds()
        let options = BpeOptions(
            unknown: try unknown(model),
            fuseUnknown: try model.flag("fuse_unk"),
            byteFallback: try model.flag("byte_fallback"),
            ignoreMerges: try model.flag("ignore_merges")
        )
        guard let merges else { throw DamagedTokenizer("the model has no merges") }
        return TokenizerFile(
            added: added,
            normalizers: try normalizers(parts["normalizer"]),
            preTokenizer: SequenceSplitter(parts: splits.compactMap { $0 }),
            firstSpecial: try firstSpecial(parts["post_processor"]),
            decoders: try decoders(parts["decoder"]),
            vocabulary: vocabulary,
            bpe: Bpe(vocabulary, merges, options, byteLevel: byteLevel)
        )
    }

    private func readModel() throws {
        try json.object { key in
            switch key {
            case "vocab":
                if try json.peek() != UInt8(ascii: "{") { throw UnsupportedTokenizer("a model that is not BPE") }
                try readVocabulary()
            case "merges": try readMerges()
            default: settings.append((key, try json.tree()))
            }
        }
    }

    private func readVocabulary() throws {
        if let type = Json.object(settings)["type"], !type.isNull, type.string != "BPE" {
            throw UnsupportedTokenizer("a model of the type \(shown(type))")
        }
        try json.members { token in
            let id = try json.int()
            let most = Merges.mostTokens
            if !(0..<most).contains(id) { try json.fail("token \(shown(token)) has the number \(id), outside 0 to \(most - 1),") }
            vocabulary.add(token, id)
            if vocabulary.count > most { try json.fail("more than \(most) tokens") }
        }
    }

    private func readMerges() throws {
        if vocabulary.count == 0 { throw UnsupportedTokenizer("merges that stand before the vocabulary") }
        var merges = Merges()
        try json.array {
            let (pair, first) = try json.peek() == UInt8(ascii: "\"") ? oneString() : twoStrings()
            if merges.count == Merges.most { try json.fail("more than \(Merges.most) merges") }
            merges.add(try id(pair, 0, first), try id(pair, first, pair.count), try id(pair, 0, pair.count))
        }
        self.merges = merges
    }

    /// A pair put together, and how long its first part is; of "a b".
    private func oneString() throws -> (pair: [UInt8], first: Int) {
        var pair = try json.utf8()
        let blanks = pair.indices.filter { pair[$0] == 0x20 }
        if blanks.count != 1 { try json.fail("a merge that does not have two parts") }
        pair.remove(at: blanks[0])
        return (pair, blanks[0])
    }

    /// Of ["a", "b"].
    private func twoStrings() throws -> (pair: [UInt8], first: Int) {
        var parts: [[UInt8]] = []
        try json.array {
            if parts.count == 2 { try json.fail("a merge that does not have two parts") }
            parts.append(try json.utf8())
        }
        if parts.count != 2 { try json.fail("a merge that does not have two parts") }
        return (parts[0] + parts[1], parts[0].count)
    }

    private func id(_ text: [UInt8], _ start: Int, _ end: Int) throws -> Int {
        if let id = vocabulary.id(text, start, end) { return id }
        try json.fail("a merge with \(shown(text[start..<end])), which is not in the vocabulary,")
    }

    private func unknown(_ model: Part) throws -> Int? {
        let type = try model.text("type") ?? "BPE"
        if type != "BPE" { throw UnsupportedTokenizer("a model of the type \(shown(type))") }
        if (model.value("dropout")?.double ?? 0) != 0 { throw UnsupportedTokenizer("dropout") }
        for name in ["continuing_subword_prefix", "end_of_word_suffix"] where try model.text(name) ?? "" != "" {
            throw UnsupportedTokenizer(name)
        }
        try model.only(
            "type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges"
        )
        guard let token = try model.text("unk_token") else { return nil }
        if let id = vocabulary.id(Array(token.utf8)) { return id }
        throw DamagedTokenizer("unk_token \(shown(token)) is not in the vocabulary")
    }

    private func addedToken(_ part: Part) throws -> AddedToken {
        try part.only("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special")
        for option in ["single_word", "lstrip", "rstrip"] where try part.flag(option) {
            throw UnsupportedTokenizer("added token \(shown(try part.text("content") ?? "null")) with \(option)")
        }
        guard case .number(let number)? = part.value("id") else { throw DamagedTokenizer("an added token without a number") }
        guard let id = Double(number).flatMap(Int.init(exactly:)), (0..<Merges.mostTokens).contains(id) else {
            throw DamagedTokenizer("an added token of the number \(oneLine(number, 40))")
        }
        guard let content = try part.text("content") else { throw DamagedTokenizer("added token \(id) without content") }
        let special = try part.flag("special")
        return AddedToken(
            id: id, content: Array(content.utf8), special: special, normalized: try part.flag("normalized", absent: !special)
        )
    }

    /// One number a token, and one token a number: else decoding would not be encoding's inverse.
    private func checkIds() throws {
        try vocabulary.index()
        var names: [Int: [UInt8]] = [:]
        for token in added {
            let name = names.updateValue(token.content, forKey: token.id) ?? vocabulary.token(token.id).map(Array.init)
            if let known = vocabulary.id(token.content), known != token.id { throw another(token) }
            if let name, name != token.content { throw another(token) }
        }
    }

    private func another(_ token: AddedToken) -> DamagedTokenizer {
        DamagedTokenizer("added token \(shown(token.content)) has the number \(token.id), the vocabulary another")
    }
}
