/// UTF-8 as Python and Rust read it.
enum Utf8 {
    /// The sequence that begins at `at`: its length where it is valid; else the negative length of its longest part that could begin one, at
    /// least 1, which is what a decoder replaces by one U+FFFD.
    static func sequence(_ bytes: UnsafeBufferPointer<UInt8>, _ at: Int, _ end: Int) -> Int {
        let first = bytes[at]
        let length: Int
        switch first {
        case 0x00...0x7F: return 1
        case 0xC2...0xDF: length = 2
        case 0xE0...0xEF: length = 3
        case 0xF0...0xF4: length = 4
        default: return -1
        }
        for offset in 1..<length where at + offset >= end || !continues(first, offset, bytes[at + offset]) { return -offset }
        return length
    }

    private static func continues(_ first: UInt8, _ offset: Int, _ byte: UInt8) -> Bool {
        if offset > 1 { return (0x80...0xBF).contains(byte) }
        switch first {
        case 0xE0: return (0xA0...0xBF).contains(byte)
        case 0xED: return (0x80...0x9F).contains(byte)  // no surrogates
        case 0xF0: return (0x90...0xBF).contains(byte)
        case 0xF4: return (0x80...0x8F).contains(byte)
        default: return (0x80...0xBF).contains(byte)
        }
    }

    /// Where the first byte stands that is no UTF-8.
    static func firstFault(_ bytes: UnsafeBufferPointer<UInt8>, _ start: Int, _ end: Int) -> Int? {
        var at = start
        while at < end {
            if bytes[at] < 0x80 {
                at += 1
                continue
            }
            let length = sequence(bytes, at, end)
            if length < 0 { return at }
            at += length
        }
        return nil
    }

    /// Why `firstFault` stopped at `at`, in Python's words.
    static func reason(_ bytes: UnsafeBufferPointer<UInt8>, _ at: Int, _ end: Int) -> String {
        let bad = -sequence(bytes, at, end)
        if !(0xC2...0xF4).contains(bytes[at]) { return "invalid start byte" }
        return at + bad >= end ? "unexpected end of data" : "invalid continuation byte"
    }

    /// The text of `bytes` with U+FFFD for what is none, as UTF-8.
    static func lossy(_ bytes: [UInt8]) -> [UInt8] {
        bytes.withUnsafeBufferPointer { bytes in
            var text: [UInt8] = []
            text.reserveCapacity(bytes.count)
            var at = 0
            while at < bytes.count {
                let length = sequence(bytes, at, bytes.count)
                if length > 0 { text.append(contentsOf: bytes[at..<at + length]) } else { text.append(contentsOf: [0xEF, 0xBF, 0xBD]) }
                at += abs(length)
            }
            return text
        }
    }

    /// Text that is UTF-8 throughout. Throws IoError.
    static func strict(_ bytes: [UInt8]) throws -> String {
        let fault = bytes.withUnsafeBufferPointer { firstFault($0, 0, $0.count) }
        if fault != nil { throw IoError("not UTF-8") }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Appends a code point; U+FFFD for half a surrogate pair.
    static func append(_ codePoint: UInt32, to bytes: inout [UInt8]) {
        let scalar = Unicode.Scalar(codePoint) ?? "\u{FFFD}"
        bytes.append(contentsOf: UTF8.encode(scalar)!)
    }
}

/// Text compared by its bytes. Swift's strings are equal where Unicode calls them canonically equivalent, which two tokens of one vocabulary,
/// or two keys of one JSON object, may be.
public struct ByteText: Hashable, Sendable, Comparable, ExpressibleByStringLiteral, CustomStringConvertible {
    public let bytes: [UInt8]

    public init(_ bytes: [UInt8]) { self.bytes = bytes }

    public init(_ text: String) { bytes = Array(text.utf8) }

    public init(stringLiteral text: String) { self.init(text) }

    public var string: String { String(decoding: bytes, as: UTF8.self) }

    public var description: String { string }

    public static func < (a: ByteText, b: ByteText) -> Bool { a.bytes.lexicographicallyPrecedes(b.bytes) }
}
