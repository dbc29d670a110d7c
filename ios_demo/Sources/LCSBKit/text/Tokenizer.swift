import Foundation

/// Token i stands for the bytes `starts[i]..<ends[i]` of a text's UTF-8. All have one length.
struct Encoded: Sendable {
    let ids: [Int]
    let starts: [Int]
    let ends: [Int]
}

/// Text to token ids and back, from `tokenizer.json` alone; the twin of lcsb_mobile/text/tokenizer.py, equal to the library tokenizers.
/// Held to one model's vocabulary: ids are from 0 to `vocabSize` - 1. What a chat template does is ChatFormat's. May be used by several
/// threads.
public final class Tokenizer: Sendable {
    public let vocabSize: Int
    public let bosId: Int?
    public let eosId: Int?
    public let padId: Int
    /// Those that decoding leaves out.
    public let specialIds: Set<Int>
    /// What a text or an assistant's turn ends with. Exporting a bundle finds them, as it takes the chat template's renderer.
    public let endIds: Set<Int>

    private let file: TokenizerFile
    private let rawTokens: TokenFinder
    private let normalizedTokens: TokenFinder
    private let added: [Int: [UInt8]]
    private let addsBos: Bool
    private let known = Locked<KnownWords?>(nil)  // while no text is being tokenised

    static let tokenizerFile = "tokenizer.json"
    static let configFile = "tokenizer_config.json"
    private static let supported = "known are the tokenizers of Qwen2 and 3, Llama 3, SmolLM2 and Gemma 3"
    private static let fileBytes = [tokenizerFile: 64 << 20, configFile: 16 << 20]  // that are read

    /// Reads `tokenizerFile` and `configFile` in `directory`. Throws TOKENIZER_DAMAGED or TOKENIZER_UNSUPPORTED.
    static func open(_ directory: URL, _ vocabSize: Int) throws -> Tokenizer {
        let config = directory.appendingPathComponent(configFile)
        let settings = try read(config, TokenizerConfig.read)
        let content = try read(directory.appendingPathComponent(tokenizerFile), TokenizerFileReader.read)
        return try named(config) { try Tokenizer(content, settings, vocabSize) }
    }

    private init(_ file: TokenizerFile, _ config: TokenizerConfig, _ vocabSize: Int) throws {
        func id(_ token: String) -> Int? {
            file.added.first { $0.content.elementsEqual(token.utf8) }?.id ?? file.vocabulary.id(Array(token.utf8))
        }
        func specialId(_ name: String, _ token: String?) throws -> Int? {
            guard let token else { return nil }
            guard let id = id(token) else { throw DamagedTokenizer("\(name) \(shown(token)) is not a token of \(Self.tokenizerFile)") }
            if id >= vocabSize { throw DamagedTokenizer("\(name): \(outside(id, Array(token.utf8), vocabSize))") }
            return id
        }
        (self.file, self.vocabSize) = (file, vocabSize)
        bosId = try specialId("bos_token", config.bosToken)
        eosId = try specialId("eos_token", config.eosToken)
        padId = config.padToken.flatMap(id).flatMap { $0 < vocabSize ? $0 : nil } ?? eosId ?? 0
        addsBos = bosId != nil && (config.addBosToken ?? (file.firstSpecial == bosId))
        specialIds = Set(file.added.filter(\.special).map(\.id))
        endIds = eosId.map { config.eosTokenIds.union([$0]) } ?? config.eosTokenIds
        added = Dictionary(file.added.map { ($0.id, $0.content) }) { _, last in last }
        rawTokens = TokenFinder(file.added.filter { !$0.normalized }.map { ($0.content, $0.id) })
        normalizedTokens = TokenFinder(file.added.filter(\.normalized).map { (file.normalize($0.content).text, $0.id) })
    }

    /// The ids of `text` and nothing else. Throws TOKENIZER_DAMAGED when one lies outside the model's vocabulary.
    public func encode(_ text: String) throws -> [Int] { try encoding(text, false).ids }

    /// As `encode`, and for each token the bytes that it stands for. Tokens follow each other without gaps; those that together make up one
    /// character share its range.
    func encodeWithOffsets(_ text: String) throws -> Encoded {
        let encoding = try encoding(text, true)
        var starts = encoding.starts
        for index in starts.indices { starts[index] = min(starts[index], index == 0 ? 0 : encoding.ends[index - 1]) }
        return Encoded(ids: encoding.ids, starts: starts, ends: encoding.ends)
    }

    /// The beginning of a document: the token of beginning, if this tokenizer adds one, and the text.
    public func encodePrompt(_ text: String) throws -> [Int] {
        let ids = try encode(text)
        if addsBos, let bosId { return [bosId] + ids }
        return ids
    }

    /// The ids of a text that follows another: without the blank that SentencePiece puts before a text's first word.
    func encodeContinuation(_ text: String) throws -> [Int] {
        let newline = try encode("\n")
        let ids = try encode("\n" + text)
        return ids.starts(with: newline) ? Array(ids[newline.count...]) : try encode(text)
    }

    /// A whole document: `encodePrompt`, then the token of end if there is one.
    func encodeDocument(_ text: String) throws -> [Int] { try encodePrompt(text) + eos() }

    /// The token of end as an array of one, or of none.
    func eos() -> [Int] { eosId.map { [$0] } ?? [] }

    /// The text of `ids`, without special tokens unless they are asked for. Numbers without a token are passed over.
    public func decode(_ ids: [Int], specialTokens: Bool = false) -> String {
        let tokens = ids.filter { specialTokens || !specialIds.contains($0) }.compactMap(name)
        return String(decoding: Array(file.decoders.reduce(tokens) { $1.decode($0) }.joined()), as: UTF8.self)
    }

    /// How many of `ids`, from the first, no token after them can give another text: all but a run of byte fallback at the end, with special
    /// tokens in it, which is so many U+FFFD once a byte comes that breaks it.
    func settled(_ ids: [Int]) -> Int {
        let decodesBytes = file.decoders.contains { $0 is ByteFallbackDecoder }
        func isPending(_ id: Int) -> Bool {
            specialIds.contains(id) || (decodesBytes && name(id).flatMap(ByteFallbackDecoder.byte) != nil)
        }
        return (ids.lastIndex { !isPending($0) } ?? -1) + 1
    }

    /// A token as it is written.
    private func name(_ id: Int) -> [UInt8]? { file.vocabulary.token(id).map(Array.init) ?? added[id] }

    private func encoding(_ text: String, _ withOffsets: Bool) throws -> Encoding {
        let text = Array(text.utf8)
        var encoding = Encoding(withOffsets)
        // Another thread that comes meanwhile begins with none.
        var words = known.with { known in
            defer { known = nil }
            return known ?? KnownWords()
        }
        rawTokens.split(text) { start, end, id in
            if let id {
                encoding.add(id, start, end)
            } else {
                encode(file.normalize(Array(text[start..<end]), start), &words, &encoding)
            }
        }
        known.with { $0 = words }
        if let id = encoding.ids.first(where: { $0 >= vocabSize }) {
            throw LcsbError(.tokenizerDamaged, outside(id, name(id) ?? [], vocabSize))
        }
        return encoding
    }

    private func encode(_ part: NormalizedText, _ words: inout KnownWords, _ encoding: inout Encoding) {
        normalizedTokens.split(part.text) { start, end, id in
            if let id { return encoding.add(id, part.start(start), part.end(end)) }
            file.preTokenizer.split(part.text, start, end) { from, to in
                if let known = words.find(part.text, from, to) {
                    encoding.add(part, from, words.tokens[known])
                } else {
                    let word = file.bpe.word(part.text, from, to)
                    words.add(part.text, from, to, word)
                    encoding.add(part, from, word[...])
                }
            }
        }
    }

    private static func read<Content>(_ file: URL, _ parse: (JsonReader) throws -> Content) throws -> Content {
        try named(file) {
            do {
                return try parse(JsonReader(mapWhole(file, fileBytes[file.lastPathComponent]!)))
            } catch let error as IoError where error.code == ENOENT {
                throw DamagedTokenizer("no such file; a tokenizer needs \(tokenizerFile) and \(configFile)")
            }
        }
    }

    private static func named<Result>(_ file: URL, _ action: () throws -> Result) throws -> Result {
        func refused(_ fault: Fault, _ reason: String) -> LcsbError {
            LcsbError(fault, "\(file.path): \(oneLine(reason))", [file.lastPathComponent, oneLine(reason)])
        }
        do {
            return try action()
        } catch let error as UnsupportedTokenizer {
            throw refused(.tokenizerUnsupported, "\(error.what): not supported; \(supported)")
        } catch let error as DamagedTokenizer {
            throw refused(.tokenizerDamaged, error.what)
        } catch let error as JsonError {
            throw refused(.tokenizerDamaged, "not a readable tokenizer: \(error.reason)")
        } catch let error as IoError {
            throw refused(.tokenizerDamaged, error.code == 0 ? error.reason : "cannot be read: \(error.reason)")
        }
    }
}

private func outside(_ id: Int, _ token: [UInt8], _ vocabSize: Int) -> String {
    "token \(id) (\(shown(token))) is outside the model's vocabulary of \(vocabSize)"
}

extension TokenizerFile {
    /// `origin`: where `text` begins in the original.
    fileprivate func normalize(_ text: [UInt8], _ origin: Int = 0) -> NormalizedText {
        normalizers.reduce(NormalizedText(text: text, origin: origin)) { $1.normalize($0) }
    }
}

/// The settings of `tokenizer_config.json` that are used; a token is a string or {"content": string}.
private struct TokenizerConfig {
    var bosToken: String?
    var eosToken: String?
    var padToken: String?
    var addBosToken: Bool?
    var eosTokenIds: Set<Int> = []

    static func read(_ json: JsonReader) throws -> TokenizerConfig {
        var config = TokenizerConfig()
        try json.object { key in
            switch key {
            case "bos_token": config.bosToken = try token(key, json.tree())
            case "eos_token": config.eosToken = try token(key, json.tree())
            case "pad_token": config.padToken = try token(key, json.tree())
            case "add_bos_token": config.addBosToken = try json.tree().bool
            case "eos_token_id": config.eosTokenIds = try ids(json.tree())
            default: try json.skip()
            }
        }
        try json.finish()
        return config
    }

    private static func token(_ name: String, _ tree: Json) throws -> String? {
        let value = tree.object == nil ? tree : tree["content"] ?? .null
        if value.isNull { return nil }
        guard let text = value.string else {
            throw DamagedTokenizer("\(name): expected a string or {\"content\": string}, found \(shown(tree))")
        }
        return text.isEmpty ? nil : text
    }

    private static func ids(_ tree: Json) throws -> Set<Int> {
        let values = tree.array ?? (tree.isNull ? [] : [tree])
        return Set(
            try values.map { value in
                guard let id = value.double.flatMap(Int.init(exactly:)), (0...Int(Int32.max)).contains(id) else {
                    throw DamagedTokenizer("eos_token_id: expected a number or a list of numbers, found \(shown(tree))")
                }
                return id
            }
        )
    }
}

/// Tokens as they come, with the bytes that they stand for if those are asked for.
private struct Encoding {
    private let withOffsets: Bool
    private(set) var ids: [Int] = []
    private(set) var starts: [Int] = []
    private(set) var ends: [Int] = []

    init(_ withOffsets: Bool) { self.withOffsets = withOffsets }

    mutating func add(_ id: Int, _ start: Int, _ end: Int) {
        ids.append(id)
        if withOffsets {
            starts.append(start)
            ends.append(end)
        }
    }

    /// The tokens of a word that begins at `from`: each stands for the characters that its bytes are of.
    mutating func add(_ part: NormalizedText, _ from: Int, _ word: ArraySlice<WordToken>) {
        if !withOffsets {
            for token in word { ids.append(Int(token.id)) }
            return
        }
        let text = part.text
        var done = from
        for token in word {
            let start = text.scalarStart(done)
            done += Int(token.size)
            let last = text.scalarStart(done - 1)
            add(Int(token.id), part.start(start), part.end(last + text.scalar(at: last).size))
        }
    }
}
