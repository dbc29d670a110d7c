/// Which two tokens make which, by rank: an open hash table that grows, as a dictionary of pairs would take five times the memory.
struct Merges: Sendable {
    private var slots = [UInt64](repeating: free, count: 1 << 10)  // two tokens of 19 bits each and the rank, of 20
    private var results: [Int32] = []  // by rank

    static let mostTokens = 1 << 19  // Gemma 3 has 262,144
    static let most = 1 << 20  // and 514,906 merges
    private static let free = UInt64.max
    private static let mix = UInt64.random(in: 0...UInt64.max) | 1  // so that no file can make all pairs collide

    var count: Int { results.count }

    /// A pair that is there already gets the later rank, as in the library.
    mutating func add(_ left: Int, _ right: Int, _ result: Int) {
        if 2 * (count + 1) > slots.count { grow() }
        let pair = Self.pair(left, right)
        slots[slot(pair)] = pair << 20 | UInt64(count)
        results.append(Int32(result))
    }

    func rank(_ left: Int32, _ right: Int32) -> Int? {
        let found = slots[slot(Self.pair(Int(left), Int(right)))]
        return found == Self.free ? nil : Int(found & 0xFFFFF)
    }

    func result(_ rank: Int) -> Int32 { results[rank] }

    private mutating func grow() {
        let old = slots
        slots = [UInt64](repeating: Self.free, count: 2 * old.count)
        for entry in old where entry != Self.free { slots[slot(entry >> 20)] = entry }
    }

    private func slot(_ pair: UInt64) -> Int {
        var slot = Int((pair &* Self.mix) >> 32) & (slots.count - 1)
        while slots[slot] != Self.free && slots[slot] >> 20 != pair { slot = (slot + 1) & (slots.count - 1) }
        return slot
    }

    private static func pair(_ left: Int, _ right: Int) -> UInt64 { UInt64(left) << 19 | UInt64(right) }
}

/// How a vocabulary of BPE treats what it has no token for.
struct BpeOptions: Sendable {
    let unknown: Int?
    let fuseUnknown: Bool
    let byteFallback: Bool
    let ignoreMerges: Bool
}

/// A token of a word, and how many bytes of the word it stands for.
struct WordToken: Sendable {
    var id: Int32
    var size: Int32
}

/// Byte-pair encoding of words (Sennrich, Haddow, Birch 2016): of all neighbours that make a token those of the lowest rank are joined
/// first, the leftmost of them first. A queue of them, so that a word of a million characters takes a second.
///
/// `byteLevel`: the vocabulary writes bytes by ByteCharacters.
struct Bpe: Sendable {
    private let vocabulary: Vocabulary
    private let merges: Merges
    private let options: BpeOptions
    private let byteLevel: Bool
    private let byteIds: [Int32]  // or -1

    init(_ vocabulary: Vocabulary, _ merges: Merges, _ options: BpeOptions, byteLevel: Bool) {
        (self.vocabulary, self.merges, self.options, self.byteLevel) = (vocabulary, merges, options, byteLevel)
        byteIds = (0..<256).map { byte in
            let written = byteLevel ? ByteCharacters.utf8[byte] : Array("<0x\(padded(String(byte, radix: 16, uppercase: true), 2))>".utf8)
            return vocabulary.id(written).map(Int32.init) ?? -1
        }
    }

    /// The tokens of the word `text[start..<end]`.
    func word(_ text: [UInt8], _ start: Int, _ end: Int) -> [WordToken] {
        if options.ignoreMerges, let id = whole(text, start, end) { return [WordToken(id: Int32(id), size: Int32(end - start))] }
        var word = characters(text, start, end)
        if word.count > 1 { Joining.join(&word, merges) }
        return word
    }

    private func whole(_ text: [UInt8], _ start: Int, _ end: Int) -> Int? {
        byteLevel ? vocabulary.id(text[start..<end].flatMap { ByteCharacters.utf8[Int($0)] }) : vocabulary.id(text, start, end)
    }

    private func characters(_ text: [UInt8], _ start: Int, _ end: Int) -> [WordToken] {
        var gathering = Gathering(options, end - start)
        var at = start
        while at < end {
            let size = byteLevel ? 1 : text.scalar(at: at).size
            let bytes = text[at..<at + size]
            if byteLevel {
                gathering.add(byteIds[Int(text[at])], 1)
            } else if let id = vocabulary.id(text, at, at + size) {
                gathering.add(Int32(id), size)
            } else if options.byteFallback && bytes.allSatisfy({ byteIds[Int($0)] >= 0 }) {
                // Before what is not added yet, as in the library.
                for byte in bytes { gathering.word.append(WordToken(id: byteIds[Int(byte)], size: 1)) }
            } else {
                gathering.add(-1, size)
            }
            at += size
        }
        gathering.flush()
        return gathering.word
    }
}

/// Gathers tokens and, in the place of what has none, the unknown token: one for each, or for a run of them. Without one they are dropped.
private struct Gathering {
    private let options: BpeOptions
    private var unknown = 0  // bytes that are not added yet
    var word: [WordToken] = []

    init(_ options: BpeOptions, _ capacity: Int) {
        self.options = options
        word.reserveCapacity(capacity)
    }

    /// `id`: -1 for none.
    mutating func add(_ id: Int32, _ size: Int) {
        if id >= 0 || !options.fuseUnknown { flush() }
        if id >= 0 { word.append(WordToken(id: id, size: Int32(size))) } else { unknown += size }
    }

    mutating func flush() {
        if unknown > 0, let id = options.unknown { word.append(WordToken(id: Int32(id), size: Int32(unknown))) }
        unknown = 0
    }
}

/// Joins the tokens of one word in place. One that was joined to the one before it has the size 0.
private struct Joining {
    private let merges: Merges
    private var word: [WordToken]
    private var next: [Int32]
    private var previous: [Int32]
    private var queue: [UInt64] = []  // a heap of rank * 2^32 + place

    static func join(_ word: inout [WordToken], _ merges: Merges) {
        var joining = Joining(word, merges)
        joining.join()
        word = joining.word.filter { $0.size > 0 }
    }

    private init(_ word: [WordToken], _ merges: Merges) {
        (self.word, self.merges) = (word, merges)
        next = word.indices.map { Int32($0 + 1) }
        previous = word.indices.map { Int32($0 - 1) }
        queue.reserveCapacity(word.count + 8)
    }

    private mutating func join() {
        for place in 0..<word.count - 1 { push(place) }
        while let top = pop() { merge(Int(top >> 32), Int(top & 0xFFFF_FFFF)) }
    }

    private mutating func merge(_ rank: Int, _ place: Int) {
        let right = Int(next[place])
        if word[place].size == 0 || right >= word.count { return }
        // Else one of the two was joined to another since.
        guard let current = merges.rank(word[place].id, word[right].id), merges.result(current) == merges.result(rank) else { return }
        word[place].id = merges.result(rank)
        word[place].size += word[right].size
        word[right].size = 0
        next[place] = next[right]
        if next[place] < word.count { previous[Int(next[place])] = Int32(place) }
        if previous[place] >= 0 { push(Int(previous[place])) }
        push(place)
    }

    /// The pair that begins at `place`, if it makes a token.
    private mutating func push(_ place: Int) {
        let right = Int(next[place])
        guard right < word.count, let rank = merges.rank(word[place].id, word[right].id) else { return }
        let entry = UInt64(rank) << 32 | UInt64(place)
        var at = queue.count
        queue.append(entry)
        while at > 0 && queue[(at - 1) / 2] > entry {
            queue[at] = queue[(at - 1) / 2]
            at = (at - 1) / 2
        }
        queue[at] = entry
    }

    private mutating func pop() -> UInt64? {
        guard let top = queue.first, let last = queue.popLast() else { return nil }
        var at = 0
        while 2 * at + 1 < queue.count {
            let child = 2 * at + 2 < queue.count && queue[2 * at + 2] < queue[2 * at + 1] ? 2 * at + 2 : 2 * at + 1
            if queue[child] >= last { break }
            queue[at] = queue[child]
            at = child
        }
        if !queue.isEmpty { queue[at] = last }
        return top
    }
}
