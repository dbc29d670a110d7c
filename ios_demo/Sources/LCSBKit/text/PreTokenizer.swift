/// Splits `text[start..<end]` into words, which are tokenised apart; what stands outside is not looked at.
protocol PreTokenizer: Sendable {
    func split(_ text: [UInt8], _ start: Int, _ end: Int, _ word: (_ start: Int, _ end: Int) -> Void)
}

/// One after the other: each splits the words of the one before.
struct SequenceSplitter: PreTokenizer {
    let parts: [any PreTokenizer]

    func split(_ text: [UInt8], _ start: Int, _ end: Int, _ word: (Int, Int) -> Void) { split(text, start, end, 0, word) }

    private func split(_ text: [UInt8], _ start: Int, _ end: Int, _ part: Int, _ word: (Int, Int) -> Void) {
        if part == parts.count { return word(start, end) }
        parts[part].split(text, start, end) { split(text, $0, $1, part + 1, word) }
    }
}

/// Numbers apart from the rest: each digit a word, or each run of them.
struct DigitsSplitter: PreTokenizer {
    let individual: Bool

    func split(_ text: [UInt8], _ start: Int, _ end: Int, _ word: (Int, Int) -> Void) {
        var begun = start
        var wasNumber = false
        var at = start
        while at < end {
            let (point, size) = text.scalar(at: at)
            let isNumber = point < 0x80 ? (0x30...0x39).contains(point) : UnicodeClasses.isNumeric(point)
            if at > begun && (isNumber != wasNumber || isNumber && individual) {
                word(begun, at)
                begun = at
            }
            wasNumber = isNumber
            at += size
        }
        if begun < end { word(begun, end) }
    }
}

/// A word ends behind each `mark`, which is not empty.
struct MarkSplitter: PreTokenizer {
    let mark: [UInt8]

    func split(_ text: [UInt8], _ start: Int, _ end: Int, _ word: (Int, Int) -> Void) {
        var begun = start
        while begun < end {
            let next = text.first(of: mark, in: begun, end).map { $0 + mark.count } ?? end
            word(begun, next)
            begun = next
        }
    }
}

/// The regular expressions of the families, by hand: an engine would know another Unicode on each phone, and may need a stack as deep as
/// the text is long. Every character belongs to a match, so there is nothing between the words.
struct PatternSplitter: PreTokenizer {
    fileprivate let modern: Bool
    fileprivate let mostDigits: Int

    func split(_ text: [UInt8], _ start: Int, _ end: Int, _ word: (Int, Int) -> Void) {
        let scan = Scan(splitter: self, text: text, end: end)
        var at = start
        while at < end {
            let next = scan.match(at)
            word(at, next)
            at = next
        }
    }

    private static let words = #"[^\r\n\p{L}\p{N}]?\p{L}+|"#
    private static let rest = #"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
    private static let contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"

    /// GPT-2's, which ByteLevel has built in; SmolLM2's.
    static let gpt2 = PatternSplitter(modern: false, mostDigits: .max)
    private static let qwen2 = PatternSplitter(modern: true, mostDigits: 1)
    private static let llama3 = PatternSplitter(modern: true, mostDigits: 3)

    /// The splitter of a regular expression as it stands in a file; nil for one that is not known.
    static func of(_ pattern: String) -> PatternSplitter? {
        switch ByteText(pattern) {
        case ByteText(contractions + words + #"\p{N}"# + rest): qwen2
        case ByteText(contractions + words + #"\p{N}{1,3}"# + rest): llama3
        case #"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"#: gpt2
        default: nil
        }
    }
}

private struct Scan {
    let splitter: PatternSplitter
    let text: [UInt8]
    let end: Int
    private let plane = UnicodeClasses.plane

    init(splitter: PatternSplitter, text: [UInt8], end: Int) { (self.splitter, self.text, self.end) = (splitter, text, end) }

    /// The end of the match that begins at `at`: the first alternative that has one.
    func match(_ at: Int) -> Int { contraction(at) ?? (splitter.modern ? modern(at) : gpt2(at)) }

    /// ` ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    private func gpt2(_ at: Int) -> Int {
        let first = text[at] == 0x20 && at + 1 < end ? at + 1 : at
        let kind = character(first).kind
        return kind != .blank ? run(first, kind) : blanks(at)
    }

    /// `[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,most}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    private func modern(_ at: Int) -> Int {
        let (kind, size) = character(at)
        let second = at + size
        if kind == .letter { return run(at, .letter) }
        if kind == .number { return run(at, .number, splitter.mostDigits) }
        let next = second < end ? character(second).kind : nil
        if next == .letter && !isNewline(at) { return run(second, .letter) }
        if kind == .other { return newlines(run(at, .other)) }
        if text[at] == 0x20 && next == .other { return newlines(run(second, .other)) }
        return lastNewline(at) ?? blanks(at)
    }

    private func run(_ from: Int, _ kind: UnicodeClass, _ most: Int = .max) -> Int {
        var at = from
        var count = 0
        while at < end && count < most, case let (found, size) = character(at), found == kind {
            at += size
            count += 1
        }
        return at
    }

    private func newlines(_ from: Int) -> Int {
        var at = from
        while at < end && isNewline(at) { at += 1 }
        return at
    }

    /// Behind the last end of line in the blanks from `at` on.
    private func lastNewline(_ at: Int) -> Int? {
        let stop = run(at, .blank)
        return (at..<stop).last(where: isNewline).map { $0 + 1 }
    }

    /// All blanks but the last, which goes with what follows, unless it is alone or nothing does.
    private func blanks(_ at: Int) -> Int {
        let stop = run(at, .blank)
        let last = text.scalarStart(stop - 1)
        return stop == end || last == at ? stop : last
    }

    /// `'s|'t|'re|'ve|'m|'ll|'d`, in any case where modern: the long s is one, too. Its end.
    private func contraction(_ at: Int) -> Int? {
        guard text[at] == 0x27, at + 1 < end else { return nil }
        let (first, size) = folded(at + 1)
        switch first {
        case "s", "t", "m", "d": return at + 1 + size
        case "r", "v", "l":
            guard at + 2 < end, case let (second, _) = folded(at + 2), second == (first == "l" ? "l" : "e") else { return nil }
            return at + 3
        default: return nil
        }
    }

    private func folded(_ at: Int) -> (letter: Unicode.Scalar, size: Int) {
        let (point, size) = text.scalar(at: at)
        if splitter.modern && point == 0x17F { return ("s", size) }
        let letter = splitter.modern && (0x41...0x5A).contains(point) ? point + 32 : point
        return (Unicode.Scalar(letter) ?? "\u{0}", size)
    }

    private func isNewline(_ at: Int) -> Bool { text[at] == 0x0A || text[at] == 0x0D }

    @inline(__always)
    private func character(_ at: Int) -> (kind: UnicodeClass, size: Int) {
        let (point, size) = text.scalar(at: at)
        return (point < plane.count ? plane[Int(point)] : UnicodeClasses.beyond(point), size)
    }
}
