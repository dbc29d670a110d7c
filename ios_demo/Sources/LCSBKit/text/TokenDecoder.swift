/// From tokens as the vocabulary writes them towards text: what is left is put together.
protocol TokenDecoder: Sendable {
    func decode(_ tokens: [[UInt8]]) -> [[UInt8]]
}

/// The characters with which byte-level vocabularies write bytes: printable ones stand for themselves, the others follow from U+0100.
enum ByteCharacters {
    private static let characters: [Unicode.Scalar] = {
        var next = UInt16(0x100)
        return (UInt16(0)...0xFF).map { byte in
            let isPrintable = (0x21...0x7E).contains(byte) || (0xA1...0xAC).contains(byte) || (0xAE...0xFF).contains(byte)
            defer { if !isPrintable { next += 1 } }
            return Unicode.Scalar(isPrintable ? byte : next)!
        }
    }()
    private static let bytes: [Int16] = {
        var bytes = [Int16](repeating: -1, count: 0x200)
        for (byte, character) in characters.enumerated() { bytes[Int(character.value)] = Int16(byte) }
        return bytes
    }()

    /// Each byte's character.
    static let utf8 = characters.map { Array(UTF8.encode($0)!) }

    /// The bytes that a token's characters stand for; nil when one is none of these.
    static func bytes(_ token: [UInt8]) -> [UInt8]? {
        var found: [UInt8] = []
        var at = 0
        while at < token.count {
            let (point, size) = token.scalar(at: at)
            guard point < bytes.count, bytes[Int(point)] >= 0 else { return nil }
            found.append(UInt8(bytes[Int(point)]))
            at += size
        }
        return found
    }
}

struct ByteLevelDecoder: TokenDecoder {
    func decode(_ tokens: [[UInt8]]) -> [[UInt8]] {
        [Utf8.lossy(tokens.flatMap { ByteCharacters.bytes($0) ?? $0 })]  // an added token, as it stands
    }
}

/// Runs of `<0x41>` to the text of those bytes, or to as many U+FFFD when they are none.
struct ByteFallbackDecoder: TokenDecoder {
    func decode(_ tokens: [[UInt8]]) -> [[UInt8]] {
        var result: [[UInt8]] = []
        var run: [UInt8] = []
        func flush() {
            if run.isEmpty { return }
            let isText = run.withUnsafeBufferPointer { Utf8.firstFault($0, 0, $0.count) } == nil
            result += isText ? [run] : run.map { _ in [0xEF, 0xBF, 0xBD] }
            run = []
        }
        for token in tokens {
            if let byte = Self.byte(token) {
                run.append(byte)
            } else {
                flush()
                result.append(token)
            }
        }
        flush()
        return result
    }

    /// The byte that a token stands for by its name.
    static func byte(_ token: [UInt8]) -> UInt8? {
        guard token.count == 6, token.starts(with: "<0x".utf8), token[5] == UInt8(ascii: ">") else { return nil }
        return UInt8(String(decoding: token[3...4], as: UTF8.self), radix: 16)
    }
}

struct ReplaceDecoder: TokenDecoder {
    let pattern: [UInt8]
    let content: [UInt8]

    func decode(_ tokens: [[UInt8]]) -> [[UInt8]] { tokens.map { $0.replacing(pattern, with: content) } }
}

/// Takes up to `start` times `content` from each token's beginning, and up to `stop` times from its end.
struct StripDecoder: TokenDecoder {
    let content: [UInt8]
    let start: Int
    let stop: Int

    func decode(_ tokens: [[UInt8]]) -> [[UInt8]] { tokens.map(stripped) }

    private func stripped(_ token: [UInt8]) -> [UInt8] {
        guard !content.isEmpty else { return token }
        var text = token[...]
        var left = start
        while left > 0, text.starts(with: content) { (text, left) = (text.dropFirst(content.count), left - 1) }
        left = stop
        while left > 0, text.suffix(content.count).elementsEqual(content) { (text, left) = (text.dropLast(content.count), left - 1) }
        return Array(text)
    }
}

/// All as one: without a `separator` what the library calls Fuse, with a blank what it does without a decoder.
struct JoiningDecoder: TokenDecoder {
    let separator: [UInt8]

    func decode(_ tokens: [[UInt8]]) -> [[UInt8]] { [Array(tokens.joined(separator: separator))] }
}
