import Foundation

/// A wall clock's time to the second, without a zone, as a checkpoint keeps it: 2026-02-28T23:05:09. Month 1 is January.
struct LocalTime: Sendable, Equatable {
    let year: Int
    let month: Int
    let day: Int
    let hour: Int
    let minute: Int
    let second: Int

    /// Now, where the system says that it is.
    init() {
        var now = time(nil)
        var at = tm()
        localtime_r(&now, &at)
        (year, month, day) = (Int(at.tm_year) + 1900, Int(at.tm_mon) + 1, Int(at.tm_mday))
        (hour, minute, second) = (Int(at.tm_hour), Int(at.tm_min), min(Int(at.tm_sec), 59))
    }

    /// nil where `text` names none.
    init?(_ text: String) {
        let bytes = Array(text.utf8)
        let form = Array("0000-00-00T00:00:00".utf8)
        let zero = UInt8(ascii: "0")
        let fits = zip(bytes, form).allSatisfy { found, expected in expected == zero ? (zero...zero + 9).contains(found) : found == expected }
        guard bytes.count == form.count, fits else { return nil }
        func number(_ digits: Range<Int>) -> Int { bytes[digits].reduce(0) { 10 * $0 + Int($1 - zero) } }
        (year, month, day) = (number(0..<4), number(5..<7), number(8..<10))
        (hour, minute, second) = (number(11..<13), number(14..<16), number(17..<19))
        let leaps = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
        let days = [31, leaps ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        guard year > 0, (1...12).contains(month), (1...days[month - 1]).contains(day) else { return nil }
        guard hour < 24, minute < 60, second < 60 else { return nil }
    }

    var text: String {
        let date = [padded("\(year)", 4), padded("\(month)", 2), padded("\(day)", 2)].joined(separator: "-")
        return date + "T" + [hour, minute, second].map { padded("\($0)", 2) }.joined(separator: ":")
    }
}
