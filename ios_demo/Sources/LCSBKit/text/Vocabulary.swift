import Foundation

/// Strings of bytes, numbered as they come, in one piece of memory: as objects they would take ten times as much. An open hash table.
struct ByteTable: Sendable {
    private var bytes: [UInt8] = []
    private var ends: [UInt32] = []  // of each in `bytes`
    private var slots = [UInt32](repeating: 0, count: 1 << 8)  // a string's number plus one, or 0

    var count: Int { ends.count }

    subscript(number: Int) -> ArraySlice<UInt8> { bytes[(number == 0 ? 0 : Int(ends[number - 1]))..<Int(ends[number])] }

    /// The number of `text[start..<end]`.
    func find(_ text: [UInt8], _ start: Int, _ end: Int) -> Int? {
        let number = slots[slot(text, start, end)]
        return number == 0 ? nil : Int(number) - 1
    }

    /// Likewise, of one that is added if it is not there.
    mutating func insert(_ text: [UInt8], _ start: Int, _ end: Int) -> Int {
        if let number = find(text, start, end) { return number }
        if 3 * (count + 1) > 2 * slots.count { grow() }
        bytes += text[start..<end]
        ends.append(UInt32(bytes.count))
        slots[slot(text, start, end)] = UInt32(count)
        return count - 1
    }

    private mutating func grow() {
        slots = [UInt32](repeating: 0, count: 2 * slots.count)
        for number in 0..<count {
            let place = self[number]
            slots[slot(bytes, place.startIndex, place.endIndex)] = UInt32(number + 1)
        }
    }

    /// The slot of a string, or the free one for it. The hash differs in each process, so that no file can make all strings collide.
    private func slot(_ text: [UInt8], _ start: Int, _ end: Int) -> Int {
        text.withUnsafeBytes { text in
            let key = UnsafeRawBufferPointer(rebasing: text[start..<end])
            var hasher = Hasher()
            hasher.combine(bytes: key)
            var slot = hasher.finalize() & (slots.count - 1)
            while slots[slot] != 0 && !equals(Int(slots[slot]) - 1, key) { slot = (slot + 1) & (slots.count - 1) }
            return slot
        }
    }

    private func equals(_ number: Int, _ key: UnsafeRawBufferPointer) -> Bool {
        let start = number == 0 ? 0 : Int(ends[number - 1])
        guard Int(ends[number]) - start == key.count else { return false }
        return bytes.withUnsafeBytes { key.isEmpty || memcmp($0.baseAddress! + start, key.baseAddress!, key.count) == 0 }
    }
}

/// Tokens as they are written, and their ids.
struct Vocabulary: Sendable {
    private var tokens = ByteTable()
    private var ids: [Int32] = []  // by number
    private var numbers: [Int32] = []  // by id, or -1

    var count: Int { ids.count }

    /// Of one that is there already the id is changed.
    mutating func add(_ token: [UInt8], _ id: Int) {
        let number = tokens.insert(token, 0, token.count)
        if number == ids.count { ids.append(Int32(id)) } else { ids[number] = Int32(id) }
    }

    /// Has `token(id)` know what was added. Throws DamagedTokenizer for two tokens of one id.
    mutating func index() throws {
        numbers = [Int32](repeating: -1, count: Int(ids.max() ?? -1) + 1)
        for (number, id) in ids.enumerated() {
            let other = numbers[Int(id)]
            if other >= 0 { throw DamagedTokenizer("\(shown(tokens[Int(other)])) and \(shown(tokens[number])) have the number \(id)") }
            numbers[Int(id)] = Int32(number)
        }
    }

    func id(_ text: [UInt8], _ start: Int, _ end: Int) -> Int? { tokens.find(text, start, end).map { Int(ids[$0]) } }

    func id(_ token: [UInt8]) -> Int? { id(token, 0, token.count) }

    func token(_ id: Int) -> ArraySlice<UInt8>? {
        guard numbers.indices.contains(id), numbers[id] >= 0 else { return nil }
        return tokens[Int(numbers[id])]
    }
}

/// Words met before, with their tokens: most texts are made of few.
struct KnownWords: Sendable {
    private var words = ByteTable()
    private var ends: [Int] = []  // of each word's tokens
    private(set) var tokens: [WordToken] = []

    private static let longest = 64  // bytes
    private static let most = 1 << 14

    /// Where the tokens of the word `text[start..<end]` are in `tokens`.
    func find(_ text: [UInt8], _ start: Int, _ end: Int) -> Range<Int>? {
        guard end - start <= Self.longest, let number = words.find(text, start, end) else { return nil }
        return (number == 0 ? 0 : ends[number - 1])..<ends[number]
    }

    /// For one that is not there.
    mutating func add(_ text: [UInt8], _ start: Int, _ end: Int, _ word: [WordToken]) {
        guard end - start <= Self.longest else { return }
        if words.count == Self.most { self = KnownWords() }
        _ = words.insert(text, start, end)
        tokens += word
        ends.append(tokens.count)
    }
}
