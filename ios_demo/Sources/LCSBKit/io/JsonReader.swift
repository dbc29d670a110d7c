import Foundation

/// What a `JsonReader` found wrong, without a file's name; `at` counts bytes from 0.
struct JsonError: Error, Sendable {
    let text: String
    let at: Int

    var reason: String { "\(text) at byte \(at)" }
}

/// A value of any kind. Numbers are as they were written. Of keys that are equal the last one counts, as in Python.
package enum Json: Sendable {
    case object([(key: String, value: Json)])
    case array([Json])
    case string(String)
    case number(String)
    case bool(Bool)
    case null

    /// With its article.
    var kind: String {
        switch self {
        case .object: "an object"
        case .array: "an array"
        case .string: "a string"
        case .number: "a number"
        case .bool: "true or false"
        case .null: "null"
        }
    }

    /// An object's member.
    subscript(name: String) -> Json? {
        guard case .object(let members) = self else { return nil }
        return members.last { $0.key.utf8.elementsEqual(name.utf8) }?.value
    }

    var string: String? { if case .string(let text) = self { text } else { nil } }
    var array: [Json]? { if case .array(let list) = self { list } else { nil } }
    var object: [(key: String, value: Json)]? { if case .object(let members) = self { members } else { nil } }
    var bool: Bool? { if case .bool(let value) = self { value } else { nil } }
    var double: Double? { if case .number(let text) = self { Double(text) } else { nil } }
    /// Of a number that is written without fraction and exponent.
    var int: Int? { if case .number(let text) = self { Int(text) } else { nil } }
    var isNull: Bool { if case .null = self { true } else { false } }
}

/// JSON read value by value, in memory bounded by the longest string: a `tokenizer.json` has 60 MB, and a stranger's may be made to need far
/// more once it is a tree. Whoever reads knows what should come: `object`, `array`, `string` …; `skip` and `tree` take what may be anything.
///
/// Throws JsonError for what is no JSON, for another kind of value than asked for, and beyond the bounds.
final class JsonReader {
    private let bytes: UnsafePointer<UInt8>
    private let owner: Bytes
    private var at = 0
    private let end: Int
    private var text: [UInt8] = []

    static let mostText = 1 << 20
    static let mostDepth = 32
    static let mostNodes = 20_000
    static let mostDigits = 400

    /// Over memory in place, such as a mapped file's.
    init(_ source: Bytes) {
        (owner, end) = (source, source.count)
        bytes = UnsafePointer(source.pointer.assumingMemoryBound(to: UInt8.self))
    }

    /// Over a copy.
    convenience init(_ source: some Collection<UInt8>) throws {
        let copy = try Bytes(count: source.count)
        UnsafeMutableRawBufferPointer(start: copy.pointer, count: copy.count).copyBytes(from: source)
        self.init(copy)
    }

    /// Reads an object; `member` must take the value of the key that it is given.
    func object(_ member: (String) throws -> Void) throws { try members { try member(String(decoding: $0, as: UTF8.self)) } }

    /// Likewise, with the keys' bytes.
    func members(_ member: ([UInt8]) throws -> Void) throws {
        try expect("{", "an object")
        if take("}") { return }
        repeat {
            if try peek() != UInt8(ascii: "\"") { try fail("expected a key") }
            let key = try utf8()
            try expect(":", "a colon")
            try member(key)
        } while take(",")
        try expect("}", "a comma or the end of the object")
    }

    /// Reads an array; `element` must take a value.
    func array(_ element: () throws -> Void) throws {
        try expect("[", "an array")
        if take("]") { return }
        repeat { try element() } while take(",")
        try expect("]", "a comma or the end of the array")
    }

    func string() throws -> String { String(decoding: try utf8(), as: UTF8.self) }

    /// A string's bytes, which are UTF-8.
    func utf8() throws -> [UInt8] {
        try expect("\"", "a string")
        try readText()
        return try text.withUnsafeBufferPointer { text in
            if Utf8.firstFault(text, 0, text.count) != nil { try fail("a string that is not UTF-8") }
            return Array(text)  // of its own size, which `text` outgrows
        }
    }

    func int() throws -> Int {
        let kind = try kind()
        if kind != "a number" { try fail("expected a number, found \(kind)") }
        let number = try number()
        guard let value = Int32(number) else { try fail("expected a whole number below 2^31, found \(number)") }
        return Int(value)
    }

    /// The next value's kind in words, with its article.
    func kind() throws -> String {
        switch try peek() {
        case UInt8(ascii: "{"): return "an object"
        case UInt8(ascii: "["): return "an array"
        case UInt8(ascii: "\""): return "a string"
        case UInt8(ascii: "t"), UInt8(ascii: "f"): return "true or false"
        case UInt8(ascii: "n"): return "null"
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return "a number"
        default: try fail("expected a value")
        }
    }

    /// A value of any kind. `nodes`: how many values it may have in all. `unique`: a key that an object has twice is an error.
    func tree(nodes: Int = mostNodes, unique: Bool = false) throws -> Json {
        var left = nodes
        return try tree(&left, 0, unique)
    }

    private func tree(_ left: inout Int, _ depth: Int, _ unique: Bool) throws -> Json {
        left -= 1
        if left < 0 || depth > Self.mostDepth { try fail("a value of too many parts") }
        switch try kind() {
        case "an object":
            var found: [(key: String, value: Json)] = []
            var keys: Set<[UInt8]> = []
            try members { key in
                let name = String(decoding: key, as: UTF8.self)
                if unique && !keys.insert(key).inserted { try fail("the key \(quoted(name, 80)) stands twice in an object") }
                found.append((name, try tree(&left, depth + 1, unique)))
            }
            return .object(found)
        case "an array":
            var found: [Json] = []
            try array { found.append(try tree(&left, depth + 1, unique)) }
            return .array(found)
        case "a string": return .string(try string())
        case "a number": return .number(try number())
        default: return try word()
        }
    }

    /// Passes over a value of any kind.
    func skip(_ depth: Int = 0) throws {
        if depth > Self.mostDepth { try fail("a value nested too deep") }
        switch try kind() {
        case "an object": try members { _ in try skip(depth + 1) }
        case "an array": try array { try skip(depth + 1) }
        case "a string": _ = try utf8()
        case "a number": _ = try number()
        default: _ = try word()
        }
    }

    /// Nothing but blanks may follow.
    func finish() throws { if blank() != nil { try fail("expected the end") } }

    func peek() throws -> UInt8 {
        guard let next = blank() else { try fail("ends too early") }
        return next
    }

    func take(_ mark: Unicode.Scalar) -> Bool {
        guard blank() == UInt8(ascii: mark) else { return false }
        at += 1
        return true
    }

    func expect(_ mark: Unicode.Scalar, _ what: String) throws {
        if take(mark) { return }
        if blank() == nil { try fail("ends too early") }
        try fail("expected \(what)")
    }

    func fail(_ reason: String) throws -> Never { throw JsonError(text: reason, at: at) }

    /// The next byte that is no blank; it is not taken.
    private func blank() -> UInt8? {
        while at < end {
            let next = bytes[at]
            if next != 0x20 && next != 0x0A && next != 0x0D && next != 0x09 { return next }
            at += 1
        }
        return nil
    }

    private func word() throws -> Json {
        switch try peek() {
        case UInt8(ascii: "t"): try literal("true"); return .bool(true)
        case UInt8(ascii: "f"): try literal("false"); return .bool(false)
        default: try literal("null"); return .null
        }
    }

    private func literal(_ word: StaticString) throws {
        for letter in UnsafeBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount) {
            if at == end || bytes[at] != letter { try fail("expected \(word)") }
            at += 1
        }
    }

    private func number() throws -> String {
        let start = at
        func digits() throws {
            let first = at
            while at < end, (0x30...0x39).contains(bytes[at]), at - start < Self.mostDigits { at += 1 }
            if at == first { try fail("expected a number") }
        }
        func next(_ mark: Unicode.Scalar) -> Bool { at < end && bytes[at] == UInt8(ascii: mark) }
        if next("-") { at += 1 }
        if next("0") { at += 1 } else { try digits() }
        if next(".") {
            at += 1
            try digits()
        }
        if next("e") || next("E") {
            at += 1
            if next("+") || next("-") { at += 1 }
            try digits()
        }
        // What follows is no part of a number: 01 and 1.2.3 are none.
        if at < end, "+-.0123456789eE".utf8.contains(bytes[at]) { try fail("expected a number") }
        return String(decoding: UnsafeBufferPointer(start: bytes + start, count: at - start), as: UTF8.self)
    }

    /// A string's bytes into `text`, without the quotes.
    private func readText() throws {
        text.removeAll(keepingCapacity: true)
        while true {
            guard at < end else { try fail("ends within a string") }
            let next = bytes[at]
            if next < 0x20 { try fail("a control character within a string") }
            at += 1
            if next == UInt8(ascii: "\"") { return }
            if text.count > Self.mostText { try fail("a string of more than \(Self.mostText) bytes") }
            if next == UInt8(ascii: "\\") { Utf8.append(try escape(), to: &text) } else { text.append(next) }
        }
    }

    private func escape() throws -> UInt32 {
        guard at < end else { try fail("ends within a string") }
        let next = bytes[at]
        at += 1
        switch next {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return UInt32(next)
        case UInt8(ascii: "b"): return 0x08
        case UInt8(ascii: "f"): return 0x0C
        case UInt8(ascii: "n"): return 0x0A
        case UInt8(ascii: "r"): return 0x0D
        case UInt8(ascii: "t"): return 0x09
        case UInt8(ascii: "u"):
            let value = try hexadecimal()
            return (0xD800...0xDFFF).contains(value) ? try pair(value) : value
        default: try fail("an escape that JSON does not have")
        }
    }

    private func pair(_ high: UInt32) throws -> UInt32 {
        if high >= 0xDC00 || at + 1 >= end || bytes[at] != UInt8(ascii: "\\") || bytes[at + 1] != UInt8(ascii: "u") {
            try fail("half a surrogate pair")
        }
        at += 2
        let low = try hexadecimal()
        if !(0xDC00...0xDFFF).contains(low) { try fail("half a surrogate pair") }
        return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)
    }

    private func hexadecimal() throws -> UInt32 {
        var value: UInt32 = 0
        for _ in 0..<4 {
            guard at < end, let digit = Character(Unicode.Scalar(bytes[at])).hexDigitValue else { try fail("an escape that JSON does not have") }
            value = value << 4 | UInt32(digit)
            at += 1
        }
        return value
    }
}
