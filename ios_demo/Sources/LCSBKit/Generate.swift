import Foundation

// Text from the base or the adapted model, a token at a time.

/// `temperature` 0 takes the likeliest token. `topP`: sample from the smallest set of that probability (nucleus sampling, arXiv
/// 1904.09751). `stop`: texts; the one that is complete first ends the text, and nothing of it is given out.
public struct SamplingConfig: Sendable, Hashable {
    public var temperature: Double
    public var topP: Double
    public var seed: Int
    public var maxTokens: Int
    public var stop: [String]

    public init(temperature: Double = 0.8, topP: Double = 0.95, seed: Int = 0, maxTokens: Int = 64, stop: [String] = []) {
        (self.temperature, self.topP, self.seed, self.maxTokens, self.stop) = (temperature, topP, seed, maxTokens, stop)
    }

    /// Throws OPTION.
    public func check() throws {
        func refused(_ name: String, _ what: String) -> LcsbError { LcsbError(.option, "\(name): expected \(what)", [name]) }
        if maxTokens < 1 { throw refused("max-tokens", "at least 1, found \(maxTokens)") }
        if !(temperature >= 0) { throw refused("temperature", "0 or more, found \(temperature)") }
        if !(topP > 0 && topP <= 1) { throw refused("top-p", "more than 0 and at most 1, found \(topP)") }
        if seed < 0 { throw refused("seed", "0 or more, found \(seed)") }
        if stop.contains(where: \.isEmpty) { throw refused("stop", "a text, found an empty one") }
    }
}

/// The prompt is a user's message, given to the model in the words of the chat format; `system`: an instruction before it; `earlier`: what was
/// asked and answered before it.
public struct Chat: Sendable {
    public let format: ChatFormat
    public let system: String?
    public let earlier: [(question: String, answer: String)]

    public init(_ format: ChatFormat, system: String? = nil, earlier: [(question: String, answer: String)] = []) {
        (self.format, self.system, self.earlier) = (format, system, earlier)
    }

    /// Throws CHAT_UNSUPPORTED when the format does not take the messages.
    func promptIds(_ tokenizer: Tokenizer, _ message: String) throws -> [Int] {
        let before = earlier.flatMap { [Message(role: "user", content: $0.question), Message(role: "assistant", content: $0.answer)] }
        let messages = (system.map { [Message(role: "system", content: $0)] } ?? []) + before + [Message(role: "user", content: message)]
        return try tokenizer.encode(format.render(messages, addGenerationPrompt: true))
    }
}

public enum TextEnd: String, Sendable {
    case endToken = "END_TOKEN"
    case stopText = "STOP_TEXT"
    case maxTokens = "MAX_TOKENS"
    case sequenceFull = "SEQUENCE_FULL"
}

/// The text after `prompt`, or with `chat` the answer to it, in pieces as it is written.
///
/// It ends at a token that ends a text or a turn (`Tokenizer.endIds`), before a stop text, after `maxTokens`, or when the sequence is full.
/// Throws OPTION when the prompt leaves no room, or for a stop text that has a special token within it.
public func generate(
    _ runner: any StepRunner, _ bundle: TrainingBundle, _ adapter: Floats, _ prompt: String, _ config: SamplingConfig, chat: Chat? = nil
) throws -> Continuation {
    try config.check()
    let (tokenizer, seqLen) = (try bundle.tokenizer, bundle.manifest.seqLen)
    let ids = try chat?.promptIds(tokenizer, prompt) ?? tokenizer.encodePrompt(prompt)
    if ids.isEmpty || ids.count >= seqLen {
        throw LcsbError(.option, "prompt: expected 1 to \(seqLen - 1) tokens, found \(ids.count); give another prompt", ["prompt"])
    }
    return try Continuation(runner.decoder(adapter), tokenizer, ids, seqLen, config)
}

/// The pieces of a text as it is written. Together they are what the tokenizer makes of all tokens at once, with U+FFFD for what is no text. A
/// piece ends where no further token changes the text so far, and where it cannot be the beginning of a stop text.
public final class Continuation {
    private let tokenizer: Tokenizer
    private let prompt: [Int]
    private let config: SamplingConfig
    private let before: [[UInt8]]  // what a text that begins with the prompt may begin with
    private let most: Int
    private let full: TextEnd
    private let endTokens: Set<Int>
    private let stop: StopTexts
    private var decoder: (any SequenceDecoder)?  // until the text has ended
    private var random: JavaRandom
    private var written: [Int] = []
    private var isGivenOut = false

    /// Written so far, without the one that ended the text.
    public var tokens: Int { written.count }
    /// Tokens after the first one, an ending one included, and their seconds; what the reader of the pieces does meanwhile is not counted.
    public private(set) var decoded = 0
    public private(set) var decodeSeconds = 0.0
    /// To the first token.
    public private(set) var prefillSeconds = 0.0
    /// Why, once it has.
    public private(set) var ended: TextEnd?

    init(_ decoder: any SequenceDecoder, _ tokenizer: Tokenizer, _ prompt: [Int], _ seqLen: Int, _ config: SamplingConfig) throws {
        (self.decoder, self.tokenizer, self.prompt, self.config) = (decoder, tokenizer, prompt, config)
        before = beginnings(tokenizer, prompt)
        most = min(config.maxTokens, seqLen - prompt.count)
        full = most == config.maxTokens ? .maxTokens : .sequenceFull
        let (endTokens, texts) = try endings(tokenizer, config.stop)
        (self.endTokens, stop) = (endTokens, StopTexts(texts))
        random = JavaRandom(seed: config.seed)
    }

    /// The next piece, nil at the end. Throws RUNTIME_FAILED, MEMORY_TOO_SMALL.
    public func next() throws -> String? {
        while ended == nil {
            let token = try nextToken()
            if endTokens.contains(token) {
                ended = .endToken
                break
            }
            written.append(token)
            let piece = stop.grow(settled)
            if stop.met { ended = .stopText } else if tokens == most { ended = full }
            if !piece.isEmpty { return String(decoding: piece, as: UTF8.self) }
        }
        decoder = nil
        if isGivenOut || stop.met { return nil }
        isGivenOut = true
        let rest = stop.end(text(written))
        if stop.met { ended = .stopText }
        return rest.isEmpty ? nil : String(decoding: rest, as: UTF8.self)
    }

    /// All pieces that are left. Throws as `next`.
    public func rest() throws -> String {
        var text = ""
        while let piece = try next() { text += piece }
        return text
    }

    private func nextToken() throws -> Int {
        let started = nanoseconds()
        let decoder = decoder!
        let logits = try written.last.map { try decoder.next($0) } ?? decoder.prefill(prompt)
        let token = try sample(logits, config, &random)
        let took = seconds(started, nanoseconds())
        if written.isEmpty {
            prefillSeconds = took
        } else {
            decodeSeconds += took
            decoded += 1
        }
        return token
    }

    /// What of the tokens' text stays as it is whatever follows: bytes that are no character yet are U+FFFD at its end.
    private var settled: [UInt8] {
        let count = tokenizer.settled(prompt + written) - prompt.count
        var text = text(Array(written.prefix(max(count, 0))))
        while text.suffix(replacement.count) == replacement[...] { text.removeLast(replacement.count) }
        return text
    }

    /// What the tokens add to the prompt's text: alone, some decoders would drop a blank before the first word.
    private func text(_ ids: [Int]) -> [UInt8] {
        let whole = Array(tokenizer.decode(prompt + ids).utf8)
        if let begun = before.first(where: { whole.starts(with: $0) }) { return Array(whole[begun.count...]) }
        return Array(tokenizer.decode(ids).utf8)
    }
}

private let replacement = Array("\u{FFFD}".utf8)  // what a decoder makes of bytes that are no character

/// What a text that begins with the tokens may begin with: their text, or with U+FFFD for each byte of the run of byte fallback at their end, if
/// the bytes that follow break it.
private func beginnings(_ tokenizer: Tokenizer, _ ids: [Int]) -> [[UInt8]] {
    let settled = tokenizer.settled(ids)
    let run = ids[settled...].count { !tokenizer.specialIds.contains($0) }
    let broken = Array(tokenizer.decode(Array(ids[..<settled])).utf8) + (0..<run).flatMap { _ in replacement }
    return [Array(tokenizer.decode(ids).utf8), broken]
}

/// What may be given out of a text that grows at its end. Texts are UTF-8.
final class StopTexts {
    private let stop: [[UInt8]]
    private var given = 0  // bytes

    /// A stop text is in it; nothing comes after that.
    private(set) var met = false

    init(_ stop: [String]) { self.stop = stop.map { Array($0.utf8) } }

    /// The next piece, perhaps empty; `text` is all that was written so far, and stays as it is.
    func grow(_ text: [UInt8]) -> [UInt8] { give(text, begun(text)) }

    /// The last piece: of the whole text, of which no more is to come.
    func end(_ text: [UInt8]) -> [UInt8] { give(text, 0) }

    private func give(_ text: [UInt8], _ held: Int) -> [UInt8] {
        // The one that is complete first, so that it does not matter where one token ends and the next begins.
        let first = stop.compactMap { text.firstRange(of: $0) }.min { ($0.upperBound, $0.lowerBound) < ($1.upperBound, $1.lowerBound) }
        met = first != nil
        let end = first?.lowerBound ?? (text.count - held)
        if end <= given { return [] }
        defer { given = end }
        return Array(text[given..<end])
    }

    /// Bytes at the end of `text` that may be the beginning of a stop text.
    private func begun(_ text: [UInt8]) -> Int {
        let most = min(text.count, (stop.map(\.count).max() ?? 1) - 1)
        return (0...max(most, 0)).last { size in size == 0 || stop.contains { $0.starts(with: text.suffix(size)) } }!
    }
}

/// The tokens and the texts that end a text. A special token has no text: given as a stop text it is one of the former. Throws OPTION for a
/// stop text that has such a token within it, as it could not be met.
private func endings(_ tokenizer: Tokenizer, _ stop: [String]) throws -> (tokens: Set<Int>, texts: [String]) {
    var (tokens, texts) = (tokenizer.endIds, [String]())
    for text in stop {
        let ids = try tokenizer.encode(text)
        let special = ids.filter(tokenizer.specialIds.contains)
        if !special.isEmpty && ids.count > 1 {
            let found = quoted(text)
            throw LcsbError(.option, "stop: expected a text or one special token, found \(found), which has a special token within it")
        }
        if special.isEmpty { texts.append(text) } else { tokens.formUnion(special) }
    }
    return (tokens, texts)
}

/// A token id from logits [V]: one draw of `random`, none at temperature 0. Throws RUNTIME_FAILED for NaN and infinite logits.
func sample(_ logits: [Float], _ config: SamplingConfig, _ random: inout JavaRandom) throws -> Int {
    if !logits.allSatisfy(\.isFinite) {
        throw LcsbError(.runtimeFailed, "the model's logits are not finite numbers; try without the adapter, and the self-test")
    }
    let top = logits.max()!
    let likeliest = logits.firstIndex(of: top)!  // the first of equals
    if config.temperature == 0 { return likeliest }
    let weights = logits.map { exp((Double($0) - Double(top)) / config.temperature) }
    let ascending = weights.sorted()
    let wanted = config.topP * weights.reduce(0, +)
    var first = ascending.count  // of the smallest set that has the wanted weight
    var mass = 0.0
    repeat {
        first -= 1
        mass += ascending[first]
    } while mass < wanted && first > 0
    let least = ascending[first]
    var equals = ascending.count - first - weights.count { $0 > least }  // as many of the least as are in the set, the first of them
    var left = random.nextDouble() * mass
    var token = likeliest
    for (index, weight) in weights.enumerated() where weight >= least {
        if weight == least {
            if equals <= 0 { continue }
            equals -= 1
        }
        token = index
        left -= weight
        if left < 0 { break }
    }
    return token
}

/// Java's generator, whose draws the Android app samples by: a text of a seed is the same in both, and another than Python's.
struct JavaRandom {
    private static let mask: UInt64 = 1 << 48 - 1
    private static let factor: UInt64 = 0x5_DEEC_E66D
    private var state: UInt64

    init(seed: Int) { state = (UInt64(bitPattern: Int64(seed)) ^ Self.factor) & Self.mask }

    private mutating func next(bits: UInt64) -> UInt64 {
        state = (state &* Self.factor &+ 0xB) & Self.mask
        return state >> (48 - bits)
    }

    /// From 0 to less than 1.
    mutating func nextDouble() -> Double { Double(next(bits: 26) << 27 + next(bits: 27)) * 0x1p-53 }
}
