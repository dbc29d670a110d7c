/// Text as the model's tokenizer reads it, and where it came from: byte i is `origin` + i of the original where there are no `places`, else
/// what the original has from `places[i].start` to `places[i].end`.
struct NormalizedText {
    let text: [UInt8]
    let origin: Int
    var places: [(start: Int32, end: Int32)]?

    func start(_ at: Int) -> Int { places.map { Int($0[at].start) } ?? origin + at }

    /// Where the original of what stands before `at` ends.
    func end(_ at: Int) -> Int { places.map { Int($0[at - 1].end) } ?? origin + at }
}

protocol Normalizer: Sendable {
    func normalize(_ input: NormalizedText) -> NormalizedText
}

/// Gathers a normalised text piece by piece.
private struct Rewriting {
    private let input: NormalizedText
    private var text: [UInt8] = []
    private var places: [(start: Int32, end: Int32)] = []

    init(_ input: NormalizedText) {
        self.input = input
        text.reserveCapacity(input.text.count)
        places.reserveCapacity(input.text.count)
    }

    /// What the input has in `[start, end)`, byte by byte.
    mutating func keep(_ start: Int, _ end: Int) {
        text += input.text[start..<end]
        if let known = input.places {
            places += known[start..<end]
        } else {
            for at in start..<end { places.append((Int32(input.origin + at), Int32(input.origin + at + 1))) }
        }
    }

    /// `piece` in its place.
    mutating func replace(_ start: Int, _ end: Int, by piece: [UInt8]) {
        if input.text[start..<end].elementsEqual(piece) { return keep(start, end) }
        text += piece
        let place = (start: Int32(input.start(start)), end: Int32(input.end(end)))
        for _ in piece { places.append(place) }
    }

    var result: NormalizedText { NormalizedText(text: text, origin: 0, places: places) }
}

/// Unicode's form C, of the characters that the library knows, by tables of our own: each system knows another version of Unicode. The
/// characters of a base with its marks share their original's range where they are changed.
struct NfcNormalizer: Normalizer {
    func normalize(_ input: NormalizedText) -> NormalizedText {
        let text = input.text
        guard needsWork(text) else { return input }
        var result = Rewriting(input)
        var kept = 0  // where what stays as it is begins
        var start = 0
        while start < text.count {
            let (first, size) = text.scalar(at: start)
            var points = [first]
            var end = start + size
            while end < text.count, case let (point, size) = text.scalar(at: end), UnicodeClasses.joins(point) {
                points.append(point)
                end += size
            }
            if points.count > 1 || UnicodeClasses.joins(first) {
                result.keep(kept, start)
                var piece: [UInt8] = []
                for point in Composition.composed(points) { Utf8.append(point, to: &piece) }
                result.replace(start, end, by: piece)
                kept = end
            }
            start = end
        }
        result.keep(kept, text.count)
        return result.result
    }

    /// Whether there is a character that may change.
    private func needsWork(_ text: [UInt8]) -> Bool {
        guard var at = text.firstIndex(where: { $0 >= 0xCC }) else { return false }  // U+0300 begins with it
        while at < text.count {
            let (point, size) = text.scalar(at: at)
            if UnicodeClasses.joins(point) { return true }
            at += size
        }
        return false
    }
}

/// Canonical decomposition, order and composition (The Unicode Standard, 3.11).
private enum Composition {
    /// Of a character that is composed or that is never left as it is, the one or two (else 0) that it is the same as.
    private static let parts: [UInt32: (UInt32, UInt32)] = Dictionary(
        uniqueKeysWithValues: (rows(UnicodeTables.composing) + rows(UnicodeTables.decomposing)).map { ($0.whole, ($0.first, $0.second)) }
    )
    private static let wholes: [UInt64: UInt32] = Dictionary(
        uniqueKeysWithValues: rows(UnicodeTables.composing).map { (key($0.first, $0.second), $0.whole) }
    )
    // Hangul: a syllable is a leading consonant, a vowel and perhaps a trailing consonant.
    private static let leading: UInt32 = 0x1100, vowel: UInt32 = 0x1161, trailing: UInt32 = 0x11A7, syllable: UInt32 = 0xAC00
    private static let leadings: UInt32 = 19, vowels: UInt32 = 21, trailings: UInt32 = 28

    static func composed(_ points: [UInt32]) -> [UInt32] {
        var apart: [UInt32] = []
        for point in points { take(point, apart: &apart) }
        var result: [UInt32] = []
        var starter: Int?  // the last character of class 0 in `result`
        var before: UInt8 = 0  // the class of the last character
        for point in ordered(apart) {
            let current = UnicodeClasses.combiningClass(point)
            if let starter, before == 0 || before < current, let whole = whole(result[starter], point) {
                result[starter] = whole
                continue
            }
            if current == 0 { starter = result.count }
            before = current
            result.append(point)
        }
        return result
    }

    private static func take(_ point: UInt32, apart: inout [UInt32]) {
        if let (first, second) = parts[point] {
            take(first, apart: &apart)
            if second != 0 { take(second, apart: &apart) }
        } else if point >= syllable, point - syllable < leadings * vowels * trailings {
            let place = point - syllable
            apart += [leading + place / (vowels * trailings), vowel + place / trailings % vowels]
            if place % trailings != 0 { apart.append(trailing + place % trailings) }
        } else {
            apart.append(point)
        }
    }

    /// With each run of marks sorted by their class, those of one class as they were.
    private static func ordered(_ points: [UInt32]) -> [UInt32] {
        var run: UInt64 = 0
        return points.enumerated().map { place, point in
            let mark = UnicodeClasses.combiningClass(point)
            if mark == 0 { run = UInt64(place) }
            return (run << 40 | UInt64(mark) << 32 | UInt64(place), point)
        }
        .sorted { $0.0 < $1.0 }.map(\.1)
    }

    private static func whole(_ first: UInt32, _ second: UInt32) -> UInt32? {
        if first >= leading, first - leading < leadings, second >= vowel, second - vowel < vowels {
            return syllable + ((first - leading) * vowels + second - vowel) * trailings
        }
        if first >= syllable, first - syllable < leadings * vowels * trailings, (first - syllable) % trailings == 0,
            second > trailing, second - trailing < trailings
        {
            return first + second - trailing
        }
        return wholes[key(first, second)]
    }

    private static func key(_ first: UInt32, _ second: UInt32) -> UInt64 { UInt64(first) << 32 | UInt64(second) }

    private static func rows(_ table: StaticString) -> [(whole: UInt32, first: UInt32, second: UInt32)] {
        let numbers = base36(table)
        var next: UInt32 = 0
        return stride(from: 0, to: numbers.count, by: 3).map { place in
            next += numbers[place] + 1
            return (next - 1, numbers[place + 1], numbers[place + 2])
        }
    }
}

/// Puts `content` in the place of every `pattern`, which is not empty.
struct ReplaceNormalizer: Normalizer {
    let pattern: [UInt8]
    let content: [UInt8]

    func normalize(_ input: NormalizedText) -> NormalizedText {
        let text = input.text
        guard var found = text.first(of: pattern, in: 0, text.count) else { return input }
        var result = Rewriting(input)
        var at = 0
        while true {
            result.keep(at, found)
            at = found + pattern.count
            result.replace(found, at, by: content)
            guard let next = text.first(of: pattern, in: at, text.count) else { break }
            found = next
        }
        result.keep(at, text.count)
        return result.result
    }
}

/// Puts `prefix` before a text that is not empty; it comes from the text's first character, as that does.
struct PrependNormalizer: Normalizer {
    let prefix: [UInt8]

    func normalize(_ input: NormalizedText) -> NormalizedText {
        let text = input.text
        guard !text.isEmpty, !prefix.isEmpty else { return input }
        let size = text.scalar(at: 0).1
        var result = Rewriting(input)
        result.replace(0, size, by: prefix + text[..<size])
        result.keep(size, text.count)
        return result.result
    }
}
