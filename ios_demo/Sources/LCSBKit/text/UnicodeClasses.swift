/// What a character is to a pre-tokenizer.
enum UnicodeClass: UInt8 { case other, letter, number, blank }

/// Classes of characters, the same on every phone: see UnicodeTables.
enum UnicodeClasses {
    private static let letters = PointRanges(UnicodeTables.letters)
    private static let numbers = PointRanges(UnicodeTables.numbers)
    private static let moreNumeric = PointRanges(UnicodeTables.moreNumeric)
    private static let joining = PointRanges(UnicodeTables.joining, withValues: true)
    // White_Space: \s of a regular expression
    private static let blanks: [ClosedRange<Int>] = [
        0x09...0x0D, 0x20...0x20, 0x85...0x85, 0xA0...0xA0, 0x1680...0x1680, 0x2000...0x200A, 0x2028...0x2029, 0x202F...0x202F,
        0x205F...0x205F, 0x3000...0x3000,
    ]

    /// Of the first 65,536 characters.
    static let plane: [UnicodeClass] = {
        var plane = [UnicodeClass](repeating: .other, count: 0x10000)
        for (ranges, kind) in [(letters, UnicodeClass.letter), (numbers, .number)] {
            for (start, end) in zip(ranges.starts, ranges.ends) where start < plane.count {
                for point in Int(start)..<min(Int(end), plane.count) { plane[point] = kind }
            }
        }
        for point in blanks.joined() { plane[point] = .blank }
        return plane
    }()

    /// Of one after those.
    static func beyond(_ point: UInt32) -> UnicodeClass {
        if letters.holds(point) { return .letter }
        return numbers.holds(point) ? .number : .other
    }

    /// A number to the Digits pre-tokenizer, which knows a newer Unicode.
    static func isNumeric(_ point: UInt32) -> Bool {
        let kind = point < plane.count ? plane[Int(point)] : beyond(point)
        return kind == .number || moreNumeric.holds(point)
    }

    /// Whether normalisation may change it together with what stands before it.
    static func joins(_ point: UInt32) -> Bool { point >= 0x300 && joining.holds(point) }

    /// By which normalisation orders marks; 0 is no mark's.
    static func combiningClass(_ point: UInt32) -> UInt8 { joining.find(point).map { joining.values[$0] } ?? 0 }
}

/// Ranges of code points in order, each with a value if the table has them.
private struct PointRanges {
    private(set) var starts: [UInt32] = []
    private(set) var ends: [UInt32] = []  // behind the last
    private(set) var values: [UInt8] = []

    init(_ table: StaticString, withValues: Bool = false) {
        let numbers = base36(table)
        var end: UInt32 = 0
        for place in stride(from: 0, to: numbers.count, by: withValues ? 3 : 2) {
            starts.append(end + numbers[place])
            end += numbers[place] + numbers[place + 1]
            ends.append(end)
            if withValues { values.append(UInt8(numbers[place + 2])) }
        }
    }

    /// The range that has it.
    func find(_ point: UInt32) -> Int? {
        var (low, high) = (0, starts.count)  // those before low start at the point or before it, those from high on after it
        while low < high {
            let middle = (low + high) / 2
            if starts[middle] <= point { low = middle + 1 } else { high = middle }
        }
        return low > 0 && point < ends[low - 1] ? low - 1 : nil
    }

    func holds(_ point: UInt32) -> Bool { find(point) != nil }
}

/// The numbers of a table in base 36, between blanks.
func base36(_ table: StaticString) -> [UInt32] {
    table.withUTF8Buffer { bytes in
        bytes.split { $0 <= 0x20 }.map { digits in digits.reduce(0) { 36 * $0 + UInt32($1 < 0x3A ? $1 - 0x30 : $1 - 0x61 + 10) } }
    }
}
