// Text as UTF-8: places are counted in bytes, and a character is a Unicode scalar.

/// What Python's `str.strip` takes for blank.
func isPythonBlank(_ character: Unicode.Scalar) -> Bool {
    switch character.value {
    case 0x09...0x0D, 0x1C...0x20, 0x85, 0xA0, 0x1680, 0x2000...0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000: true
    default: false
    }
}

extension String {
    /// Python's `str.strip`.
    func strip() -> String {
        let scalars = unicodeScalars
        guard let first = scalars.firstIndex(where: { !isPythonBlank($0) }) else { return "" }
        return String(scalars[first...scalars.lastIndex { !isPythonBlank($0) }!])
    }
}

extension [UInt8] {
    /// The character that begins at `at` of valid UTF-8, and how many bytes it has.
    @inline(__always)
    func scalar(at: Int) -> (point: UInt32, size: Int) {
        let first = UInt32(self[at])
        if first < 0x80 { return (first, 1) }
        func next(_ offset: Int) -> UInt32 { UInt32(self[at + offset] & 0x3F) }
        if first < 0xE0 { return ((first & 0x1F) << 6 | next(1), 2) }
        if first < 0xF0 { return ((first & 0x0F) << 12 | next(1) << 6 | next(2), 3) }
        return ((first & 0x07) << 18 | next(1) << 12 | next(2) << 6 | next(3), 4)
    }

    /// Where the character begins that `at` lies in.
    func scalarStart(_ at: Int) -> Int {
        var start = at
        while start > 0 && start < count && self[start] & 0xC0 == 0x80 { start -= 1 }
        return start
    }

    /// Where the first of `pattern`, which is not empty, begins in `self[start..<end]`.
    func first(of pattern: [UInt8], in start: Int, _ end: Int) -> Int? {
        var at = start
        while at <= end - pattern.count {
            if self[at] == pattern[0] && self[at..<at + pattern.count].elementsEqual(pattern) { return at }
            at += 1
        }
        return nil
    }

    /// Where the last one begins.
    func last(of pattern: [UInt8]) -> Int? {
        guard count >= pattern.count else { return nil }
        return (0...count - pattern.count).last { self[$0..<$0 + pattern.count].elementsEqual(pattern) }
    }

    /// With `content` in the place of every `pattern`, which is not empty.
    func replacing(_ pattern: [UInt8], with content: [UInt8]) -> [UInt8] {
        guard var found = first(of: pattern, in: 0, count) else { return self }
        var result: [UInt8] = []
        var at = 0
        while true {
            result += self[at..<found] + content
            at = found + pattern.count
            guard let next = first(of: pattern, in: at, count) else { return result + self[at...] }
            found = next
        }
    }

    /// Without what is `unwanted` at its beginning.
    func trimmedStart(_ unwanted: UInt8) -> [UInt8] { [UInt8](drop { $0 == unwanted }) }

    /// And at its end.
    func trimmed(_ unwanted: UInt8) -> [UInt8] {
        guard let last = lastIndex(where: { $0 != unwanted }) else { return [] }
        return [UInt8](self[...last]).trimmedStart(unwanted)
    }
}
