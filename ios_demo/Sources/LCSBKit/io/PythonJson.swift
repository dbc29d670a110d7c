import Foundation

// JSON in the bytes that the desktop writes: a checkpoint or an adapter is the same file whoever wrote it.

/// A string as Python's json.dumps writes it: whatever is not ASCII is escaped.
func asciiJson(_ text: String) -> String {
    var line = "\""
    for unit in text.utf16 {
        switch unit {
        case 0x22: line += "\\\""
        case 0x5C: line += "\\\\"
        case 0x0A: line += "\\n"
        case 0x0D: line += "\\r"
        case 0x09: line += "\\t"
        case 0x08: line += "\\b"
        case 0x0C: line += "\\f"
        case 0x20...0x7E: line.unicodeScalars.append(Unicode.Scalar(unit)!)
        default: line += "\\u" + padded(String(unit, radix: 16), 4)
        }
    }
    return line + "\""
}

/// A finite double in the fewest digits that give it back, as Python's `repr`: 16.0, 0.0001, 1e-05.
func pythonRepr(_ value: Double) -> String {
    shortest(value, leastExponent: -4) { $0 < 0 ? "e-" + padded("\(-$0)", 2) : "e+" + padded("\($0)", 2) }
}

/// The same as msgspec writes it: 0.00001, 1e-6, 1e16.
func msgspecDouble(_ value: Double) -> String { shortest(value, leastExponent: -5) { "e\($0)" } }

/// Plain from 10^`leastExponent` to below 10^16, else with the text that `exponent` gives.
private func shortest(_ value: Double, leastExponent: Int, _ exponent: (Int) -> String) -> String {
    precondition(value.isFinite, "JSON has no \(value)")
    if value == 0 { return value.sign == .minus ? "-0.0" : "0.0" }
    // Swift's description has the fewest digits too, in a form of its own.
    let parts = "\(value.magnitude)".split(separator: "e")
    let number = parts[0].split(separator: ".")
    var digits = number[0] + (number.count > 1 ? number[1] : "")
    var power = number[0].count - 1 + (parts.count > 1 ? Int(parts[1])! : 0)  // of the first digit
    while digits.count > 1 && digits.first == "0" {
        digits.removeFirst()
        power -= 1
    }
    while digits.count > 1 && digits.last == "0" { digits.removeLast() }
    let sign = value < 0 ? "-" : ""
    if power < leastExponent || power >= 16 {
        return "\(sign)\(digits.prefix(1))\(digits.count > 1 ? "." : "")\(digits.dropFirst())\(exponent(power))"
    }
    if power < 0 { return "\(sign)0.\(String(repeating: "0", count: -power - 1))\(digits)" }
    if digits.count <= power + 1 { return "\(sign)\(digits)\(String(repeating: "0", count: power + 1 - digits.count)).0" }
    return "\(sign)\(digits.prefix(power + 1)).\(digits.dropFirst(power + 1))"
}
